//! Whom the listener has let in, and why not whom: what a person must hear of, once, rather than each second.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The same is told again after so long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Brokers try again each second. When so many tries were refused, for so long, and nobody came in, nobody will.
const TRIES: u32 = 3;
const TRYING: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Entrance(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_let_in: bool,
    refused: u32,
    since: Option<Instant>,
    last: String,
    told: Option<Instant>,
}

impl Entrance {
    /// A broker asks as brokers do.
    pub(super) fn let_in(&self) {
        self.0.lock().has_let_in = true;
    }

    /// Brokers are about to come: what was before says nothing of them.
    pub(super) fn open(&self) {
        let mut state = self.0.lock();
        (state.refused, state.since) = (0, None);
    }

    pub(super) fn refused(&self, peer: SocketAddr, why: String) {
        if self.note(peer, &why, Instant::now()) {
            tracing::warn!(%peer, "not let in: {why}");
        }
    }

    /// Whether to tell of it.
    fn note(&self, peer: SocketAddr, why: &str, now: Instant) -> bool {
        let mut state = self.0.lock();
        state.refused = state.refused.saturating_add(1);
        state.since.get_or_insert(now);
        // Ports are others each time.
        let last = format!("{}: {why}", peer.ip());
        let is_known = state.last == last
            && state.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_AGAIN);
        if !is_known {
            state.told = Some(now);
        }
        state.last = last;
        !is_known
    }

    /// Why no broker will ever come in, as far as anyone can tell.
    pub(super) fn is_shut(&self, now: Instant) -> Option<String> {
        let state = self.0.lock();
        let tried = state.since.is_some_and(|since| now.saturating_duration_since(since) >= TRYING);
        (!state.has_let_in && tried && state.refused >= TRIES).then(|| state.last.clone())
    }

    /// The last one that was refused, and why.
    pub(super) fn last_refused(&self) -> Option<String> {
        Some(self.0.lock().last.clone()).filter(|last| !last.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_then_it_is_over() {
        let (entrance, begun) = (Entrance::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        assert!(entrance.note(peer(1), "no", begun) && !entrance.note(peer(2), "no", after(1)));
        assert!(entrance.note(peer(2), "no, since", after(2)));
        assert_eq!(entrance.is_shut(after(3)), None, "too early");
        assert_eq!(entrance.is_shut(after(11)).as_deref(), Some("10.0.0.1: no, since"));
        assert!(entrance.note(peer(3), "no, since", after(63)), "a reminder");
        entrance.open();
        assert_eq!(entrance.is_shut(after(64)), None, "nobody since");
        for second in [65, 66, 80] {
            entrance.note(peer(4), "no", after(second));
        }
        assert!(entrance.is_shut(after(80)).is_some());
        entrance.let_in();
        assert_eq!(entrance.is_shut(after(100)), None);
        assert!(entrance.last_refused().is_some());
    }
}
