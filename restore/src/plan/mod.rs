//! Planning a restore: everything is looked at, nothing is changed.

mod checks;
mod document;
mod make;

pub use document::{
    Mode, Offsets, PLAN_VERSION, Plan, PlannedArchive, PlannedGroup, PlannedOffset, PlannedPartition,
    PlannedProduce, PlannedTarget, PlannedTopic, PlannedTransaction, Refusal, Totals,
};
pub use make::{Wanted, plan};
