//! Segments to measure with: files as a broker hands them over.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use varve_format::{EpochStart, Id};
use varve_rsm::wire::{CopyRequest, SegmentMetadata};

/// What the log's bytes are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Text that zstd makes about a third of.
    Plain,
    /// What a producer compressed: nothing to gain.
    Zstd,
}

/// A segment's files and a request to copy them.
pub(crate) struct Source {
    pub(crate) log: PathBuf,
    pub(crate) bytes: u64,
    folder: PathBuf,
    number: u8,
}

impl Source {
    pub(crate) fn make(folder: &Path, data: Data, bytes: u64, number: u8) -> Result<Self> {
        let folder = folder.join(format!("{data:?}-{}-{number}", bytes >> 20));
        fs::create_dir_all(&folder)?;
        let log = folder.join("00000000000000000000.log");
        let mut rng = SmallRng::seed_from_u64(number.into());
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&log)?);
        let mut block = vec![0; 64 << 10];
        for _ in 0..bytes / block.len() as u64 {
            match data {
                Data::Zstd => rng.fill_bytes(&mut block),
                Data::Plain => text(&mut rng, &mut block),
            }
            out.write_all(&block)?;
        }
        out.into_inner()?.sync_all()?;
        // An entry for each 4 KiB, as index.interval.bytes says.
        let entries = (bytes / 4096) as usize;
        for (name, entry_bytes) in [("index", 8), ("timeindex", 12)] {
            let mut index = vec![0; entries * entry_bytes];
            rng.fill_bytes(&mut index);
            fs::write(log.with_extension(name), index)?;
        }
        fs::write(log.with_extension("snapshot"), [0; 100])?;
        Ok(Self { log, bytes, folder, number })
    }

    /// A copy under the id that `attempt` gives.
    pub(crate) fn request(&self, attempt: u32, custom: Option<Vec<u8>>) -> CopyRequest {
        let mut segment_id = [self.number; 16];
        segment_id[..4].copy_from_slice(&attempt.to_be_bytes());
        CopyRequest {
            metadata: SegmentMetadata {
                topic_id: Id([7; 16]),
                topic: "bench".into(),
                partition: i32::from(self.number),
                segment_id: Id(segment_id),
                start_offset: 0,
                end_offset: 999,
                max_timestamp_ms: 0,
                event_timestamp_ms: 0,
                broker_id: 1,
                segment_bytes: self.bytes as u32,
                leader_epochs: vec![EpochStart { epoch: 0, start_offset: 0 }],
                custom,
            },
            log: self.log.clone(),
            offset_index: self.log.with_extension("index"),
            time_index: self.log.with_extension("timeindex"),
            transaction_index: None,
            producer_snapshot: self.log.with_extension("snapshot"),
            leader_epochs: b"0\n1\n0 0\n".to_vec(),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // A bench's folder is thrown away as a whole; this frees its disk earlier.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn text(rng: &mut SmallRng, block: &mut [u8]) {
    const WORDS: [&[u8]; 16] = [
        b"order",
        b"customer",
        b"warehouse",
        b"payment",
        b"shipped",
        b"pending",
        b"\"id\":",
        b"\"at\":",
        b"2026-11-21T",
        b"berlin",
        b"{\"event\":",
        b"},",
        b"null,",
        b"true,",
        b"amount",
        b"EUR",
    ];
    let mut at = 0;
    while at < block.len() {
        let random = rng.next_u64();
        let word = WORDS[random as usize % WORDS.len()];
        let number = (random >> 8).to_string();
        for piece in [word, &number.as_bytes()[..number.len().min(5)]] {
            let n = piece.len().min(block.len() - at);
            block[at..at + n].copy_from_slice(&piece[..n]);
            at += n;
        }
    }
}
