//! Extents: the runs of plain bytes an object is made of. First the log's chunks, then one extent for each
//! index. Each is cut into frames of `frame_bytes` plain bytes (the last may be shorter), numbered through the
//! object from 0; a frame is what can be checked alone.

use crate::bytes::Cursor;
use crate::crypt::TAG_BYTES;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtentKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
    LeaderEpochs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd,
}

impl ExtentKind {
    pub const SECTIONS: [Self; 5] = [
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TransactionIndex,
        Self::ProducerSnapshot,
        Self::LeaderEpochs,
    ];

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Log => 0,
            Self::OffsetIndex => 1,
            Self::TimeIndex => 2,
            Self::TransactionIndex => 3,
            Self::ProducerSnapshot => 4,
            Self::LeaderEpochs => 5,
        }
    }

    fn from_code(code: u8, offset: u64) -> Result<Self> {
        match code {
            0 => Ok(Self::Log),
            1 => Ok(Self::OffsetIndex),
            2 => Ok(Self::TimeIndex),
            3 => Ok(Self::TransactionIndex),
            4 => Ok(Self::ProducerSnapshot),
            5 => Ok(Self::LeaderEpochs),
            other => Err(Error::corrupt("extent kind", offset, "0 to 5", other)),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log chunk",
            Self::OffsetIndex => "offset index",
            Self::TimeIndex => "time index",
            Self::TransactionIndex => "transaction index",
            Self::ProducerSnapshot => "producer snapshot",
            Self::LeaderEpochs => "leader epochs",
        }
    }
}

/// One run of plain bytes and where it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub kind: ExtentKind,
    pub codec: Codec,
    /// Position in the log (chunks), 0 for the others.
    pub plain_offset: u64,
    pub plain_bytes: u64,
    pub stored_offset: u64,
    pub stored_bytes: u64,
    /// Number of its first frame in the object.
    pub first_frame: u64,
    /// CRC32C of each frame's stored bytes.
    pub crcs: Vec<u32>,
    /// zstd alone: where each frame ends, counted from the extent's stored beginning.
    pub(crate) ends: Vec<u32>,
}

impl Extent {
    pub fn frame_count(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// Stored range of its frame `index`, counted from the extent's stored beginning.
    pub(crate) fn frame_span(&self, index: usize, frame_bytes: u32, overhead: u32) -> Option<(u64, u64)> {
        if index >= self.crcs.len() {
            return None;
        }
        match self.codec {
            Codec::Zstd => {
                let end = *self.ends.get(index)?;
                let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
                Some((start.into(), end.into()))
            }
            Codec::None => {
                let step = u64::from(frame_bytes) + u64::from(overhead);
                let start = index as u64 * step;
                Some((start, (start + step).min(self.stored_bytes)))
            }
        }
    }

    /// Plain bytes of its frame `index`.
    pub(crate) fn frame_plain_bytes(&self, index: usize, frame_bytes: u32) -> u32 {
        let start = index as u64 * u64::from(frame_bytes);
        self.plain_bytes.saturating_sub(start).min(frame_bytes.into()) as u32
    }
}

/// How frames are laid out in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) frame_bytes: u32,
    pub(crate) chunk_bytes: u32,
    pub(crate) encrypted: bool,
    pub(crate) log_bytes: u64,
}

impl Shape {
    pub(crate) fn overhead(&self) -> u32 {
        if self.encrypted { TAG_BYTES as u32 } else { 0 }
    }
}

pub(crate) fn encode(extents: &[Extent], out: &mut Vec<u8>) {
    out.extend_from_slice(&(extents.len() as u32).to_be_bytes());
    for extent in extents {
        out.push(extent.kind.code());
        out.push(match extent.codec {
            Codec::None => 0,
            Codec::Zstd => 1,
        });
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&extent.plain_bytes.to_be_bytes());
        out.extend_from_slice(&extent.stored_bytes.to_be_bytes());
        extent.crcs.iter().for_each(|crc| out.extend_from_slice(&crc.to_be_bytes()));
        let mut start = 0;
        for end in &extent.ends {
            out.extend_from_slice(&(end - start).to_be_bytes());
            start = *end;
        }
    }
}

/// Reads the table and checks that it describes exactly the bytes `0..stored_end`.
pub(crate) fn decode(
    bytes: &[u8],
    origin: u64,
    shape: &Shape,
    data_end: u64,
    stored_end: u64,
) -> Result<Vec<Extent>> {
    const WHAT: &str = "extent table";
    let mut c = Cursor::new(WHAT, origin, bytes);
    let count = c.u32()? as usize;
    // Each takes 20 bytes at least: no allocation beyond what is there.
    let mut extents: Vec<Extent> = Vec::with_capacity(count.min(c.remaining() / 20));
    let (mut stored, mut log, mut frames) = (0_u64, 0_u64, 0_u64);
    for _ in 0..count {
        let at = c.offset();
        let kind = ExtentKind::from_code(c.u8()?, at)?;
        let codec = match c.u8()? {
            0 => Codec::None,
            1 => Codec::Zstd,
            other => return Err(Error::corrupt(WHAT, at + 1, "codec 0 or 1", other)),
        };
        let reserved = c.u16()?;
        if reserved != 0 {
            return Err(Error::corrupt(WHAT, at + 2, "reserved 0", reserved));
        }
        if let Some(last) = extents.last()
            && (kind < last.kind || (kind == last.kind && kind != ExtentKind::Log))
        {
            return Err(Error::corrupt(WHAT, at, format!("a kind after {}", last.kind.name()), kind.name()));
        }
        let (plain_bytes, stored_bytes) = (c.u64()?, c.u64()?);
        let mut extent = Extent {
            kind,
            codec,
            plain_offset: if kind == ExtentKind::Log { log } else { 0 },
            plain_bytes,
            stored_offset: stored,
            stored_bytes,
            first_frame: frames,
            crcs: Vec::new(),
            ends: Vec::new(),
        };
        read_frames(&mut c, &mut extent, shape)?;
        check_size(&extent, shape, at)?;
        if kind == ExtentKind::Log {
            log = log.checked_add(plain_bytes).filter(|n| *n <= shape.log_bytes).ok_or_else(|| {
                Error::corrupt(WHAT, at, format!("chunks of {} log bytes", shape.log_bytes), "more")
            })?;
            // Only the last chunk may be short, so that a position's chunk follows by division.
            if plain_bytes != u64::from(shape.chunk_bytes) && log != shape.log_bytes {
                return Err(Error::corrupt(
                    WHAT,
                    at,
                    format!("a chunk of {} bytes", shape.chunk_bytes),
                    plain_bytes,
                ));
            }
        } else if stored < data_end {
            return Err(Error::corrupt(WHAT, at, format!("chunks up to {data_end}"), stored));
        }
        stored = stored
            .checked_add(stored_bytes)
            .filter(|n| *n <= stored_end)
            .ok_or_else(|| Error::corrupt(WHAT, at, format!("extents up to {stored_end}"), "more"))?;
        if kind == ExtentKind::Log && stored > data_end {
            return Err(Error::corrupt(WHAT, at, format!("chunks up to {data_end}"), stored));
        }
        frames += extent.frame_count();
        extents.push(extent);
    }
    c.end()?;
    if log != shape.log_bytes || stored != stored_end {
        return Err(Error::corrupt(
            WHAT,
            origin,
            format!("{} log bytes and {stored_end} stored bytes", shape.log_bytes),
            format!("{log} and {stored}"),
        ));
    }
    Ok(extents)
}

fn read_frames(c: &mut Cursor<'_>, extent: &mut Extent, shape: &Shape) -> Result<()> {
    let count = extent.plain_bytes.div_ceil(shape.frame_bytes.into());
    let entry_bytes = if extent.codec == Codec::Zstd { 8 } else { 4 };
    if count > (c.remaining() / entry_bytes) as u64 {
        return Err(Error::TooShort {
            what: "extent table",
            offset: c.offset(),
            needed: count.saturating_mul(entry_bytes as u64),
            available: c.remaining() as u64,
        });
    }
    extent.crcs = (0..count).map(|_| c.u32()).collect::<Result<_>>()?;
    if extent.codec == Codec::Zstd {
        let mut end = 0_u32;
        for _ in 0..count {
            let at = c.offset();
            let bytes = c.u32()?;
            // A stored frame is never much longer than its plain bytes; this bounds what a reader allocates.
            if bytes <= shape.overhead() || bytes > shape.frame_bytes * 2 {
                return Err(Error::corrupt("extent table", at, "a frame of bounded size", bytes));
            }
            end = end
                .checked_add(bytes)
                .ok_or_else(|| Error::corrupt("extent table", at, "an extent below 4 GiB", bytes))?;
            extent.ends.push(end);
        }
    }
    Ok(())
}

fn check_size(extent: &Extent, shape: &Shape, at: u64) -> Result<()> {
    let expected = match extent.codec {
        Codec::Zstd => extent.ends.last().map_or(0, |end| u64::from(*end)),
        Codec::None => extent.plain_bytes + extent.frame_count() * u64::from(shape.overhead()),
    };
    if expected == extent.stored_bytes {
        return Ok(());
    }
    Err(Error::corrupt("extent table", at + 12, format!("{expected} stored bytes"), extent.stored_bytes))
}
