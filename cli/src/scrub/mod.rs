//! Comparing a tier's store with what the brokers know of it.
//!
//! The order is what makes it sound while brokers write and delete: the store is listed *first*, then the
//! metadata is read to its end. A broker announces a copy before it begins, so an object that was listed and
//! is not announced is nobody's; and what seems lost is asked for once more, after the metadata was read
//! once more.

mod classify;
mod finding;
mod listing;
mod metadata;
mod segment;

pub(crate) use classify::{Classified, View, classify};
pub(crate) use finding::{Finding, FindingKind};
pub(crate) use listing::{Listed, list_first_parts, list_store, list_uploads};
pub(crate) use metadata::read_metadata;
pub(crate) use segment::{Checked, check_segment};
