//! Memory that was freed, and that the allocator keeps.
//!
//! Buffers of some MiB come and go all the time. Given back to the kernel each time, every page of them costs a fault
//! and is zeroed when it is taken again: half of the processor time of a verification. So the process [keeps](keep)
//! them. But what a quiet partition holds stays among answers that have gone: a thousand partitions read at once leave
//! holes of half the budget again. So an archiver gives those back when they are too much, and only then.

use std::sync::Weak;
use std::time::Duration;

use crate::memory::Memory;

const LOOK: Duration = Duration::from_millis(200);
/// Where half of what is allowed is resident.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// The most that glibc takes: larger buffers are mapped one by one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAP_FROM_BYTES: libc::c_int = 32 << 20;
/// What is worth a walk through all that is free.
const WORTH_BYTES: u64 = 8 << 20;

/// Of the whole process; `None` where the kernel doesn't tell.
pub(crate) fn bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Gives holes back while there is a budget, whenever the process has more than `allowed_bytes`.
pub(crate) async fn hold(allowed_bytes: u64, budget: Weak<Memory>) {
    let mut limit = allowed_bytes;
    while budget.strong_count() > 0 {
        let Some(mut resident) = bytes() else { return };
        if resident > limit && tokio::task::spawn_blocking(give_back).await.is_ok() {
            resident = bytes().unwrap_or(resident);
            // What is left is in use.
            limit = u64::MAX;
        }
        limit = limit.min(resident.saturating_add(WORTH_BYTES)).max(allowed_bytes);
        tokio::time::sleep(if resident > allowed_bytes / 2 { LOOK_SOON } else { LOOK }).await;
    }
}

/// What a process frees, it keeps for itself. For the beginning of `main`; elsewhere than with glibc it does nothing.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and says how later calls behave.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: it takes no pointer, and frees nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn holes_are_given_back() {
        const PAGE: usize = 4096;
        // Too small to be mapped one by one, and every 16th stays.
        let mut pages: Vec<Option<Box<[u8]>>> =
            (0..50_000).map(|_| Some(vec![1_u8; 2 * PAGE].into_boxed_slice())).collect();
        for (number, page) in pages.iter_mut().enumerate() {
            if number % 16 != 0 {
                *page = None;
            }
        }
        let before = bytes().unwrap_or_default();
        give_back();
        let after = bytes().unwrap_or_default();
        assert!(after > 0 && after + (200 << 20) < before, "{before} {after}");
        assert_eq!(pages.iter().flatten().count(), 3125);
    }
}
