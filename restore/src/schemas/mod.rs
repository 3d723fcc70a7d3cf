//! The Schema Registry's subjects, put back into a registry that speaks Confluent's API.
//!
//! Records carry the id of their schema, so ids are kept: each subject is set to the mode IMPORT for the time, in which a
//! registry takes ids and versions as they are given, and gets its mode back. A registry without that mode gives ids of
//! its own; that is refused unless it is asked for, and then the map of old and new ids is a file beside the plan.
//!
//! Only what the registry lacks is added, in an order in which all that is referred to comes first. What it has under
//! the same version or the same id must be the same. Each step looks first, so an apply goes on wherever an earlier one
//! ended; a crash leaves at most one subject in the mode IMPORT, which the next apply and a cleanup put back.

mod apply;
mod compare;
mod document;
mod ids;
mod make;
mod order;
mod same;

pub use apply::{Restored, Schemas};
pub use document::{Ids, PlannedSchemas, PlannedSubject, PlannedVersion};
pub use ids::{MappedId, ids_file};
pub use make::WantedSchemas;
pub(crate) use make::planned;
