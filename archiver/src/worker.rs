//! All partitions that one broker leads: one fetch session, and what is held of each.
//!
//! One task owns all of it, so that nothing is locked. What waits for the store or for another broker (openings,
//! commits) runs in tasks of its own, and comes back as an event. A partition that has a commit under way goes on
//! being read, up to one more segment.

mod opening;
mod putting;
mod reading;
mod resting;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use varve_archive::Commit;
use varve_archive::record::state::JournalEntry;
use varve_format::Observed;
use varve_kafka::client::{Client, FetchLimits, FetchSession};

use crate::error::Result;
use crate::journal::Journal;
use crate::memory::{Memory, Room};
use crate::opening::Opened;
use crate::progress::Progress;
use crate::seam::Met;
use crate::segment::Style;
use crate::tail::{Hold, Key, Next, Phase, Saved, Tail};
use crate::transactions::OpenTransactions;

const TICK: Duration = Duration::from_millis(250);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A broker is asked for all that it leads at once: it may be asked more often than for a partition alone.
const BACKOFF_BROKER_MAX: Duration = Duration::from_secs(5);
/// For what will not go by itself: somebody must see to it.
const BACKOFF_LASTING: Duration = Duration::from_secs(60);

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

/// What a partition's key is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Segment,
    Journal,
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
    /// What is held can be sealed now, or why not.
    Sealed {
        key: Key,
        generation: u64,
        purpose: Purpose,
        outcome: Result<()>,
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
            Event::Sealed { key, generation, purpose, outcome } => {
                self.sealed(key, generation, purpose, outcome).await;
            }
            Event::Looked { key, generation, outcome } => self.looked(key, generation, outcome),
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
        let held = self.tails.iter().filter(|(_, t)| !t.is_busy() && t.held_bytes() > 0);
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
