//! Whole objects whose checksums are put right first: what an attacker would send, and what a fuzzer that
//! can't guess a CRC would never reach.
#![no_main]

#[allow(dead_code)] // The other target takes the rest.
#[path = "../../tests/support/decode_all.rs"]
mod decode_all;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use varve_format::{DataKey, Id, TRAILER_BYTES};

/// The key of tests/golden/v1, so that its encrypted objects open.
static KEY: LazyLock<DataKey> = LazyLock::new(|| {
    DataKey::new(Id(std::array::from_fn(|n| 0x40 + n as u8)), std::array::from_fn(|n| 0x80 + n as u8))
});

fuzz_target!(|bytes: &[u8]| {
    let mut object = bytes.to_vec();
    fit(&mut object);
    decode_all::object(&object, &KEY);
});

/// Makes lengths, checksums, version and magic of the trailer fit what stands before it, and the footer's field
/// of the format fit the trailer.
fn fit(object: &mut [u8]) {
    let length = object.len() as u64;
    let Some((rest, trailer)) = object.split_last_chunk_mut::<TRAILER_BYTES>() else { return };
    let footer_offset = u64::from_be_bytes(trailer[8..16].try_into().expect("8 bytes")) % (rest.len() as u64 + 1);
    let footer = &mut rest[footer_offset as usize..];
    trailer[8..16].copy_from_slice(&footer_offset.to_be_bytes());
    trailer[16..20].copy_from_slice(&(footer.len() as u32).to_be_bytes());
    trailer[20..24].copy_from_slice(&[0, 1, 0, 0]);
    let required = trailer[31] & 3;
    trailer[24..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, required]);
    trailer[40..48].copy_from_slice(&length.to_be_bytes());
    trailer[56..].copy_from_slice(b"VARVESEG");
    // Field 21 (tag, length 18), wherever it is.
    if let Some(at) = footer.windows(6).position(|w| w == [0, 21, 0, 0, 0, 18])
        && let Some(value) = footer.get_mut(at + 6..at + 24)
    {
        value[..2].copy_from_slice(&trailer[20..22]);
        value[2..].copy_from_slice(&trailer[24..40]);
    }
    let crc = crc32c::crc32c(footer).to_be_bytes();
    trailer[48..52].copy_from_slice(&crc);
    let crc = crc32c::crc32c(&trailer[..52]).to_be_bytes();
    trailer[52..56].copy_from_slice(&crc);
}
