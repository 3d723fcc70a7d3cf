//! CRC32C (Castagnoli; RFC 3720 appendix B.4), of everything that is stored.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// Of `bytes`, as stored in frame tables, footers and trailers.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The result of a 32-bit algorithm, in a word for all.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Of all bytes so far, where `crc` is of those before `bytes`; of none it is 0.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_rfc_and_with_another_implementation() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for n in (0..300).chain([4096, 65_535, 65_536, 100_000]) {
            let (whole, expected) = (&bytes[..n], ::crc32c::crc32c(&bytes[..n]));
            assert_eq!(crc32c(whole), expected, "{n} bytes");
            for cut in [0, 1, n / 3, n] {
                let (a, b) = whole.split_at(cut.min(n));
                assert_eq!(crc32c_append(crc32c_append(0, a), b), expected, "{n} bytes, cut at {cut}");
            }
        }
    }
}
