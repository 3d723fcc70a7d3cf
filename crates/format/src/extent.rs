//! Extents: the runs of plain bytes an object is made of. First the log's chunks, then one extent for each
//! index. Each is cut into frames of `frame_bytes` plain bytes (the last may be shorter), numbered through the
//! object from 0; a frame is what can be checked alone.

use crate::SECTION_MAX_BYTES;
use crate::bytes::Cursor;
use crate::crypt::TAG_BYTES;
use crate::error::{Error, Result};

const WHAT: &str = "extent table";
/// Of each entry, before its frames: what a count read from outside is held against.
const HEAD_BYTES: usize = 20;

/// What an extent holds, in the order of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtentKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
    LeaderEpochs,
    /// A section of a later writer, of a kind from 128 to 254, that this build does not know: readers skip it.
    Unknown(u8),
}

/// How an extent's frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd,
}

impl ExtentKind {
    /// All that this build knows but the log, in the order of the object.
    pub const SECTIONS: [Self; 5] = [
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TransactionIndex,
        Self::ProducerSnapshot,
        Self::LeaderEpochs,
    ];

    /// The number in the extent table.
    pub fn code(self) -> u8 {
        match self {
            Self::Log => 0,
            Self::OffsetIndex => 1,
            Self::TimeIndex => 2,
            Self::TransactionIndex => 3,
            Self::ProducerSnapshot => 4,
            Self::LeaderEpochs => 5,
            Self::Unknown(code) => code,
        }
    }

    /// `None` of a kind that this build must not skip, and of 255.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Log,
            1 => Self::OffsetIndex,
            2 => Self::TimeIndex,
            3 => Self::TransactionIndex,
            4 => Self::ProducerSnapshot,
            5 => Self::LeaderEpochs,
            128..=254 => Self::Unknown(code),
            _ => return None,
        })
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log chunk",
            Self::OffsetIndex => "offset index",
            Self::TimeIndex => "time index",
            Self::TransactionIndex => "transaction index",
            Self::ProducerSnapshot => "producer snapshot",
            Self::LeaderEpochs => "leader epochs",
            Self::Unknown(_) => "unknown section",
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
    /// Number of its frames.
    pub fn frame_count(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// Where its stored bytes end in the object.
    pub(crate) fn stored_end(&self) -> u64 {
        self.stored_offset.saturating_add(self.stored_bytes)
    }

    /// Number of the frame after its last.
    pub(crate) fn end_frame(&self) -> u64 {
        self.first_frame.saturating_add(self.frame_count())
    }

    /// Stored range of its frame `index`, counted from the extent's stored beginning.
    pub(crate) fn frame_span(&self, index: usize, frame_bytes: u32, overhead: u32) -> Option<(u64, u64)> {
        if index >= self.crcs.len() {
            return None;
        }
        match self.codec {
            Codec::Zstd => {
                let start = match index.checked_sub(1) {
                    None => 0,
                    Some(before) => *self.ends.get(before)?,
                };
                Some((start.into(), (*self.ends.get(index)?).into()))
            }
            Codec::None => {
                let step = u64::from(frame_bytes).checked_add(overhead.into())?;
                let start = (index as u64).checked_mul(step)?;
                Some((start, start.checked_add(step)?.min(self.stored_bytes)))
            }
        }
    }

    /// Plain bytes of its frame `index`.
    pub(crate) fn frame_plain_bytes(&self, index: usize, frame_bytes: u32) -> u32 {
        let start = (index as u64).saturating_mul(frame_bytes.into());
        // At most a frame's bytes, which are 32 bits.
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
        let mut start = 0_u32;
        for end in &extent.ends {
            out.extend_from_slice(&end.saturating_sub(start).to_be_bytes());
            start = *end;
        }
    }
}

/// Reads the table and checks that it describes exactly the bytes `0..stored_end`, the log's up to `data_end`.
pub(crate) fn decode(
    bytes: &[u8],
    origin: u64,
    shape: &Shape,
    data_end: u64,
    stored_end: u64,
) -> Result<Vec<Extent>> {
    let mut c = Cursor::new(WHAT, origin, bytes);
    let count = c.u32()? as usize;
    let mut extents: Vec<Extent> = Vec::with_capacity(count.min(c.remaining() / HEAD_BYTES));
    let (mut log, mut data, mut stored, mut frames) = (0_u64, 0_u64, 0_u64, 0_u64);
    for _ in 0..count {
        let at = c.offset();
        let mut extent = read_head(&mut c)?;
        if let Some(last) = extents.last()
            && (extent.kind < last.kind || (extent.kind == last.kind && extent.kind != ExtentKind::Log))
        {
            let after = format!("a kind after {}", last.kind.name());
            return Err(Error::corrupt(WHAT, at, after, extent.kind.name()));
        }
        check_plain_bytes(&extent, shape, log, at)?;
        extent.stored_offset = stored;
        extent.first_frame = frames;
        read_frames(&mut c, &mut extent, shape)?;
        check_stored_bytes(&extent, shape, at)?;
        stored = stored
            .checked_add(extent.stored_bytes)
            .filter(|end| *end <= stored_end)
            .ok_or_else(|| Error::corrupt(WHAT, at, format!("extents up to {stored_end}"), "more"))?;
        if extent.kind == ExtentKind::Log {
            extent.plain_offset = log;
            log = log.saturating_add(extent.plain_bytes);
            data = stored;
        }
        frames = frames.saturating_add(extent.frame_count());
        extents.push(extent);
    }
    c.end()?;
    if (log, data, stored) != (shape.log_bytes, data_end, stored_end) {
        return Err(Error::corrupt(
            WHAT,
            origin,
            format!("{} log bytes, stored up to {data_end}, and all up to {stored_end}", shape.log_bytes),
            format!("{log}, {data} and {stored}"),
        ));
    }
    Ok(extents)
}

fn read_head(c: &mut Cursor<'_>) -> Result<Extent> {
    let at = c.offset();
    let code = c.u8()?;
    let kind = ExtentKind::from_code(code)
        .ok_or_else(|| Error::corrupt("extent kind", at, "0 to 5 or 128 to 254", code))?;
    let codec = match c.u8()? {
        0 => Codec::None,
        1 => Codec::Zstd,
        other => return Err(Error::corrupt(WHAT, at, "codec 0 or 1", other)),
    };
    let reserved = c.u16()?;
    if reserved != 0 {
        return Err(Error::corrupt(WHAT, at, "reserved 0", reserved));
    }
    Ok(Extent {
        kind,
        codec,
        plain_offset: 0,
        plain_bytes: c.u64()?,
        stored_offset: 0,
        stored_bytes: c.u64()?,
        first_frame: 0,
        crcs: Vec::new(),
        ends: Vec::new(),
    })
}

/// `log` bytes are in the chunks before. Only the last chunk may be short, so that the chunk of a position
/// follows by division.
fn check_plain_bytes(extent: &Extent, shape: &Shape, log: u64, at: u64) -> Result<()> {
    let expected = match extent.kind {
        ExtentKind::Log => match shape.log_bytes.saturating_sub(log).min(shape.chunk_bytes.into()) {
            0 => return Err(Error::corrupt(WHAT, at, "no more chunks", extent.plain_bytes)),
            bytes if bytes == extent.plain_bytes => return Ok(()),
            bytes => format!("a chunk of {bytes} bytes"),
        },
        _ if extent.plain_bytes == 0 && extent.codec != Codec::None => "an empty extent as it is".to_owned(),
        _ if extent.plain_bytes <= SECTION_MAX_BYTES => return Ok(()),
        _ => format!("a section of at most {SECTION_MAX_BYTES} bytes"),
    };
    Err(Error::corrupt(WHAT, at, expected, extent.plain_bytes))
}

fn read_frames(c: &mut Cursor<'_>, extent: &mut Extent, shape: &Shape) -> Result<()> {
    let count = extent.plain_bytes.div_ceil(shape.frame_bytes.into());
    let entry_bytes = if extent.codec == Codec::Zstd { 8 } else { 4 };
    let needed = count.saturating_mul(entry_bytes);
    if needed > c.remaining() as u64 {
        let (offset, available) = (c.offset(), c.remaining() as u64);
        return Err(Error::TooShort { what: WHAT, offset, needed, available });
    }
    extent.crcs = (0..count).map(|_| c.u32()).collect::<Result<_>>()?;
    if extent.codec == Codec::None {
        return Ok(());
    }
    extent.ends.reserve_exact(extent.crcs.len());
    let mut end = 0_u32;
    for _ in 0..count {
        let at = c.offset();
        let bytes = c.u32()?;
        // A stored frame is never much longer than its plain bytes; this bounds what a reader allocates.
        if bytes <= shape.overhead() || bytes > shape.frame_bytes.saturating_mul(2) {
            return Err(Error::corrupt(WHAT, at, "a frame of bounded size", bytes));
        }
        // At most twice the largest section: far below 4 GiB.
        end =
            end.checked_add(bytes).ok_or_else(|| Error::corrupt(WHAT, at, "an extent below 4 GiB", bytes))?;
        extent.ends.push(end);
    }
    Ok(())
}

fn check_stored_bytes(extent: &Extent, shape: &Shape, at: u64) -> Result<()> {
    let expected = match extent.codec {
        Codec::Zstd => extent.ends.last().map_or(0, |end| u64::from(*end)),
        Codec::None => {
            let tags = extent.frame_count().saturating_mul(shape.overhead().into());
            extent.plain_bytes.saturating_add(tags)
        }
    };
    if expected == extent.stored_bytes {
        return Ok(());
    }
    Err(Error::corrupt(WHAT, at, format!("{expected} stored bytes"), extent.stored_bytes))
}
