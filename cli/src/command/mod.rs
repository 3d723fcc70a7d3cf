//! One file for each command.

pub(crate) mod archive_cat;
pub(crate) mod archive_diff;
pub(crate) mod archive_import;
pub(crate) mod archive_ls;
pub(crate) mod archive_run;
pub(crate) mod archive_snapshot;
pub(crate) mod archive_snapshots;
pub(crate) mod archive_status;
pub(crate) mod archive_verify;
pub(crate) mod completion;
pub(crate) mod config_check;
pub(crate) mod drill;
pub(crate) mod keys_audit;
pub(crate) mod keys_rewrap;
pub(crate) mod keys_rotate;
pub(crate) mod keys_shred;
pub(crate) mod man;
pub(crate) mod restore;
pub(crate) mod segment_extract;
pub(crate) mod segment_inspect;
pub(crate) mod segment_verify;
pub(crate) mod store_check;
pub(crate) mod tier_scrub;
