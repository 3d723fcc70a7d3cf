//! Changing a cluster: group offsets, configs, ACLs, quotas, users, topics.
//!
//! Each call is one request or a few, asked again while the reason for a refusal may pass. What is refused for good is
//! an error, or named in the answer with what it concerns.

mod acls;
mod configs;
mod new_topics;
mod offsets;
mod quotas;
mod records;
mod topics;
mod transactions;
mod users;

pub use configs::ConfigChange;
pub use new_topics::NewTopic;
pub(crate) use new_topics::creatable;
pub use transactions::OpenProducer;
