//! Reading Kafka's primitive types from a slice, never past its end.

use super::error::{ProtocolError, Result};

pub(crate) struct Cursor<'a> {
    what: &'static str,
    /// Where `bytes` begins in the file, for messages.
    origin: u64,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(what: &'static str, origin: u64, bytes: &'a [u8]) -> Self {
        Self { what, origin, bytes, at: 0 }
    }

    /// Index into the slice of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn position(&self) -> u64 {
        self.origin.saturating_add(self.at as u64)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn corrupt(&self, expected: impl ToString, found: impl ToString) -> ProtocolError {
        ProtocolError::corrupt(self.what, self.position(), expected, found)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(slice) => {
                self.at += n;
                Ok(slice)
            }
            None => Err(ProtocolError::Truncated {
                what: self.what,
                position: self.position(),
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

    pub(crate) fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }
    pub(crate) fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    pub(crate) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    pub(crate) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// An unsigned varint of at most 32 bits.
    pub(crate) fn unsigned_varint(&mut self) -> Result<u32> {
        let value = self.base128(5)?;
        u32::try_from(value).map_err(|_| self.corrupt("a varint of 32 bits", value))
    }

    /// A zigzag varint of at most 32 bits, as in records.
    pub(crate) fn varint(&mut self) -> Result<i32> {
        let raw = self.unsigned_varint()?;
        Ok(((raw >> 1) as i32) ^ -((raw & 1) as i32))
    }

    /// A zigzag varint of at most 64 bits.
    pub(crate) fn varlong(&mut self) -> Result<i64> {
        let raw = self.base128(10)?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    fn base128(&mut self, max_bytes: u32) -> Result<u64> {
        let mut value = 0_u64;
        for i in 0..max_bytes {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if i == 9 && bits > 1 {
                return Err(self.corrupt("a varint of 64 bits", "more bits"));
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt(format!("a varint of at most {max_bytes} bytes"), "more bytes"))
    }

    /// A length that must fit in what is left, or `None` for -1.
    pub(crate) fn checked_length(&self, length: i32) -> Result<Option<usize>> {
        if length == -1 {
            return Ok(None);
        }
        let n = usize::try_from(length).map_err(|_| self.corrupt("a length of -1 or more", length))?;
        if n > self.remaining() {
            return Err(ProtocolError::Truncated {
                what: self.what,
                position: self.position(),
                needed: n as u64,
                available: self.remaining() as u64,
            });
        }
        Ok(Some(n))
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.remaining() == 0 {
            return Ok(());
        }
        Err(self.corrupt("its end", format!("{} more bytes", self.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_at_their_limits() {
        let read = |bytes: &[u8]| Cursor::new("x", 0, bytes).varlong();
        assert_eq!(read(&[0x01]), Ok(-1));
        assert_eq!(read(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(i64::MIN));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
        let read = |bytes: &[u8]| Cursor::new("x", 0, bytes).varint();
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]).is_err());
        assert!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).is_err());
    }
}
