//! Big-endian reading with bounds, and tagged fields: the two things all our records are made of.

use crate::error::{Error, Result};

/// No field ever has a higher one.
const TAG_MAX: u16 = 0xfff1;

/// Reads big-endian values from a slice; never past its end.
pub(crate) struct Cursor<'a> {
    what: &'static str,
    /// Where `bytes` begins in the object, for messages.
    origin: u64,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(what: &'static str, origin: u64, bytes: &'a [u8]) -> Self {
        Self { what, origin, bytes, at: 0 }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.origin.saturating_add(self.at as u64)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(slice) => {
                self.at = self.at.saturating_add(n);
                Ok(slice)
            }
            None => Err(Error::TooShort {
                what: self.what,
                offset: self.offset(),
                needed: n as u64,
                available: self.remaining() as u64,
            }),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }
    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    pub(crate) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    pub(crate) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn string(&mut self, n: usize) -> Result<String> {
        let at = self.offset();
        let bytes = self.take(n)?;
        String::from_utf8(bytes.to_vec()).map_err(|e| {
            Error::corrupt(
                self.what,
                at,
                "UTF-8",
                format!("invalid bytes after {}", e.utf8_error().valid_up_to()),
            )
        })
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.remaining() == 0 {
            return Ok(());
        }
        Err(Error::corrupt(self.what, self.offset(), "its end", format!("{} more bytes", self.remaining())))
    }
}

/// Appends `tag | length | value`.
pub(crate) fn put_field(out: &mut Vec<u8>, tag: u16, value: &[u8]) {
    out.extend_from_slice(&tag.to_be_bytes());
    // A value is built by us from bounded parts; 4 GiB can't be reached.
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// One tagged field and where its value begins, in the object and in the block.
pub(crate) struct Field<'a> {
    pub(crate) tag: u16,
    pub(crate) value: &'a [u8],
    pub(crate) offset: u64,
    pub(crate) block_at: usize,
}

/// Splits a block of tagged fields. Tags must ascend, so each appears at most once, and none is 0.
pub(crate) fn fields<'a>(what: &'static str, origin: u64, block: &'a [u8]) -> Result<Vec<Field<'a>>> {
    let mut cursor = Cursor::new(what, origin, block);
    let mut out: Vec<Field<'a>> = Vec::new();
    while cursor.remaining() > 0 {
        let at = cursor.offset();
        let tag = cursor.u16()?;
        let length = cursor.u32()?;
        let last = out.last().map_or(0, |f| f.tag);
        if tag <= last || tag > TAG_MAX {
            let expected = format!("a tag above {last:#x}, at most {TAG_MAX:#x}");
            return Err(Error::corrupt(what, at, expected, format!("{tag:#x}")));
        }
        let (offset, block_at) = (cursor.offset(), cursor.at);
        let value = cursor.take(length as usize)?;
        out.push(Field { tag, value, offset, block_at });
    }
    Ok(out)
}
