//! CRC32C (Castagnoli; RFC 3720 appendix B.4), of everything that is stored.

/// Of `bytes`, as stored in frame tables, footers and trailers.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The result of a 32-bit algorithm, in a word for all.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_rfc_and_with_another_implementation() {
        assert_eq!(super::crc32c(&[0; 32]), 0x8a91_36aa);
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for n in (0..300).chain([4096, 65_535, 65_536, 100_000]) {
            assert_eq!(super::crc32c(&bytes[..n]), crc32c::crc32c(&bytes[..n]), "{n} bytes");
        }
    }
}
