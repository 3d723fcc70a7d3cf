//! Everything at once, by a seed: copies, reads, deletes, cancels and the broker's retries on many threads, over
//! a store that fails, is slow, breaks bodies and flips bytes. Each byte that arrives is compared; when the
//! faults end, everything reads, and nothing is left but what was kept.
//!
//! `VARVE_STRESS_SEED` and `VARVE_STRESS_SECONDS` repeat and lengthen it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Bench, Random, STUCK, Segment, config, eventually, finish, key_ring, rule};
use varve_rsm::Kind;
use varve_rsm::read::stream::Progress;
use varve_store::{Fault, Kind as StoreKind, Operation as Op, When};

const THREADS: u64 = 16;
const SEGMENT_MAX: u64 = 3 << 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn faults() -> Vec<varve_store::Rule> {
    let some = |operation, p, fault| rule(operation, When::Probability(p), fault);
    let latency = Fault::Latency { from: Duration::ZERO, to: Duration::from_millis(15) };
    let (before, after) =
        (Fault::ErrorBefore(StoreKind::Unavailable), Fault::ErrorAfter(StoreKind::Unavailable));
    // What a damaged key record looks like is told in `keys`.
    let of_objects = |rule| varve_store::Rule { key_contains: ".varve".to_owned(), ..rule };
    let mut rules = vec![
        some(Op::Get, 0.04, Fault::Reset),
        of_objects(some(Op::Get, 0.02, Fault::FlipByte)),
        some(Op::Get, 0.02, Fault::Truncate),
        some(Op::PutPart, 0.02, Fault::Reset),
    ];
    let writes = [Op::Put, Op::Upload, Op::PutPart, Op::Complete, Op::Abort, Op::DeleteMany, Op::List];
    for operation in writes.into_iter().chain([Op::Get, Op::ListUploads]) {
        rules.push(some(operation, 0.03, before));
        rules.push(some(operation, 0.03, after));
        rules.push(some(operation, 0.3, latency));
    }
    rules
}

struct Worker<'a> {
    bench: &'a Bench,
    random: Random,
    /// Copied, for the broker.
    segments: Vec<Segment>,
    errors: &'a AtomicU64,
    bytes: &'a AtomicU64,
}

impl Worker<'_> {
    fn step(&mut self) {
        match self.random.below(10) {
            0..=2 => self.copy(),
            3 if self.segments.len() > 2 => self.delete(),
            4 => self.index(),
            _ => self.read(),
        }
    }

    fn copy(&mut self) {
        let size = match self.random.below(4) {
            0 => self.random.below(10_000),
            1 => (1 + self.random.below(20)) << 16,
            _ => self.random.below(SEGMENT_MAX),
        };
        let mut segment = Segment::new(self.bench.dir.path(), self.random.next(), size as usize);
        for _ in 0..20 {
            let copy = self.bench.rsm.copy(segment.request.clone()).unwrap();
            if self.random.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(self.random.below(20_000)));
                copy.cancel.set();
            }
            match finish(&copy) {
                Ok(custom) => {
                    segment.request.metadata.custom = custom;
                    return self.segments.push(segment);
                }
                Err(e) => {
                    self.failed(&e);
                    // As the broker does: it deletes, and tries again under a new id.
                    if e.kind != Kind::Retry {
                        self.delete_for_good(&segment);
                    }
                    segment = segment.renamed();
                }
            }
        }
    }

    fn failed(&self, e: &varve_rsm::Error) {
        let expected = [Kind::Retry, Kind::Corrupt, Kind::Cancelled, Kind::Unclean];
        assert!(expected.contains(&e.kind), "{e:?}");
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn delete(&mut self) {
        let at = self.random.below(self.segments.len() as u64) as usize;
        let segment = self.segments.swap_remove(at);
        // Sometimes somebody is reading it.
        let stream = segment.stream(&self.bench.rsm, 0, usize::MAX);
        self.take(&segment, &stream, 0, 50_000);
        self.delete_for_good(&segment);
    }

    fn delete_for_good(&self, segment: &Segment) {
        let since = Instant::now();
        while let Err(e) = segment.delete(&self.bench.rsm) {
            self.failed(&e);
            assert!(since.elapsed() < STUCK);
        }
    }

    fn some(&mut self) -> Option<Segment> {
        let at = self.random.below(self.segments.len() as u64) as usize;
        self.segments.get(at).cloned()
    }

    fn index(&mut self) {
        let Some(segment) = self.some() else { return };
        for (kind, expected) in &segment.sections {
            match segment.index(&self.bench.rsm, *kind) {
                Ok(found) => assert!(found == *expected, "{} differs", kind.name()),
                Err(e) if e.kind == Kind::NotFound => assert!(expected.is_none(), "{e}"),
                Err(e) => self.failed(&e),
            }
        }
    }

    fn read(&mut self) {
        let Some(segment) = self.some() else { return };
        let start = self.random.below(segment.log.len() as u64 + 1) as usize;
        let start = if self.random.below(2) == 0 { 0 } else { start };
        let most = self.random.below(2 * SEGMENT_MAX) as usize;
        let stream = segment.stream(&self.bench.rsm, start, usize::MAX);
        self.take(&segment, &stream, start, most);
    }

    fn take(
        &mut self,
        segment: &Segment,
        stream: &varve_rsm::read::stream::LogStream,
        start: usize,
        most: usize,
    ) {
        let (mut position, since) = (start, Instant::now());
        while position < start + most {
            let step = 1 + self.random.below(300_000) as usize;
            let progress = stream.read(step, Duration::from_millis(20), |at, bytes| {
                let expected = segment.log.get(position + at..position + at + bytes.len());
                assert!(expected == Some(bytes), "altered at {position}");
                Ok(())
            });
            match progress {
                Ok(Progress::Bytes(n)) => {
                    position += n;
                    self.bytes.fetch_add(n as u64, Ordering::Relaxed);
                }
                Ok(Progress::End) => return assert_eq!(position, segment.log.len()),
                Ok(Progress::Waiting) => assert!(since.elapsed() < STUCK, "stuck at {position}"),
                Err(e) => return self.failed(&e),
            }
        }
    }
}

fn check_budgets(bench: &Bench) {
    for bean in ["Copy", "Cache"] {
        let bytes = |what| bench.metric("name=memory", &format!("{bean}Bytes{what}"));
        assert!(bytes("Used") <= bytes("Max"), "{bean}");
    }
}

fn stress(name: &str, given: &BTreeMap<String, String>, seed: u64, time: Duration) {
    let bench = Bench::open(given).unwrap();
    bench.faults.set_rules(faults());
    let (errors, bytes, steps) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + time;
    let (shared, errors, bytes, counted) = (&bench, &errors, &bytes, &steps);
    let kept: Vec<Segment> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn(move || {
                    let random = Random::new(seed.wrapping_add(n << 32));
                    let mut worker = Worker { bench: shared, random, segments: Vec::new(), errors, bytes };
                    while Instant::now() < until {
                        worker.step();
                        check_budgets(shared);
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    worker.segments
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    bench.no_faults();
    for segment in &kept {
        segment.check(&bench.rsm);
    }
    let mut expected: Vec<String> = kept.iter().map(Segment::key).collect();
    expected.sort();
    eventually("the cleaning", || bench.objects() == expected && bench.uploads() == 0);
    println!(
        "{name}: {} steps, {} errors, {} MiB compared, {} segments kept",
        counted.load(Ordering::Relaxed),
        errors.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed) >> 20,
        kept.len()
    );
    bench.rsm.close();
    assert_eq!(bench.metric("name=memory", "CopyBytesUsed"), 0.0);
    assert_eq!(bench.metric("name=memory", "CacheBytesUsed"), 0.0);
}

#[test]
fn everything_at_once() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("VARVE_STRESS_SEED", clock);
    let time = Duration::from_millis(1000 * number("VARVE_STRESS_SECONDS", 9) / 3);
    println!("VARVE_STRESS_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let small = ("cache.memory.bytes", "16777216");
    stress("raw", &config(&[small, ("copy.memory.bytes", "16777216")]), seed, time);
    let ring = key_ring(dir.path(), "k", 1);
    let sealed = [
        small,
        ("compression", "auto"),
        ("encryption.enabled", "true"),
        ("encryption.key.ring.file", &ring),
        ("digest", "sha256"),
    ];
    stress("zstd, sealed", &config(&sealed), seed, time);
    let url = format!("file://{}/store", dir.path().display());
    stress("files", &config(&[("store.url", &url), ("chunk.size.bytes", "1048576")]), seed, time);
}
