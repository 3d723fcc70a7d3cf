//! Objects that every reader must refuse, frozen: in each one thing is wrong, and all checksums that do not say
//! so fit. Beside them stands for each how far a reader may get, and what kind of error must come.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use serde_json::{Map, Value, json};
use support::forge::*;
use support::golden::{self, SECRET, new_file};
use support::*;
use varve_format::*;

/// One that must be refused.
struct Bad {
    name: &'static str,
    /// `trailer`, `footer` (its seal and the Merkle root too), `frame`, or `digest` of a whole extent.
    at: &'static str,
    /// `corrupt`, `future version`, `unknown feature` or `key refused`.
    error: &'static str,
    /// What our message says, so that it is refused for the right reason.
    says: &'static str,
    object: Vec<u8>,
}

/// Two chunks of three frames, and three sections, one of them empty.
fn base(encrypt: bool, digest: DigestAlgorithm) -> Vec<u8> {
    let segment = golden::beginning(kafka::segment(), 11_000);
    let sections: Sections = &[
        (ExtentKind::OffsetIndex, &segment.offset_index),
        (ExtentKind::TimeIndex, &[]),
        (ExtentKind::LeaderEpochs, &segment.leader_epochs),
    ];
    let encryption = encrypt.then(|| golden::encryption(0x20));
    let options = WriteOptions { encryption, digest, ..golden::options(0x20) };
    write_as(golden::info(0x20, &segment), &options, &segment.log, sections).0
}

/// One chunk of three frames, sealed before their number was known.
fn streamed() -> Vec<u8> {
    let segment = golden::beginning(kafka::segment(), 11_000);
    let encryption = Some(golden::encryption(0x21));
    let options = WriteOptions { encryption, chunk_bytes: 65_536, ..golden::options(0x21) };
    write_streamed(golden::info(0x21, &segment), &options, &segment.log, &[]).0
}

/// The last frame of a log without sections, and all that says that it was there.
fn without_last_frame(object: &[u8]) -> Vec<u8> {
    let (frame, mut plain_bytes, mut stored_bytes) = (4096, 0, 0);
    let object = with_entries(object, |e| {
        e[0].plain_bytes = e[0].plain_bytes / frame * frame;
        e[0].crcs.pop();
        e[0].stored_bytes = e[0].plain_bytes + 16 * e[0].crcs.len() as u64;
        (plain_bytes, stored_bytes) = (e[0].plain_bytes, e[0].stored_bytes);
    });
    let object = put(&object, 14, &plain_bytes.to_be_bytes());
    let old = trailer(&object).unwrap();
    let new = Trailer { data_end: stored_bytes, footer_offset: stored_bytes, ..old };
    [&object[..stored_bytes as usize], footer_bytes(&object, &old), &new.encode()].concat()
}

/// One chunk of one frame.
fn compressed() -> (Vec<u8>, Vec<u8>) {
    let segment = golden::beginning(kafka::segment(), 4096);
    let compression = Compression::Zstd { level: 3 };
    let options = WriteOptions { compression, digest: DigestAlgorithm::None, ..golden::options(0x20) };
    (write_as(golden::info(0x20, &segment), &options, &segment.log, &[]).0, segment.log)
}

fn all() -> Vec<Bad> {
    let plain = base(false, DigestAlgorithm::Blake3);
    let mut out = trailers(&plain);
    out.extend(field_lists(&plain));
    out.extend(values(&plain));
    out.extend(features_and_digests(&plain));
    out.extend(tables(&plain));
    out.extend(sealed());
    out.extend(frames(&plain));
    out.extend(zstd_frames());
    out
}

fn trailers(plain: &[u8]) -> Vec<Bad> {
    let n = plain.len();
    let bad = |name, error, says, object| Bad { name, at: "trailer", error, says, object };
    let corrupt = |name, says, object| bad(name, "corrupt", says, object);
    let bits = |bit: u64| flip_features(plain, bit, 0);
    let long = (FOOTER_MAX_BYTES + 1).to_be_bytes();
    vec![
        corrupt("magic", "magic", changed(plain, |o| o[n - 1] ^= 1)),
        corrupt("trailer-crc", "CRC32C", changed(plain, |o| o[n - TRAILER_BYTES + 7] ^= 1)),
        corrupt("version-0", "version 1", trailer_bytes(plain, 20, &[0, 0])),
        bad("version-2", "future version", "version 2 is newer", trailer_bytes(plain, 20, &[0, 2])),
        bad("required-bit-7", "unknown feature", "required bit 7", bits(1 << 7)),
        bad("required-bit-63", "unknown feature", "required bit 63", bits(1 << 63)),
        bad(
            "required-bit-with-reserved-bytes",
            "unknown feature",
            "required bit 63",
            trailer_bytes(&bits(1 << 63), 22, &[0, 1]),
        ),
        corrupt("trailer-reserved", "reserved 0", trailer_bytes(plain, 22, &[0, 1])),
        corrupt("byte-before", "an object of", [&[0], plain].concat()),
        corrupt("bytes-after", "magic", [plain, &[0; 64]].concat()),
        corrupt("shorter-than-a-trailer", "ends too early", plain[n - 63..].to_vec()),
        corrupt("footer-too-long", "a footer of at most", trailer_bytes(plain, 16, &long)),
        corrupt("footer-offset-overflows", "an object of", trailer_bytes(plain, 8, &[0xff; 8])),
        corrupt("data-end-behind-footer", "data to end at", trailer_bytes(plain, 0, &[0x7f; 8])),
    ]
}

fn field_lists(plain: &[u8]) -> Vec<Bad> {
    let bad = |name, says, object| Bad { name, at: "footer", error: "corrupt", says, object };
    let at = trailer(plain).unwrap().footer_offset as usize;
    let footer = |change: &dyn Fn(&mut Vec<u8>)| with_footer(plain, |f| changed(&f, |f| change(f)));
    let swapped = |f: &mut Vec<u8>| {
        let (first, second, end) = (place_of(f, 14), place_of(f, 15), place_of(f, 16));
        f[first..end].rotate_left(second - first);
    };
    let longer = |f: &mut Vec<u8>| {
        let length = place_of(f, 0xfff0) + 5;
        f[length] += 1;
    };
    vec![
        bad("footer-crc", "CRC32C", changed(plain, |o| o[at + 10] ^= 1)),
        bad("tag-0", "a tag above 0x0", footer(&|f| drop(f.splice(0..0, field(0, b""))))),
        bad("tags-descend", "a tag above 0xf", footer(&swapped)),
        bad(
            "tag-twice",
            "a tag above 0x6",
            footer(&|f| {
                let at = place_of(f, 6);
                f.splice(at..at, field(6, &[0, 0, 0, 2]));
            }),
        ),
        bad("tag-above-the-last", "at most 0xfff1", footer(&|f| f.extend(field(0xfff2, b"")))),
        bad("field-beyond-end", "ends too early", footer(&longer)),
        bad("bytes-after-fields", "ends too early", footer(&|f| f.extend([0xff; 3]))),
        bad("field-missing", "field 0xe", remove(plain, 14)),
        bad("field-too-long", "4 bytes in field 0x6", put(plain, 6, &[0, 0, 0, 2, 0])),
        bad("field-too-short", "8 bytes in field 0x8", put(plain, 8, &[0; 7])),
        bad(
            "field-21-says-other-version",
            "field 0x15",
            put(plain, 21, &{
                let mut value = value(plain, 21);
                value[1] = 2;
                value
            }),
        ),
        bad(
            "field-21-says-other-features",
            "field 0x15",
            put(plain, 21, &{
                let mut value = value(plain, 21);
                value[10] = 0x80;
                value
            }),
        ),
    ]
}

fn values(plain: &[u8]) -> Vec<Bad> {
    let bad = |name, says, tag, value: &[u8]| Bad {
        name,
        at: "footer",
        error: "corrupt",
        says,
        object: put(plain, tag, value),
    };
    let epochs = |epochs: &[(i32, i64)]| -> Vec<u8> {
        epochs.iter().flat_map(|(e, at)| [&e.to_be_bytes()[..], &at.to_be_bytes()].concat()).collect()
    };
    let long = [b't'; 250];
    vec![
        bad("writer-empty", "writer", 1, b""),
        bad("writer-with-control-character", "writer", 1, b"varve\x1b[2J"),
        bad("writer-not-utf-8", "UTF-8", 1, b"varve\xff"),
        bad("cluster-id-keys", "cluster id", 3, b"keys"),
        bad("topic-dots", "topic", 5, b".."),
        bad("topic-with-slash", "topic", 5, b"a/b"),
        bad("topic-too-long", "topic", 5, &long),
        bad("partition-negative", "partition", 6, &(-1_i32).to_be_bytes()),
        bad("base-offset-negative", "offsets", 8, &(-1_i64).to_be_bytes()),
        bad("last-offset-too-low", "offsets", 9, &998_i64.to_be_bytes()),
        bad("last-offset-too-high", "offsets", 9, &i64::MAX.to_be_bytes()),
        bad("max-timestamp-below-minus-1", "max timestamp", 10, &(-2_i64).to_be_bytes()),
        bad("created-negative", "created", 11, &(-1_i64).to_be_bytes()),
        bad("broker-negative", "broker", 12, &(-1_i32).to_be_bytes()),
        bad("leader-epochs-empty", "field 0xd, or no field", 13, b""),
        bad("leader-epochs-cut", "ends too early", 13, &epochs(&[(3, 1_000)])[..11]),
        bad("leader-epoch-negative", "leader epochs", 13, &epochs(&[(-1, 1_000)])),
        bad("leader-epochs-descend", "leader epochs", 13, &epochs(&[(5, 1_000), (3, 1_010)])),
        bad("leader-epoch-twice", "leader epochs", 13, &epochs(&[(3, 1_000), (3, 1_010)])),
        bad("leader-epoch-offsets-equal", "leader epochs", 13, &epochs(&[(3, 1_010), (5, 1_010)])),
        bad("leader-epoch-offset-negative", "leader epochs", 13, &epochs(&[(3, -1)])),
        bad("leader-epoch-behind-the-end", "leader epochs", 13, &epochs(&[(3, 1_000), (5, 1_097)])),
        bad("observed-empty", "field 0x13, or no field", 19, b""),
        bad("observed-cut", "ends too early", 19, &[0; 23]),
        bad("frame-bytes-no-power-of-two", "frame size", 15, &5_000_u32.to_be_bytes()),
        bad("frame-bytes-too-small", "frame size", 15, &2_048_u32.to_be_bytes()),
        bad("frame-bytes-too-large", "frame size", 15, &(1_u32 << 21).to_be_bytes()),
        bad("chunk-bytes-0", "chunk size", 16, &[0; 4]),
        bad("chunk-bytes-no-multiple", "chunk size", 16, &8_193_u32.to_be_bytes()),
        bad("chunk-bytes-too-large", "chunk size", 16, &(1_u32 << 28).to_be_bytes()),
        bad("digest-3", "digest algorithm", 17, &[3]),
    ]
}

fn features_and_digests(plain: &[u8]) -> Vec<Bad> {
    let bad = |name, says, object| Bad { name, at: "footer", error: "corrupt", says, object };
    let bare = base(false, DigestAlgorithm::None);
    let digests =
        |change: &dyn Fn(&mut Vec<u8>)| put(plain, 0xfff0, &changed(&value(plain, 0xfff0), |v| change(v)));
    // 6 + 32 bytes of the root, then tag and length of the leaves.
    let leaves = |count: usize| {
        digests(&|v| {
            let leaves = [&v[44..], &[0; 32]].concat()[..32 * count].to_vec();
            v.truncate(38);
            v.extend(field(2, &leaves));
        })
    };
    let encryption = [&[1][..], &[0; 48], b"2026"].concat();
    vec![
        bad("zstd-bit-without-zstd", "required: 1", flip_features(plain, REQUIRED_ZSTD, 0)),
        bad("zstd-without-its-bit", "required: 1", flip_features(&compressed().0, REQUIRED_ZSTD, 0)),
        bad("digests-without-their-bit", "optional: 0", flip_features(plain, 0, OPTIONAL_DIGESTS)),
        bad("digests-bit-without-digests", "optional: 1", flip_features(&bare, 0, OPTIONAL_DIGESTS)),
        bad("plain-with-encryption", "no field 0x14", put(plain, 20, &encryption)),
        bad("plain-with-sealed-digests", "no field 0xfff1", put(plain, 0xfff1, &[0; 16])),
        bad("plain-without-digest-field", "field 0xfff0", remove(plain, 0xfff0)),
        bad("root", "Merkle root", digests(&|v| v[6] ^= 1)),
        bad("leaf", "Merkle root", digests(&|v| v[44] ^= 1)),
        bad("leaf-missing", "ends too early", leaves(4)),
        bad("leaf-too-many", "expected its end", leaves(6)),
        bad("root-missing", "field 0x1", digests(&|v| drop(v.drain(..38)))),
        bad("digest-0-with-bytes", "no bytes where", put(&bare, 0xfff0, &field(7, b"x"))),
    ]
}

/// The entries of the base: chunk of two frames, chunk of one, offset index, empty time index, leader epochs.
fn tables(plain: &[u8]) -> Vec<Bad> {
    let bad = |name, says, object| Bad { name, at: "footer", error: "corrupt", says, object };
    let lie =
        |name, says, change: &dyn Fn(&mut Vec<Entry>)| bad(name, says, with_entries(plain, |e| change(e)));
    let log_bytes = |n: u64| put(plain, 14, &n.to_be_bytes());
    let count =
        |n: u32| put(plain, 18, &changed(&value(plain, 18), |t| t[..4].copy_from_slice(&n.to_be_bytes())));
    let (zstd, _) = compressed();
    let frame = |bytes: u32| with_entries(&zstd, |e| e[0].lengths[0] = bytes);
    let data_end = trailer(plain).unwrap().data_end;
    vec![
        lie("kind-6", "0 to 5 or 128 to 254", &|e| e[4].kind = 6),
        lie("kind-127", "0 to 5 or 128 to 254", &|e| e[4].kind = 127),
        lie("kind-255", "0 to 5 or 128 to 254", &|e| e[4].kind = 255),
        lie("kinds-descend", "a kind after", &|e| e[2].kind = 3),
        lie("kind-twice", "a kind after", &|e| e[3].kind = 1),
        lie("unknown-kind-twice", "a kind after", &|e| (e[3].kind, e[4].kind) = (200, 200)),
        lie("chunk-after-a-section", "a kind after", &|e| e[3].kind = 0),
        lie("codec-2", "codec 0 or 1", &|e| e[4].codec = 2),
        lie("extent-reserved", "reserved 0", &|e| e[4].reserved = 1),
        lie("chunk-too-short", "a chunk of 8192 bytes", &|e| e[0].plain_bytes -= 1),
        lie("chunk-too-long", "a chunk of 8192 bytes", &|e| e[0].plain_bytes += 1),
        lie("chunk-overflows", "a chunk of 8192 bytes", &|e| e[0].plain_bytes = u64::MAX),
        lie("section-too-long", "a section of at most", &|e| e[2].plain_bytes = SECTION_MAX_BYTES + 1),
        lie("section-longer-than-the-table", "ends too early", &|e| e[4].plain_bytes = SECTION_MAX_BYTES),
        lie("empty-extent-compressed", "an empty extent as it is", &|e| e[3].codec = 1),
        lie("stored-bytes", "stored bytes", &|e| e[2].stored_bytes += 1),
        lie("stored-bytes-overflow", "stored bytes", &|e| e[2].stored_bytes = u64::MAX),
        lie("extents-beyond-the-footer", "extents up to", &|e| {
            e[4].plain_bytes += 1;
            e[4].stored_bytes += 1;
        }),
        lie("extents-short-of-the-footer", "stored up to", &|e| drop(e.pop())),
        bad("log-longer-than-its-chunks", "a chunk of", log_bytes(11_000)),
        bad("log-shorter-than-its-chunks", "no more chunks", log_bytes(8_192)),
        bad("table-counts-too-many", "ends too early", count(6)),
        bad("table-counts-too-few", "expected its end", count(4)),
        bad(
            "data-end-within-a-chunk",
            "stored up to",
            trailer_bytes(plain, 0, &(data_end - 1).to_be_bytes()),
        ),
        bad("compressed-frame-of-0-bytes", "a frame of bounded size", frame(0)),
        bad("compressed-frame-too-long", "a frame of bounded size", frame(8_193)),
    ]
}

fn sealed() -> Vec<Bad> {
    let object = base(true, DigestAlgorithm::Blake3);
    let bad = |name, says, object| Bad { name, at: "footer", error: "corrupt", says, object };
    let refused =
        |name, object| Bad { name, at: "footer", error: "key refused", says: "does not open", object };
    let encryption = value(&object, 20);
    let field_20 = |change: &dyn Fn(&mut Vec<u8>)| put(&object, 20, &changed(&encryption, |v| change(v)));
    let seal = value(&object, 0xfff1);
    let public = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| resealed(&object, &SECRET, change, |private| private);
    let private =
        |change: &dyn Fn(&mut Vec<u8>)| resealed(&object, &SECRET, |p| p, |v| changed(&v, |v| change(v)));
    let bare = base(true, DigestAlgorithm::None);
    let table = table(&changed_entries(&object));
    vec![
        refused("streamed-bit-cleared", flip_features(&streamed(), REQUIRED_STREAMED, 0)),
        refused("streamed-bit-set", flip_features(&object, REQUIRED_STREAMED, 0)),
        refused("streamed-frame-dropped", without_last_frame(&streamed())),
        refused("seal-public-field-changed", put(&object, 10, &[0; 8])),
        refused("seal-field-added", insert(&object, 0x0100, b"x")),
        refused("seal-changed", put(&object, 0xfff1, &changed(&seal, |s| s[0] ^= 1))),
        refused("seal-of-another-salt", field_20(&|v| v[17] ^= 1)),
        refused("seal-of-another-object-id", put(&object, 2, &[0; 16])),
        bad("seal-too-short", "ends too early", put(&object, 0xfff1, &seal[..15])),
        bad("seal-missing", "field 0xfff1", remove(&object, 0xfff1)),
        bad("encryption-missing", "field 0x14", remove(&object, 20)),
        bad("encrypted-with-plain-digests", "no field 0xfff0", insert(&object, 0xfff0, b"")),
        bad("encryption-algorithm-2", "encryption algorithm 1", field_20(&|v| v[0] = 2)),
        bad("period-leads-elsewhere", "period", field_20(&|v| v[49..].copy_from_slice(b"../2026"))),
        bad("period-missing", "period", field_20(&|v| v.truncate(49))),
        bad("encryption-cut", "ends too early", field_20(&|v| v.truncate(48))),
        bad("sealed-root", "Merkle root", private(&|v| v[6] ^= 1)),
        bad(
            "sealed-digest-0-with-bytes",
            "no bytes where",
            resealed(&bare, &SECRET, |p| p, |_| field(7, b"x")),
        ),
        Bad {
            name: "encrypted-frames-swapped",
            at: "frame",
            error: "key refused",
            says: "does not open",
            object: changed(
                &public(&|footer| {
                    let (at, end) = (place_of(&footer, 18), place_of(&footer, 19));
                    changed(&footer, |f| drop(f.splice(at..end, field(18, &table))))
                }),
                |o| o[..2 * (4096 + 16)].rotate_left(4096 + 16),
            ),
        },
    ]
}

/// The first two frames' checksums swapped.
fn changed_entries(object: &[u8]) -> Vec<Entry> {
    let mut entries = entries(object);
    entries[0].crcs.swap(0, 1);
    entries
}

fn frames(plain: &[u8]) -> Vec<Bad> {
    let bad = |name, at, says, object| Bad { name, at, error: "corrupt", says, object };
    let sections = trailer(plain).unwrap().data_end as usize;
    let other = changed(plain, |o| o[5_000] ^= 1);
    let crc = crc32c::crc32c(&other[4_096..8_192]);
    vec![
        bad("frame-crc", "frame", "CRC32C", changed(plain, |o| o[5_000] ^= 1)),
        bad("section-crc", "frame", "CRC32C", changed(plain, |o| o[sections] ^= 1)),
        bad("frames-swapped", "frame", "CRC32C", changed(plain, |o| o[..8_192].rotate_left(4_096))),
        bad("digest-of-other-bytes", "digest", "digest", with_entries(&other, |e| e[0].crcs[1] = crc)),
        bad(
            "encrypted-frame-crc",
            "frame",
            "CRC32C",
            changed(&base(true, DigestAlgorithm::Blake3), |o| o[5_000] ^= 1),
        ),
    ]
}

fn zstd_frames() -> Vec<Bad> {
    let (object, log) = compressed();
    let good = only_frame(&object);
    let bad = |name, says, frame: Vec<u8>| Bad {
        name,
        at: "frame",
        error: "corrupt",
        says,
        object: with_only_frame(&object, &frame),
    };
    // The content size of 256 to 65,791 bytes stands, less 256, at 5.
    let sized = |n: usize| changed(&good, |f| f[5..7].copy_from_slice(&(n as u16 - 256).to_le_bytes()));
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"junk"].concat();
    let half = |part: &[u8]| zstd::bulk::compress(part, 3).unwrap();
    // Without its content size a frame has a window descriptor, of 4 KiB here.
    let unsized_frame = changed(&good, |f| {
        f[4] &= !0xe0;
        f.splice(5..7, [2 << 3]);
    });
    let longer = [&log[..], &log[..16]].concat();
    let lying = changed(&half(&longer), |f| f[5..7].copy_from_slice(&(log.len() as u16 - 256).to_le_bytes()));
    vec![
        bad("zstd-content-size-too-large", "a content size of", sized(log.len() + 1)),
        bad("zstd-content-size-too-small", "a content size of", sized(log.len() - 1)),
        bad("zstd-content-longer-than-its-size", "plain bytes", lying),
        bad("zstd-without-content-size", "no content size", unsized_frame),
        bad("zstd-dictionary-id", "a dictionary id", with_dictionary_id(&good, 0)),
        bad("zstd-window-above-8-mib", "a window of", with_window(&good, 13 << 3 | 1)),
        bad("zstd-magic", "magic", changed(&good, |f| f[0] = 0x27)),
        bad("zstd-checksum", "zstd frame", changed(&checksummed(&log), |f| *f.last_mut().unwrap() ^= 1)),
        bad("zstd-two-frames", "a content size of", [half(&log[..2_000]), half(&log[2_000..])].concat()),
        bad("zstd-bytes-after", "another end", [&good[..], &[0]].concat()),
        bad("zstd-skippable-frame-after", "another end", [&good[..], &skippable].concat()),
        bad("zstd-skippable-frame-before", "magic", [&skippable[..], &good].concat()),
        bad("zstd-cut", "another end", good[..good.len() - 1].to_vec()),
    ]
}

/// Reads all, and tells where it was refused.
fn refusal(object: &[u8], key: &DataKey) -> Option<(&'static str, Error)> {
    let trailer = match trailer(object) {
        Err(e) => return Some(("trailer", e)),
        Ok(trailer) => trailer,
    };
    assert!(Trailer::decode(object.last_chunk().unwrap(), object.len() as u64 + 1).is_err());
    let (footer, object_key) = match open(object, Some(key)) {
        Err(e) => return Some(("footer", e)),
        Ok(opened) => opened,
    };
    assert_eq!(trailer.object_bytes(), object.len() as u64);
    for (n, extent) in footer.extents.iter().enumerate() {
        let plain = match read(object, &footer, object_key.as_ref(), extent) {
            Err(e) => return Some(("frame", e)),
            Ok(plain) => plain,
        };
        if let Some(mut hasher) = footer.digest.hasher() {
            hasher.update(&plain);
            let (expected, found) = (footer.digests[n].to_string(), hasher.finish().to_string());
            if expected != found {
                let (what, offset) = ("digest", extent.stored_offset);
                return Some(("digest", Error::Corrupt { what, offset, expected, found }));
            }
        }
    }
    None
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Corrupt { .. } | Error::TooShort { .. } => "corrupt",
        Error::FutureVersion { .. } => "future version",
        Error::UnknownFeatures(_) => "unknown feature",
        Error::KeyRefused { .. } => "key refused",
        other => panic!("{other}"),
    }
}

fn check(bad: &Bad, object: &[u8], key: &DataKey) {
    let Some((at, error)) = refusal(object, key) else { panic!("{} is accepted", bad.name) };
    assert_eq!((at, kind(&error)), (bad.at, bad.error), "{}: {error}", bad.name);
    assert!(error.to_string().contains(bad.says), "{}: {error}", bad.name);
}

#[test]
fn bad_golden_objects_are_refused_for_what_is_wrong_with_them() {
    let key = golden::key();
    let expected: Map<String, Value> = serde_json::from_slice(&golden::bytes("bad/expected.json")).unwrap();
    let all = all();
    for bad in &all {
        check(bad, &golden::bytes(&format!("bad/{}.varve", bad.name)), &key);
        assert_eq!(expected[bad.name], json!({"at": bad.at, "error": bad.error}), "{}", bad.name);
    }
    assert_eq!(expected.len(), all.len());
    let files = std::fs::read_dir(golden::folder().join("bad")).unwrap().count();
    assert_eq!(files, all.len() + 1, "a file that no test reads");
}

/// What each was made from reads well: nothing else is wrong with it.
#[test]
fn what_bad_objects_are_made_from_is_good() {
    let key = golden::new_key();
    for object in [
        base(false, DigestAlgorithm::Blake3),
        base(false, DigestAlgorithm::None),
        base(true, DigestAlgorithm::Blake3),
        base(true, DigestAlgorithm::None),
        compressed().0,
        with_entries(&base(false, DigestAlgorithm::Blake3), |_| {}),
        resealed(&base(true, DigestAlgorithm::Blake3), &SECRET, |p| p, |p| p),
        with_only_frame(&compressed().0, &only_frame(&compressed().0)),
        with_only_frame(&compressed().0, &with_window(&checksummed(&compressed().1), 13 << 3)),
    ] {
        assert_eq!(refusal(&object, &key), None);
    }
}

/// As `write_golden_files`, and as careful.
#[test]
#[ignore = "writes the bad golden files of a new version, once"]
fn write_bad_golden_files() {
    let (key, mut all) = (golden::new_key(), all());
    all.iter().for_each(|bad| check(bad, &bad.object, &key));
    if let Ok(only) = std::env::var("VARVE_GOLDEN") {
        // Samples that came later are written alone, once; what is expected of them is added by hand.
        all.retain(|bad| bad.name.starts_with(&only));
        all.iter().for_each(|bad| new_file(&format!("bad/{}.varve", bad.name), &bad.object));
        return;
    }
    std::fs::create_dir(golden::folder().join("bad")).unwrap();
    let expected: Map<String, Value> =
        all.iter().map(|b| (b.name.to_owned(), json!({"at": b.at, "error": b.error}))).collect();
    assert_eq!(expected.len(), all.len(), "a name twice");
    let text = serde_json::to_string_pretty(&expected).unwrap();
    new_file("bad/expected.json", format!("{text}\n").as_bytes());
    for bad in all {
        new_file(&format!("bad/{}.varve", bad.name), &bad.object);
    }
}
