//! Whether epochs came twice: a volume, or the cluster's metadata, were restored or cloned, and leaders count again
//! from an epoch that the chain already has. Then equal epochs say nothing. Pure.
//!
//! What can't be the same by chance is compared: the last batch before the chain's end, and where the last epoch
//! begins. A difference means a branch without a parent, of reason `restored`.

/// What one side has at the end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seam {
    /// The last batch that begins below the chain's end.
    pub last_batch: Option<SeamBatch>,
    /// Where the chain's last epoch begins, if that is known: not of one whose start was raised.
    pub epoch_start: Option<i64>,
}

/// A batch as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeamBatch {
    pub base_offset: i64,
    /// As stored in it.
    pub crc: u32,
}

/// Whether the leader has another history under the same epochs. What was compacted or is below the log's start
/// can't be compared: a cleaner rewrites batches, and an epoch's start moves with the log's.
pub fn is_restored(chain: &Seam, leader: &Seam, log_start_offset: i64, compacted: bool) -> bool {
    let starts = match (chain.epoch_start, leader.epoch_start) {
        (Some(ours), Some(theirs)) => ours != theirs && ours > log_start_offset && theirs > log_start_offset,
        _ => false,
    };
    let batches = match (chain.last_batch, leader.last_batch) {
        (Some(ours), theirs) => !compacted && ours.base_offset >= log_start_offset && theirs != Some(ours),
        (None, _) => false,
    };
    starts || batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seam(base_offset: i64, crc: u32, epoch_start: i64) -> Seam {
        Seam { last_batch: Some(SeamBatch { base_offset, crc }), epoch_start: Some(epoch_start) }
    }

    #[test]
    fn another_batch_or_another_start_is_another_history() {
        let chain = seam(90, 7, 50);
        assert!(!is_restored(&chain, &chain, 0, false));
        assert!(is_restored(&chain, &seam(90, 8, 50), 0, false));
        assert!(is_restored(&chain, &seam(88, 7, 50), 0, false));
        assert!(is_restored(&chain, &seam(90, 7, 51), 0, false));
        assert!(is_restored(&chain, &Seam { last_batch: None, ..chain }, 0, false));
    }

    #[test]
    fn what_is_gone_is_not_compared() {
        let chain = seam(90, 7, 50);
        assert!(!is_restored(&chain, &seam(90, 7, 60), 60, false), "raised to the log's start");
        assert!(!is_restored(&chain, &Seam { last_batch: None, epoch_start: None }, 91, false));
        assert!(!is_restored(&chain, &seam(89, 8, 50), 0, true), "the cleaner was there");
        assert!(is_restored(&chain, &seam(89, 8, 49), 0, true));
    }
}
