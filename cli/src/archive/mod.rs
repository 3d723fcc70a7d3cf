//! What the commands that look into an archive share.

mod lag;
mod outcomes;
mod printed;
mod table;
mod topics;
mod tree_diff;
mod trust;
mod when;

pub(crate) use lag::{PartitionLag, lags};
pub(crate) use outcomes::Outcomes;
pub(crate) use printed::{Printer, given_bytes};
pub(crate) use table::Table;
pub(crate) use topics::{Topic, find_topic, split_partition, topics};
pub(crate) use tree_diff::{PartitionChange, PartitionSummary, changes};
pub(crate) use trust::trusted_keys;
pub(crate) use when::{PartitionLog, When, logs};

use varve_archive::Archive;
pub(crate) use varve_restore::history::{BatchReader, Event, Found, History, KeyCache, reason};

use crate::args::archive::ArchiveUrl;
use crate::location;

/// Objects that are named on standard error.
const DISPLACED_SHOWN: usize = 10;

/// Told at the end of a command: what is hidden or overwritten in the store, and was read all the same.
pub(crate) async fn warn_of_displaced(archive: &Archive) {
    // What is wrong beyond that is the command's to tell.
    let Ok((displaced, more)) = archive.displaced().await else { return };
    for one in displaced.iter().take(DISPLACED_SHOWN) {
        eprintln!("warning: {} is {one}", one.key);
    }
    if displaced.len() > DISPLACED_SHOWN || more {
        let at_least = if more { "at least " } else { "" };
        let rest = displaced.len().saturating_sub(DISPLACED_SHOWN);
        eprintln!("warning: so are {at_least}{rest} objects more: varve verify names them");
    }
}

pub(crate) async fn open(args: &ArchiveUrl) -> anyhow::Result<Archive> {
    location::open_archive(&args.url, &args.store.settings()?).await
}
