//! Unpacking the records of a compressed batch, into at most as many bytes as the caller allows.

use std::io::Read;

use super::batch::Codec;
use super::error::{ProtocolError, Result};

/// Begins what the Java client's snappy stream writes; other clients write one raw block.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// 128 MiB: zstd's own default, and far above what a batch needs.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// `position` is where `packed` begins in its file, for messages.
pub(crate) fn decompress(codec: Codec, packed: &[u8], position: u64, limit_bytes: usize) -> Result<Vec<u8>> {
    let to = Output { position, limit_bytes };
    match codec {
        Codec::None => to.read("records", packed),
        Codec::Gzip => to.read("gzip records", flate2::read::MultiGzDecoder::new(packed)),
        Codec::Lz4 => to.read("lz4 records", lz4_flex::frame::FrameDecoder::new(packed)),
        Codec::Snappy => snappy(packed, &to),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)
                .map_err(|e| to.corrupt("zstd records", e))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| to.corrupt("zstd records", e))?;
            to.read("zstd records", decoder)
        }
        Codec::Unknown(n) => {
            Err(ProtocolError::corrupt("batch attributes", position, "a codec from 0 to 4", n))
        }
    }
}

struct Output {
    position: u64,
    limit_bytes: usize,
}

impl Output {
    fn read(&self, what: &'static str, from: impl Read) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let allowed = (self.limit_bytes as u64).saturating_add(1);
        from.take(allowed).read_to_end(&mut out).map_err(|e| self.corrupt(what, e))?;
        if out.len() > self.limit_bytes { Err(self.too_large(what)) } else { Ok(out) }
    }

    fn corrupt(&self, what: &'static str, found: impl ToString) -> ProtocolError {
        ProtocolError::corrupt(what, self.position, "a valid stream", found)
    }

    fn too_large(&self, what: &'static str) -> ProtocolError {
        ProtocolError::TooLarge { what, position: self.position, limit_bytes: self.limit_bytes as u64 }
    }
}

fn snappy(packed: &[u8], to: &Output) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if !packed.starts_with(&XERIAL_MAGIC) {
        snappy_block(packed, to, &mut out)?;
        return Ok(out);
    }
    let mut rest = packed.get(XERIAL_HEADER_BYTES..).ok_or_else(|| to.corrupt(SNAPPY, "a cut header"))?;
    while !rest.is_empty() {
        // Streams may be concatenated: a header may stand where a block would.
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER_BYTES..).ok_or_else(|| to.corrupt(SNAPPY, "a cut header"))?;
            continue;
        }
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| to.corrupt(SNAPPY, "a cut block length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = after
            .get(..length)
            .ok_or_else(|| to.corrupt(SNAPPY, format!("a block of {length} bytes, {} there", after.len())))?;
        snappy_block(block, to, &mut out)?;
        rest = after.get(length..).unwrap_or_default();
    }
    Ok(out)
}

const SNAPPY: &str = "snappy records";

fn snappy_block(block: &[u8], to: &Output, out: &mut Vec<u8>) -> Result<()> {
    let length = snap::raw::decompress_len(block).map_err(|e| to.corrupt(SNAPPY, e))?;
    if length > to.limit_bytes.saturating_sub(out.len()) {
        return Err(to.too_large(SNAPPY));
    }
    let begin = out.len();
    out.resize(begin + length, 0);
    let target = out.get_mut(begin..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(block, target).map_err(|e| to.corrupt(SNAPPY, e))?;
    out.truncate(begin + written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Gzip => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                e.write_all(plain).unwrap();
                e.finish().unwrap()
            }
            Codec::Lz4 => {
                let mut e = lz4_flex::frame::FrameEncoder::new(Vec::new());
                e.write_all(plain).unwrap();
                e.finish().unwrap()
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            Codec::Zstd => zstd::encode_all(plain, 1).unwrap(),
            _ => plain.to_vec(),
        }
    }

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn each_codec_unpacks_and_a_bomb_is_refused() {
        let plain = vec![7_u8; 1 << 20];
        for codec in ALL {
            let packed = packed(codec, &plain);
            assert_eq!(decompress(codec, &packed, 0, plain.len()).as_ref(), Ok(&plain), "{codec}");
            let refused = decompress(codec, &packed, 5, plain.len() - 1);
            assert!(
                matches!(refused, Err(ProtocolError::TooLarge { position: 5, .. })),
                "{codec}: {refused:?}"
            );
        }
    }

    #[test]
    fn cut_streams_are_errors() {
        let plain: Vec<u8> = (0..9999_u32).flat_map(u32::to_be_bytes).collect();
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = packed(codec, &plain);
            let got = decompress(codec, &packed[..packed.len() / 2], 0, plain.len());
            assert!(got.as_ref().map_or(true, |out| out.len() < plain.len()), "{codec}");
        }
        assert!(decompress(Codec::Unknown(7), &[], 0, 10).is_err());
    }
}
