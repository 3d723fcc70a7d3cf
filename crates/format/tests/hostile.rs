//! Bytes that were made to hurt: no decoder panics, and none allocates more than a small multiple of what it
//! was given. The allocator of this test counts, per thread.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use support::decode_all::{decode_all, footer_alone, object};
use support::*;
use varve_format::*;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // During a thread's end there is nothing to count in.
    let _ = LIVE_BYTES.try_with(|live| {
        live.set(live.get() + bytes);
        PEAK_BYTES.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: all is passed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs `f` and returns the most that it held at once.
fn peak_bytes(f: impl FnOnce()) -> usize {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    f();
    (PEAK_BYTES.get() - before).max(0) as usize
}

/// A frame's buffer (1 MiB, the caller's), a zstd context, messages; and a multiple of the input.
fn bound(input: &[u8]) -> usize {
    1536 * 1024 + 16 * input.len()
}

fn check(why: &str, input: &[u8], f: impl FnOnce(&[u8])) {
    let peak = peak_bytes(|| f(input));
    assert!(peak <= bound(input), "{why}: {peak} bytes allocated for {} given", input.len());
}

#[test]
fn the_allocator_counts() {
    assert!(peak_bytes(|| drop(vec![0_u8; 10_000_000])) >= 10_000_000);
}

#[test]
fn random_bytes() {
    let (key, ring) = (data_key(), KeyRing::parse(KEK_RING).unwrap());
    for seed in 0..3_000 {
        let mut rng = Rng(seed);
        let length = rng.below(600);
        let mut bytes = noise(seed, length);
        check("random", &bytes, |b| decode_all(b, &key, &ring));
        if bytes.len() >= TRAILER_BYTES {
            let n = bytes.len();
            bytes[n - 8..].copy_from_slice(b"VARVESEG");
            bytes[n - 44..n - 42].copy_from_slice(&[0, 1]);
            repair_checksums(&mut bytes);
            check("random with a trailer", &bytes, |b| decode_all(b, &key, &ring));
        }
    }
}

/// Every place of every footer and trailer takes every width of the worst values, all checksums fitting.
#[test]
fn hostile_lengths_everywhere() {
    let key = data_key();
    let values =
        [0, 1, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX, 1 << 40, 0xffff_ffff, 0x7fff_ffff];
    for (name, bytes, finished) in variants() {
        for at in finished.trailer.footer_offset as usize..bytes.len() - 12 {
            for value in values {
                for width in [2, 4, 8] {
                    let mut forged = bytes.clone();
                    let value = &value.to_be_bytes()[8 - width..];
                    forged
                        .iter_mut()
                        .skip(at)
                        .take(bytes.len() - 12 - at)
                        .zip(value)
                        .for_each(|(b, v)| *b = *v);
                    repair_checksums(&mut forged);
                    check(&format!("{name}, byte {at}, {value:x?}"), &forged, |b| object(b, &key));
                }
            }
        }
    }
}

/// As many empty fields, extents and epochs as fit a footer: time and memory stay in proportion.
#[test]
fn crowded_footers() {
    let (plain, finished) = write(&options(Compression::None, false, DigestAlgorithm::None), &[1; 100], &[]);
    let start = std::time::Instant::now();
    let crowded = with_footer(&plain, |footer| {
        let (head, private) = footer.split_at(footer.len() - 6);
        let many = (22..0xfff0_u16).flat_map(|tag| [&tag.to_be_bytes()[..], &[0; 4]].concat());
        [head, &many.collect::<Vec<_>>(), private].concat()
    });
    check("all tags", &crowded, |b| assert_eq!(open(b, None).unwrap().0, finished.footer));
    for (entries, entry) in [(1_398_000, 12), (699_000, 24)] {
        let tag: u16 = if entry == 12 { 13 } else { 19 };
        // Epochs, each from its own number; or samples, of which the time alone is not 0.
        let one = |n: u32| [&n.to_be_bytes()[..], &vec![0; entry - 8], &n.to_be_bytes()].concat();
        let value: Vec<u8> = (0..entries as u32).flat_map(one).collect();
        let mut info = SegmentInfo { last_offset: i64::MAX - 1, ..info() };
        info.leader_epochs.clear();
        info.observed.clear();
        let options = options(Compression::None, false, DigestAlgorithm::None);
        let (plain, _) = write_as(info, &options, &[1; 100], &[]);
        let crowded = with_footer(&plain, |footer| insert_field(&footer, tag, &value));
        check("a long list", &crowded, |b| assert!(open(b, None).is_ok()));
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Puts a field in its place, instead of the one that is there.
fn insert_field(footer: &[u8], tag: u16, value: &[u8]) -> Vec<u8> {
    let (mut at, mut out, mut done) = (0, Vec::new(), false);
    while at < footer.len() {
        let found = u16::from_be_bytes(footer[at..at + 2].try_into().unwrap());
        let end = at + 6 + u32::from_be_bytes(footer[at + 2..at + 6].try_into().unwrap()) as usize;
        if !done && found >= tag {
            out.extend([&tag.to_be_bytes()[..], &(value.len() as u32).to_be_bytes(), value].concat());
            done = true;
        }
        if found != tag {
            out.extend_from_slice(&footer[at..end]);
        }
        at = end;
    }
    out
}

/// A few bytes of zstd that claim or become far more than their frame.
#[test]
fn zstd_bombs() {
    let (_, finished) =
        write(&options(Compression::Zstd { level: 1 }, false, DigestAlgorithm::None), &[1; 4096], &[]);
    let gigabyte = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_pledged_src_size(Some(1 << 28)).unwrap();
        for _ in 0..256 {
            std::io::Write::write_all(&mut encoder, &[0; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    };
    let no_size = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        std::io::Write::write_all(&mut encoder, &[1; 4096]).unwrap();
        encoder.finish().unwrap()
    };
    let good = zstd::bulk::compress(&[1; 4096], 1).unwrap();
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"junk"].concat();
    // The header of a frame of 256 to 65,791 bytes has its content size, less 256, at 5.
    let mut lying = zstd::bulk::compress(&[0; 8192], 1).unwrap();
    lying[5..7].copy_from_slice(&(4096_u16 - 256).to_le_bytes());
    for (why, bytes, accepted) in [
        ("good", good.clone(), true),
        ("256 MiB", gigabyte, false),
        ("no content size", no_size, false),
        ("a checksum", checksummed(&[1; 4096]), true),
        ("a wrong checksum", changed(&checksummed(&[1; 4096]), |b| *b.last_mut().unwrap() ^= 1), false),
        ("a window of 8 MiB", with_window(&good, 13 << 3), true),
        ("a window of 9 MiB", with_window(&good, 13 << 3 | 1), false),
        ("a dictionary id of 0", with_dictionary_id(&good, 0), false),
        ("a dictionary id of 7", with_dictionary_id(&good, 7), false),
        ("zstd 0.7", changed(&good, |b| b[0] = 0x27), false),
        (
            "two frames",
            [zstd::bulk::compress(&[1; 2048], 1).unwrap(), zstd::bulk::compress(&[1; 2048], 1).unwrap()]
                .concat(),
            false,
        ),
        ("bytes after", [&good[..], &[0]].concat(), false),
        ("a skippable frame after", [&good[..], &skippable].concat(), false),
        ("a skippable frame before", [&skippable[..], &good].concat(), false),
        ("more than it says", lying, false),
        ("nothing", Vec::new(), false),
        ("noise", noise(3, 500), false),
    ] {
        let frame = FrameRef {
            stored: 0..bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
            ..finished.footer.frame(0).unwrap()
        };
        let mut plain = vec![0; 4096];
        check(why, &bytes, |b| {
            let found = Decoder::new(&finished.footer, None).unwrap().decode(&frame, b, &mut plain);
            assert_eq!(found.is_ok(), accepted, "{why}: {found:?}");
        });
    }
}

#[test]
fn keys_are_bounded_and_their_base64_is_canonical() {
    let json = KeyRecord::wrap(
        &KeyRing::parse(KEK_RING).unwrap(),
        &data_key(),
        "c",
        Id([1; 16]),
        "2026",
        0,
        [0; 12],
    );
    let json = json.unwrap().encode().unwrap();
    let padded = |n: usize| [&json[..], &vec![b' '; n - json.len()]].concat();
    assert!(KeyRecord::decode(&padded(KEY_RECORD_MAX_BYTES)).is_ok());
    let refused = KeyRecord::decode(&padded(KEY_RECORD_MAX_BYTES + 1)).unwrap_err();
    assert!(refused.to_string().contains("at most 65536 bytes"), "{refused}");
    let ring = |n: usize| format!("{KEK_RING}{}", " ".repeat(n - KEK_RING.len()));
    assert!(KeyRing::parse(&ring(KEY_RING_MAX_BYTES)).is_ok());
    let refused = KeyRing::parse(&ring(KEY_RING_MAX_BYTES + 1)).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("at most 1048576 bytes"), "{refused}");
    for (why, value) in [
        ("unused bits", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQF="),
        ("no padding", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
        ("a line's end", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\\n"),
        ("a blank", " AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
    ] {
        let text = format!(r#"{{"active": "a", "keys": {{"a": "{value}"}}}}"#);
        assert!(KeyRing::parse(&text).is_err(), "{why}");
    }
    let json = String::from_utf8(json).unwrap();
    // 60 bytes need no padding, 16 need two characters of it, and leave 4 bits over.
    assert!(json.contains(r#""wrapped": "AAAAAAAAAAAAAAAA"#), "{json}");
    for nonce in ["AAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAA\\n", "AAAAAAAAAAAAAAA"] {
        let changed = json.replace("AAAAAAAAAAAAAAAA", nonce);
        assert!(KeyRecord::decode(changed.as_bytes()).is_err(), "{nonce}");
    }
    assert!(Id::parse("AQEBAQEBAQEBAQEBAQEBAQ").is_ok() && Id::parse("AQEBAQEBAQEBAQEBAQEBAR").is_err());
}

#[test]
fn key_rings_and_records_are_strict() {
    let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    for text in [
        "".to_owned(),
        "{}".into(),
        format!(r#"{{"active": "b", "keys": {{"a": "{key}"}}}}"#),
        format!(r#"{{"active": "a", "keys": {{"a": "{key}", "a": "{key}"}}}}"#),
        format!(r#"{{"active": "a", "active": "a", "keys": {{"a": "{key}"}}}}"#),
        format!(r#"{{"active": "a", "keys": {{"a": "{key}"}}, "more": 1}}"#),
        format!(r#"{{"active": "", "keys": {{"": "{key}"}}}}"#),
        r#"{"active": "a", "keys": {"a": "c2VjcmV0"}}"#.into(),
        r#"{"active": "a", "keys": {"a": "topsecret!"}}"#.into(),
        r#"{"active": "a", "keys": {"a": 5}}"#.into(),
        "[".repeat(100_000),
    ] {
        let refused = KeyRing::parse(&text).map(|_| ()).unwrap_err().to_string();
        for secret in ["c2VjcmV0", "topsecret", "AQEB"] {
            assert!(!refused.contains(secret), "{refused}");
        }
    }
    let ring = KeyRing::parse(KEK_RING).unwrap();
    assert!(!format!("{ring:?}").contains("AQEB"), "{ring:?}");
    assert!(!format!("{:?}", data_key()).contains('9'), "{:?}", data_key());
    let record = KeyRecord::wrap(&ring, &data_key(), "c", Id([1; 16]), "2026", 0, [0; 12]).unwrap();
    let json = String::from_utf8(record.encode().unwrap()).unwrap();
    for (from, to) in [
        ("2026\",\n  \"created", "../x\",\n  \"created"),
        ("varve_key\": 2", "varve_key\": 0"),
        ("varve_key\": 2", "varve_key\": 1"),
        ("cluster_id\": \"c\"", "cluster_id\": \"keys\""),
        ("cluster_id\": \"c\"", "cluster_id\": \"a/b\""),
        ("AES-256-GCM", "none"),
        ("ring:2026", "ring:\\u0007"),
        ("\"wrapped\": \"", "\"wrapped\": \"AAAA"),
        ("\"wrapped\": \"", "\"nonce\": \"AAAAAAAAAAAAAAAA\", \"wrapped\": \""),
        ("}", ",\"x\": 1}"),
    ] {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from}");
        assert!(matches!(KeyRecord::decode(changed.as_bytes()), Err(Error::Corrupt { .. })), "{changed}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let id = Id([1; 16]);
    let good = format!("cluster/{id}/0/00000000000000000000-{id}.varve");
    assert!(SegmentName::parse(&good).is_ok());
    for bad in [
        good.replace("cluster", ".."),
        good.replace("cluster", ""),
        good.replace("cluster", "keys"),
        good.replace("cluster", "a b"),
        good.replace("/0/", "/-1/"),
        good.replace("/0/", "/00/"),
        good.replace("/0/", "/+0/"),
        good.replace("/00000000000000000000-", "/-0000000000000000001-"),
        good.replace("/00000000000000000000-", "/+0000000000000000000-"),
        good.replace(".varve", ".varve/x"),
        format!("/{good}"),
        format!("x/{good}"),
        good.replace("00-", "é-"),
    ] {
        assert!(SegmentName::parse(&bad).is_err(), "{bad}");
    }
    for bad in ["", ".", "..", "keys", "a/b", "a\\b", "ü", &"x".repeat(129)] {
        assert!(check_cluster_id(bad).is_err(), "{bad}");
    }
}

/// Footers whose trailer fits whatever they say.
#[test]
fn mutated_footers_under_fitting_trailers() {
    let key = data_key();
    for (name, bytes, finished) in variants() {
        let f = &finished;
        let head = footer_bytes(&bytes, &f.trailer);
        let tail = [
            &f.trailer.data_end.to_be_bytes()[..],
            &f.trailer.footer_offset.to_be_bytes(),
            &[f.trailer.features.required as u8],
            &f.trailer.features.optional.to_be_bytes(),
        ]
        .concat();
        let mut rng = Rng(77);
        for _ in 0..2_000 {
            let mut footer = head.to_vec();
            for _ in 0..=rng.below(3) {
                mutate(&mut footer, head, &mut rng);
            }
            check(&name, &[&footer[..], &tail].concat(), |b| footer_alone(b, &key));
        }
    }
}
