//! Planning a restore: everything is looked at, nothing is changed.

mod checks;
mod document;
mod make;
mod partitions;
mod permissions;
mod placement;
mod reach;
mod time;
mod unmatched;

pub use document::{
    Mode, Offsets, PLAN_VERSION, Plan, PlannedArchive, PlannedGroup, PlannedOffset, PlannedPartition,
    PlannedProduce, PlannedTarget, PlannedTopic, PlannedTransaction, Refusal, Totals,
};
pub use make::{Wanted, plan};
pub use reach::Reach;
pub use time::ASSUMED_BYTES_PER_SECOND;
