//! All partitions that one broker leads: one fetch session, and what is held of each.
//!
//! One task owns all of it, so that nothing is locked. What waits for the store or for another broker (openings,
//! commits) runs in tasks of its own, and comes back as an event. A partition that has a commit under way goes on
//! being read, up to one more segment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use varve_archive::Commit;
use varve_archive::record::state::JournalEntry;
use varve_format::{EpochStart, Observed};
use varve_kafka::client::admin::{AdminError, NeededAcl};
use varve_kafka::client::{
    Client, FetchLimits, FetchProblem, FetchSession, FetchTarget, FetchedBatches, PartitionFetch,
};

use crate::clock;
use crate::error::{Error, Result};
use crate::intake::{self, Odd};
use crate::journal::{self, Journal};
use crate::memory::{Memory, Room};
use crate::metrics::{FailureKind, PartitionState};
use crate::opening::{Opened, Opening};
use crate::progress::Progress;
use crate::rescue;
use crate::seam::Met;
use crate::segment::{Begin, Closing, SegmentWriter, Style};
use crate::tail::{Hold, Key, Next, Phase, Saved, Tail};
use crate::transactions::OpenTransactions;

/// A fetch that brings more than this of one partition is streamed at once.
const STREAM_BYTES: usize = 1 << 20;
/// Snapshots name each: a partition that has this many in the journal is cut.
const JOURNAL_ENTRIES: usize = 64;
/// With this many holes, a topic was compacted once, whatever its policy is now.
const HOLES_MAX: u32 = 16;
const TICK: Duration = Duration::from_millis(250);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// For what will not go by itself: somebody must see to it.
const BACKOFF_LASTING: Duration = Duration::from_secs(60);
/// A leader that stays older than the archive for so long will not catch up by itself.
const STALE_PATIENCE: Duration = Duration::from_secs(60);

/// When what is held goes into the store.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) segment_bytes: u64,
    pub(crate) min_bytes: u64,
    /// How long something is held in memory alone.
    pub(crate) hold: Duration,
    /// How long something is in no segment.
    pub(crate) age: Duration,
}

pub(crate) enum Command {
    /// New ones, and those whose leader changed.
    Take(Vec<Tail>),
    /// What is held goes into the store, then the partitions come back.
    Give(Vec<Key>),
    /// What is held goes into the store.
    Flush,
}

/// What the service must see to.
#[derive(Debug)]
pub(crate) enum Notice {
    /// All that was wanted of it is archived.
    Done(Key),
    /// Somebody else leads it.
    Moved(Key),
    /// There is no such topic any more.
    Gone(Key),
    /// It can't go on for now; it is tried again.
    Failed(Key, String),
    /// It has failed, and it won't go by itself: what could be archived is.
    Stuck(Key),
}

enum Event {
    Opened {
        key: Key,
        generation: u64,
        outcome: Result<Opened>,
    },
    Closed {
        key: Key,
        generation: u64,
        end_offset: i64,
        open: Option<OpenTransactions>,
        outcome: Result<Commit>,
    },
    Saved {
        key: Key,
        generation: u64,
        saved: Saved,
        open: Option<OpenTransactions>,
        outcome: Result<JournalEntry, String>,
    },
    Looked {
        key: Key,
        generation: u64,
        outcome: Result<Vec<Observed>>,
    },
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) style: Arc<Style>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) progress: Arc<Progress>,
    /// Without one, all that is held becomes segments.
    pub(crate) journal: Option<Journal>,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    pub(crate) read_rate: Arc<varve_store::Rate>,
    pub(crate) met: Arc<Met>,
}

pub(crate) struct Worker {
    shared: Shared,
    session: FetchSession,
    tails: HashMap<Key, Tail>,
    events: mpsc::UnboundedReceiver<Event>,
    send: mpsc::UnboundedSender<Event>,
    fetch_failures: u32,
    fetch_not_before: Option<Instant>,
    /// While our own limit makes it wait: up to when that is counted.
    limited_since: Option<Instant>,
}

/// A running worker. Dropping it ends the worker: what it held will be read again.
pub(crate) struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    pub(crate) fn start(shared: Shared, node_id: i32, limits: FetchLimits) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (send, events) = mpsc::unbounded_channel();
        let session = FetchSession::new(&shared.client, node_id, limits);
        let worker = Worker {
            shared,
            session,
            tails: HashMap::new(),
            events,
            send,
            fetch_failures: 0,
            fetch_not_before: None,
            limited_since: None,
        };
        Self { commands, task: tokio::spawn(worker.run(receiver)) }
    }
}

impl Worker {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let memory = Arc::clone(&self.shared.memory);
        loop {
            self.beat();
            let may_fetch = !self.session.is_empty();
            let not_before = self.fetch_not_before;
            let fetch = async {
                if let Some(until) = not_before {
                    tokio::time::sleep_until(until.into()).await;
                }
                self.session.next().await
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                Some(event) = self.events.recv() => self.event(event).await,
                fetched = fetch, if may_fetch => match fetched {
                    Ok(answer) => {
                        (self.fetch_failures, self.fetch_not_before) = (0, None);
                        self.answer(answer.unwrap_or_default()).await;
                    }
                    Err(error) => self.fetch_failed(&error).await,
                },
                () = memory.wanted() => self.relieve().await,
                _ = tick.tick() => self.tick().await,
            }
        }
    }

    fn beat(&mut self) {
        let (now, tally) = (Instant::now(), &self.shared.progress.tally);
        tally.worker_beat(self.session.node_id(), self.session.throttled());
        if let Some(since) = self.limited_since {
            tally.limited(now.duration_since(since));
            self.limited_since = self.fetch_not_before.filter(|until| *until > now).map(|_| now);
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Take(tails) => {
                for tail in tails {
                    let key = tail.key();
                    self.session.remove(key.0, key.1);
                    self.tails.insert(key, tail);
                    self.open(key, false);
                }
            }
            Command::Give(keys) => {
                for key in keys {
                    self.end(key, Next::Move).await;
                }
            }
            Command::Flush => {
                let keys: Vec<Key> = self.tails.keys().copied().collect();
                for key in keys {
                    self.let_go(key).await;
                }
            }
        }
    }

    fn open(&mut self, key: Key, refused: bool) {
        self.open_with(key, refused, None);
    }

    /// Says that the log has nothing before `end_offset`, and goes on there.
    fn open_behind(&mut self, key: Key, end_offset: i64) {
        let hole = self.tails.get(&key).map(|tail| (tail.chain_end, end_offset));
        self.open_with(key, false, hole);
    }

    fn open_with(&mut self, key: Key, refused: bool, hole: Option<(i64, i64)>) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        self.shared.progress.tally.state(key, PartitionState::Opening);
        tail.drop_hold();
        tail.phase = Phase::Opening;
        tail.next = Next::Read;
        let (lane, leader, generation) = (tail.lane.clone(), tail.leader, tail.generation);
        let (entries, seen_ms) = (tail.entries.clone(), tail.seen_ms);
        let (shared, send) = (self.shared.clone(), self.send.clone());
        tokio::spawn(async move {
            let opening = Opening {
                lane: &lane,
                client: &shared.client,
                style: &shared.style,
                leader,
                entries: &entries,
                seen_ms,
                refused,
                hole,
                tally: &shared.progress.tally,
                met: &shared.met,
            };
            let outcome = opening.run().await;
            // The worker may have ended.
            let _ = send.send(Event::Opened { key, generation, outcome });
        });
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Opened { key, generation, outcome } => {
                if self.tails.get(&key).is_none_or(|t| t.generation != generation) {
                    return;
                }
                match outcome {
                    Ok(Opened::Ready(standing)) => self.opened(key, &standing).await,
                    Ok(Opened::Stale) => self.stale(key),
                    Ok(Opened::Gone) => self.gone(key),
                    Err(error) => self.failed(key, &error),
                }
            }
            Event::Closed { key, generation, end_offset, open, outcome } => {
                self.closed(key, generation, end_offset, open, outcome).await;
            }
            Event::Saved { key, generation, saved, open, outcome } => {
                self.saved(key, generation, saved, open, outcome).await;
            }
            Event::Looked { key, generation, outcome } => self.looked(key, generation, outcome),
        }
    }

    async fn opened(&mut self, key: Key, standing: &crate::standing::Standing) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        self.shared.met.is_current(key);
        self.shared.progress.tally.state(key, PartitionState::Reading);
        tail.begin = standing.begin();
        tail.chain_end = standing.end_offset;
        tail.phase = Phase::Reading;
        let (mut offset, mut epoch) = (standing.end_offset, tail.begin.epoch_before);
        let mut journal = Vec::new();
        if self.shared.journal.is_some() {
            journal.clone_from(&standing.journal);
            tail.entries.clone_from(&standing.journal);
        }
        if tail.samples.is_empty() {
            tail.inherited.clone_from(&journal);
        }
        if let Some(last) = journal.last() {
            offset = last.end_offset;
            let known = last.leader_epochs.iter().rev().find(|e| e.start_offset < offset);
            epoch = known.map(|e| EpochStart { epoch: e.epoch, start_offset: e.start_offset });
        }
        tail.open = tail.begin.open_transactions().filter(|_| journal.is_empty());
        tail.next_offset = offset;
        tail.hold_from(offset, epoch);
        tail.uncut_since = (!journal.is_empty()).then(Instant::now);
        let open = tail.open.as_ref();
        self.shared.progress.archived(key, tail.begin.branch, tail.chain_end, journal, open);
        // Also where nothing is left to read: the leader is to say that it has what the chain has.
        self.read_from(key, epoch.map(|e| e.epoch));
    }

    /// Asks the leader for what comes at the partition's next offset, behind a record of `last_fetched_epoch`.
    fn read_from(&mut self, key: Key, last_fetched_epoch: Option<i32>) {
        let Some(tail) = self.tails.get(&key) else { return };
        let leader_epoch = Some(tail.leader.epoch);
        let target = FetchTarget::new(key.0, key.1, tail.next_offset);
        self.session.set(FetchTarget { leader_epoch, last_fetched_epoch, ..target });
    }

    async fn answer(&mut self, answer: Vec<PartitionFetch>) {
        let bytes: usize = answer.iter().filter_map(|f| Some(f.outcome.as_ref().ok()?.records.len())).sum();
        self.pay(bytes as u64);
        let now_ms = clock::now_ms();
        for fetch in answer {
            let key = (fetch.topic_id, fetch.partition);
            let reads = |t: &Tail| matches!(t.phase, Phase::Reading) && t.next_offset == fetch.from_offset;
            if !self.tails.get(&key).is_some_and(reads) {
                continue;
            }
            match fetch.outcome {
                Ok(batches) => {
                    if let Err(error) = self.take(key, batches, now_ms).await {
                        self.session.remove(key.0, key.1);
                        self.failed(key, &error);
                    }
                }
                Err(problem) => self.problem(key, problem).await,
            }
        }
    }

    /// What has come is taken; what comes next waits, and the worker goes on meanwhile.
    fn pay(&mut self, bytes: u64) {
        let Some(next) = self.shared.read_rate.pay(bytes) else { return };
        self.fetch_not_before = Some(next.into_std());
        self.limited_since = Some(Instant::now());
    }

    async fn take(&mut self, key: Key, mut batches: FetchedBatches, came_ms: i64) -> Result<()> {
        let Some(tail) = self.tails.get(&key) else { return Ok(()) };
        let dense = tail.lane.topic.delete_retention_ms.is_none() && tail.holes < HOLES_MAX;
        let mut open = tail.open.clone();
        let intake = intake::examine(&batches.records, tail.next_offset, dense, open.as_mut());
        batches.records.truncate(intake.bytes);
        batches.next_offset = intake.next_offset;
        let room = self.room(batches.records.len()).await;
        let (style, rules, memory) =
            (Arc::clone(&self.shared.style), Arc::clone(&self.shared.rules), Arc::clone(&self.shared.memory));
        // While there was no room, a commit may have been lost, and the partition be opened again.
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.phase == Phase::Reading) else {
            return Ok(());
        };
        tail.failures = 0;
        tail.log_start_offset = batches.log_start_offset;
        tail.observe(Observed {
            time_ms: came_ms,
            high_watermark: batches.high_watermark,
            last_stable_offset: batches.last_stable_offset.unwrap_or(batches.high_watermark),
        });
        self.shared.progress.seen(key, tail.next_offset, &batches);
        if !batches.records.is_empty() {
            tail.held_since.get_or_insert_with(Instant::now);
            tail.uncut_since.get_or_insert_with(Instant::now);
            let attached = tail.is_attached();
            tail.hold = match std::mem::take(&mut tail.hold) {
                Hold::Nothing if batches.records.len() < STREAM_BYTES || !attached => {
                    Hold::Small { records: batches.records.to_vec(), room }
                }
                Hold::Small { mut records, room: mut held }
                    if ((records.len() + batches.records.len()) as u64) < rules.min_bytes || !attached =>
                {
                    records.extend_from_slice(&batches.records);
                    held.join(room);
                    Hold::Small { records, room: held }
                }
                hold => {
                    let mut writer = stream(tail, hold, &style, &memory).await?;
                    writer.push(&batches.records, room).await?;
                    Hold::Stream(writer)
                }
            };
            tail.next_offset = batches.next_offset;
            tail.open = open;
        }
        let Observed { high_watermark, last_stable_offset, .. } = tail.observed;
        if tail.next_offset == high_watermark && high_watermark == last_stable_offset {
            tail.open.get_or_insert_default();
            self.shared.progress.nothing_open(key, tail.next_offset);
        }
        if let Some(odd) = intake.odd {
            self.odd(key, odd).await
        } else if tail.is_at_stop() {
            self.end(key, Next::Done).await;
        } else if tail.cut_at.is_some_and(|cut| tail.next_offset >= cut)
            || tail.held_bytes() >= rules.segment_bytes
            || (!tail.is_attached() && tail.held_bytes() >= rules.min_bytes)
        {
            self.close(key).await;
        }
        Ok(())
    }

    /// What is before it goes into the store first.
    async fn odd(&mut self, key: Key, odd: Odd) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        match odd {
            Odd::Hole { end_offset } => {
                tail.holes += 1;
                let first_offset = tail.next_offset;
                tracing::error!(
                    partition = %tail.lane, first_offset, end_offset,
                    "the log has no batch for these offsets, though its topic is not compacted"
                );
                if tail.holes == HOLES_MAX {
                    tracing::warn!(partition = %tail.lane, "taken for a topic that was compacted once");
                }
                self.end(key, Next::Skip { end_offset }).await;
            }
            Odd::Corrupt(source) => {
                let what = format!("{} at offset {}", tail.lane, tail.next_offset);
                let error = Error::Batches { what, source };
                tracing::error!(partition = %tail.lane, %error, "the broker's bytes are corrupt");
                self.refused(key, &error).await;
            }
        }
    }

    async fn problem(&mut self, key: Key, problem: FetchProblem) {
        let Some(tail) = self.tails.get(&key) else { return };
        tracing::debug!(partition = %tail.lane, %problem, "a fetch gave nothing");
        match problem {
            FetchProblem::OffsetOutOfRange | FetchProblem::Diverged { .. } => {
                self.end(key, Next::Open { refused: true }).await;
            }
            FetchProblem::UnknownTopicId => {
                // Also while a broker has not heard of the topic yet: the service knows.
                self.end(key, Next::Move).await;
            }
            problem if problem.is_retriable() => self.end(key, Next::Move).await,
            problem => {
                let error = match problem {
                    FetchProblem::NotAuthorized => {
                        let needs = NeededAcl::on_topic("Read", &tail.lane.topic.name);
                        AdminError::NotAuthorized { what: tail.lane.to_string(), needs }.into()
                    }
                    problem => Error::unexpected(&tail.lane, "record batches", problem),
                };
                tracing::warn!(
                    partition = %tail.lane, %error, again_in_ms = BACKOFF_LASTING.as_millis() as u64,
                    "can't go on"
                );
                self.refused(key, &error).await;
            }
        }
    }

    /// For what won't go by itself: what is held goes into the store, then the partition rests.
    async fn refused(&mut self, key: Key, error: &Error) {
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.trouble = Some((FailureKind::of(error), error.to_string()));
        }
        self.tell(Notice::Failed(key, error.to_string()));
        self.end(key, Next::Rest).await;
    }

    /// Stops reading; what is held goes into the store, then comes `next`.
    async fn end(&mut self, key: Key, next: Next) {
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
    async fn let_go(&mut self, key: Key) {
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

    fn is_due_to_be_cut(&self, key: Key) -> bool {
        let Some(tail) = self.tails.get(&key) else { return false };
        let rules = &self.shared.rules;
        // What is read again to be cut would else go into the journal again, and again when memory is short.
        tail.cut_at.is_some()
            || tail.uncut_since.is_some_and(|since| since.elapsed() >= rules.age)
            || tail.entries.len() >= JOURNAL_ENTRIES
            || tail.held_bytes() >= rules.min_bytes
    }

    /// Puts what the journal doesn't have yet into it.
    async fn save(&mut self, key: Key) {
        let Some(journal) = self.shared.journal.clone() else { return };
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if tail.saving || tail.closing {
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
        let made = journal::object(
            &tail.lane,
            &self.shared.style,
            first_offset,
            tail.saved.epoch,
            tail.samples.few_since(tail.saved.observed_ms),
            tail.unsaved(),
        );
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

    async fn saved(
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

    /// What is held can't be committed, since what is before it is in the journal alone: it is read again.
    fn read_again(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        let (begin, epoch) = (tail.begin.offset, tail.begin.epoch_before);
        tail.cut_at = Some(tail.next_offset);
        tail.next_offset = begin;
        tail.open = tail.begin.open_transactions();
        tail.hold_from(begin, epoch);
        if tail.inherited.is_empty() {
            return self.read_from(key, epoch.map(|e| e.epoch));
        }
        tail.phase = Phase::Opening;
        self.session.remove(key.0, key.1);
        let (lane, inherited, generation) = (tail.lane.clone(), tail.inherited.clone(), tail.generation);
        let send = self.send.clone();
        tokio::spawn(async move {
            let outcome = rescue::looks(&lane, &inherited).await;
            let _ = send.send(Event::Looked { key, generation, outcome });
        });
    }

    /// What was seen when the journal's entries were written goes into the segment that takes their place.
    fn looked(&mut self, key: Key, generation: u64, outcome: Result<Vec<Observed>>) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.generation == generation) else { return };
        tail.inherited.clear();
        match outcome {
            Ok(looks) => tail.samples.inherit(looks),
            Err(error) => {
                tracing::warn!(partition = %tail.lane, %error, "what earlier archivers saw of it can't be read");
            }
        }
        tail.phase = Phase::Reading;
        let epoch = tail.begin.epoch_before;
        self.read_from(key, epoch.map(|e| e.epoch));
    }

    /// Commits what is held, unless a commit is under way: then reading waits for it.
    async fn close(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if tail.closing || tail.saving {
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
        let hold = match std::mem::take(&mut tail.hold) {
            Hold::Nothing => return self.go_on(key).await,
            hold => hold,
        };
        let made = close(tail, hold, &self.shared.style, &self.shared.memory).await;
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

    async fn closed(
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
    fn read_on(&mut self, key: Key) {
        let Some(tail) = self.tails.get_mut(&key).filter(|t| t.phase == Phase::Full) else { return };
        tail.phase = Phase::Reading;
        self.read_from(key, None);
    }

    /// Nothing is held, nothing is under way.
    async fn go_on(&mut self, key: Key) {
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

    /// Waits for the service, or for a time.
    fn rest(&mut self, key: Key, next: Next, pause: Option<Duration>) {
        self.session.remove(key.0, key.1);
        let Some(tail) = self.tails.get_mut(&key) else { return };
        tail.drop_hold();
        (tail.phase, tail.next) = (Phase::Resting, next);
        tail.rest_until = pause.map(|pause| Instant::now() + pause);
        // Said last, since every commit before it is a success.
        if let Some((kind, why)) = tail.trouble.take() {
            self.shared.progress.failed_for(key, kind, &why);
        }
        self.shared.progress.tally.state(key, PartitionState::Resting);
        if pause == Some(BACKOFF_LASTING) {
            self.tell(Notice::Stuck(key));
        }
        if next == Next::Move && pause.is_none() {
            self.shared.progress.tally.state(key, PartitionState::Waiting);
            self.tails.remove(&key);
            self.tell(Notice::Moved(key));
        }
    }

    /// The leader that we know is an old one, or its cluster is older than the archive: it is asked for anew, less
    /// and less often.
    fn stale(&mut self, key: Key) {
        let (times, lasting) = self.shared.met.stale(key);
        if lasting > STALE_PATIENCE {
            let Some(tail) = self.tails.get(&key) else { return };
            let why = format!(
                "leader epoch {} is older than what is archived: was the cluster restored, or made anew?",
                tail.leader.epoch
            );
            tracing::error!(partition = %tail.lane, why, "nothing is archived");
            self.shared.progress.failed_for(key, FailureKind::Cluster, &why);
        }
        self.rest(key, Next::Move, (times > 1).then(|| backoff(times)));
    }

    fn gone(&mut self, key: Key) {
        self.session.remove(key.0, key.1);
        self.tails.remove(&key);
        self.tell(Notice::Gone(key));
    }

    fn failed(&mut self, key: Key, error: &Error) {
        let Some(tail) = self.tails.get_mut(&key) else { return };
        tail.failures += 1;
        let pause = match error.is_passing() {
            true => backoff(tail.failures),
            false => BACKOFF_LASTING,
        };
        tracing::warn!(partition = %tail.lane, %error, again_in_ms = pause.as_millis() as u64, "can't go on");
        self.shared.progress.failed(key, error);
        self.tell(Notice::Failed(key, error.to_string()));
        self.rest(key, Next::Open { refused: false }, Some(pause));
    }

    /// The broker, or the way to it, is in trouble: what was held is kept, and the leaders may be others soon.
    async fn fetch_failed(&mut self, error: &varve_kafka::client::ClientError) {
        self.fetch_failures += 1;
        let pause = backoff(self.fetch_failures);
        tracing::warn!(broker = self.session.node_id(), %error, "a fetch failed");
        self.shared.progress.tally.error(FailureKind::of_client(error));
        self.fetch_not_before = Some(Instant::now() + pause);
        if self.fetch_failures > 1 {
            let keys: Vec<Key> = self.session.targets().map(|t| (t.topic_id, t.partition)).collect();
            for key in keys {
                self.end(key, Next::Move).await;
            }
        }
    }

    fn tell(&self, notice: Notice) {
        // Without a service, nobody needs to know.
        let _ = self.shared.notices.send(notice);
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let hold = self.shared.rules.hold;
        let due = |t: &Tail| t.held_since.is_some_and(|since| now.duration_since(since) >= hold);
        let keys: Vec<Key> = self.tails.iter().filter(|(_, t)| due(t)).map(|(key, _)| *key).collect();
        for key in keys {
            self.let_go(key).await;
        }
        let age = self.shared.rules.age;
        let old =
            |t: &Tail| t.phase == Phase::Reading && t.uncut_since.is_some_and(|since| since.elapsed() >= age);
        let keys: Vec<Key> = self.tails.iter().filter(|(_, t)| old(t)).map(|(key, _)| *key).collect();
        for key in keys {
            self.close(key).await;
        }
        let rested = |t: &Tail| t.phase == Phase::Resting && t.rest_until.is_some_and(|until| until <= now);
        let keys: Vec<Key> = self.tails.iter().filter(|(_, t)| rested(t)).map(|(key, _)| *key).collect();
        for key in keys {
            match self.tails.get(&key).map(|t| t.next) {
                Some(Next::Move) => self.rest(key, Next::Move, None),
                next => self.open(key, next == Some(Next::Open { refused: true })),
            }
        }
    }

    /// Room for what has arrived. Meanwhile what is held goes into the store.
    async fn room(&mut self, bytes: usize) -> Room {
        loop {
            if let Some(room) = self.shared.memory.try_room(bytes) {
                return room;
            }
            if self.shared.memory.is_stuck() {
                self.relieve().await;
            }
            let memory = Arc::clone(&self.shared.memory);
            memory.freed().await;
            self.beat();
            while let Ok(event) = self.events.try_recv() {
                Box::pin(self.event(event)).await;
            }
        }
    }

    /// The largest that is held goes into the store, or out of memory if the journal has it.
    async fn relieve(&mut self) {
        let held = self.tails.iter().filter(|(_, t)| !t.closing && !t.saving && t.held_bytes() > 0);
        let largest = held.max_by_key(|(_, t)| t.held_bytes()).map(|(key, _)| *key);
        let Some(key) = largest else { return };
        let Some(tail) = self.tails.get_mut(&key) else { return };
        if matches!(tail.hold, Hold::Small { .. }) && tail.unsaved().is_empty() {
            let (offset, epoch) = (tail.next_offset, tail.saved.epoch);
            tail.hold_from(offset, epoch);
            return;
        }
        Box::pin(self.let_go(key)).await;
    }
}

fn backoff(failures: u32) -> Duration {
    (BACKOFF_MIN * 2_u32.pow(failures.min(8))).min(BACKOFF_MAX)
}

async fn stream(
    tail: &Tail,
    hold: Hold,
    style: &Arc<Style>,
    memory: &Arc<Memory>,
) -> Result<Box<SegmentWriter>> {
    let new =
        || SegmentWriter::new(tail.lane.clone(), Arc::clone(style), tail.begin.clone(), memory.no_room());
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
    hold: Hold,
    style: &Arc<Style>,
    memory: &Arc<Memory>,
) -> Result<(Closing, Begin)> {
    let mut writer = stream(tail, hold, style, memory).await?;
    writer.observe(tail.samples.take());
    writer.close()
}
