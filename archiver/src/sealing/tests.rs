use varve_archive::record::state::JournalEntry;
use varve_archive::{Archive, Commit, HashAlgorithm};
use varve_format::{
    Compression, DigestAlgorithm, EncryptionInfo, EpochStart, key_record_name, tombstone_name,
};
use varve_keys::KeyPeriod;
use varve_store::{Create, Fault, Faults, FaultyStore, GetRange, Key, MemoryStore, PutOptions, Rule, When};

use super::*;
use crate::config::TopicPattern;
use crate::journal::{self, Journal};
use crate::memory::Memory;
use crate::metrics::FailureKind;
use crate::progress::Progress;
use crate::rescue;
use crate::segment::{Lane, SegmentWriter, Style};
use crate::standing::Standing;

const RING: &str = r#"{"active": "one", "keys": {"one": "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;
const OTHER_RING: &str =
    r#"{"active": "one", "keys": {"one": "VEVTVFMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;
const MARKER: &str = "nobody may read this";
const CACHE: Duration = Duration::from_secs(600);

struct Bench {
    archive: Archive,
    faults: Arc<Faults>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let faults = Faults::new(1, Vec::new());
        let store: SharedStore =
            Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Arc::clone(&faults)));
        let archive = Archive::create(store, "", Id([1; 16]), HashAlgorithm::Blake3, "test", 0);
        Self { archive: archive.await.unwrap(), faults, dir: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> SharedStore {
        self.archive.shelf().shared()
    }

    fn sealing(&self, topics: &[&str], ring: Option<&str>) -> Arc<Sealing> {
        let key_ring_file = ring.map(|ring| {
            let path = self.dir.path().join("ring.json");
            std::fs::write(&path, ring).unwrap();
            path
        });
        let config = EncryptionConfig {
            topics: topics.iter().map(|text| TopicPattern::parse(text).unwrap()).collect(),
            key: None,
            keys_by_topic: Vec::new(),
            trusted: Vec::new(),
            key_ring_file,
            key_period: KeyPeriod::Year,
            key_cache: CACHE,
            key_settings: std::collections::BTreeMap::new(),
        };
        Sealing::open(&config, self.store()).unwrap()
    }

    /// As an archiver that was started anew has it.
    fn lane(&self, topic: &str, ring: Option<&str>) -> Lane {
        let topics: &[&str] = if ring.is_some() { &["secret*"] } else { &[] };
        let topic = Topic {
            topic_id: Id([2; 16]),
            name: topic.to_owned(),
            cluster_id: "cluster".to_owned(),
            delete_retention_ms: None,
            index_interval_bytes: 4096,
        };
        Lane {
            archive: self.archive.clone(),
            store: self.store(),
            sealing: self.sealing(topics, ring),
            topic: Arc::new(topic),
            partition: 0,
        }
    }

    fn fail(&self, part_of_key: &str) {
        let fault = Fault::ErrorBefore(varve_store::Kind::Unavailable);
        let key_contains = part_of_key.to_owned();
        self.faults.set_rules(vec![Rule { operation: None, key_contains, when: When::Always, fault }]);
    }

    fn journal(&self) -> Journal {
        let progress = Arc::new(Progress::new(1));
        Journal::start(self.archive.clone(), "me".to_owned(), "test".to_owned(), progress)
    }

    /// One batch at each of `offsets`, in a bundle of its own and under a key of its own, some of which are destroyed.
    async fn entries(&self, offsets: std::ops::Range<i64>, destroyed: &[i64]) -> Vec<JournalEntry> {
        let (journal, mut entries, mut seals) = (self.journal(), Vec::new(), Vec::new());
        for first_offset in offsets {
            // A writer takes another key than those that are destroyed.
            let lane = self.lane("secret", Some(RING));
            let seal = lane.seal().await.unwrap();
            let info = seal.as_ref().map(|seal| EncryptionInfo {
                data_key_id: seal.key.id,
                salt: seal.salt,
                period: seal.period.clone(),
            });
            let before = EpochStart { epoch: 0, start_offset: 0 };
            let before = (first_offset > 0).then_some(before);
            let records = batch(first_offset);
            let (object, _) =
                journal::object(&lane, &style(), seal, first_offset, before, Vec::new(), &records).unwrap();
            entries.push(put(&journal, &lane, first_offset, object).await);
            self.destroy(info.as_ref().unwrap()).await;
            seals.push((first_offset, info.unwrap()));
        }
        for (_, info) in seals.iter().filter(|(first_offset, _)| !destroyed.contains(first_offset)) {
            self.revive(info).await;
        }
        entries
    }

    async fn bytes(&self, key: &Key) -> Vec<u8> {
        let range = GetRange::Bounded { start: 0, end: 1 << 20 };
        self.store().get(key, range).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// As if it had never been destroyed.
    async fn revive(&self, info: &EncryptionInfo) {
        varve_store::delete(self.store().as_ref(), &tombstone(info)).await.unwrap();
    }

    async fn destroy(&self, info: &EncryptionInfo) {
        let key = tombstone(info);
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        self.store().put(&key, bytes::Bytes::from_static(b"{}"), &options).await.unwrap();
    }
}

fn tombstone(info: &EncryptionInfo) -> Key {
    let record = key_record_name("cluster", Id([2; 16]), &info.period, info.data_key_id);
    Key::new(tombstone_name(&record)).unwrap()
}

async fn put(journal: &Journal, lane: &Lane, first_offset: i64, object: bytes::Bytes) -> JournalEntry {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let room = Memory::new(1 << 20).no_room();
    journal.put(journal::Item { lane: lane.clone(), branch: 0, first_offset, object, room, answer }).await;
    answered.await.unwrap().unwrap()
}

fn style() -> Style {
    Style {
        frame_bytes: 4096,
        chunk_bytes: 65_536,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        part_bytes: 1 << 20,
        parallel_parts: 2,
        storage_class: None,
        writer: "test".to_owned(),
    }
}

/// One record of an idempotent producer, which is the marker.
fn batch(base_offset: i64) -> Vec<u8> {
    // Attributes, deltas of time and offset, no key; the value's length, zigzag.
    let mut record = vec![0, 0, 0, 1, u8::try_from(MARKER.len() * 2).unwrap()];
    record.extend_from_slice(MARKER.as_bytes());
    record.push(0);
    let mut body = 0_i16.to_be_bytes().to_vec();
    body.extend_from_slice(&0_i32.to_be_bytes());
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(&7_i64.to_be_bytes());
    body.extend_from_slice(&0_i16.to_be_bytes());
    body.extend_from_slice(&i32::try_from(base_offset).unwrap().to_be_bytes());
    body.extend_from_slice(&1_i32.to_be_bytes());
    body.push(u8::try_from(record.len() * 2).unwrap());
    body.extend_from_slice(&record);
    let mut batch = base_offset.to_be_bytes().to_vec();
    batch.extend_from_slice(&i32::try_from(4 + 1 + 4 + body.len()).unwrap().to_be_bytes());
    batch.extend_from_slice(&0_i32.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&varve_format::crc32c(&body).to_be_bytes());
    batch.extend_from_slice(&body);
    batch
}

fn has_marker(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
}

/// A segment of one batch at the chain's end; its key.
async fn append(lane: &Lane) -> Key {
    let standing = Standing::learn(lane, &[]).await.unwrap();
    let (begin, seal) = (standing.begin(), lane.seal().await.unwrap());
    let key = lane.partition().object_key(begin.branch, begin.offset).unwrap();
    let memory = Memory::new(1 << 20);
    let records = batch(begin.offset);
    let mut writer =
        SegmentWriter::new(lane.clone(), Arc::new(style()), seal, begin, memory.no_room()).unwrap();
    writer.push(&records, memory.no_room()).await.unwrap();
    let (closing, _) = writer.close().unwrap();
    assert!(matches!(closing.commit().await.unwrap(), Commit::Committed));
    key
}

async fn info(lane: &Lane) -> EncryptionInfo {
    let standing = Standing::look(lane, &[]).await.unwrap();
    standing.last.unwrap().footer.encryption.unwrap()
}

#[track_caller]
fn kind_of<T>(outcome: Result<T>) -> Kind {
    match outcome {
        Err(Error::Keys(error)) => error.kind,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("no error"),
    }
}

/// The key that is at hand, `None` for none yet.
#[track_caller]
fn at_hand(lane: &Lane) -> Option<Encryption> {
    match lane.seal_at_hand().unwrap() {
        AtHand::Now(seal) => Some(seal.expect("a key")),
        AtHand::Later => None,
    }
}

#[tokio::test]
async fn a_sealed_chain_goes_on_after_a_restart() {
    let bench = Bench::new().await;
    for _ in 0..2 {
        let key = append(&bench.lane("secret-orders", Some(RING))).await;
        assert!(!has_marker(&bench.bytes(&key).await));
    }
    let again = bench.lane("secret-orders", Some(RING));
    let standing = Standing::learn(&again, &[]).await.unwrap();
    assert!(standing.end_offset == 2 && standing.state_is_whole);
    assert_eq!(standing.state.producers.len(), 1, "what the writer goes on with is sealed too");

    // One key for all of a period, and another salt each time.
    let (first, second) = (again.seal().await.unwrap().unwrap(), again.seal().await.unwrap().unwrap());
    assert!(first.key.id == info(&again).await.data_key_id && first.salt != second.salt);

    // Without keys it goes on, without what it can't read; and with others' it does not.
    let plain = bench.lane("secret-orders", None);
    assert!(!Standing::learn(&plain, &[]).await.unwrap().state_is_whole);
    let key = bench.archive.partition(Id([2; 16]), 0).object_key(0, 2).unwrap();
    assert_eq!(append(&plain).await, key);
    assert!(has_marker(&bench.bytes(&key).await));
    let sealed = Standing::learn(&again, &[]).await.unwrap();
    assert!(sealed.end_offset == 3 && !sealed.state_is_whole);
}

#[tokio::test]
async fn another_key_is_loud_trouble() {
    let bench = Bench::new().await;
    append(&bench.lane("secret", Some(RING))).await;
    let error = Standing::learn(&bench.lane("secret", Some(OTHER_RING)), &[]).await.unwrap_err();
    assert!(!error.is_passing() && FailureKind::of(&error) == FailureKind::Keys, "{error}");
    assert_eq!(kind_of::<()>(Err(error)), Kind::Refused);
}

#[tokio::test]
async fn nothing_is_written_plain_that_is_to_be_sealed() {
    let bench = Bench::new().await;
    let lane = bench.lane("secret", Some(RING));
    let memory = Memory::new(1 << 20);
    let begin = Standing::learn(&lane, &[]).await.unwrap().begin();
    let writer = SegmentWriter::new(lane.clone(), Arc::new(style()), None, begin, memory.no_room());
    assert!(matches!(writer, Err(Error::Unexpected { .. })));
    assert!(journal::object(&lane, &style(), None, 0, None, Vec::new(), &batch(0)).is_err());
    // Others are not sealed, and need no key.
    let other = bench.lane("orders", Some(RING));
    assert!(matches!(other.seal_at_hand(), Ok(AtHand::Now(None))) && other.seal().await.unwrap().is_none());
    bench.fail("");
    assert!(other.seal().await.unwrap().is_none());
}

#[tokio::test]
async fn what_the_journal_has_is_sealed_and_becomes_a_segment() {
    let bench = Bench::new().await;
    let lane = bench.lane("secret", Some(RING));
    let seal = lane.seal().await.unwrap();
    let observed = vec![varve_format::Observed { time_ms: 5, high_watermark: 1, last_stable_offset: 1 }];
    let (object, _) = journal::object(&lane, &style(), seal, 0, None, observed.clone(), &batch(0)).unwrap();
    assert!(!has_marker(&object));
    let entry = put(&bench.journal(), &lane, 0, object).await;

    let again = bench.lane("secret", Some(RING));
    let log = rescue::journal_log(&again, &entry).await.unwrap().unwrap();
    assert_eq!(log, batch(0));
    assert_eq!(rescue::looks(&again, std::slice::from_ref(&entry)).await.unwrap(), observed);
    let strangers = [bench.lane("secret", None), bench.lane("secret", Some(OTHER_RING))];
    assert_eq!(kind_of(rescue::journal_log(&strangers[0], &entry).await), Kind::Denied);
    assert_eq!(kind_of(rescue::journal_log(&strangers[1], &entry).await), Kind::Refused);

    let again = bench.lane("secret", Some(RING));
    let standing = Standing::learn(&again, std::slice::from_ref(&entry)).await.unwrap();
    assert!(rescue::from_journal(&again, &style(), &standing).await.unwrap());
    let key = again.partition().object_key(0, 0).unwrap();
    assert!(!has_marker(&bench.bytes(&key).await));
    let mut object = again.archive.object(&Standing::look(&again, &[]).await.unwrap().last.unwrap()).unwrap();
    assert!(object.read(0, 1).is_err() && again.sealing.unlock(&mut object).await.unwrap());
    assert_eq!(object.read(0, 1).unwrap().next().await.unwrap().unwrap(), batch(0));
}

/// The chain, as those leave it who go on until the journal has nothing more: `(first offset, end, is a gap)`.
async fn rescued(bench: &Bench, entries: &[JournalEntry], limit: i64) -> Vec<(i64, i64, bool)> {
    let (lane, mut chain) = (bench.lane("secret", Some(RING)), Vec::new());
    loop {
        let standing = Standing::learn(&lane, entries).await.unwrap();
        let last = standing.last.as_ref().map(|head| (head.first_offset(), head.end_offset(), head.gap));
        chain.extend(last.filter(|last| !chain.contains(last)));
        if rescue::from_journal(&lane, &style(), &standing).await.unwrap() {
            continue;
        }
        if rescue::pass_lost(&lane, &style(), &standing, limit).await.unwrap().is_none() {
            return chain;
        }
    }
}

#[tokio::test]
async fn entries_that_nothing_opens_cost_no_others() {
    // What comes before is kept, and what comes behind too: of what lies between them a gap says so.
    let bench = Bench::new().await;
    let entries = bench.entries(0..6, &[2, 3]).await;
    let chain = [(0, 2, false), (2, 4, true), (4, 6, false)];
    assert_eq!(rescued(&bench, &entries, i64::MAX).await, chain);
    // Nobody does it twice.
    let lane = bench.lane("secret", Some(RING));
    let first = Standing {
        end_offset: 2,
        journal: entries[2..].to_vec(),
        ..Standing::learn(&lane, &[]).await.unwrap()
    };
    let passed = rescue::pass_lost(&lane, &style(), &first, i64::MAX).await.unwrap();
    assert_eq!(passed, Some(rescue::Passed { end_offset: 4, is_ours: false }));

    // The first ones; and what has nothing behind it is left to whoever knows what the source has.
    let bench = Bench::new().await;
    let entries = bench.entries(0..4, &[0, 3]).await;
    assert_eq!(rescued(&bench, &entries, i64::MAX).await, [(0, 1, true), (1, 3, false)]);

    // The source still has some of them.
    for (limit, chain) in [(1, Vec::new()), (2, vec![(0, 2, true), (2, 3, false)])] {
        let bench = Bench::new().await;
        let entries = bench.entries(0..3, &[0, 1]).await;
        assert_eq!(rescued(&bench, &entries, limit).await, chain);
    }
}

#[tokio::test]
async fn a_bundle_that_is_gone_costs_no_others() {
    let bench = Bench::new().await;
    let entries = bench.entries(0..3, &[]).await;
    let name = format!("journal/{}/{:020}.bundle", entries[1].archiver, entries[1].sequence);
    varve_store::delete(bench.store().as_ref(), &Key::new(name).unwrap()).await.unwrap();
    let chain = [(0, 1, false), (1, 2, true), (2, 3, false)];
    assert_eq!(rescued(&bench, &entries, i64::MAX).await, chain);
}

/// Once the data key of what was archived is destroyed, what comes is sealed with another.
#[tokio::test]
async fn a_destroyed_key_ends_what_was_and_not_what_comes() {
    let bench = Bench::new().await;
    let lane = bench.lane("secret", Some(RING));
    append(&lane).await;
    let before = info(&lane).await;
    bench.destroy(&before).await;
    let lane = bench.lane("secret", Some(RING));
    let standing = Standing::learn(&lane, &[]).await.unwrap();
    assert!(standing.end_offset == 1 && !standing.state_is_whole);
    append(&lane).await;
    assert_ne!(info(&lane).await.data_key_id, before.data_key_id);
}

#[tokio::test(start_paused = true)]
async fn while_keys_are_away_those_at_hand_are_used_up() {
    let bench = Bench::new().await;
    let lane = bench.lane("secret", Some(RING));
    bench.fail("keys/");
    let error = lane.seal().await.unwrap_err();
    assert!(error.is_passing() && FailureKind::of(&error) == FailureKind::Keys, "{error}");
    assert!(at_hand(&lane).is_none());
    bench.faults.set_rules(Vec::new());
    // Who came before an answer shares it: the clock stands still here.
    tokio::time::sleep(Duration::from_millis(1)).await;
    lane.seal().await.unwrap();
    let key = at_hand(&lane).unwrap().key.id;

    // As long as it may be used it is, and it is asked for anew meanwhile.
    bench.fail("keys/");
    for _ in 0..11 {
        tokio::time::sleep(CACHE / 12).await;
        assert_eq!(at_hand(&lane).unwrap().key.id, key);
        assert!(lane.seal().await.is_ok());
    }
    tokio::time::sleep(CACHE / 6).await;
    assert!(at_hand(&lane).is_none());
    assert!(lane.seal().await.is_err());

    bench.faults.set_rules(Vec::new());
    // Who came before an answer shares it: the clock stands still here.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(at_hand(&lane).is_none());
    tokio::time::sleep(AGAIN * 2).await;
    // Nobody waited for it: it was asked for when it was wanted.
    assert!(at_hand(&lane).is_some());
    for _ in 0..5 {
        tokio::time::sleep(CACHE / 3).await;
        assert_eq!(at_hand(&lane).unwrap().key.id, key);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_ring_that_is_none_is_told_without_what_it_holds() {
    let bench = Bench::new().await;
    let path = bench.dir.path().join("ring.json");
    std::fs::write(&path, "hunter2").unwrap();
    let mut config = bench.sealing(&[], None).config.clone();
    config.key_ring_file = Some(path.clone());
    let text = Sealing::open(&config, bench.store()).unwrap_err().to_string();
    assert!(text.contains("ring.json") && !text.contains("hunter2"), "{text}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(kind_of(Sealing::open(&config, bench.store())), Kind::Invalid);
}
