//! The server side that followers fetch from: we register as a broker, lead the partitions that we restore, and the
//! real brokers copy them from us as they copy from any leader: batch by batch, offsets and epochs included.
//!
//! [`Leader`] is that broker: registered, with a heartbeat, until it [leaves](Leader::leave). It gives out what a
//! [`ReplicaLog`] holds, and hands a partition over when its followers have all of it. Only brokers are served; whoever
//! else comes by finds the connection closed, and asks another broker.
//!
//! Protocols: KIP-631 (registration, heartbeats), KIP-497 and KIP-903 (AlterPartition with broker epochs), KIP-455
//! (reassignment), KIP-152 (SaslAuthenticate), KIP-320 (diverging epochs), KIP-730 (producer ids), KIP-919 (questions to controllers).

mod answers;
mod controller;
#[cfg(test)]
mod diverging;
mod entrance;
mod frames;
mod gathered;
mod hand_over;
mod heartbeat;
mod leader;
mod led;
mod listener;
mod log;
mod producer_ids;
mod server;
mod throttle;
mod topics;
mod versions;

pub use controller::Controller;
pub use heartbeat::unregister;
pub use leader::{Leader, LeaderOptions, LeaderProgress, RestoredPartition, RestoredTopic};
pub use listener::{ListenerConfig, ListenerSecurity};
pub use log::{EmptyLog, ReadError, ReplicaLog};
