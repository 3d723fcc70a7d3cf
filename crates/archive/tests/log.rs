//! A partition's history read back: every offset once, from whatever has it, or an error that says which not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::{Bytes, BytesMut};
use support::*;
use varve_archive::record::gap::GapReason;
use varve_archive::record::state::{JournalEntry, PartitionState};
use varve_archive::*;
use varve_format::{Compression, Encoder, ExtentKind, Plan, TRAILER_BYTES, Trailer, WriteOptions, crc32c};
use varve_store::{MemoryStore, Operation};

fn place(partition: i32, first_offset: i64) -> Place {
    Place { topic_id: TOPIC, partition, first_offset }
}

async fn commit(archive: &Archive, branch: u32, first: i64, object: Bytes) {
    let done = archive.partition(TOPIC, 0).commit(branch, first, object).await.unwrap();
    assert!(matches!(done, Commit::Committed), "{done:?}");
}

/// Of branch `branch`, at epoch 0 from its beginning.
async fn bundle(archive: &Archive, branch: u32, first: i64, end: i64) {
    let mut bundle = BundleBuilder::default();
    bundle.add(archive, branch, place(0, first), segment(0, first, end)).unwrap();
    archive.put_bundle("a", 0, bundle, "varve test", 1).await.unwrap();
}

async fn branch(archive: &Archive, number: u32, parent: Option<u32>, start: i64) {
    let mut record = branch_record(number, parent, start);
    let started = archive.partition(TOPIC, 0).start_branch(&mut record).await.unwrap();
    assert!(matches!(started, Started::Ours));
}

async fn log_now(archive: &Archive, branch: Option<u32>) -> Result<ArchivedLog> {
    let journal = archive.journal(|_, _| true).await?;
    archive.log_reader(None).await?.now(TOPIC, 0, branch, &journal, None).await
}

async fn snapshot_now(archive: &Archive) -> PartitionState {
    let journal = archive.journal(|_, _| true).await.unwrap();
    let target = Target { journal: journal.entries(TOPIC, 0).to_vec(), ..Target::new(TOPIC, 0) };
    let snapshot = archive.write_snapshot(&new_snapshot(&[target])).await.unwrap();
    archive.find(snapshot.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap()
}

async fn log_at(archive: &Archive, state: &PartitionState) -> ArchivedLog {
    let newest = archive.latest_snapshot(0).await.unwrap().unwrap();
    let journal = archive.journal_of(&newest.record, |_, _| true).await.unwrap();
    archive.log_reader(Some(&newest.record)).await.unwrap().at(state, None, &journal).unwrap()
}

async fn read(object: &ArchivedObject, position: u64, read_ahead: usize) -> Result<Vec<u8>> {
    let mut stream = object.read(position, read_ahead)?;
    let mut all = BytesMut::new();
    while let Some(piece) = stream.next().await? {
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
        assert_eq!(stream.position(), position + all.len() as u64);
    }
    Ok(all.to_vec())
}

/// The offsets that are in the pieces from `from` on, as the caller trims them; of each branch, what it gives.
async fn offsets(log: &ArchivedLog, from: i64) -> Result<Vec<(u32, i64)>> {
    let (mut found, mut pieces, mut at) = (vec![], log.pieces(from), from.max(log.start_offset()));
    while let Some(piece) = pieces.next().await? {
        assert_eq!(piece.first_offset, at);
        at = piece.end_offset;
        let Some(object) = log.open(&piece).await? else { continue };
        assert_eq!(object.gap().await?.is_some(), matches!(piece.content, PieceContent::Gap(_)));
        let bytes = read(&object, 0, 2).await?;
        let all = bytes.chunks(8).map(|o| i64::from_be_bytes(o.try_into().unwrap()));
        let wanted = all.filter(|o| (piece.first_offset..piece.end_offset).contains(o));
        found.extend(wanted.map(|offset| (piece.branch, offset)));
    }
    assert_eq!(at, log.end_offset().max(from));
    Ok(found)
}

fn of(branch: u32, offsets: std::ops::Range<i64>) -> Vec<(u32, i64)> {
    offsets.map(|o| (branch, o)).collect()
}

#[test]
fn chain_gap_and_journal_give_every_offset_once() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, 0, gap(0, 0, 5)).await;
        commit(&archive, 0, 5, segment(0, 5, 20)).await;
        commit(&archive, 0, 20, segment(0, 20, 30)).await;
        for (first, end) in [(18, 33), (30, 34), (32, 40), (35, 38), (50, 60)] {
            bundle(&archive, 0, first, end).await;
        }
        let state = snapshot_now(&archive).await;
        for log in [log_now(&archive, None).await.unwrap(), log_at(&archive, &state).await] {
            assert_eq!((log.start_offset(), log.chain_end(), log.end_offset()), (0, 30, 40));
            assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 5..40));
            for from in [3, 7, 20, 29, 30, 33, 39, 40, 77] {
                assert_eq!(offsets(&log, from).await.unwrap(), of(0, from.clamp(5, 40)..40), "from {from}");
            }
            let mut pieces = log.pieces(0);
            let first = pieces.next().await.unwrap().unwrap();
            let opened = log.open(&first).await.unwrap().unwrap();
            assert_eq!(opened.gap().await.unwrap().unwrap().reason, GapReason::LogStart);
        }
    });
}

#[test]
fn a_parent_counts_below_its_branchs_start_alone() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, 0, segment(0, 0, 10)).await;
        commit(&archive, 0, 10, segment(0, 10, 30)).await;
        branch(&archive, 1, Some(0), 14).await;
        commit(&archive, 1, 14, segment(0, 14, 20)).await;
        branch(&archive, 2, Some(1), 8).await;
        commit(&archive, 2, 8, segment(0, 8, 12)).await;
        branch(&archive, 3, None, 40).await;
        commit(&archive, 3, 40, segment(0, 40, 41)).await;
        let state = snapshot_now(&archive).await;
        let reader = archive.log_reader(None).await.unwrap();
        let journal = JournalView::default();
        let expected = [
            of(0, 0..30),
            [of(0, 0..14), of(1, 14..20)].concat(),
            [of(0, 0..8), of(2, 8..12)].concat(),
            of(3, 40..41),
        ];
        for (number, expected) in (0..).zip(expected) {
            let known = reader.at(&state, Some(number), &journal).unwrap();
            let listed = reader.now(TOPIC, 0, Some(number), &journal, None).await.unwrap();
            let both = reader.now(TOPIC, 0, Some(number), &journal, Some(&state)).await.unwrap();
            for log in [known, listed, both] {
                assert_eq!(log.branch(), number);
                assert_eq!(offsets(&log, 0).await.unwrap(), expected);
            }
        }
        assert_eq!(reader.at(&state, None, &journal).unwrap().branch(), 3);
        for bad in [reader.at(&state, Some(4), &journal), reader.now(TOPIC, 0, Some(4), &journal, None).await]
        {
            assert_eq!(bad.unwrap_err().kind(), Kind::Invalid);
        }
    });
}

#[test]
fn what_came_after_a_snapshot_is_found_behind_it() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 40).await;
        let state = snapshot_now(&archive).await;
        grow(&archive, 0, 3).await;
        let reader = archive.log_reader(None).await.unwrap();
        let log = reader.now(TOPIC, 0, None, &JournalView::default(), Some(&state)).await.unwrap();
        assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 0..430));
        assert_eq!(offsets(&log, 405).await.unwrap(), of(0, 405..430));
        assert_eq!(offsets(&log_at(&archive, &state).await, 0).await.unwrap(), of(0, 0..400));
    });
}

#[test]
fn a_bundle_that_expired_is_in_the_chain() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        commit(&archive, 0, 0, segment(0, 0, 10)).await;
        bundle(&archive, 0, 10, 15).await;
        bundle(&archive, 0, 15, 20).await;
        let state = snapshot_now(&archive).await;
        assert_eq!((state.chain_end(), state.end()), (10, 20));
        let log = log_at(&archive, &state).await;
        remove(&store, "journal/a/00000000000000000002.bundle").await;
        let error = offsets(&log, 0).await.unwrap_err();
        assert!(matches!(error, Error::Offsets { first_offset: 15, end_offset: 20, .. }), "{error}");
        assert_eq!(error.kind(), Kind::NotFound);
        // As it came to be: first the chain, longer than the snapshot's end, then the deletion.
        commit(&archive, 0, 10, segment(0, 10, 17)).await;
        commit(&archive, 0, 17, segment(0, 17, 25)).await;
        assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 0..20));
        remove(&store, "journal/a/00000000000000000001.bundle").await;
        assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 0..20));
        assert_eq!(offsets(&log, 18).await.unwrap(), of(0, 18..20));
    });
}

#[test]
fn what_was_pruned_is_said_to_be() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 40).await;
        let state = snapshot_now(&archive).await;
        let range = archive.prunable(&state, 0, 335).await.unwrap().unwrap();
        let record = archive.declare_pruned(new_pruned(1, vec![range])).await.unwrap();
        for deleted in [false, true] {
            if deleted {
                assert_eq!(archive.delete_pruned(&record).await.unwrap(), 33);
            }
            for log in [log_now(&archive, None).await.unwrap(), log_at(&archive, &state).await] {
                assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 330..400));
                assert_eq!(offsets(&log, 327).await.unwrap(), of(0, 330..400));
                let first = log.pieces(5).next().await.unwrap().unwrap();
                assert!(matches!(first.content, PieceContent::Pruned), "{first:?}");
                assert_eq!(first.first_offset, 5);
            }
        }
    });
}

#[test]
fn an_object_that_is_not_there_is_named_with_its_offsets() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 4).await;
        let state = snapshot_now(&archive).await;
        let name = format!("topics/{TOPIC}/0/0/00000000000000000010.varve");
        remove(&store, &name).await;
        for log in [log_now(&archive, None).await.unwrap(), log_at(&archive, &state).await] {
            let error = offsets(&log, 0).await.unwrap_err();
            assert!(error.to_string().contains(&name) && error.to_string().contains("10 to 19"), "{error}");
            assert_eq!(error.kind(), Kind::NotFound);
            assert_eq!(offsets(&log, 20).await.unwrap(), of(0, 20..40), "what lies behind is whole");
        }
    });
}

#[test]
fn a_truncated_object_and_another_one_are_refused() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 2).await;
        let state = snapshot_now(&archive).await;
        let log = log_at(&archive, &state).await;
        let name = format!("topics/{TOPIC}/0/0/00000000000000000010.varve");
        let whole = bytes_of(&store, &name).await;
        for other in
            [whole.slice(..whole.len() - 1), whole.slice(..10), segment(0, 10, 20), segment(0, 11, 20)]
        {
            replace(&store, &name, other).await;
            let error = offsets(&log, 0).await.unwrap_err();
            assert!(error.to_string().contains(&name) && error.to_string().contains("10 to 19"), "{error}");
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        }
        replace(&store, &name, whole).await;
        assert_eq!(offsets(&log, 0).await.unwrap(), of(0, 0..20));
    });
}

/// `bytes` of log in chunks of `chunk_bytes`.
fn large(log: &[u8], frame_bytes: u32, chunk_bytes: u32, with: impl FnOnce(&mut WriteOptions)) -> Vec<u8> {
    let mut options = WriteOptions { frame_bytes, chunk_bytes, ..options(None) };
    with(&mut options);
    let index: Vec<u8> = [5_i32, 5000, 8, 5_000_000].into_iter().flat_map(i32::to_be_bytes).collect();
    let sections = [(ExtentKind::OffsetIndex, index.len() as u64), (ExtentKind::TimeIndex, 0)];
    let plan = Plan::new(log.len() as u64, chunk_bytes, &sections).unwrap();
    let mut encoder = Encoder::new(options, plan).unwrap();
    let mut object = Vec::new();
    for chunk in log.chunks(chunk_bytes as usize) {
        for frame in chunk.chunks(frame_bytes as usize) {
            encoder.frame(frame, &mut object).unwrap();
        }
    }
    encoder.frame(&index, &mut object).unwrap();
    encoder.finish(info(0, 0, 10), &mut object).unwrap();
    object
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(step).collect()
}

async fn only(archive: &Archive) -> Result<ArchivedObject> {
    let log = log_now(archive, None).await?;
    let piece = log.pieces(0).next().await?.unwrap();
    Ok(log.open(&piece).await?.unwrap())
}

#[test]
fn a_log_of_any_shape_comes_back_from_any_position() {
    let log = noise(9_000_001);
    let zstd = |o: &mut WriteOptions| o.compression = Compression::Zstd { level: 1 };
    let sealed = |o: &mut WriteOptions| o.encryption = Some(encryption());
    let plain = |_: &mut WriteOptions| {};
    let shapes: [(u32, u32, Bytes); 6] = [
        (65_536, 4 << 20, large(&log, 65_536, 4 << 20, plain).into()),
        (4096, 4096, large(&log, 4096, 4096, plain).into()),
        (1 << 20, 128 << 20, large(&log, 1 << 20, 128 << 20, plain).into()),
        (65_536, 4 << 20, large(&log, 65_536, 4 << 20, zstd).into()),
        (65_536, 8 << 20, large(&log, 65_536, 8 << 20, zstd).into()),
        (65_536, 5 << 20, large(&log, 65_536, 5 << 20, sealed).into()),
    ];
    now(async {
        for (frame, chunk, object) in shapes {
            let archive = archive(MemoryStore::new()).await;
            commit(&archive, 0, 0, object).await;
            let mut object = only(&archive).await.unwrap();
            if object.encryption().is_some() {
                let error = object.read(0, 1).unwrap_err();
                assert!(error.to_string().contains("no key was given"), "{error}");
                object.unlock(&data_key()).await.unwrap();
            }
            for read_ahead in [0, 1, 4] {
                assert!(read(&object, 0, read_ahead).await.unwrap() == log, "{frame} {chunk} {read_ahead}");
            }
            for position in [1, 4096, 70_000, 4 << 20, (4 << 20) + 1, 8_999_999, 9_000_000, 9_000_001] {
                let found = read(&object, position, 2).await.unwrap();
                assert!(found == log[position as usize..], "{frame} {chunk} from {position}");
            }
            assert_eq!(object.read(9_000_002, 1).unwrap_err().kind(), Kind::Invalid);
            for (offset, position) in [(0, 0), (4, 0), (5, 5000), (7, 5000), (8, 5_000_000), (99, 5_000_000)]
            {
                assert_eq!(object.position(offset).await.unwrap(), position);
            }
            let state = snapshot_now(&archive).await;
            assert_eq!(state.end(), 10);
            let options = VerifyOptions {
                depth: Depth::Contents,
                data_keys: Some(&|_, _| Some(data_key())),
                ..VerifyOptions::default()
            };
            let report = archive.verify(1, &options, &|_| {}).await.unwrap();
            assert!(report.is_sound(), "{report:?}");
        }
    });
}

#[test]
fn a_corrupt_frame_ends_the_stream_behind_what_is_whole() {
    let log = noise(9_000_000);
    now(async {
        for (frame, chunk) in [(65_536, 4 << 20), (65_536, 8 << 20), (4096, 4096)] {
            let store = MemoryStore::new();
            let archive = archive(store.clone()).await;
            let mut object = large(&log, frame, chunk, |_| {});
            commit(&archive, 0, 0, object.clone().into()).await;
            object[8_500_000] ^= 1;
            let name = format!("topics/{TOPIC}/0/0/00000000000000000000.varve");
            replace(&store, &name, object.into()).await;
            let object = only(&archive).await.unwrap();
            let mut stream = object.read(0, 3).unwrap();
            let error = loop {
                match stream.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("nothing was seen"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), Kind::Corrupt);
            let text = error.to_string();
            assert!(
                text.contains(&name) && text.contains("offsets 0 to 9") && text.contains("CRC32C"),
                "{text}"
            );
            assert!((1..=8_500_000).contains(&stream.position()), "{}", stream.position());
            assert!(stream.next().await.unwrap().is_none(), "an error is the end");
        }
    });
}

/// Frames that hold by their checksums, and not by their chunk's digest.
fn forged(log: &[u8], frame_bytes: u32, chunk_bytes: u32) -> Vec<u8> {
    let mut object = large(log, frame_bytes, chunk_bytes, |_| {});
    let end = object.len();
    let trailer = Trailer::decode(object[end - TRAILER_BYTES..].try_into().unwrap(), end as u64).unwrap();
    let frame = &mut object[..frame_bytes as usize];
    let before = crc32c(frame).to_be_bytes();
    frame[7] ^= 1;
    let after = crc32c(frame).to_be_bytes();
    let footer = trailer.footer_offset as usize..end - TRAILER_BYTES;
    let at = object[footer.clone()].windows(4).position(|w| w == before).unwrap();
    object[footer.start + at..][..4].copy_from_slice(&after);
    let trailer = Trailer { footer_crc: crc32c(&object[footer]), ..trailer };
    object[end - TRAILER_BYTES..].copy_from_slice(&trailer.encode());
    object
}

#[test]
fn another_digest_is_seen_when_a_chunk_is_read_whole() {
    let log = noise(9_000_000);
    now(async {
        for (frame, chunk) in [(65_536, 4 << 20), (65_536, 8 << 20), (4096, 4096)] {
            let archive = archive(MemoryStore::new()).await;
            commit(&archive, 0, 0, forged(&log, frame, chunk).into()).await;
            let object = only(&archive).await.unwrap();
            let error = read(&object, 0, 2).await.unwrap_err();
            assert!(error.to_string().contains("digest"), "{error}");
            assert_eq!(error.kind(), Kind::Corrupt);
            // Of a part of it there is no digest.
            assert!(read(&object, u64::from(chunk), 2).await.is_ok());
            let state = snapshot_now(&archive).await;
            assert_eq!(state.end(), 10);
            let report = verify(&archive, 1, Depth::Contents).await;
            assert_eq!(report.progress.findings, 1, "{report:?}");
        }
    });
}

#[test]
fn an_offset_is_found_without_listing_all() {
    now(async {
        let store = MemoryStore::new();
        let counted = counting(&store);
        let counts = std::sync::Arc::clone(counted.counts());
        let archive = archive(counted).await;
        for at in 0..5000 {
            commit(&archive, 0, at * 3, segment(0, at * 3, at * 3 + 3)).await;
        }
        let log = log_now(&archive, None).await.unwrap();
        let before = (counts.of(Operation::List).calls, counts.of(Operation::Get).calls);
        for from in [0, 1, 2999, 7000, 14_998, 14_999] {
            let piece = log.pieces(from).next().await.unwrap().unwrap();
            assert_eq!(piece.first_offset, from);
            assert_eq!(piece.object().unwrap().offsets().0, from / 3 * 3);
        }
        let cost = (counts.of(Operation::List).calls - before.0, counts.of(Operation::Get).calls - before.1);
        assert!(cost.0 <= 6 * 18 && cost.1 <= 6 * 8, "{cost:?}");
        let state = snapshot_now(&archive).await;
        let log = log_at(&archive, &state).await;
        let before = (counts.of(Operation::List).calls, counts.of(Operation::Get).calls);
        let piece = log.pieces(7000).next().await.unwrap().unwrap();
        assert_eq!(piece.object().unwrap().offsets(), (6999, 7002));
        let cost = (counts.of(Operation::List).calls - before.0, counts.of(Operation::Get).calls - before.1);
        assert!(cost.0 == 0 && cost.1 <= 3, "{cost:?}");
    });
}

#[test]
fn of_two_leaders_entries_what_knows_the_chain_goes_on() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, 0, segment(0, 0, 10)).await;
        bundle(&archive, 0, 10, 12).await;
        let mut foreign = info(0, 10, 30);
        foreign.leader_epochs = vec![varve_format::EpochStart { epoch: 3, start_offset: 4 }];
        let mut builder = BundleBuilder::default();
        builder.add(&archive, 0, place(0, 10), segment_as(foreign, options(None), &[0; 8])).unwrap();
        archive.put_bundle("b", 0, builder, "varve test", 1).await.unwrap();
        let log = log_now(&archive, None).await.unwrap();
        assert_eq!(log.end_offset(), 12);
        let journal = archive.journal(|_, _| true).await.unwrap();
        assert_eq!((journal.bundles(), journal.entries(TOPIC, 0).len()), (2, 2));
        assert_eq!(archive.journal(|_, partition| partition == 7).await.unwrap().partitions().count(), 0);
        let entries: Vec<&JournalEntry> = journal.entries(TOPIC, 0).iter().collect();
        assert!(entries.iter().any(|e| e.archiver == "b"));
    });
}
