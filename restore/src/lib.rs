//! Puts an archive into a running cluster, with its offsets.
//!
//! [`plan`](plan::plan) looks at archive and target and changes neither; [`Apply`](apply::Apply) does what a plan says,
//! and goes on where an earlier one ended; [`verify`](verify::verify) reads the target back and compares. [`history`]
//! and [`log`] read the archive.

pub mod apply;
mod as_of;
pub mod at;
mod brokers;
mod cold;
pub mod drill;
mod error;
pub mod history;
pub mod log;
pub mod plan;
mod produce;
mod recall;
pub mod release;
pub mod rest;
pub mod schemas;
pub mod select;
pub mod source;
pub mod users;
pub mod verify;

pub use error::{Error, Result};
