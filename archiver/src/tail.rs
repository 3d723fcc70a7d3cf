//! One partition in work: what is held of it, and what is under way.

use std::time::Instant;

use varve_archive::record::state::JournalEntry;
use varve_format::{EpochStart, Id, Observed};

use crate::memory::Room;
use crate::metrics::FailureKind;
use crate::opening::Leader;
use crate::samples::Samples;
use crate::segment::{Begin, Lane, SegmentWriter};
use crate::transactions::OpenTransactions;

/// Topic id and partition.
pub(crate) type Key = (Id, i32);

/// Batches that are in memory, or on their way, and not visible in the store.
#[derive(Default)]
pub(crate) enum Hold {
    #[default]
    Nothing,
    /// As they came: little.
    Small { records: Vec<u8>, room: Room },
    /// In the making.
    Stream(Box<SegmentWriter>),
}

/// What comes next, once nothing is held and nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Read,
    /// Look at the store again; the source may have refused to go on.
    Open {
        refused: bool,
    },
    /// The log has nothing up to here, and should.
    Skip {
        end_offset: i64,
    },
    /// Somebody must see to it: it is tried again later.
    Rest,
    /// Ask the service who leads it now.
    Move,
    /// All that was wanted is in the store.
    Done,
}

/// How much of what is held the journal has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Of [`Hold::Small`]'s records.
    pub(crate) bytes: usize,
    pub(crate) end_offset: i64,
    /// The last epoch before `end_offset`.
    pub(crate) epoch: Option<EpochStart>,
    /// When the source was seen as the journal says last.
    pub(crate) observed_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Something is looked up in the store first.
    Opening,
    Reading,
    /// Its reading waits until the commit under way has landed.
    Full,
    /// Nothing is read; what is held is on its way, then comes [`Next`].
    Ending,
    /// Waits for the service, or for a time.
    Resting,
}

pub(crate) struct Tail {
    pub(crate) lane: Lane,
    pub(crate) leader: Leader,
    pub(crate) phase: Phase,
    pub(crate) next: Next,
    /// Reading ends here, if anywhere.
    pub(crate) stop_at: Option<i64>,
    /// All that the journal has of it.
    pub(crate) entries: Vec<JournalEntry>,
    pub(crate) seen_ms: Option<i64>,
    /// What the next segment begins with: the end of the chain, or of the commit under way.
    pub(crate) begin: Begin,
    /// Committed up to here.
    pub(crate) chain_end: i64,
    pub(crate) next_offset: i64,
    /// Before `next_offset`, where they are known.
    pub(crate) open: Option<OpenTransactions>,
    pub(crate) hold: Hold,
    /// Where what is held begins: behind `begin`, if what is between is in the journal and no longer in memory.
    pub(crate) hold_base: i64,
    /// The first of what is in memory alone.
    pub(crate) held_since: Option<Instant>,
    pub(crate) saved: Saved,
    /// A part of it is on its way into the journal.
    pub(crate) saving: bool,
    /// What it is to be sealed with is waited for.
    pub(crate) sealing: bool,
    /// The first of what is in no segment.
    pub(crate) uncut_since: Option<Instant>,
    /// Read again from the chain's end up to here, to be cut there.
    pub(crate) cut_at: Option<i64>,
    /// A commit is under way.
    pub(crate) closing: bool,
    /// Answers to what was asked before this are of no use any more.
    pub(crate) generation: u64,
    pub(crate) failures: u32,
    /// Why it rests as soon as what is held is in the store.
    pub(crate) trouble: Option<(FailureKind, String)>,
    /// Holes that were seen in it.
    pub(crate) holes: u32,
    pub(crate) rest_until: Option<Instant>,
    pub(crate) log_start_offset: i64,
    /// By the last answer.
    pub(crate) observed: Observed,
    /// Of what is in no segment.
    pub(crate) samples: Samples,
    /// Entries of the journal that others have written, or we before we were started anew: what they saw is not in
    /// `samples`.
    pub(crate) inherited: Vec<JournalEntry>,
}

impl Tail {
    pub(crate) fn new(lane: Lane, leader: Leader, stop_at: Option<i64>) -> Self {
        Self {
            lane,
            leader,
            phase: Phase::Opening,
            next: Next::Read,
            stop_at,
            entries: Vec::new(),
            seen_ms: None,
            begin: Begin::default(),
            chain_end: 0,
            next_offset: 0,
            open: None,
            hold: Hold::Nothing,
            hold_base: 0,
            held_since: None,
            saved: Saved::default(),
            saving: false,
            sealing: false,
            uncut_since: None,
            cut_at: None,
            closing: false,
            generation: 0,
            failures: 0,
            trouble: None,
            holes: 0,
            rest_until: None,
            log_start_offset: 0,
            observed: Observed::default(),
            samples: Samples::default(),
            inherited: Vec::new(),
        }
    }

    /// Whether something of what is held is on its way, or soon will be.
    pub(crate) fn is_busy(&self) -> bool {
        self.closing || self.saving || self.sealing
    }

    pub(crate) fn key(&self) -> Key {
        self.lane.key()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        match &self.hold {
            Hold::Nothing => 0,
            Hold::Small { records, .. } => records.len() as u64,
            Hold::Stream(writer) => writer.bytes(),
        }
    }

    pub(crate) fn is_at_stop(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.next_offset >= stop)
    }

    /// Where it stood when an answer came.
    pub(crate) fn observe(&mut self, observed: Observed) {
        self.observed = observed;
        self.samples.push(observed);
    }

    /// Whether what is held goes on from the chain's end, and can be committed.
    pub(crate) fn is_attached(&self) -> bool {
        self.hold_base == self.begin.offset
    }

    /// Of what is held, what neither a segment nor the journal has.
    pub(crate) fn unsaved(&self) -> &[u8] {
        match &self.hold {
            Hold::Small { records, .. } => records.get(self.saved.bytes..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// What is held was taken away, and what follows begins at `offset`, behind `epoch`.
    pub(crate) fn hold_from(&mut self, offset: i64, epoch: Option<EpochStart>) {
        self.hold = Hold::Nothing;
        self.hold_base = offset;
        self.held_since = None;
        self.saved = Saved { bytes: 0, end_offset: offset, epoch, observed_ms: self.saved.observed_ms };
    }

    /// Forgets what is held: it will be read again.
    pub(crate) fn drop_hold(&mut self) {
        self.hold = Hold::Nothing;
        self.held_since = None;
        self.closing = false;
        self.saving = false;
        self.sealing = false;
        self.cut_at = None;
        self.generation += 1;
    }
}
