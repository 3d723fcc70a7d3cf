//! What a built library asks of the system that loads it, read from its ELF bytes (64 bits, little-endian, as
//! all our platforms are).

use anyhow::{Context, Result, ensure};

const PT_DYNAMIC: u64 = 2;
const DT_NULL: u64 = 0;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_NODELETE: u64 = 0x8;
const DYNAMIC_ENTRY: usize = 16;

/// The newest `GLIBC_x.y` symbol version that is named anywhere in the file.
pub(crate) fn newest_glibc(bytes: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let versions =
        bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK).filter_map(|(at, _)| {
            let rest = &bytes[at + MARK.len()..];
            let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
            let mut parts = std::str::from_utf8(&rest[..end]).ok()?.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        });
    versions.max()
}

pub(crate) fn is_nodelete(bytes: &[u8]) -> Result<bool> {
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let headers_at = number(bytes, 32, 8)? as usize;
    let header_size = number(bytes, 54, 2)? as usize;
    for i in 0..number(bytes, 56, 2)? as usize {
        let header = headers_at + i * header_size;
        if number(bytes, header, 4)? == PT_DYNAMIC {
            return dynamic_flags(bytes, number(bytes, header + 8, 8)? as usize)
                .map(|f| f & DF_1_NODELETE != 0);
        }
    }
    Ok(false)
}

fn dynamic_flags(bytes: &[u8], mut at: usize) -> Result<u64> {
    loop {
        match number(bytes, at, 8)? {
            DT_FLAGS_1 => return number(bytes, at + 8, 8),
            DT_NULL => return Ok(0),
            _ => at += DYNAMIC_ENTRY,
        }
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    let field = bytes
        .get(at..at + length)
        .with_context(|| format!("the ELF file ends before byte {}", at + length))?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_found_by_number() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0"), Some((2, 34)));
        assert_eq!(newest_glibc(b"musl"), None);
    }

    /// This very test program is linked without the flag.
    #[test]
    fn nodelete_is_read_from_the_dynamic_section() {
        let mut me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_nodelete(&me).unwrap());
        me.truncate(200);
        assert!(is_nodelete(&me).is_err());
        assert!(is_nodelete(b"MZ").is_err());
    }
}
