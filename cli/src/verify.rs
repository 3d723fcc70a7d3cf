//! Everything that can be checked of one segment without its cluster: stored bytes, digests, batches,
//! indexes, and that they agree with each other and with the footer.

use std::collections::VecDeque;

use indicatif::ProgressBar;
use serde::Serialize;
use varve_format::{ExtentKind, Footer};
use varve_kafka::protocol::{
    BatchScanner, OffsetIndexEntry, ProtocolError, Scanned, parse_leader_epochs, parse_offset_index,
    parse_producer_snapshot, parse_time_index, parse_transaction_index,
};

use crate::object::{ObjectError, SegmentObject};

/// More of them say nothing new.
const FINDINGS_MAX: usize = 100;

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) log_bytes: u64,
    /// What is wrong with the contents. Damaged storage ends a verification instead, as an error.
    pub(crate) findings: Vec<String>,
}

/// Reads the whole object. An error with `is_corruption` is a finding too.
pub(crate) async fn verify(object: &SegmentObject, progress: &ProgressBar) -> Result<Report, ObjectError> {
    let mut check = LogCheck::new(&object.footer);
    // Before the log, since the offset index tells where its batches begin.
    for number in object.sections() {
        let bytes = object.section(number).await?;
        if let Some(extent) = object.footer.extents.get(number) {
            check.section(extent.kind, &bytes);
        }
        progress.inc(bytes.len() as u64);
    }
    let chunks = 0..object.footer.chunks().len();
    object
        .read(chunks, |_, plain| {
            check.feed(plain);
            progress.inc(plain.len() as u64);
            Ok(())
        })
        .await?;
    Ok(check.finish())
}

struct LogCheck<'a> {
    footer: &'a Footer,
    scanner: Option<BatchScanner>,
    state: State,
}

#[derive(Default)]
struct State {
    report: Report,
    next_offset: Option<i64>,
    /// Entries whose batch has not come yet.
    index: VecDeque<OffsetIndexEntry>,
}

impl State {
    fn find(&mut self, text: String) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(text);
        }
    }
}

impl<'a> LogCheck<'a> {
    fn new(footer: &'a Footer) -> Self {
        Self { footer, scanner: Some(BatchScanner::new()), state: State::default() }
    }

    fn section(&mut self, kind: ExtentKind, bytes: &[u8]) {
        let base = self.footer.info.base_offset;
        let parsed: Result<(), ProtocolError> = match kind {
            // Of what this build does not know, the digest was checked.
            ExtentKind::Log | ExtentKind::Unknown(_) => Ok(()),
            ExtentKind::OffsetIndex => {
                parse_offset_index(bytes, base).map(|entries| self.state.index = entries.into())
            }
            ExtentKind::TimeIndex => parse_time_index(bytes, base).map(drop),
            ExtentKind::TransactionIndex => parse_transaction_index(bytes).map(drop),
            ExtentKind::ProducerSnapshot => parse_producer_snapshot(bytes).map(drop),
            ExtentKind::LeaderEpochs => parse_leader_epochs(bytes).map(drop),
        };
        if let Err(error) = parsed {
            self.state.find(error.to_string());
        }
    }

    fn feed(&mut self, plain: &[u8]) {
        self.state.report.log_bytes += plain.len() as u64;
        let Some(mut scanner) = self.scanner.take() else { return };
        let (state, footer) = (&mut self.state, self.footer);
        match scanner.feed(plain, |found| state.batch(footer, &found)) {
            Ok(()) => self.scanner = Some(scanner),
            // Where batches can't be told apart any more, the storage can still be checked to the end.
            Err(error) => self.state.find(error.to_string()),
        }
    }

    fn finish(mut self) -> Report {
        if let Some(Err(error)) = self.scanner.take().map(BatchScanner::finish) {
            self.state.find(error.to_string());
        }
        let entries = self.state.index.len();
        if let Some(entry) = self.state.index.pop_front() {
            self.state.find(format!(
                "offset index: {entries} entries point behind the last batch, the first to byte {}",
                entry.position
            ));
        }
        self.state.report
    }
}

impl State {
    fn batch(&mut self, footer: &Footer, found: &Scanned) {
        self.report.batches += 1;
        let (position, first, last) = match found {
            Scanned::Batch { header, position, crc_found } => {
                self.report.records += u64::try_from(header.records_count).unwrap_or(0);
                if header.crc != *crc_found {
                    self.find(format!(
                        "batch at byte {position} (base offset {}): expected CRC32C {:08x}, found {crc_found:08x}",
                        header.base_offset, header.crc
                    ));
                }
                if header.records_count < 0 || header.last_offset_delta < 0 {
                    self.find(format!(
                        "batch at byte {position}: {} records, last offset delta {}",
                        header.records_count, header.last_offset_delta
                    ));
                }
                (*position, header.base_offset, header.last_offset())
            }
            Scanned::OldMessageSet(set) => (set.position, set.last_offset, set.last_offset),
        };
        self.offsets(footer, position, first, last);
        self.index_entries(position, last);
    }

    fn offsets(&mut self, footer: &Footer, position: u64, first: i64, last: i64) {
        if let Some(next) = self.next_offset
            && first < next
        {
            self.find(format!("batch at byte {position}: base offset {first} after offset {}", next - 1));
        }
        let info = &footer.info;
        if last < info.base_offset || last > info.last_offset {
            self.find(format!(
                "batch at byte {position}: last offset {last} is outside the segment's {} to {}",
                info.base_offset, info.last_offset
            ));
        }
        self.next_offset = Some(last.saturating_add(1));
    }

    /// An entry points to the begin of the batch, or run of batches, that was appended with it.
    fn index_entries(&mut self, position: u64, last: i64) {
        while let Some(entry) = self.index.front().copied() {
            match u64::from(entry.position).cmp(&position) {
                std::cmp::Ordering::Greater => return,
                std::cmp::Ordering::Less => {
                    self.find(format!("offset index: no batch begins at byte {}", entry.position));
                }
                std::cmp::Ordering::Equal if entry.offset < last => self.find(format!(
                    "offset index: offset {} at byte {position}, where a batch ends with offset {last}",
                    entry.offset
                )),
                std::cmp::Ordering::Equal => {}
            }
            self.index.pop_front();
        }
    }
}
