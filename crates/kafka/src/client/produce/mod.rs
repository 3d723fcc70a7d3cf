//! Writing batches that are made already, each once and in order.
//!
//! A [`ProduceLane`] writes to one partition at a time, with several requests under way on a connection of its own,
//! since a broker answers those of one connection one after the other. A broker knows the last five batches of a
//! producer, so there are never more under way; what it has already it acknowledges with the offsets that it has, and
//! another process that sends the same batches with the same sequences adds nothing.
//!
//! **That memory is not enough.** A broker forgets a producer by the time of its last record (`producer.id.expiration.ms`,
//! a day): with records as old as those of an archive that is at once, each time that it starts and each ten minutes.
//! From a producer that it does not know it takes any batch: one that it has already, or the second while it has
//! refused the first. So when an answer is lost or something failed, nothing is sent again before the leader's log was
//! looked at, all of it in sync; then what it lacks is sent, the first alone, so that the leader knows the producer
//! before others follow.

mod answer;
mod lane;
mod producer_id;
mod settled;

pub use lane::ProduceLane;
