//! Verdicts over epochs, case by case of the table in docs/ARCHIVE-FORMAT.md.
#![allow(clippy::unwrap_used, clippy::panic)]

use varve_archive::{ChainEpochs, LeaderAnswer, Verdict};
use varve_format::EpochStart;

fn chain(epochs: &[(i32, i64)], end: i64) -> ChainEpochs {
    let epochs: Vec<_> = epochs
        .iter()
        .map(|(epoch, start_offset)| EpochStart { epoch: *epoch, start_offset: *start_offset })
        .collect();
    ChainEpochs::new(&epochs, end)
}

fn answer(leader_epoch: i32, known: Option<(i32, i64)>) -> LeaderAnswer {
    LeaderAnswer { leader_epoch, known, log_start_offset: -1, log_end_offset: 77 }
}

#[test]
fn the_same_epoch_up_to_the_end_continues() {
    let chain = chain(&[(1, 0), (3, 50)], 100);
    assert_eq!(chain.last_epoch(), Some(3));
    assert_eq!(chain.judge(3, answer(5, Some((3, 100))), true), Verdict::Continues);
    assert_eq!(chain.judge(3, answer(3, Some((3, 130))), true), Verdict::Continues);
    assert_eq!(chain.judge(3, answer(5, Some((3, 99))), true), Verdict::DivergesAt(99));
}

#[test]
fn an_old_leader_is_stale() {
    assert_eq!(chain(&[(3, 0)], 10).judge(3, answer(2, Some((2, 50))), true), Verdict::Stale);
}

#[test]
fn an_older_epoch_that_both_have_is_where_they_part() {
    let chain = chain(&[(1, 0), (3, 50)], 100);
    assert_eq!(chain.judge(3, answer(5, Some((1, 70))), true), Verdict::DivergesAt(50));
    assert_eq!(chain.judge(3, answer(5, Some((1, 40))), true), Verdict::DivergesAt(40));
    let compacted = chain.compacted(true);
    let anew = Verdict::StartsAnewAt(-1);
    assert_eq!(compacted.judge(3, answer(5, Some((1, 40))), true), anew, "deleted keys must not rise again");
}

#[test]
fn an_epoch_that_the_chain_lacks_asks_on() {
    let chain = chain(&[(1, 0), (4, 50)], 100);
    assert_eq!(chain.judge(4, answer(5, Some((2, 60))), true), Verdict::Ask(1));
    assert_eq!(chain.judge(1, answer(5, Some((1, 55))), true), Verdict::DivergesAt(50));
    assert_eq!(chain.judge(4, answer(5, Some((0, 60))), false), Verdict::NeedsEpochsBelow(0));
    assert_eq!(chain.judge(4, answer(5, Some((0, 60))), true), Verdict::StartsAnewAt(-1));
}

#[test]
fn epochs_without_a_record_in_the_chain_count_for_nothing() {
    assert_eq!(chain(&[(1, 0), (3, 100)], 100).last_epoch(), Some(1));
    assert_eq!(chain(&[], 100).last_epoch(), None);
}

#[test]
fn a_leader_without_epochs_is_as_long_as_its_log() {
    let chain = chain(&[(1, 0)], 100);
    assert_eq!(chain.judge(1, answer(5, None), true), Verdict::DivergesAt(77));
}

#[test]
fn below_the_log_start_nothing_is_known_to_be_shared() {
    let chain = chain(&[(1, 0)], 100);
    let answer = LeaderAnswer { log_start_offset: 40, ..answer(3, Some((1, 40))) };
    assert_eq!(chain.judge(1, answer, true), Verdict::StartsAnewAt(40));
    let later = LeaderAnswer { known: Some((1, 41)), ..answer };
    assert_eq!(chain.judge(1, later, true), Verdict::DivergesAt(41));
    let behind = LeaderAnswer { log_start_offset: 120, known: Some((1, 120)), ..answer };
    assert_eq!(chain.judge(1, behind, true), Verdict::Continues, "a gap follows");
}

#[test]
fn a_leader_from_before_the_branch_is_stale() {
    let chain = chain(&[], 10).seen_under(4);
    assert!(chain.is_stale(3) && !chain.is_stale(4));
}

#[test]
fn an_epoch_that_ends_before_the_chain_has_it_is_not_shared() {
    // A gap hid where epoch 3 began; the leader's ends where the chain still has epoch 0, of another history.
    let chain = chain(&[(0, 2), (3, 6)], 20);
    let leader = LeaderAnswer { log_start_offset: 2, ..answer(7, Some((3, 4))) };
    assert_eq!(chain.judge(3, leader, true), Verdict::StartsAnewAt(2));
    assert_eq!(chain.judge(3, LeaderAnswer { known: Some((3, 7)), ..leader }, true), Verdict::DivergesAt(7));
}

#[test]
fn nothing_is_continued_below_where_the_lineage_begins() {
    let chain = chain(&[(1, 0), (4, 55)], 80).begins_at(50);
    let leader = LeaderAnswer { log_start_offset: 10, ..answer(5, Some((1, 45))) };
    assert_eq!(chain.judge(4, leader, true), Verdict::StartsAnewAt(10));
    assert_eq!(
        chain.judge(4, LeaderAnswer { known: Some((1, 52)), ..leader }, true),
        Verdict::DivergesAt(52)
    );
}

#[test]
fn a_branch_without_objects_goes_by_its_records_epoch() {
    let chain = chain(&[], 10).seen_under(4).begins_at(10);
    assert_eq!(chain.last_epoch(), Some(4));
    let emptied = LeaderAnswer { log_start_offset: 0, log_end_offset: 7, ..answer(8, Some((4, 3))) };
    assert_eq!(chain.judge(4, emptied, true), Verdict::StartsAnewAt(0));
    assert_eq!(chain.judge(4, answer(8, Some((4, 30))), true), Verdict::Continues);
}

#[test]
fn a_log_that_ends_below_the_chain_is_another_also_without_epochs() {
    let chain = chain(&[], 100);
    assert_eq!(chain.judge_without_epochs(answer(1, None)), Verdict::StartsAnewAt(-1));
    let longer = LeaderAnswer { log_end_offset: 100, ..answer(1, None) };
    assert_eq!(chain.judge_without_epochs(longer), Verdict::Continues);
}
