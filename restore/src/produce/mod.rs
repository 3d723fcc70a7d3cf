//! Records of an archive, written into a cluster by a producer: for targets whose controllers can't be reached.
//!
//! **What goes.** All records that a `read_committed` consumer of the source would get: no markers, nothing of
//! transactions that were aborted or are open at the recovery point. Batches go in the bytes that they are in, under
//! another header; only those that a producer may not send (compacted ones, LogAppendTime, cut by the log's start) are
//! made anew.
//!
//! **Exactly once.** Everything follows from the archive alone: which batch comes next, the offset that it gets on the
//! target, and its sequence, which is that offset. The producer's id is on disk before it is used, and stays. So
//! whoever goes on, after a crash or beside a process that is not dead, sends the same batches under the same sequences,
//! and the brokers drop what they have, or it is found in their logs before anything is sent again. The target's tail is
//! compared with what would come next, and an acknowledgement with another offset than the expected one means that
//! somebody else writes: both end it.
//!
//! **The map** of offsets is written as it goes, a file for each partition beside the plan. It is a memory of how far
//! it came, not what this rests on: without it the whole target is compared.

mod compare;
mod filler;
mod groups;
mod keep;
mod map;
mod outgoing;
mod partition;
mod plan;
mod producer;
mod reading;
mod survey;
mod transactions;
mod verify;

pub(crate) use groups::mapped;
pub(crate) use keep::keep;
pub(crate) use map::MapDir;
pub(crate) use partition::{Work, Writing};
pub(crate) use plan::{new_topic, planned};
pub(crate) use producer::identity;
pub(crate) use reading::Reading;
pub(crate) use verify::verify;
