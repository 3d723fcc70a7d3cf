//! Packing the records of a batch, as the Java client packs them.

use std::io::Write;

use super::batch::Codec;
use super::error::{ProtocolError, Result};

/// Begins a stream of snappy blocks: magic, version 1, and the oldest version that reads it.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// With each codec's usual level.
pub(super) fn compress(codec: Codec, plain: Vec<u8>) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| ProtocolError::corrupt("records to be packed", 0, "a stream", e);
    match codec {
        Codec::None => Ok(plain),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).and_then(|()| encoder.finish()).map_err(failed)
        }
        Codec::Lz4 => {
            // Blocks that know nothing of each other: Java's reader takes no others.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&plain).map_err(failed)?;
            encoder.finish().map_err(|e| failed(e.into()))
        }
        Codec::Snappy => snappy(&plain),
        Codec::Zstd => zstd::encode_all(plain.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed),
        Codec::Unknown(n) => Err(ProtocolError::corrupt("batch attributes", 0, "a codec from 0 to 4", n)),
    }
}

fn snappy(plain: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = XERIAL_HEADER.to_vec();
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block);
        let packed = packed.map_err(|e| ProtocolError::corrupt("records to be packed", 0, "a block", e))?;
        out.extend((packed.len() as u32).to_be_bytes());
        out.extend(packed);
    }
    Ok(out)
}
