//! How many requests it takes: one PUT or parts + 2 for a segment, one GET for a chunk, one for all indexes,
//! nothing fetched twice however many ask; and what a stream does while the store is slow.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod support;

use std::cell::Cell;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use support::{
    Bench, CHUNK, FRAME, Gauge, Hooked, Segment, config, eventually, finish, read_all, read_up_to, rule,
};
use varve_format::ExtentKind;
use varve_rsm::read::stream::Progress;
use varve_store::{Fault, Operation as Op, When};

const PART: usize = 1 << 20;

/// Runs `work` on `threads` threads that begin at once.
fn together<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads);
    let (barrier, work) = (&barrier, &work);
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn(move || {
                    barrier.wait();
                    work(n)
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A cold manager over the same store.
fn cold(bench: &Bench, given: &std::collections::BTreeMap<String, String>) -> Bench {
    let again = Bench::open(given).unwrap();
    assert_eq!(again.objects(), bench.objects());
    again
}

fn slow(ms: u64) -> Fault {
    Fault::Latency { from: Duration::from_millis(ms), to: Duration::from_millis(ms) }
}

#[test]
fn one_put_or_parts_and_two() {
    let bench = Bench::new(&[]);
    bench.copied(1, PART / 2);
    assert_eq!((bench.calls(Op::Put), bench.counts.calls() - bench.calls(Op::ListUploads)), (1, 1));
    bench.copied(1, 5 * PART);
    assert_eq!((bench.calls(Op::Upload), bench.calls(Op::PutPart), bench.calls(Op::Complete)), (1, 6, 1));
    assert_eq!(bench.counts.calls() - bench.calls(Op::ListUploads), 1 + 6 + 2);
}

#[test]
fn ten_cold_readers_fetch_nothing_twice() {
    for compression in ["none", "zstd"] {
        let given = config(&[("compression", compression)]);
        let writer = Bench::open(&given).unwrap();
        let segment = writer.copied(1, 3 * PART + 17);
        let object_bytes = writer.object(&segment.key()).len() as u64;
        let bench = cold(&writer, &given);
        together(10, |_| assert!(segment.read(&bench.rsm, 0, usize::MAX).unwrap() == segment.log));
        let chunks = segment.log.len().div_ceil(CHUNK) as u64;
        let gets = bench.calls(Op::Get);
        assert!(gets <= chunks + 1, "{compression}: {gets} GETs for {chunks} chunks and a footer");
        let received = bench.counts.of(Op::Get).received_bytes;
        assert!(received <= object_bytes, "{compression}: {received} of {object_bytes} bytes");
        // And from memory nothing.
        assert!(segment.read(&bench.rsm, 0, usize::MAX).unwrap() == segment.log);
        assert_eq!(bench.calls(Op::Get), gets);
    }
}

#[test]
fn one_get_brings_all_indexes_to_all_who_ask() {
    let given = config(&[]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(2, 3 * PART);
    let bench = cold(&writer, &given);
    segment.check_indexes(&bench.rsm);
    segment.check_indexes(&bench.rsm);
    assert_eq!(bench.calls(Op::Get), 1);
    let bench = cold(&writer, &given);
    bench.fault(Op::Get, When::Always, slow(50));
    together(32, |_| segment.check_indexes(&bench.rsm));
    assert_eq!(bench.calls(Op::Get), 1, "32 at once");
}

#[test]
fn indexes_have_room_where_the_log_filled_the_cache() {
    let given = config(&[("cache.memory.bytes", "16777216"), ("copy.memory.bytes", "67108864")]);
    let writer = Bench::open(&given).unwrap();
    let (log, other) = (writer.copied(1, 20 * PART), writer.copied(2, 3 * PART));
    let bench = cold(&writer, &given);
    assert!(log.read(&bench.rsm, 0, usize::MAX).unwrap() == log.log);
    let before = bench.calls(Op::Get);
    other.check_indexes(&bench.rsm);
    assert_eq!(bench.calls(Op::Get) - before, 1);
}

#[test]
fn a_random_read_fetches_its_frames_alone() {
    let given = config(&[("prefetch.initial.bytes", "0")]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(1, 3 * PART);
    let bench = cold(&writer, &given);
    let stream = segment.stream(&bench.rsm, 5 * FRAME + 10, 5 * FRAME + 1009);
    assert_eq!(read_all(&stream, 4096).unwrap(), &segment.log[5 * FRAME + 10..5 * FRAME + 1010]);
    assert_eq!(bench.calls(Op::Get), 2, "the frame, and the footer beside it");
    let stream = segment.stream(&bench.rsm, 9 * FRAME, 9 * FRAME + 9);
    read_all(&stream, 4096).unwrap();
    assert_eq!(bench.calls(Op::Get), 3);
}

#[test]
fn read_ahead_grows_and_stops() {
    let given = config(&[("cache.memory.bytes", "268435456")]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(1, 40 * PART);
    let bench = cold(&writer, &given);
    let stream = segment.stream(&bench.rsm, 0, usize::MAX);
    let fetched = || bench.counts.of(Op::Get).received_bytes as usize;
    let settled = || {
        let before = Cell::new(0);
        eventually("read-ahead stops", || {
            before.set(fetched());
            std::thread::sleep(Duration::from_millis(500));
            fetched() == before.get()
        });
        before.get()
    };
    let ahead = |position: usize| settled().saturating_sub(position);
    read_up_to(&stream, 1000, 1000).unwrap();
    let first = ahead(1000);
    assert!(first <= 5 * CHUNK, "a small read had {first} bytes fetched");
    read_up_to(&stream, 4 * PART, 1 << 20).unwrap();
    let then = ahead(4 * PART);
    assert!(then > 2 * first, "{then} bytes ahead after 4 MiB, {first} at first");
    // The next stream of the same reader goes on with it: no slow start again.
    stream.close();
    let stream = segment.stream(&bench.rsm, 4 * PART, usize::MAX);
    read_up_to(&stream, 1000, 1000).unwrap();
    assert!(ahead(4 * PART) >= then - CHUNK);
    let before = settled();
    drop(stream);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fetched(), before, "it goes on though nobody reads");
}

#[test]
fn no_read_ahead_where_it_is_turned_off() {
    let given = config(&[("prefetch.max.bytes", "0"), ("prefetch.initial.bytes", "0")]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(1, 4 * PART);
    let bench = cold(&writer, &given);
    read_up_to(&segment.stream(&bench.rsm, 0, usize::MAX), CHUNK + 1, 1 << 20).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(bench.counts.of(Op::Get).received_bytes <= (2 * CHUNK + (64 << 10)) as u64);
    assert!(segment.read(&bench.rsm, 0, usize::MAX).unwrap() == segment.log);
}

/// A broker reads a segment by one stream after another.
fn read_as_a_broker(bench: &Bench, segment: &Segment, step: usize) {
    let mut position = 0;
    while position < segment.log.len() {
        let stream = segment.stream(&bench.rsm, position, usize::MAX);
        let part = read_up_to(&stream, step, step).unwrap();
        assert!(part == segment.log[position..position + part.len()]);
        position += part.len();
    }
}

fn follow(segment: &mut Segment, before: &Segment) {
    let m = &mut segment.request.metadata;
    m.start_offset = before.metadata().end_offset + 1;
    m.end_offset = m.start_offset + 999;
}

#[test]
fn over_the_border_by_one_list() {
    let given = config(&[("cache.memory.bytes", "268435456")]);
    let writer = Bench::open(&given).unwrap();
    let first = writer.copied(1, 8 * PART);
    let mut next = writer.segment(2, 2 * PART);
    follow(&mut next, &first);
    next.copy(&writer.rsm).unwrap();
    let bench = cold(&writer, &given);
    // No fault: what is asked for of the next segment is in the log.
    let mut seen = rule(Op::Get, When::Always, slow(0));
    seen.key_contains = next.key();
    bench.faults.set_rules(vec![seen]);
    let asked = || bench.faults.log().len();
    read_as_a_broker(&bench, &first, 300_000);
    eventually("the next segment's footer and first chunk", || asked() >= 2);
    assert_eq!(bench.calls(Op::List), 1);
    let stream = next.stream(&bench.rsm, 0, usize::MAX);
    read_up_to(&stream, 1000, 1000).unwrap();
    let chunks = 2 * PART / CHUNK;
    assert!(read_all(&stream, 1 << 20).unwrap() == next.log[1000..]);
    assert!(asked() < 2 + chunks, "its first chunk was there");
    assert!(bench.metric("name=cache", "HitCount") > 0.0);
    next.check(&bench.rsm);
}

#[test]
fn with_two_candidates_over_the_border_none_is_followed() {
    let given = config(&[("cache.memory.bytes", "268435456")]);
    let writer = Bench::open(&given).unwrap();
    let first = writer.copied(1, 8 * PART);
    for seed in 2..4 {
        let mut next = writer.segment(seed, 2 * PART);
        follow(&mut next, &first);
        next.copy(&writer.rsm).unwrap();
    }
    let bench = cold(&writer, &given);
    read_as_a_broker(&bench, &first, 300_000);
    eventually("the listing", || bench.calls(Op::List) > 0);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bench.calls(Op::List), 1);
    assert!(bench.counts.of(Op::Get).received_bytes <= writer.object(&first.key()).len() as u64);
}

/// Read-ahead finds an object, another one takes its place, and only then the broker names it: also while the
/// first one's bytes are still on their way.
#[test]
fn what_read_ahead_found_is_not_what_the_broker_names() {
    for late in [false, true] {
        let given = config(&[("cache.memory.bytes", "268435456")]);
        let writer = Bench::open(&given).unwrap();
        let first = writer.copied(1, 8 * PART);
        let mut next = writer.segment(2, 2 * PART);
        follow(&mut next, &first);
        next.copy(&writer.rsm).unwrap();
        let bench = cold(&writer, &given);
        if late {
            // The footer arrives, then the chunk hangs in the air.
            let mut slow = rule(Op::Get, When::Nth(2), slow(1500));
            slow.key_contains = next.key();
            bench.faults.set_rules(vec![slow]);
        }
        read_as_a_broker(&bench, &first, 300_000);
        let found = bench.calls(Op::Get);
        eventually("the next segment's footer", || bench.calls(Op::List) == 1);
        std::thread::sleep(Duration::from_millis(200));
        let _ = found;
        let other = support::Random::new(99).bytes(next.log.len());
        std::fs::write(&next.request.log, &other).unwrap();
        next.log = other;
        next.copy(&writer.rsm).unwrap();
        assert!(next.read(&bench.rsm, 0, usize::MAX).unwrap() == next.log, "late: {late}");
        std::thread::sleep(Duration::from_millis(if late { 1600 } else { 0 }));
        assert!(next.read(&bench.rsm, 0, usize::MAX).unwrap() == next.log, "late: {late}, afterwards");
    }
}

#[test]
fn a_slow_store_makes_a_read_wait_but_not_fetch_again() {
    let given = config(&[]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(1, PART / 2);
    for custom in [true, false] {
        let bench = cold(&writer, &given);
        bench.fault(Op::Get, When::Always, slow(700));
        let mut asked = segment.clone();
        if !custom {
            asked.request.metadata.custom = None;
        }
        let stream = asked.stream(&bench.rsm, 0, FRAME - 1);
        let read = || {
            let since = Instant::now();
            let got = stream.read(FRAME, Duration::from_millis(100), |_, _| Ok(())).unwrap();
            let elapsed = since.elapsed();
            assert!(got != Progress::Waiting || elapsed >= Duration::from_millis(95), "after {elapsed:?}");
            got
        };
        assert_eq!(read(), Progress::Waiting);
        let since = Instant::now();
        let got = loop {
            match read() {
                Progress::Waiting => assert!(since.elapsed() < support::STUCK),
                other => break other,
            }
        };
        assert!(matches!(got, Progress::Bytes(n) if n > 0));
        assert_eq!(bench.calls(Op::Get), 2);
        // Given up by the broker and asked for again: what is under way lands, and is not asked for twice.
        let stream = asked.stream(&bench.rsm, 3 * CHUNK, 3 * CHUNK + FRAME - 1);
        assert_eq!(stream.read(FRAME, Duration::from_millis(10), |_, _| Ok(())).unwrap(), Progress::Waiting);
        stream.close();
        let stream = asked.stream(&bench.rsm, 3 * CHUNK, 3 * CHUNK + FRAME - 1);
        assert!(read_all(&stream, FRAME).unwrap() == segment.log[3 * CHUNK..3 * CHUNK + FRAME]);
        assert_eq!(bench.calls(Op::Get), 3);
    }
}

#[test]
fn a_stream_closed_early_keeps_what_was_fetched() {
    let given = config(&[]);
    let writer = Bench::open(&given).unwrap();
    let segment = writer.copied(1, PART);
    let bench = cold(&writer, &given);
    for _ in 0..20 {
        let stream = segment.stream(&bench.rsm, 0, CHUNK - 1);
        read_up_to(&stream, 10, 10).unwrap();
        stream.close();
        stream.close();
        assert!(stream.read(10, Duration::ZERO, |_, _| Ok(())).is_err());
    }
    assert_eq!(bench.calls(Op::Get), 2);
}

#[test]
fn many_readers_and_copies_under_the_smallest_budgets() {
    let given = config(&[
        ("cache.memory.bytes", "16777216"),
        ("copy.memory.bytes", "16777216"),
        ("chunk.size.bytes", "4194304"),
        ("frame.size.bytes", "1048576"),
    ]);
    let bench = Bench::open(&given).unwrap();
    let ready: Vec<Segment> = (0..8).map(|n| bench.copied(n, 3 * PART + 5)).collect();
    let new: Vec<Segment> = (0..16).map(|n| bench.segment(100 + n, 2 * PART + n as usize)).collect();
    let over = |bean: &str| {
        let used = bench.metric("name=memory", &format!("{bean}BytesUsed"));
        assert!(used <= bench.metric("name=memory", &format!("{bean}BytesMax")), "{bean}: {used}");
    };
    let since = Instant::now();
    together(64, |n| {
        over("Copy");
        over("Cache");
        if n < 16 {
            let mut segment = new[n].clone();
            segment.copy(&bench.rsm).unwrap();
            assert!(segment.read(&bench.rsm, 0, usize::MAX).unwrap() == segment.log);
        } else {
            let segment = &ready[n % 8];
            let start = n * 10_000;
            assert!(segment.read(&bench.rsm, start, usize::MAX).unwrap() == segment.log[start..]);
            segment.check_indexes(&bench.rsm);
        }
        over("Copy");
        over("Cache");
    });
    println!("64 threads took {:?}, {} GETs", since.elapsed(), bench.calls(Op::Get));
}

/// One thread may hold any number of streams that were read in part: none keeps the others from memory.
#[test]
fn streams_at_rest_pin_nothing() {
    let given = config(&[
        ("cache.memory.bytes", "16777216"),
        ("frame.size.bytes", "1048576"),
        ("chunk.size.bytes", "1048576"),
        ("prefetch.max.bytes", "0"),
    ]);
    let bench = Bench::open(&given).unwrap();
    let segments: Vec<Segment> = (0..40).map(|n| bench.copied(n, PART + 5)).collect();
    let streams: Vec<_> = segments.iter().map(|s| s.stream(&bench.rsm, 0, usize::MAX)).collect();
    for (stream, segment) in streams.iter().zip(&segments) {
        assert!(read_up_to(stream, 10, 10).unwrap() == segment.log[..10]);
    }
    for (stream, segment) in streams.iter().zip(&segments) {
        assert!(read_all(stream, 1 << 20).unwrap() == segment.log[10..]);
    }
}

#[test]
fn index_fetches_stay_within_the_budget() {
    let given = config(&[("cache.memory.bytes", "16777216"), ("copy.memory.bytes", "67108864")]);
    let writer = Bench::open(&given).unwrap();
    let mut segments: Vec<Segment> = (0..24).map(|n| writer.segment(n, 1000)).collect();
    for segment in &mut segments {
        let big = support::Random::new(5).bytes(4 * PART);
        std::fs::write(&segment.request.offset_index, &big).unwrap();
        segment.sections[0].1 = Some(big);
        segment.copy(&writer.rsm).unwrap();
    }
    let gets = Arc::new(Gauge::default());
    let gauge = gets.clone();
    let bench =
        Bench::wrapped(&given, |store| Arc::new(Hooked { gets: gauge, ..Hooked::over(store) })).unwrap();
    bench.fault(Op::Get, When::Always, slow(50));
    let fetches: Vec<_> = segments
        .iter()
        .map(|s| bench.rsm.fetch_index(s.metadata(), ExtentKind::OffsetIndex).unwrap())
        .collect();
    for (fetch, segment) in fetches.iter().zip(&segments) {
        assert!(finish(fetch).unwrap() == segment.sections[0].1);
    }
    // 14 MiB are for what is read; a fetch of 4 MiB holds them as stored and as decoded.
    assert_eq!(gets.most(), 1, "index fetches at once");
    let used = bench.metric("name=memory", "CacheBytesUsed");
    assert!(used <= bench.metric("name=memory", "CacheBytesMax"), "{used}");
}

/// More readers than the cache has room for: memory is shared out, and little is fetched twice.
#[test]
fn readers_who_crowd_the_cache_do_not_rob_each_other() {
    let given = config(&[
        ("cache.memory.bytes", "16777216"),
        ("copy.memory.bytes", "67108864"),
        ("chunk.size.bytes", "4194304"),
    ]);
    let writer = Bench::open(&given).unwrap();
    let segments: Vec<Segment> = (0..32).map(|n| writer.copied(n, 6 * PART)).collect();
    let mut last = 0;
    for one_stream in [true, false] {
        let bench = cold(&writer, &given);
        bench.fault(Op::Get, When::Always, slow(10));
        let since = Instant::now();
        together(32, |n| {
            let segment = &segments[n];
            let (mut stream, mut position) = (segment.stream(&bench.rsm, 0, usize::MAX), 0);
            while position < segment.log.len() {
                // One who has something to do between reads; or a broker, which opens a stream for each.
                let part = read_up_to(&stream, 256 << 10, 256 << 10).unwrap();
                assert!(part == segment.log[position..position + part.len()]);
                position += part.len();
                if !one_stream {
                    stream.close();
                    stream = segment.stream(&bench.rsm, position, usize::MAX);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (received, logs) = (bench.counts.of(Op::Get).received_bytes, 32 * 6 * PART as u64);
        let (gets, elapsed) = (bench.calls(Op::Get), since.elapsed());
        println!("{} MiB for {} MiB by {gets} GETs in {elapsed:?}", received >> 20, logs >> 20);
        assert!(received < 2 * logs, "{received} of {logs}");
        // The crowd is gone: one alone is soon served by large requests again.
        bench.no_faults();
        for segment in segments.iter().skip(1).chain(&segments[..1]) {
            let before = bench.calls(Op::Get);
            assert!(segment.read(&bench.rsm, 0, usize::MAX).unwrap() == segment.log);
            last = bench.calls(Op::Get) - before;
        }
        assert!(last <= 6, "{last} GETs for two chunks");
    }
}
