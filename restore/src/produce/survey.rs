//! A pass over all batches of a log: what would be sent of it. Records are unpacked only where a batch is cut.

use varve_kafka::protocol::{Batch, Batches};

use super::outgoing::{UNPACKED_MAX_BYTES, marked};
use super::transactions::{Aborted, Ended, Transactions};
use crate::error::{Error, Result};
use crate::log::Blocks;

/// Of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) records: u64,
    /// Of transactions that were aborted, or were open at the end.
    pub(super) aborted_records: u64,
    pub(super) markers: u64,
    /// Those that must be made anew.
    pub(super) remade_batches: u64,
    pub(super) append_time_batches: u64,
    pub(super) largest_batch_bytes: u64,
    /// Of the first batch that has records.
    pub(super) first_timestamp_ms: Option<i64>,
}

/// From `start_offset` on, where `blocks` begin too. `name` is for messages.
///
/// # Errors
/// Of the archive; batches of an old format.
pub(super) async fn survey(name: &str, mut blocks: Blocks, start_offset: i64) -> Result<(Survey, Aborted)> {
    let mut survey = Survey::default();
    let mut transactions = Transactions::default();
    while let Some(block) = blocks.next().await? {
        for batch in Batches::new(block.into_bytes(), 0) {
            let batch = batch.map_err(|source| Error::Protocol { object: name.to_owned(), source })?;
            survey.add(name, &batch, start_offset, &mut transactions)?;
        }
    }
    let (aborted, open) = transactions.end();
    survey.aborted_records = survey.aborted_records.saturating_add(open);
    Ok((survey, aborted))
}

impl Survey {
    fn add(
        &mut self,
        name: &str,
        batch: &Batch,
        start_offset: i64,
        transactions: &mut Transactions,
    ) -> Result<()> {
        let header = &batch.header;
        if header.attributes.is_control() {
            return self.control(name, batch, transactions);
        }
        let records = counted(name, batch, start_offset)?;
        if records == 0 {
            return Ok(());
        }
        self.largest_batch_bytes = self.largest_batch_bytes.max(batch.bytes.len() as u64);
        self.first_timestamp_ms.get_or_insert(header.base_timestamp_ms);
        self.remade_batches += u64::from(!batch.can_be_sent_as_it_is() || header.base_offset < start_offset);
        self.append_time_batches += u64::from(marked(header));
        match header.attributes.is_transactional() {
            true => transactions.data(header, records),
            false => self.records += records,
        }
        Ok(())
    }

    fn control(&mut self, name: &str, batch: &Batch, transactions: &mut Transactions) -> Result<()> {
        self.markers += 1;
        let fail = |source| Error::Protocol { object: name.to_owned(), source };
        // One that compaction has emptied ends nothing.
        let Some((control, _)) = batch.control().map_err(fail)? else { return Ok(()) };
        match transactions.marker(&batch.header, control.control_type) {
            Some(Ended::Committed(records)) => self.records += records,
            Some(Ended::Aborted(records)) => self.aborted_records += records,
            None => {}
        }
        Ok(())
    }
}

/// Records from `start_offset` on.
fn counted(name: &str, batch: &Batch, start_offset: i64) -> Result<u64> {
    let header = &batch.header;
    if header.base_offset >= start_offset {
        return Ok(u64::try_from(header.records_count).unwrap_or(0));
    }
    let fail = |source| Error::Protocol { object: name.to_owned(), source };
    let mut counted = 0;
    for record in batch.records(UNPACKED_MAX_BYTES).map_err(fail)? {
        counted += u64::from(record.map_err(fail)?.offset >= start_offset);
    }
    Ok(counted)
}
