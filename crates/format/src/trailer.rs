//! The last 64 bytes: where the footer is, and what it takes to read the object.

use crate::bytes::Cursor;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::{FOOTER_MAX_BYTES, FORMAT_VERSION};

/// Length of the trailer, in every version.
pub const TRAILER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"VARVESEG";

/// The trailer's fields; byte positions count from the object's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// End of the log's chunks, which begin at 0; the sections follow.
    pub data_end: u64,
    pub footer_offset: u64,
    pub footer_bytes: u32,
    pub version: u16,
    pub features: Features,
    /// CRC32C of the footer.
    pub footer_crc: u32,
}

impl Trailer {
    /// Size of the whole object.
    pub fn object_bytes(&self) -> u64 {
        self.footer_offset.saturating_add(u64::from(self.footer_bytes)).saturating_add(TRAILER_BYTES as u64)
    }

    /// The 64 bytes as they are stored. The fields are taken as they are: [`Trailer::decode`] is what checks.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.data_end.to_be_bytes());
        out.extend_from_slice(&self.footer_offset.to_be_bytes());
        out.extend_from_slice(&self.footer_bytes.to_be_bytes());
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.features.required.to_be_bytes());
        out.extend_from_slice(&self.features.optional.to_be_bytes());
        out.extend_from_slice(&self.object_bytes().to_be_bytes());
        out.extend_from_slice(&self.footer_crc.to_be_bytes());
        out.extend_from_slice(&crate::crc32c(&out).to_be_bytes());
        out.extend_from_slice(&MAGIC);
        let mut trailer = [0; TRAILER_BYTES];
        trailer.copy_from_slice(&out);
        trailer
    }

    /// Reads the last bytes of an object of `object_bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] (not ours, damaged, or of another length than `object_bytes`),
    /// [`Error::FutureVersion`], [`Error::UnknownFeatures`].
    pub fn decode(bytes: &[u8; TRAILER_BYTES], object_bytes: u64) -> Result<Self> {
        let origin = object_bytes.saturating_sub(TRAILER_BYTES as u64);
        let mut c = Cursor::new("trailer", origin, bytes);
        let mut trailer = Self {
            data_end: c.u64()?,
            footer_offset: c.u64()?,
            footer_bytes: c.u32()?,
            version: c.u16()?,
            features: Features::default(),
            footer_crc: 0,
        };
        let reserved = c.u16()?;
        trailer.features = Features { required: c.u64()?, optional: c.u64()? };
        let stated_bytes = c.u64()?;
        trailer.footer_crc = c.u32()?;
        let crc = c.u32()?;
        let magic: [u8; 8] = c.array()?;
        // In this order: not ours, damaged, too new; and what is reserved only after the required features,
        // one of which may some day give it a meaning.
        if magic != MAGIC {
            return Err(Error::corrupt(
                "trailer",
                origin.saturating_add(56),
                format!("magic {MAGIC:02x?}"),
                format!("{magic:02x?}"),
            ));
        }
        let computed = crate::crc32c(&bytes[..52]);
        if crc != computed {
            return Err(Error::corrupt(
                "trailer",
                origin.saturating_add(52),
                format!("CRC32C {computed:08x}"),
                format!("{crc:08x}"),
            ));
        }
        if trailer.version > FORMAT_VERSION {
            return Err(Error::FutureVersion { found: trailer.version, supported: FORMAT_VERSION });
        }
        if trailer.version == 0 {
            return Err(Error::corrupt("trailer", origin.saturating_add(20), "version 1", 0));
        }
        trailer.features.check()?;
        if reserved != 0 {
            return Err(Error::corrupt("trailer", origin.saturating_add(22), "reserved 0", reserved));
        }
        trailer.check_layout(object_bytes, stated_bytes, origin)?;
        Ok(trailer)
    }

    fn check_layout(&self, object_bytes: u64, stated_bytes: u64, origin: u64) -> Result<()> {
        if self.footer_bytes > FOOTER_MAX_BYTES {
            return Err(Error::corrupt(
                "trailer",
                origin.saturating_add(16),
                format!("a footer of at most {FOOTER_MAX_BYTES} bytes"),
                self.footer_bytes,
            ));
        }
        let end = self
            .footer_offset
            .checked_add(u64::from(self.footer_bytes))
            .and_then(|n| n.checked_add(TRAILER_BYTES as u64));
        if end != Some(object_bytes) || stated_bytes != object_bytes {
            return Err(Error::corrupt(
                "trailer",
                origin.saturating_add(40),
                format!(
                    "an object of {stated_bytes} bytes, footer {} + {}",
                    self.footer_offset, self.footer_bytes
                ),
                format!("{object_bytes} bytes"),
            ));
        }
        if self.data_end > self.footer_offset {
            return Err(Error::corrupt(
                "trailer",
                origin,
                format!("data to end at or before the footer at {}", self.footer_offset),
                self.data_end,
            ));
        }
        Ok(())
    }
}
