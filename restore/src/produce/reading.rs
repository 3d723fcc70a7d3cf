//! What is read of the archive for one partition.

use std::sync::Arc;

use varve_archive::{JournalView, LogReader};

use super::outgoing::Outgoing;
use super::partition::Work;
use super::survey::survey;
use super::transactions::Aborted;
use crate::apply::facts;
use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::log::Blocks;
use crate::source::Source;

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a Source,
    pub(crate) reader: &'a LogReader,
    pub(crate) journal: &'a JournalView,
    pub(crate) keys: &'a Arc<KeyCache>,
}

impl Reading<'_> {
    /// What goes from this offset of the source on. Of a partition that has none in the archive there is nothing.
    ///
    /// # Errors
    /// Of the archive.
    pub(super) async fn outgoing(&self, work: &Work<'_>, from: i64) -> Result<Option<Outgoing>> {
        let aborted = self.aborted(work).await?;
        Ok(self.blocks(work, from)?.map(|blocks| Outgoing::new(work.name(), blocks, aborted, from)))
    }

    fn blocks(&self, work: &Work<'_>, from: i64) -> Result<Option<Blocks>> {
        let source = self.source.topic(&work.topic.topic_id);
        let source = source
            .ok_or_else(|| Error::unexpected("the plan's archive", &work.topic.topic, "no such topic"))?;
        let Some(state) = source.partitions.get(&work.planned.partition) else { return Ok(None) };
        let log = self.reader.at(state, None, self.journal)?;
        Ok(Some(Blocks::new(log, Arc::clone(self.keys), facts(work.planned), from)))
    }

    /// Where nothing was aborted nothing is looked at.
    async fn aborted(&self, work: &Work<'_>) -> Result<Arc<Aborted>> {
        let start = work.planned.start_offset;
        if work.produce.aborted_records == 0 {
            return Ok(Arc::default());
        }
        let Some(blocks) = self.blocks(work, start)? else { return Ok(Arc::default()) };
        Ok(Arc::new(survey(&work.name(), blocks, start).await?.1))
    }
}
