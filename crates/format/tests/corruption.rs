//! Damage and tampering: what a reader must notice, and by which name.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use support::*;
use varve_format::*;

const BLAKE3: DigestAlgorithm = DigestAlgorithm::Blake3;

#[test]
fn every_flipped_byte_is_detected() {
    let key = data_key();
    for (name, object, _) in variants() {
        assert!(read_all(&object, Some(&key)).is_ok(), "{name}");
        for at in 0..object.len() {
            for mask in [1 << (at % 8), 0xff] {
                let mut damaged = object.clone();
                damaged[at] ^= mask;
                assert!(read_all(&damaged, Some(&key)).is_err(), "{name}: byte {at} ^ {mask:#x}");
            }
        }
    }
}

#[test]
fn every_truncation_is_detected() {
    let key = data_key();
    for (name, object, _) in variants() {
        for n in 0..object.len() {
            assert!(read_all(&object[..n], Some(&key)).is_err(), "{name}: cut to {n} bytes");
        }
        assert!(read_all(&object[1..], Some(&key)).is_err(), "{name}: first byte missing");
        assert!(read_all(&[&[0], &object[..]].concat(), Some(&key)).is_err(), "{name}: a byte before");
    }
}

/// Checksums don't stop an attacker; the footer's seal does, for footer and trailer.
#[test]
fn every_change_of_an_encrypted_footer_is_refused_though_checksums_fit() {
    let key = data_key();
    for (name, object, finished) in variants().into_iter().filter(|(_, _, f)| f.footer.encryption.is_some()) {
        let magic = object.len() - 8;
        for at in finished.trailer.footer_offset as usize..magic {
            for bit in 0..8 {
                let mut forged = object.clone();
                forged[at] ^= 1 << bit;
                repair_checksums(&mut forged);
                // The checksums themselves are put right again.
                assert!(
                    forged == object || read_all(&forged, Some(&key)).is_err(),
                    "{name}: byte {at} bit {bit}"
                );
            }
        }
    }
}

/// Without encryption an attacker can forge, but never make a reader panic or read beyond.
#[test]
fn forged_plain_footers_do_not_panic() {
    for (_, object, finished) in variants().into_iter().filter(|(_, _, f)| f.footer.encryption.is_none()) {
        for at in finished.trailer.footer_offset as usize..object.len() - 8 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut forged = object.clone();
                forged[at] = value;
                repair_checksums(&mut forged);
                decode_all::object(&forged, &data_key());
            }
        }
    }
}

fn stored<'a>(object: &'a [u8], frame: &FrameRef) -> &'a [u8] {
    &object[frame.stored.start as usize..frame.stored.end as usize]
}

/// Opens `bytes` in the place of `frame`, with a checksum that fits.
fn open_as(footer: &Footer, key: &ObjectKey, frame: &FrameRef, bytes: &[u8]) -> Result<()> {
    let forged = FrameRef {
        stored: frame.stored.start..frame.stored.start + bytes.len() as u64,
        crc: crc32c::crc32c(bytes),
        ..frame.clone()
    };
    let mut plain = vec![0; frame.plain_bytes as usize];
    decode_all::frame(&mut Decoder::new(footer, Some(key))?, &forged, bytes, &mut plain)
}

#[test]
fn swapped_frames_are_refused_when_encrypted() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = options(compression, true, BLAKE3);
        let log = vec![b'x'; 16384];
        let (a, finished_a) = write(&options, &log, &[]);
        let (same, _) = write(&options, &log, &[]);
        assert_eq!(a, same, "the encoder adds no randomness of its own");
        let new_id = WriteOptions { object_id: Id([0xb; 16]), ..options.clone() };
        let new_salt = Some(Encryption { salt: [6; 32], ..encryption() });
        let new_salt = WriteOptions { encryption: new_salt, ..options.clone() };
        let (footer, object_key) = open(&a, Some(&data_key())).unwrap();
        let key = object_key.unwrap();
        let frames: Vec<_> = (0..4).map(|n| finished_a.footer.frame(n).unwrap()).collect();
        for frame in &frames {
            assert_eq!(open_as(&footer, &key, frame, stored(&a, frame)), Ok(()));
            for other in [&new_id, &new_salt] {
                let (b, _) = write(other, &log, &[]);
                let refused = open_as(&footer, &key, frame, stored(&b, frame));
                assert!(matches!(refused, Err(Error::KeyRefused { .. })), "from another object: {refused:?}");
            }
            for other in frames.iter().filter(|f| f.number != frame.number) {
                let refused = open_as(&footer, &key, frame, stored(&a, other));
                assert!(matches!(refused, Err(Error::KeyRefused { .. })), "from another place: {refused:?}");
            }
        }
        // The same frame of an object with fewer frames: the number of frames is bound too.
        let (shorter, _) = write(&options, &log[..8192], &[]);
        assert!(open_as(&footer, &key, &frames[0], stored(&shorter, &frames[0])).is_err());
    }
}

/// Whole chunks of another object under this one's footer, and the other way round.
#[test]
fn swapped_data_and_footers_are_refused_when_encrypted() {
    let options_a = options(Compression::None, true, BLAKE3);
    let options_b = WriteOptions { object_id: Id([0xb; 16]), ..options_a.clone() };
    let (a, finished) = write(&options_a, &[1; 9000], &[]);
    let (b, _) = write(&options_b, &[2; 9000], &[]);
    let at = finished.trailer.footer_offset as usize;
    assert!(read_all(&[&a[..at], &b[at..]].concat(), Some(&data_key())).is_err());
    assert!(read_all(&[&b[..at], &a[at..]].concat(), Some(&data_key())).is_err());
}

#[test]
fn wrong_and_missing_keys_are_told_apart() {
    let (object, finished) = write(&options(Compression::None, true, BLAKE3), &[1; 5000], &[]);
    let key_id = Id([7; 16]).to_string();
    let (sealed, _) = open(&object, None).unwrap();
    assert_eq!((sealed.digests.len(), sealed.root), (0, None), "digests stay sealed");
    let missing = Decoder::new(&sealed, None).map(|_| ());
    assert_eq!(missing, Err(Error::KeyMissing { what: "object", key_id: key_id.clone() }));
    let wrong = open(&object, Some(&DataKey::new(Id([7; 16]), [8; 32])));
    let offset = finished.trailer.footer_offset;
    assert!(
        matches!(wrong, Err(Error::KeyRefused { key_id: found, offset: at, .. }) if found == key_id && at > offset)
    );
    // With the right key, but a footer that was not authenticated.
    let key = data_key().object_key(&[5; 32], Id([4; 16])).unwrap();
    assert!(matches!(
        Decoder::new(&sealed, Some(&key)).map(|_| ()),
        Err(Error::Invalid { what: "footer", .. })
    ));
    let ring = KeyRing::parse(support::KEK_RING).unwrap();
    let record = KeyRecord::wrap(&ring, &data_key(), "c", Id([1; 16]), "p", 0, [0; 12]).unwrap();
    let by = |url: &str| {
        let wrapping = Wrapping { wrapped_by: url.into(), ..record.wrapping.clone() };
        KeyRecord { wrapping, ..record.clone() }
    };
    let gone = by("ring:2024");
    assert!(matches!(gone.unwrap(&ring), Err(Error::KeyMissing { key_id, .. }) if key_id == "2024"));
    let elsewhere = by("vault://somewhere/transit/2025");
    assert!(matches!(elsewhere.unwrap(&ring), Err(Error::KeyMissing { .. })));
    let other = by("ring:2025");
    assert!(matches!(other.unwrap(&ring), Err(Error::KeyRefused { key_id, .. }) if key_id == "2025"));
    for changed in [
        KeyRecord { id: Id([0; 16]), ..record.clone() },
        KeyRecord { topic_id: Id([0; 16]), ..record.clone() },
        KeyRecord { period: "q".into(), ..record.clone() },
        KeyRecord { cluster_id: Some("d".into()), ..record.clone() },
        KeyRecord { cluster_id: None, ..record.clone() },
        KeyRecord { rewrapped: true, ..record.clone() },
        // What follows a cluster id doesn't pass for a part of it.
        KeyRecord { cluster_id: Some("c.".into()), ..record.clone() },
        {
            let mut wrapping = record.wrapping.clone();
            wrapping.wrapped[0] ^= 1;
            KeyRecord { wrapping, ..record.clone() }
        },
    ] {
        assert!(changed.unwrap(&ring).is_err(), "{changed:?}");
    }
}

/// Changes the trailer of a plain object at `at`, checksums fitting, and returns why it is refused.
fn with_trailer_bytes(at: usize, bytes: &[u8]) -> Error {
    let (mut object, _) = write(&options(Compression::None, false, BLAKE3), &[1; 5000], &[]);
    let start = object.len() - TRAILER_BYTES + at;
    object[start..start + bytes.len()].copy_from_slice(bytes);
    repair_checksums(&mut object);
    open(&object, None).map(|_| ()).unwrap_err()
}

#[test]
fn what_is_too_new_is_refused_by_name() {
    let bits: u64 = 1 << 7 | 1 << 63;
    let unknown = with_trailer_bytes(24, &bits.to_be_bytes());
    assert_eq!(unknown, Error::UnknownFeatures("required bit 7, required bit 63".into()));
    assert!(unknown.to_string().contains("required bit 7, required bit 63"));
    assert_eq!(with_trailer_bytes(20, &[0, 2]), Error::FutureVersion { found: 2, supported: 1 });
    assert!(matches!(with_trailer_bytes(20, &[0, 0]), Error::Corrupt { .. }), "version 0");
    let reserved = with_trailer_bytes(22, &[0, 1]);
    assert!(matches!(reserved, Error::Corrupt { .. }) && reserved.to_string().contains("reserved 0"));
    // A later version may use what is reserved, under a required bit: then that is what the message names.
    let with_reserved = with_trailer_bytes(22, &[&[0, 1][..], &bits.to_be_bytes()].concat());
    assert_eq!(with_reserved, unknown);
    assert!(
        matches!(with_trailer_bytes(24, &1_u64.to_be_bytes()), Error::Corrupt { .. }),
        "zstd, but nothing is"
    );
    let metadata = [2, 0, 0, 16, 1, b's'];
    assert_eq!(CustomMetadata::decode(&metadata), Err(Error::FutureVersion { found: 2, supported: 1 }));
    let record = br#"{"varve_key": 7, "something": "new"}"#;
    assert_eq!(KeyRecord::decode(record), Err(Error::FutureVersion { found: 7, supported: 2 }));
}

#[test]
fn unknown_optional_fields_and_bits_are_ignored() {
    let (object, finished) = write(&options(Compression::None, false, BLAKE3), &[1; 5000], &[]);
    let (footer, _) = read_all(&insert(&object, 100, b"from the future"), None).unwrap();
    assert_eq!(footer, finished.footer);
    // An unknown optional bit, in the trailer and in field 21.
    let mut changed = with_footer(&object, |mut footer| {
        let value = place_of(&footer, 21) + 6;
        footer[value + 10] = 0x80;
        footer
    });
    let n = changed.len();
    changed[n - 64 + 32] = 0x80;
    repair_checksums(&mut changed);
    assert_eq!(read_all(&changed, None).unwrap().0, finished.footer);
    // In a sealed footer nothing can be added.
    let (sealed, _) = write(&options(Compression::None, true, BLAKE3), &[1; 5000], &[]);
    assert!(matches!(read_all(&insert(&sealed, 100, b""), Some(&data_key())), Err(Error::KeyRefused { .. })));
    let after = with_footer(&sealed, |footer| [footer, field(0xfff2, b"")].concat());
    assert!(open(&after, None).is_err());
}

#[test]
fn fields_are_there_once_in_order_and_in_their_case_alone() {
    let (plain, _) = write(&options(Compression::None, false, BLAKE3), &[1; 5000], &[]);
    let (bare, _) = write(&options(Compression::None, false, DigestAlgorithm::None), &[1; 5000], &[]);
    let (sealed, _) = write(&options(Compression::None, true, BLAKE3), &[1; 5000], &[]);
    let optional = [7, 12, 13, 19];
    for tag in (1..=21).chain([0xfff0]) {
        let removed = remove(&plain, tag);
        let expected = optional.contains(&tag) || tag == 20;
        assert_eq!(open(&removed, None).is_ok(), expected, "without field {tag:#x}");
        if tag != 20 {
            let twice = with_footer(&plain, |mut footer| {
                let (at, next) = (place_of(&footer, tag), place_of(&footer, tag + 1));
                let copy = footer[at..next].to_vec();
                footer.splice(at..at, copy);
                footer
            });
            assert!(open(&twice, None).is_err(), "field {tag:#x} twice");
        }
    }
    for tag in [20, 0xfff1] {
        assert!(open(&remove(&sealed, tag), None).is_err(), "encrypted without field {tag:#x}");
        assert!(open(&insert(&plain, tag, &[0; 60]), None).is_err(), "plain with field {tag:#x}");
    }
    assert!(open(&insert(&sealed, 0xfff0, b""), None).is_err(), "encrypted with plain digests");
    let with_root = with_footer(&bare, |footer| {
        let at = place_of(&footer, 0xfff0);
        [&footer[..at], &field(0xfff0, &field(1, &[0; 32]))].concat()
    });
    assert!(open(&with_root, None).is_err(), "a root without digests");
}

#[test]
fn what_kafka_keeps_must_be_the_objects_own() {
    let zstd = options(Compression::Zstd { level: 1 }, false, BLAKE3);
    for options in [options(Compression::None, false, BLAKE3), options(Compression::None, true, BLAKE3), zstd]
    {
        let identity = options.encryption.is_none() && options.compression == Compression::None;
        let (_, f) = write(&options, &[1; 5000], &[]);
        let own = f.custom_metadata("default", None);
        assert_eq!(own.identity, identity);
        let i = &f.footer.info;
        let place = ArchiveReference {
            topic_id: i.topic_id,
            partition: i.partition,
            branch: 7,
            base_offset: i.base_offset,
        };
        let archived = CustomMetadata { archive: Some(place), ..own.clone() };
        for good in [&own, &archived] {
            assert_eq!(good.check_object(&f.trailer, &f.footer, &f.footer_digest), Ok(()));
            for (what, bad) in [
                ("footer digest", CustomMetadata { footer_digest: Digest([0; 32]), ..good.clone() }),
                ("data end", CustomMetadata { data_end: good.data_end - 1, ..good.clone() }),
                ("footer offset", CustomMetadata { footer_offset: good.footer_offset + 1, ..good.clone() }),
                ("footer bytes", CustomMetadata { footer_bytes: good.footer_bytes + 1, ..good.clone() }),
                ("frame bytes", CustomMetadata { frame_bytes: 8192, ..good.clone() }),
                ("identity", CustomMetadata { identity: !identity, ..good.clone() }),
            ] {
                let refused = bad.check_object(&f.trailer, &f.footer, &f.footer_digest).unwrap_err();
                assert!(matches!(&refused, Error::Mistaken { expected, .. } if expected.starts_with(what)));
            }
        }
        for elsewhere in [
            ArchiveReference { topic_id: Id([0; 16]), ..place },
            ArchiveReference { partition: 0, ..place },
            ArchiveReference { base_offset: 0, ..place },
        ] {
            let bad = CustomMetadata { archive: Some(elsewhere), ..own.clone() };
            assert!(bad.check_object(&f.trailer, &f.footer, &f.footer_digest).is_err(), "{elsewhere:?}");
        }
    }
    // By `auto`, where nothing shrank, the stored bytes are the plain ones too.
    let (_, f) = write(&options(Compression::Auto { level: 1 }, false, BLAKE3), &noise(1, 5000), &[]);
    assert!(f.custom_metadata("default", None).identity);
}

#[test]
fn another_segment_or_key_under_the_name_is_refused() {
    let i = info();
    let sought = SegmentName {
        cluster_id: i.cluster_id.clone(),
        topic_id: i.topic_id,
        partition: i.partition,
        base_offset: i.base_offset,
        segment_id: i.segment_id.unwrap(),
    };
    assert_eq!(i.check_is(&sought), Ok(()));
    for (what, other) in [
        ("cluster id", SegmentInfo { cluster_id: "other".into(), ..i.clone() }),
        ("topic id", SegmentInfo { topic_id: Id([9; 16]), ..i.clone() }),
        ("partition", SegmentInfo { partition: 0, ..i.clone() }),
        ("base offset", SegmentInfo { base_offset: 0, ..i.clone() }),
        ("segment id", SegmentInfo { segment_id: Some(Id([9; 16])), ..i.clone() }),
        ("segment id", SegmentInfo { segment_id: None, ..i.clone() }),
    ] {
        let refused = other.check_is(&sought).unwrap_err();
        assert!(
            matches!(&refused, Error::Mistaken { expected, .. } if expected.starts_with(what)),
            "{refused}"
        );
    }
    let ring = KeyRing::parse(support::KEK_RING).unwrap();
    let record = KeyRecord::wrap(&ring, &data_key(), "c", Id([1; 16]), "2026-11", 0, [0; 12]).unwrap();
    let id = data_key().id;
    assert_eq!(record.check_is(id, "c", Id([1; 16]), "2026-11"), Ok(()));
    for (id, cluster, topic, period) in [
        (Id([0; 16]), "c", Id([1; 16]), "2026-11"),
        (id, "d", Id([1; 16]), "2026-11"),
        (id, "c", Id([2; 16]), "2026-11"),
        (id, "c", Id([1; 16]), "2026-12"),
    ] {
        assert!(matches!(record.check_is(id, cluster, topic, period), Err(Error::Mistaken { .. })));
    }
}

/// The extent table's rules, one broken at a time. The table begins with 1 chunk, then an index.
#[test]
fn extent_tables_that_lie_are_refused() {
    let sections: Sections = &[(ExtentKind::OffsetIndex, &[7; 100]), (ExtentKind::TimeIndex, &[])];
    let (object, _) = write(&options(Compression::None, false, DigestAlgorithm::None), &[1; 5000], sections);
    let changed = |at: usize, bytes: &[u8]| {
        with_footer(&object, |mut footer| {
            let value = place_of(&footer, 18) + 6 + at;
            footer[value..value + bytes.len()].copy_from_slice(bytes);
            footer
        })
    };
    // 4 count | 20 + 2 × 4 chunk | 20 + 4 offset index | 20 time index
    let (chunk, index, time) = (4, 32, 56);
    assert!(read_all(&changed(0, &3_u32.to_be_bytes()), None).is_ok());
    for (why, at, bytes) in [
        ("more extents than are there", 0, &4_u32.to_be_bytes()[..]),
        ("fewer extents", 0, &2_u32.to_be_bytes()),
        ("no kind", chunk, &[6]),
        ("no codec", chunk + 1, &[2]),
        ("reserved", chunk + 2, &[1]),
        ("a kind again", time, &[1]),
        ("kinds descending", index, &[2]),
        ("a chunk among the sections", time, &[0]),
        ("an empty extent that is compressed", time + 1, &[1]),
        ("a chunk longer than the log", chunk + 4, &5001_u64.to_be_bytes()),
        ("a chunk shorter than the log", chunk + 4, &4999_u64.to_be_bytes()),
        ("an overflowing chunk", chunk + 4, &u64::MAX.to_be_bytes()),
        ("an overflowing section", time + 4, &u64::MAX.to_be_bytes()),
        ("a section above its limit", time + 4, &(SECTION_MAX_BYTES + 1).to_be_bytes()),
        ("other stored bytes", chunk + 12, &5001_u64.to_be_bytes()),
        ("overflowing stored bytes", index + 12, &u64::MAX.to_be_bytes()),
    ] {
        let refused = open(&changed(at, bytes), None).map(|_| ());
        assert!(matches!(refused, Err(Error::Corrupt { .. } | Error::TooShort { .. })), "{why}: {refused:?}");
    }
}

/// Under one root, an index can't pass for another, nor a chunk be cut elsewhere.
#[test]
fn the_root_binds_kinds_and_lengths() {
    let options = options(Compression::None, false, BLAKE3);
    let root = |log: &[u8], kind| write(&options, log, &[(kind, &[7; 50])]).1.footer.root.unwrap();
    assert_eq!(root(b"log", ExtentKind::OffsetIndex), root(b"log", ExtentKind::OffsetIndex));
    assert_ne!(root(b"log", ExtentKind::OffsetIndex), root(b"log", ExtentKind::TimeIndex));
    let as_log = write(&options, b"log", &[]).1.footer.root.unwrap();
    let as_section = write(&options, &[], &[(ExtentKind::LeaderEpochs, b"log")]).1.footer.root.unwrap();
    assert_ne!(as_log, as_section);
}

/// What the checks behind one another would hide: each alone.
#[test]
fn every_check_stands_alone() {
    let zstd = options(Compression::Zstd { level: 1 }, false, DigestAlgorithm::None);
    let sections: Sections = &[(ExtentKind::TimeIndex, &[])];
    let (object, _) = write(&zstd, &[1; 100], sections);
    let compressed = with_footer(&object, |mut footer| {
        // The table's last entry is 20 bytes; its second byte the codec.
        let codec = place_of(&footer, 19) - 20 + 1;
        footer[codec] = 1;
        footer
    });
    let refused = open(&compressed, None).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("an empty extent as it is"), "{refused}");

    let (object, finished) = write(&options(Compression::None, false, BLAKE3), &[1; 100], &[]);
    let other_root = with_footer(&object, |mut footer| {
        let root = place_of(&footer, 0xfff0) + 12;
        footer[root] ^= 1;
        footer
    });
    assert!(matches!(open(&other_root, None), Err(Error::Corrupt { what: "Merkle root", .. })));

    let unknown = Trailer { features: Features { required: 8, optional: 1 }, ..finished.trailer };
    let refused = Err(Error::UnknownFeatures("required bit 3".into()));
    assert_eq!(Trailer::decode(&unknown.encode(), object.len() as u64), refused);
    assert_eq!(
        Footer::decode(footer_bytes(&object, &finished.trailer), &unknown).map(|_| ()),
        refused.map(|_| ())
    );

    let (sealed, _) = write(&options(Compression::None, true, BLAKE3), &[1; 100], &[]);
    let elsewhere = with_footer(&sealed, |mut footer| {
        let period = place_of(&footer, 20) + 6 + 49;
        footer[period..period + 4].copy_from_slice(b"../x");
        footer
    });
    let refused = open(&elsewhere, None).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { what: "period", .. }), "{refused}");
}

/// A table that is whole, of a section that is one frame too long.
#[test]
fn sections_above_their_limit_are_refused() {
    let (object, finished) = write(
        &options(Compression::None, false, DigestAlgorithm::None),
        &[1; 100],
        &[(ExtentKind::TimeIndex, &[2])],
    );
    for (plain_bytes, accepted) in [(SECTION_MAX_BYTES, true), (SECTION_MAX_BYTES + 1, false)] {
        let mut footer = footer_bytes(&object, &finished.trailer).to_vec();
        let (at, next) = (place_of(&footer, 18), place_of(&footer, 19));
        // The head of the chunk and its frame, then the section.
        let mut table = footer[at + 6..at + 6 + 4 + 24].to_vec();
        table.extend_from_slice(&[2, 0, 0, 0]);
        table.extend_from_slice(&plain_bytes.to_be_bytes());
        table.extend_from_slice(&plain_bytes.to_be_bytes());
        table.resize(table.len() + 4 * plain_bytes.div_ceil(4096) as usize, 0);
        footer.splice(at..next, field(18, &table));
        let trailer = Trailer {
            footer_offset: 100 + plain_bytes,
            footer_bytes: footer.len() as u32,
            footer_crc: crc32c::crc32c(&footer),
            ..finished.trailer
        };
        let found = Footer::decode(&footer, &trailer).map(|_| ());
        assert_eq!(found.is_ok(), accepted, "{plain_bytes}: {found:?}");
    }
}
