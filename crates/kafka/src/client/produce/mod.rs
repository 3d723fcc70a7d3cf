//! Writing batches that are made already, each once and in order.
//!
//! A [`ProduceLane`] writes to one partition at a time, with several requests under way on a connection of its own,
//! since a broker answers those of one connection one after the other. Whatever fails in a way that may pass is sent
//! again, from the oldest batch without an answer on, in the same order and with the same sequences: a broker knows the
//! last five batches of a producer, and those that it has already it acknowledges with the offsets that they have. So
//! there are never more than five under way, and another process that sends the same batches with the same sequences
//! adds nothing.

mod answer;
mod lane;
mod producer_id;

pub use lane::{Acked, ProduceLane};
