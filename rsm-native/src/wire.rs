//! The boundary's blobs: big-endian, strings and byte arrays with an `int` length (-1 for null). The shim's
//! `SegmentCodec` writes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use varve_format::{EpochStart, Id};

use crate::error::{Error, Kind, Result};

/// Kafka's `RemoteLogSegmentMetadata`.
#[derive(Clone, Debug)]
pub struct SegmentMetadata {
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
    pub segment_id: Id,
    pub start_offset: i64,
    /// Inclusive.
    pub end_offset: i64,
    pub max_timestamp_ms: i64,
    pub event_timestamp_ms: i64,
    pub broker_id: i32,
    pub segment_bytes: u32,
    pub leader_epochs: Vec<EpochStart>,
    pub custom: Option<Vec<u8>>,
}

/// Kafka's `LogSegmentData` beside the metadata.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    pub metadata: SegmentMetadata,
    pub log: PathBuf,
    pub offset_index: PathBuf,
    pub time_index: PathBuf,
    pub transaction_index: Option<PathBuf>,
    pub producer_snapshot: PathBuf,
    pub leader_epochs: Vec<u8>,
}

struct Blob<'a>(&'a [u8]);

impl<'a> Blob<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or_else(|| {
            Error::internal("argument", format!("{n} bytes needed, {} there", self.0.len()))
        })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn id(&mut self) -> Result<Id> {
        Ok(Id(self.array()?))
    }

    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.int()? {
            -1 => Ok(None),
            n => self.take(usize::try_from(n).map_err(|e| Error::internal("argument", e))?).map(Some),
        }
    }

    fn string(&mut self) -> Result<String> {
        let bytes = self.bytes()?.ok_or_else(|| Error::internal("argument", "null for a string"))?;
        String::from_utf8(bytes.to_vec()).map_err(|e| Error::internal("argument", e))
    }

    fn path(&mut self) -> Result<PathBuf> {
        self.string().map(PathBuf::from)
    }

    fn metadata(&mut self) -> Result<SegmentMetadata> {
        Ok(SegmentMetadata {
            topic_id: self.id()?,
            topic: self.string()?,
            partition: self.int()?,
            segment_id: self.id()?,
            start_offset: self.long()?,
            end_offset: self.long()?,
            max_timestamp_ms: self.long()?,
            event_timestamp_ms: self.long()?,
            broker_id: self.int()?,
            segment_bytes: u32::try_from(self.int()?)
                .map_err(|e| Error::new(Kind::Invalid, format!("segment size: {e}")))?,
            leader_epochs: {
                let n = self.int()?;
                (0..n)
                    .map(|_| Ok(EpochStart { epoch: self.int()?, start_offset: self.long()? }))
                    .collect::<Result<_>>()?
            },
            custom: self.bytes()?.map(<[u8]>::to_vec),
        })
    }
}

impl SegmentMetadata {
    pub fn decode(blob: &[u8]) -> Result<Self> {
        Blob(blob).metadata()
    }
}

impl CopyRequest {
    pub fn decode(blob: &[u8]) -> Result<Self> {
        let mut b = Blob(blob);
        Ok(Self {
            metadata: b.metadata()?,
            log: b.path()?,
            offset_index: b.path()?,
            time_index: b.path()?,
            transaction_index: b
                .bytes()?
                .map(|p| String::from_utf8(p.to_vec()).map(PathBuf::from))
                .transpose()
                .map_err(|e| Error::internal("argument", e))?,
            producer_snapshot: b.path()?,
            leader_epochs: b.bytes()?.unwrap_or_default().to_vec(),
        })
    }
}

/// The map given to `configure`.
pub fn decode_config(blob: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut b = Blob(blob);
    let n = b.int()?;
    (0..n).map(|_| Ok((b.string()?, b.string()?))).collect()
}
