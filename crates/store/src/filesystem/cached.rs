//! What the page cache has, without waiting for the disk.
//!
//! Such a read is a copy, and needs no thread of its own: the bytes stay in the cache of the core that looks at
//! them next. It is a hint: what the kernel does not give at once, or on another system, is read elsewhere.

use std::os::fd::OwnedFd;

use bytes::BytesMut;

/// Appends `wanted` bytes from `position` on; if not all of them are at hand, the buffer stays as it is.
#[cfg(target_os = "linux")]
pub(super) fn append(file: &OwnedFd, buffer: &mut BytesMut, wanted: usize, position: u64) -> bool {
    use std::os::fd::AsRawFd;

    buffer.reserve(wanted);
    let room = buffer.spare_capacity_mut();
    let Ok(offset) = i64::try_from(position) else { return false };
    let part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: wanted.min(room.len()) };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `part` is room that is ours alone.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) };
    if usize::try_from(read) != Ok(wanted) {
        return false;
    }
    // SAFETY: the kernel has just filled these bytes, and there is room for them.
    unsafe { buffer.set_len(buffer.len() + wanted) };
    true
}

#[cfg(not(target_os = "linux"))]
pub(super) fn append(_: &OwnedFd, _: &mut BytesMut, _: usize, _: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn all_or_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"sediment").unwrap();
        let file = OwnedFd::from(file);
        let mut buffer = BytesMut::from(&b"> "[..]);
        // Elsewhere than on Linux it gives nothing.
        if append(&file, &mut buffer, 4, 4) {
            assert_eq!(&buffer[..], b"> ment");
        }
        let before = buffer.clone();
        assert!(!append(&file, &mut buffer, 4, 6), "longer than the file");
        assert!(!append(&file, &mut buffer, 4, u64::MAX));
        assert_eq!(buffer, before);
    }
}
