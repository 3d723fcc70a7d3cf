//! Memory that was freed, and that the allocator keeps.
//!
//! Answers of many sizes come and go, and what a quiet partition holds stays among them: glibc keeps the holes, half
//! of the budget again where a thousand partitions are read at once. Mapping each answer by itself would cost twice
//! the processor time; so the holes are given back when they are too much, and only then.

use std::sync::Weak;
use std::time::Duration;

use crate::memory::Memory;

const LOOK: Duration = Duration::from_millis(200);
/// Where half of what is allowed is resident.
const LOOK_SOON: Duration = Duration::from_millis(20);
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
