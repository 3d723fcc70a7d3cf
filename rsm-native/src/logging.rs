//! Events of `tracing`, kept in a bounded queue until the shim's thread takes them to the broker's SLF4J.
//! When the queue is full, events are counted and dropped: logging never holds up a copy or a read.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

const QUEUE_MAX: usize = 4096;

/// A line for SLF4J. Levels: 0 error, 1 warn, 2 info, 3 debug, 4 trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub level: i32,
    pub logger: String,
    pub message: String,
}

#[derive(Default)]
struct Queue {
    lines: Mutex<VecDeque<Line>>,
    arrived: Condvar,
    dropped: AtomicU64,
    debug: AtomicBool,
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    QUEUE.get_or_init(Queue::default)
}

/// Routes this library's events and panics here. Once for each loaded library; later calls set the level.
pub fn install(debug: bool) {
    queue().debug.store(debug, Ordering::Relaxed);
    if tracing::subscriber::set_global_default(ToQueue).is_ok() {
        std::panic::set_hook(Box::new(|info| {
            tracing::error!(target: "varve", "panic: {info}");
        }));
    }
}

/// The next line, waiting for at most `timeout`.
pub fn next(timeout: Duration) -> Option<Line> {
    let queue = queue();
    let mut lines = queue.lines.lock();
    if lines.is_empty() {
        queue.arrived.wait_for(&mut lines, timeout);
    }
    match queue.dropped.swap(0, Ordering::Relaxed) {
        0 => lines.pop_front(),
        n => Some(Line {
            level: 1,
            logger: "varve".into(),
            message: format!("{n} log lines were dropped: more came than were taken"),
        }),
    }
}

struct ToQueue;

impl Subscriber for ToQueue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = match metadata.target().starts_with("varve") {
            true if queue().debug.load(Ordering::Relaxed) => Level::DEBUG,
            true => Level::INFO,
            false => Level::WARN,
        };
        *metadata.level() <= most
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            Level::DEBUG => 3,
            Level::TRACE => 4,
        };
        let line = Line {
            level,
            logger: metadata.target().replace("::", "."),
            message: text.message + &text.fields,
        };
        let queue = queue();
        let mut lines = queue.lines.lock();
        if lines.len() < QUEUE_MAX {
            lines.push_back(line);
            queue.arrived.notify_one();
        } else {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    // Spans are not used: a line says what it is about.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_lines() {
        install(false);
        tracing::warn!(target: "varve::copy", bytes = 3, "slow {}", "store");
        tracing::debug!(target: "varve::copy", "not shown");
        let lines: Vec<_> = std::iter::from_fn(|| next(Duration::from_millis(1))).collect();
        let line = Line { level: 1, logger: "varve.copy".into(), message: "slow store bytes=3".into() };
        assert!(lines.contains(&line), "{lines:?}");
        assert!(!lines.iter().any(|l| l.message.contains("not shown")));
    }
}
