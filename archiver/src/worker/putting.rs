//! What is held goes into the store: as a segment, or into the journal.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use varve_archive::Commit;
use varve_archive::record::state::JournalEntry;
use varve_format::Encryption;

use super::{BACKOFF_LASTING, Event, Notice, Purpose, Worker};
use crate::error::Result;
use crate::journal;
use crate::memory::Memory;
use crate::metrics::{FailureKind, PartitionState};
use crate::sealing::AtHand;
use crate::segment::{Begin, Closing, SegmentWriter, Style};
use crate::tail::{Hold, Key, Next, Phase, Saved, Tail};
use crate::transactions::OpenTransactions;

/// Snapshots name each: a partition that has this many in the journal is cut.
const JOURNAL_ENTRIES: usize = 64;

impl Worker {
    /// Stops reading; what is held goes into the store, then comes `next`.
    pub(super) async fn end(&mut self, key: Key, next: Next) {
        self.session.remove(key.0, key.1);
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if tail.phase == Phase::Opening || tail.phase == Phase::Resting {
            // Nothing is held.
            tail.generation += 1;
        }
        (tail.phase, tail.next) = (Phase::Ending, next);
        match next {
            // Somebody else goes on with it: what is little goes into the journal.
            Next::Move => self.let_go(key).await,
            _ => self.close(key).await,
        }
    }

    /// Whatever is held goes where it belongs: into a segment if it is much, else into the journal.
    pub(super) async fn let_go(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        let small = matches!(tail.hold, Hold::Small { .. });
        if self.shared.journal.is_none() || !small {
            return self.close(key).await;
        }
        if self.is_due_to_be_cut(key) {
            return self.close(key).await;
        }
        self.save(key).await;
    }

    pub(super) fn is_due_to_be_cut(&self, key: Key) -> bool {
        let Some(tail) = self.tails.get(&key) else { return false };
        let rules = &self.shared.rules;
        // What is read again to be cut would else go into the journal again, and again when memory is short.
        tail.cut_at.is_some()
            || tail.uncut_since.is_some_and(|since| since.elapsed() >= rules.age)
            || tail.entries.len() >= JOURNAL_ENTRIES
            || tail.held_bytes() >= rules.min_bytes
    }

    /// Puts what the journal doesn't have yet into it.
    pub(super) async fn save(&mut self, key: Key) {
        let Some(journal) = self.shared.journal.clone() else { return };
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if tail.is_busy() {
            return;
        }
        if tail.unsaved().is_empty() {
            if tail.phase == Phase::Ending {
                tail.hold = Hold::Nothing;
                self.go_on(key).await;
            }
            return;
        }
        let first_offset = tail.saved.end_offset;
        let seal = match tail.lane.seal_at_hand() {
            Ok(AtHand::Now(seal)) => Ok(seal),
            Ok(AtHand::Later) => return self.await_seal(key, Purpose::Journal),
            Err(error) => Err(error),
        };
        let made = seal.and_then(|seal| {
            journal::object(
                &tail.lane,
                &self.shared.style,
                seal,
                first_offset,
                tail.saved.epoch,
                tail.samples.few_since(tail.saved.observed_ms),
                tail.unsaved(),
            )
        });
        let (object, epoch) = match made {
            Ok(made) => made,
            Err(error) => {
                self.session.remove(key.0, key.1);
                return self.failed(key, &error);
            }
        };
        tail.saving = true;
        tail.held_since = None;
        let bytes = tail.saved.bytes + tail.unsaved().len();
        let observed_ms = tail.observed.time_ms;
        let saved = Saved { bytes, end_offset: tail.next_offset, epoch, observed_ms };
        let room = self.shared.memory.try_room(object.len()).unwrap_or_else(|| self.shared.memory.no_room());
        let (answer, answered) = oneshot::channel();
        let (lane, branch, room) = (tail.lane.clone(), tail.begin.branch, room.leave());
        let item = journal::Item { lane, branch, first_offset, object, room, answer };
        let (generation, send, open) = (tail.generation, self.send.clone(), tail.open.clone());
        tokio::spawn(async move {
            journal.put(item).await;
            let outcome = answered.await.unwrap_or_else(|_| Err("the journal was ended".to_owned()));
            let _ = send.send(Event::Saved { key, generation, saved, open, outcome });
        });
    }

    /// A key service may take its time: meanwhile what is held stays, and others go on.
    fn await_seal(&mut self, key: Key, purpose: Purpose) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        tail.sealing = true;
        if tail.phase == Phase::Reading && tail.held_bytes() >= self.shared.rules.segment_bytes {
            tail.phase = Phase::Full;
            self.session.remove(key.0, key.1);
        }
        let (lane, generation, send) = (tail.lane.clone(), tail.generation, self.send.clone());
        tokio::spawn(async move {
            let outcome = lane.seal().await.map(drop);
            let _ = send.send(Event::Sealed { key, generation, purpose, outcome });
        });
    }

    pub(super) async fn sealed(&mut self, key: Key, generation: u64, purpose: Purpose, outcome: Result<()>) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.generation == generation) else { return };
        tail.sealing = false;
        if tail.phase == Phase::Full && !tail.is_attached() {
            // It can't be committed as it is, and no commit will have it read on.
            tail.phase = Phase::Reading;
        }
        match (outcome, purpose) {
            (Ok(()), Purpose::Segment) => Box::pin(self.close(key)).await,
            // By now it may be as much as a segment.
            (Ok(()), Purpose::Journal) => Box::pin(self.let_go(key)).await,
            (Err(error), _) => {
                self.session.remove(key.0, key.1);
                self.failed(key, &error);
            }
        }
    }

    pub(super) async fn saved(
        &mut self,
        key: Key,
        generation: u64,
        saved: Saved,
        open: Option<OpenTransactions>,
        outcome: Result<JournalEntry, String>,
    ) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.generation == generation) else { return };
        tail.saving = false;
        match outcome {
            Ok(entry) => {
                tail.saved = saved;
                tail.entries.push(entry);
                let (branch, entries) = (tail.begin.branch, tail.entries.clone());
                self.shared.progress.archived(key, branch, tail.chain_end, entries, open.as_ref());
            }
            Err(error) => {
                tracing::warn!(partition = %tail.lane, %error, "not in the journal yet");
                self.shared.progress.failed_for(key, FailureKind::Store, &error);
                tail.held_since = Instant::now().checked_sub(self.shared.rules.hold / 2);
            }
        }
        if tail.phase == Phase::Ending {
            Box::pin(self.let_go(key)).await;
        }
    }

    /// Commits what is held, unless a commit is under way: then reading waits for it.
    pub(super) async fn close(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if tail.is_busy() {
            if tail.phase == Phase::Reading && tail.held_bytes() >= self.shared.rules.segment_bytes {
                tail.phase = Phase::Full;
                self.session.remove(key.0, key.1);
            }
            return;
        }
        if !tail.is_attached() {
            match tail.phase {
                Phase::Reading => return self.read_again(key),
                // What the journal doesn't have goes there; whoever comes next finds it.
                _ => return Box::pin(self.save(key)).await,
            }
        }
        let seal = match &tail.hold {
            Hold::Nothing => return self.go_on(key).await,
            // It has its own.
            Hold::Stream(_) => Ok(AtHand::Now(None)),
            Hold::Small { .. } => tail.lane.seal_at_hand(),
        };
        let made = match seal {
            Ok(AtHand::Later) => {
                self.await_seal(key, Purpose::Segment);
                return;
            }
            Ok(AtHand::Now(seal)) => close(tail, seal, &self.shared.style, &self.shared.memory).await,
            Err(error) => Err(error),
        };
        let (closing, next) = match made {
            Ok(made) => made,
            Err(error) => {
                self.session.remove(key.0, key.1);
                return self.failed(key, &error);
            }
        };
        tail.closing = true;
        tail.cut_at = None;
        tail.uncut_since = None;
        let (generation, end_offset) = (tail.generation, next.offset);
        let open = tail.open.clone();
        tail.hold_from(end_offset, next.epoch_before);
        tail.begin = next;
        let send = self.send.clone();
        tokio::spawn(async move {
            let outcome = closing.commit().await;
            let _ = send.send(Event::Closed { key, generation, end_offset, open, outcome });
        });
    }

    pub(super) async fn closed(
        &mut self,
        key: Key,
        generation: u64,
        end_offset: i64,
        open: Option<OpenTransactions>,
        outcome: Result<Commit>,
    ) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.generation == generation) else { return };
        match outcome {
            Ok(Commit::Committed) => {
                self.shared.progress.tally.segment(key);
                tail.closing = false;
                tail.chain_end = end_offset;
                tail.entries.retain(|entry| entry.end_offset > end_offset);
                // Where the journal has more than the chain, it is known what is open at the journal's end.
                let open = open.filter(|_| tail.entries.is_empty());
                let (branch, entries) = (tail.begin.branch, tail.entries.clone());
                self.shared.progress.archived(key, branch, end_offset, entries, open.as_ref());
                let full = tail.held_bytes() >= self.shared.rules.segment_bytes;
                if full || tail.phase == Phase::Ending {
                    Box::pin(self.close(key)).await;
                }
                self.read_on(key);
            }
            Ok(Commit::Lost(head)) => {
                tracing::info!(partition = %tail.lane, object = %head.name, "another archiver was first");
                self.shared.progress.tally.lost_race();
                let next = tail.next;
                self.session.remove(key.0, key.1);
                match next {
                    Next::Move => {
                        tail.drop_hold();
                        Box::pin(self.go_on(key)).await;
                    }
                    _ => self.open(key, false),
                }
            }
            Err(error) => {
                self.session.remove(key.0, key.1);
                self.failed(key, &error);
            }
        }
    }

    /// Reads on where reading waited for a commit.
    pub(super) fn read_on(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.phase == Phase::Full) else { return };
        tail.phase = Phase::Reading;
        self.read_from(key, None);
    }

    /// Nothing is held, nothing is under way.
    pub(super) async fn go_on(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.phase == Phase::Ending) else { return };
        match tail.next {
            Next::Read => {}
            Next::Open { refused } => self.open(key, refused),
            Next::Skip { end_offset } => self.open_behind(key, end_offset),
            Next::Rest => self.rest(key, Next::Open { refused: false }, Some(BACKOFF_LASTING)),
            Next::Move => self.rest(key, Next::Move, None),
            Next::Done => {
                tail.phase = Phase::Resting;
                self.shared.progress.tally.state(key, PartitionState::Done);
                self.tell(Notice::Done(key));
            }
        }
    }
}

/// The segment that what is held becomes. `seal` is for one that isn't begun yet.
pub(super) async fn stream(
    tail: &Tail,
    hold: Hold,
    seal: Option<Encryption>,
    style: &Arc<Style>,
    memory: &Arc<Memory>,
) -> Result<Box<SegmentWriter>> {
    let new = || {
        let (lane, begin) = (tail.lane.clone(), tail.begin.clone());
        SegmentWriter::new(lane, Arc::clone(style), seal, begin, memory.no_room())
    };
    match hold {
        Hold::Stream(writer) => Ok(writer),
        Hold::Nothing => Ok(Box::new(new()?)),
        Hold::Small { records, room } => {
            let mut writer = Box::new(new()?);
            writer.push(&records, room).await?;
            Ok(writer)
        }
    }
}

async fn close(
    tail: &mut Tail,
    seal: Option<Encryption>,
    style: &Arc<Style>,
    memory: &Arc<Memory>,
) -> Result<(Closing, Begin)> {
    let hold = std::mem::take(&mut tail.hold);
    let mut writer = stream(tail, hold, seal, style, memory).await?;
    writer.observe(tail.samples.take());
    writer.close()
}
