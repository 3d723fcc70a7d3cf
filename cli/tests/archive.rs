//! `varve ls | snapshots | cat | verify | diff` on an archive made here: a log with every kind of batch that Kafka
//! writes (see `crates/kafka/tests/batches.rs`), transactions that end and that don't, gaps, branches, the journal.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use bytes::Bytes;
use serde_json::Value;
use varve_archive::record::branch::{BranchReason, BranchRecord};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::snapshot::{CLUSTER_STATE, Signer};
use varve_archive::record::topic::TopicRecord;
use varve_archive::{
    Archive, BundleBuilder, Commit, Document, HashAlgorithm, NewSnapshot, Place, Started, Target, V1,
};
use varve_format::{
    Compression, DataKey, DigestAlgorithm, Encoder, Encryption, EpochStart, ExtentKind, Id, KeyRecord,
    KeyRing, Plan, SegmentInfo, WriteOptions, key_record_name,
};

const LOG: &[u8] = include_bytes!("../../crates/kafka/tests/data/every-kind-of-batch.log");
const OLD: &[u8] = include_bytes!("../../crates/kafka/tests/data/old-magic.log");
const RING: &str = r#"{"active": "a", "keys": {"a": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
const TOPIC: Id = Id([1; 16]);
const T0: i64 = 1_700_000_000_000;

thread_local! {
    /// Each test runs on a thread of its own: the same attempts each time, whatever runs beside it.
    static ATTEMPTS: Cell<u64> = const { Cell::new(1) };
}

/// Key and value.
type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// One batch of magic 2, not compressed: records of key and value, a millisecond and an offset apart.
struct Batch<'a> {
    base: i64,
    producer: i64,
    transactional: bool,
    records: &'a [Pair<'a>],
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 127 {
        out.push(rest as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

impl Batch<'_> {
    fn encode(&self, control: bool) -> Vec<u8> {
        let mut records = Vec::new();
        for (n, (key, value)) in (0..).zip(self.records) {
            let mut body = vec![0];
            varint(&mut body, n);
            varint(&mut body, n);
            for bytes in [key, value] {
                varint(&mut body, bytes.map_or(-1, |b| b.len() as i64));
                body.extend_from_slice(bytes.unwrap_or_default());
            }
            varint(&mut body, 0);
            varint(&mut records, body.len() as i64);
            records.extend(body);
        }
        let count = self.records.len() as i32;
        let mut covered = Vec::new();
        let attributes = i16::from(self.transactional) * 16 + i16::from(control) * 32;
        covered.extend(attributes.to_be_bytes());
        covered.extend((count - 1).to_be_bytes());
        covered.extend((T0 + self.base).to_be_bytes());
        covered.extend((T0 + self.base + i64::from(count) - 1).to_be_bytes());
        covered.extend(self.producer.to_be_bytes());
        covered.extend(0_i16.to_be_bytes());
        covered.extend((-1_i32).to_be_bytes());
        covered.extend(count.to_be_bytes());
        covered.extend(records);
        let mut batch = self.base.to_be_bytes().to_vec();
        batch.extend((covered.len() as i32 + 9).to_be_bytes());
        batch.extend(0_i32.to_be_bytes());
        batch.push(2);
        batch.extend(varve_format::crc32c(&covered).to_be_bytes());
        batch.extend(covered);
        batch
    }
}

fn data(base: i64, producer: i64, values: &[&str]) -> Vec<u8> {
    let records: Vec<_> = values.iter().map(|v| (Some(&b"k"[..]), Some(v.as_bytes()))).collect();
    Batch { base, producer, transactional: producer >= 0, records: &records }.encode(false)
}

fn marker(base: i64, producer: i64, commit: bool) -> Vec<u8> {
    let key = [[0, 0], i16::from(commit).to_be_bytes()].concat();
    let value = [0, 0, 0, 0, 0, 7];
    let records: [Pair<'_>; 1] = [(Some(&key), Some(&value))];
    Batch { base, producer, transactional: true, records: &records }.encode(true)
}

fn info(partition: i32, first: i64, end: i64) -> SegmentInfo {
    SegmentInfo {
        writer: "a test".into(),
        cluster_id: "cluster".into(),
        topic_id: TOPIC,
        topic: "orders".into(),
        partition,
        segment_id: None,
        base_offset: first,
        last_offset: end - 1,
        max_timestamp_ms: T0 + end - 1,
        created_ms: T0,
        broker_id: Some(1),
        leader_epochs: vec![EpochStart { epoch: 0, start_offset: 0 }],
        observed: vec![],
    }
}

fn options() -> WriteOptions {
    let number = ATTEMPTS.replace(ATTEMPTS.get() + 1).to_be_bytes();
    WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 4096,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        encryption: None,
        object_id: Id([number, *b"attempt!"].concat().try_into().unwrap()),
    }
}

fn segment(info: SegmentInfo, options: WriteOptions, log: &[u8], index: &[u8]) -> Bytes {
    let sections = [(ExtentKind::OffsetIndex, index.len() as u64)];
    let plan = Plan::new(log.len() as u64, options.chunk_bytes, &sections).unwrap();
    let mut encoder = Encoder::new(options, plan).unwrap();
    let mut object = Vec::new();
    for mut bytes in [log, index] {
        while !bytes.is_empty() {
            let n = encoder.next_frame_bytes().unwrap();
            encoder.frame(&bytes[..n], &mut object).unwrap();
            bytes = &bytes[n..];
        }
    }
    encoder.finish(info, &mut object).unwrap();
    Bytes::from(object)
}

struct Made {
    root: tempfile::TempDir,
}

impl Made {
    fn url(&self) -> String {
        format!("file://{}", self.root.path().display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        let url = self.url();
        let (before, after) = match command {
            "ls" | "snapshots" | "cat" | "verify" | "diff" => (vec![command, &url], args),
            _ => panic!("{command}"),
        };
        let all: Vec<&str> = before.into_iter().chain(after.iter().copied()).collect();
        Command::new(env!("CARGO_BIN_EXE_varve")).args(all).env_remove("VARVE_KEY_RING").output().unwrap()
    }

    /// Of a run that must end well.
    fn text(&self, command: &str, args: &[&str]) -> String {
        let out = self.run(command, args);
        assert_eq!(out.status.code(), Some(0), "{command} {args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    fn json(&self, command: &str, args: &[&str]) -> Vec<Value> {
        let all = [if command == "cat" { &["--format", "json"][..] } else { &["--json"] }, args].concat();
        let lines = self.text(command, &all);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Offsets of the records that `cat` prints of partition 0.
    fn offsets(&self, args: &[&str]) -> Vec<i64> {
        let all = [&["orders", "--partition", "0"], args].concat();
        let lines = self.json("cat", &all);
        let records = lines.iter().filter(|l| l["type"] == "record");
        records.map(|l| l["offset"].as_i64().unwrap()).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn commit(archive: &Archive, partition: i32, branch: u32, first: i64, object: Bytes) {
    let done = archive.partition(TOPIC, partition).commit(branch, first, object).await.unwrap();
    assert!(matches!(done, Commit::Committed));
}

async fn snapshot(archive: &Archive, partitions: &[i32], state: &'static str, lagging: Option<i64>) {
    let journal = archive.journal(|_, _| true).await.unwrap();
    let target = |partition: &i32| Target {
        journal: journal.entries(TOPIC, *partition).to_vec(),
        log_start_offset: (*partition == 0).then_some(100),
        log_end_offset: lagging.filter(|_| *partition == 0),
        ..Target::new(TOPIC, *partition)
    };
    let targets: Vec<Target> = partitions.iter().map(target).collect();
    let signer = Signer::from_seed(&[3; 32]).unwrap();
    let (name, format) = (CLUSTER_STATE.to_owned(), "test".to_owned());
    let document = Document { name, format, bytes: Bytes::from_static(state.as_bytes()) };
    let new = NewSnapshot {
        targets: &targets,
        documents: &[document],
        writer: "a test",
        now_ms: T0,
        signer: Some(&signer),
        trusted: &[],
    };
    archive.write_snapshot(&new).await.unwrap();
}

fn topic(id: Id, name: &str, partitions: i32) -> TopicRecord {
    TopicRecord {
        varve_topic: V1,
        topic_id: id,
        topic: name.into(),
        cluster_id: "cluster".into(),
        partitions: Some(partitions),
        writer: "a test".into(),
        created_ms: T0,
        more: vec![],
    }
}

async fn open(root: &tempfile::TempDir) -> Archive {
    let url = format!("file://{}", root.path().display());
    let store = varve_store::open(&url, &Default::default()).await.unwrap();
    Archive::create(store, "", Id([9; 16]), HashAlgorithm::Blake3, "a test", T0).await.unwrap()
}

/// Partition 0: a gap, every kind of batch, transactions, and the journal. Partition 1: two branches.
fn made() -> Made {
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let archive = open(&root).await;
        archive.add_topic(&topic(TOPIC, "orders", 2)).await.unwrap();
        archive.add_topic(&topic(Id([2; 16]), "empty", 3)).await.unwrap();
        let gap = GapRecord::new(GapReason::LogStart, Some("retention".into()));
        let (gap, _) = gap.object(info(0, 0, 100), options()).unwrap();
        commit(&archive, 0, 0, 0, gap.into()).await;
        let index: Vec<u8> = [5, 503, 20, 2175].into_iter().flat_map(i32::to_be_bytes).collect();
        commit(&archive, 0, 0, 100, segment(info(0, 100, 170), options(), LOG, &index)).await;
        let log = [
            data(170, 1, &["a", "b"]),
            data(172, 2, &["c"]),
            marker(173, 1, true),
            data(174, 2, &["d"]),
            data(175, -1, &["e"]),
            marker(176, 2, false),
            data(177, 2, &["f"]),
            data(178, 3, &["g"]),
            marker(179, 2, true),
        ];
        commit(&archive, 0, 0, 170, segment(info(0, 170, 180), options(), &log.concat(), &[])).await;
        for (first, end) in [(0, 4), (4, 10)] {
            let values: Vec<String> = (first..end).map(|o| format!("parent {o}")).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let log = data(first, -1, &values);
            commit(&archive, 1, 0, first, segment(info(1, first, end), options(), &log, &[])).await;
        }
        snapshot(
            &archive,
            &[0, 1],
            r#"{"varve_x":1,"topics":["orders","empty"],"missing":[{"what":"acls","error":"denied"}]}"#,
            None,
        )
        .await;
        let mut record = BranchRecord {
            varve_branch: V1,
            topic_id: TOPIC,
            partition: 1,
            branch: 1,
            parent: Some(0),
            start_offset: 6,
            reason: BranchReason::Divergence,
            leader_epoch: 0,
            leader_epochs: vec![],
            detail: None,
            writer: "a test".into(),
            created_ms: T0,
            more: vec![],
        };
        let started = archive.partition(TOPIC, 1).start_branch(&mut record).await.unwrap();
        assert!(matches!(started, Started::Ours));
        commit(&archive, 1, 1, 6, segment(info(1, 6, 7), options(), &data(6, -1, &["child 6"]), &[])).await;
        let mut bundle = BundleBuilder::default();
        let log = [data(178, 3, &["g"]), marker(179, 2, true), data(180, -1, &["h", "i"])].concat();
        let place = Place { topic_id: TOPIC, partition: 0, first_offset: 178 };
        bundle.add(&archive, 0, place, segment(info(0, 178, 182), options(), &log, &[])).unwrap();
        archive.put_bundle("a", 0, bundle, "a test", T0).await.unwrap();
        snapshot(&archive, &[0, 1], r#"{"varve_x":1,"topics":["orders"]}"#, Some(190)).await;
    });
    Made { root }
}

#[test]
fn cat_shows_records_of_every_codec() {
    let made = made();
    let lines = made.json("cat", &["orders", "--partition", "0", "--offset", "..170"]);
    assert_eq!(lines[0]["type"], "gap");
    assert_eq!((&lines[0]["last_offset"], &lines[0]["reason"]), (&99.into(), &"log-start".into()));
    for codec in 0..7 {
        let base = 100 + codec * 3;
        let of: Vec<&Value> =
            lines.iter().filter(|l| (base..base + 3).contains(&l["offset"].as_i64().unwrap_or(-1))).collect();
        assert_eq!(of.len(), 3, "{base}");
        let times: Vec<i64> = of.iter().map(|l| l["timestamp_ms"].as_i64().unwrap() - T0).collect();
        assert_eq!(times, [0, -5, 7]);
        assert_eq!(of[0]["value"].as_str().unwrap().len(), 390);
        let headers = serde_json::json!([
            {"key": "trace", "value": "abc"}, {"key": "empty", "value": ""}, {"key": "null", "value": null}
        ]);
        assert_eq!(of[0]["headers"], headers);
        assert_eq!((&of[1]["key"], &of[1]["value"]), (&"k2".into(), &Value::Null));
        assert_eq!((&of[2]["key"], &of[2]["value"]), (&Value::Null, &"v3".into()));
    }
    let markers: Vec<(&str, i64)> = lines
        .iter()
        .filter(|l| l["type"] == "marker")
        .map(|l| (l["marker"].as_str().unwrap(), l["offset"].as_i64().unwrap()))
        .collect();
    assert_eq!(markers, [("ABORT", 121), ("COMMIT", 122)]);
    let appended = lines.iter().find(|l| l["offset"] == 163).unwrap();
    assert_eq!(
        (&appended["timestamp_type"], &appended["timestamp_ms"]),
        (&"LogAppendTime".into(), &(T0 + 100).into())
    );
}

#[test]
fn cat_takes_ranges_of_offsets_times_and_keys() {
    let made = made();
    let all: Vec<i64> =
        (100..121).chain([123, 163, 164, 170, 171, 172, 174, 175, 177, 178, 180, 181]).collect();
    assert_eq!(made.offsets(&[]), all);
    for range in [100..170, 105..106, 107..119, 121..123, 160..164, 165..170, 171..181, 181..500, 0..3] {
        let expected: Vec<i64> = all.iter().copied().filter(|o| range.contains(o)).collect();
        let given = format!("{}..{}", range.start, range.end);
        assert_eq!(made.offsets(&["--offset", &given]), expected, "{given}");
    }
    assert_eq!(made.offsets(&["--offset", "163"]), [163]);
    let from = T0 + 100;
    assert_eq!(made.offsets(&["--time", &format!("{from}..{}", from + 72)]), [123, 163, 170, 171]);
    assert_eq!(made.offsets(&["--time", "2023-11-14T22:13:20.181Z.."]), [181]);
    assert_eq!(made.offsets(&["--time", "2024-01-01.."]), [0; 0]);
    let of_k2: Vec<i64> = (0..7).map(|n| 101 + n * 3).collect();
    assert_eq!(made.offsets(&["--key", "k2"]), of_k2);
    assert_eq!(made.offsets(&["--key", "base64:azI="]), of_k2);
    assert_eq!(made.offsets(&["--key", "k2", "--max", "2"]), [101, 104]);
    assert_eq!(made.offsets(&["--max", "0"]), [0; 0]);
}

#[test]
fn cat_leaves_out_what_was_aborted_and_what_is_undecided() {
    let made = made();
    let committed = ["--isolation", "read_committed"];
    // Of producer 3 nothing is known by the end: nothing from its first record on counts.
    let all: Vec<i64> = (100..118).chain([123, 163, 164, 170, 171, 175, 177]).collect();
    assert_eq!(made.offsets(&committed), all);
    for range in [118..122, 117..171, 171..173, 174..176, 176..178, 178..182] {
        let expected: Vec<i64> = all.iter().copied().filter(|o| range.contains(o)).collect();
        let given = format!("{}..{}", range.start, range.end);
        assert_eq!(made.offsets(&[&committed[..], &["--offset", &given]].concat()), expected, "{given}");
    }
    let lines = made.json("cat", &["orders", "--isolation", "read_committed"]);
    assert!(lines.iter().all(|l| l["type"] != "marker"));
}

#[test]
fn cat_reads_branches_and_snapshots() {
    let made = made();
    let values = |args: &[&str]| -> Vec<String> {
        let lines = made.json("cat", &[&["orders", "--partition", "1"], args].concat());
        lines.iter().map(|l| l["value"].as_str().unwrap().to_owned()).collect()
    };
    let parent =
        |offsets: std::ops::Range<i64>| -> Vec<String> { offsets.map(|o| format!("parent {o}")).collect() };
    let current = [parent(0..6), vec!["child 6".to_owned()]].concat();
    assert_eq!(values(&[]), current);
    assert_eq!(values(&["--snapshot", "latest"]), current);
    assert_eq!(values(&["--snapshot", "1"]), parent(0..10));
    assert_eq!(values(&["--branch", "0"]), parent(0..10));
    assert_eq!(made.offsets(&["--snapshot", "1"]).last(), Some(&178));
    assert_eq!(made.offsets(&["--snapshot", "2"]).last(), Some(&181));
    for bad in [
        &["nope"][..],
        &["orders", "--branch", "7"],
        &["orders", "--snapshot", "9"],
        &["orders", "--partition", "7", "--snapshot", "1"],
        &["orders", "--partition", "7"],
    ] {
        assert_eq!(made.run("cat", bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn cat_gives_text_and_the_batches_themselves() {
    let made = made();
    let shown = made.text("cat", &["orders", "--partition", "0", "--offset", "170..173"]);
    let expected = "0:170\t2023-11-14T22:13:20.170Z\tk\ta\n0:171\t2023-11-14T22:13:20.171Z\tk\tb\n\
                    0:172\t2023-11-14T22:13:20.172Z\tk\tc\n";
    assert_eq!(shown, expected);
    let nulls = made.text("cat", &["orders", "--partition", "0", "--offset", "101..103"]);
    assert!(nulls.contains("\tk2\tnull") && nulls.contains("\tnull\tv3"), "{nulls}");
    let raw = |range: &str| {
        made.run("cat", &["orders", "--partition", "0", "--offset", range, "--raw-batches"]).stdout
    };
    assert!(raw("100..170") == LOG);
    assert!(raw("104..108") == LOG[503..1086]);
}

#[test]
fn cat_passes_over_old_formats_and_names_what_is_corrupt() {
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut corrupt = data(4, -1, &["a", "b"]);
    let at = corrupt.len() - 2;
    corrupt[at] ^= 1;
    runtime.block_on(async {
        let archive = open(&root).await;
        archive.add_topic(&topic(TOPIC, "orders", 1)).await.unwrap();
        commit(&archive, 0, 0, 0, segment(info(0, 0, 4), options(), OLD, &[])).await;
        commit(&archive, 0, 0, 4, segment(info(0, 4, 6), options(), &corrupt, &[])).await;
    });
    let made = Made { root };
    let out = made.run("cat", &["orders", "--max", "1"]);
    assert!(text(&out.stderr).contains("2 message sets"), "{}", text(&out.stderr));
    assert_eq!((out.status.code(), text(&out.stdout).lines().count()), (Some(0), 1));
    let out = made.run("cat", &["orders"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(said.contains("00000000000000000004.varve") && said.contains("CRC32C"), "{said}");
}

#[test]
fn ls_sums_up_and_looks_into_a_topic() {
    let made = made();
    let lines = made.json("ls", &[]);
    let orders = lines.iter().find(|l| l["topic"] == "orders").unwrap();
    // From the log start to the journal's end, and the branch.
    assert_eq!(
        (&orders["partitions"], &orders["objects"], &orders["offsets"]),
        (&2.into(), &6.into(), &89.into())
    );
    assert_eq!((&orders["snapshot"], &orders["lagging"]), (&2.into(), &1.into()));
    assert!(lines.iter().any(|l| l["topic"] == "empty" && l["objects"] == 0));
    let now = made.json("ls", &["--snapshot", "now"]);
    let again = now.iter().find(|l| l["topic"] == "orders").unwrap();
    assert_eq!(
        (&again["objects"], &again["bytes"], &again["offsets"]),
        (&orders["objects"], &orders["bytes"], &orders["offsets"])
    );
    let files = walk(&made.file("topics"));
    let bytes: u64 = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "varve"))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert_eq!(orders["bytes"], bytes);
    for when in [&[][..], &["--snapshot", "now"], &["--snapshot", "2"]] {
        let one = &made.json("ls", &[&["orders:0"], when].concat())[0];
        assert_eq!(
            (&one["start_offset"], &one["chain_end_offset"], &one["end_offset"]),
            (&100.into(), &180.into(), &182.into())
        );
        assert_eq!(
            one["gaps"][0],
            serde_json::json!({"first_offset": 0, "last_offset": 99, "reason": "log-start"})
        );
        assert_eq!((&one["first_timestamp_ms"], &one["last_timestamp_ms"]), (&T0.into(), &(T0 + 181).into()));
    }
    let both = made.json("ls", &["orders"]);
    assert_eq!(
        both[1]["lineage"],
        serde_json::json!([
            {"branch": 0, "start_offset": 0, "end_offset": 6}, {"branch": 1, "start_offset": 6, "end_offset": 7}
        ])
    );
    let shown = made.text("ls", &["orders"]);
    assert!(shown.contains("offsets 0 to 99: log-start") && shown.contains("as of snapshot 2"), "{shown}");
    assert!(made.text("ls", &[]).contains("AQEBAQEBAQEBAQEBAQEBAQ"));
    for bad in [&["orders:x"][..], &["orders:-1"], &["orders:7"], &["none"]] {
        assert_eq!(made.run("ls", bad).status.code(), Some(2), "{bad:?}");
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// `AAEC…` of the key that signed, and of another.
fn key_files(made: &Made) -> [String; 2] {
    use base64::Engine as _;
    let good = Signer::from_seed(&[3; 32]).unwrap().public_key();
    let other = Signer::from_seed(&[4; 32]).unwrap().public_key();
    [("good", good), ("other", other)].map(|(name, key)| {
        let path = made.root.path().join(format!("{name}.pub"));
        fs::write(&path, base64::engine::general_purpose::STANDARD.encode(key)).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[test]
fn snapshots_are_listed_and_told_in_detail() {
    let made = made();
    let [good, other] = key_files(&made);
    let lines = made.json("snapshots", &["--trust", &good]);
    let told: Vec<_> =
        lines.iter().map(|l| (l["sequence"].as_u64().unwrap(), l["signed"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "trusted"), (1, "trusted")]);
    assert_eq!(lines[0]["previous"], lines[1]["hash"]);
    assert_eq!(made.json("snapshots", &["--max", "1"]).len(), 1);
    assert_eq!(made.run("snapshots", &["--trust", &other]).status.code(), Some(1));
    let one = &made.json("snapshots", &["2"])[0];
    assert_eq!((&one["lagging"], &one["signed"]), (&1.into(), &"yes".into()));
    assert_eq!(one["lagging_partitions"][0]["log_end_offset"], 190);
    assert_eq!(one["cluster_state"], serde_json::json!({"topics": 1}));
    let shown = made.text("snapshots", &["1"]);
    assert!(shown.contains("not in it: acls: denied") && shown.contains("topics: 2"), "{shown}");
    assert_eq!(made.run("snapshots", &["3"]).status.code(), Some(2));
}

#[test]
fn verify_proves_and_finds() {
    let made = made();
    let [good, other] = key_files(&made);
    for depth in ["listed", "footers", "contents"] {
        let summary = made.json("verify", &["--depth", depth, "--trust", &good]).pop().unwrap();
        assert_eq!(
            (&summary["ok"], &summary["objects"], &summary["snapshots"]),
            (&true.into(), &6.into(), &2.into()),
            "{summary}"
        );
    }
    let sampled = made.json("verify", &["--sample", "0.0001%", "--seed", "1"]).pop().unwrap();
    assert_eq!(sampled["objects"], 0);
    let refused = made.run("verify", &["--trust", &other, "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains("not signed by a key that is trusted"));
    let object = made.file(&format!("topics/{TOPIC}/0/0/00000000000000000100.varve"));
    let mut bytes = fs::read(&object).unwrap();
    bytes[1000] ^= 1;
    let mut permissions = fs::metadata(&object).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&object, permissions).unwrap();
    fs::write(&object, bytes).unwrap();
    assert_eq!(made.run("verify", &["--depth", "footers"]).status.code(), Some(0));
    let out = made.run("verify", &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stdout);
    assert!(said.contains("00000000000000000100.varve") && said.contains("1 FINDINGS"), "{said}");
    // Snapshot 1 alone: one before, and what came later is no part of it.
    assert_eq!(made.run("verify", &["--snapshot", "1", "--depth", "listed"]).status.code(), Some(0));
    fs::remove_file(&object).unwrap();
    assert_eq!(made.run("verify", &["--depth", "listed"]).status.code(), Some(1));
    assert_eq!(made.run("verify", &["--snapshot", "7"]).status.code(), Some(2));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Made { root: empty }.run("verify", &[]).status.code(), Some(2));
}

#[test]
fn diff_tells_what_is_new() {
    let made = made();
    let lines = made.json("diff", &["1", "2"]);
    let of = |partition: i64| lines.iter().find(|l| l["partition"] == partition).unwrap();
    assert_eq!((&of(0)["before"]["end_offset"], &of(0)["after"]["end_offset"]), (&180.into(), &182.into()));
    assert_eq!((&of(1)["before"]["branch"], &of(1)["after"]["branch"]), (&0.into(), &1.into()));
    let shown = made.text("diff", &["1", "2"]);
    assert!(
        shown.contains("0 → 1") && shown.contains("lagging") && shown.contains("2 partitions differ"),
        "{shown}"
    );
    assert!(made.text("diff", &["2", "2"]).contains("0 partitions differ"));
    for bad in [&["1"][..], &[], &["1", "9"], &["1", "2", "--bootstrap-server", "localhost:1"]] {
        assert_eq!(made.run("diff", bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn an_encrypted_archive_opens_with_its_ring() {
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let archive = open(&root).await;
        archive.add_topic(&topic(TOPIC, "orders", 1)).await.unwrap();
        let key = DataKey::new(Id([7; 16]), [9; 32]);
        let ring = KeyRing::parse(RING).unwrap();
        let record = KeyRecord::wrap(&ring, &key, "cluster", TOPIC, "2026-11", 5, [3; 12]).unwrap();
        let path = root.path().join(key_record_name("cluster", TOPIC, "2026-11", key.id));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, record.encode().unwrap()).unwrap();
        let encryption = Encryption { key, period: "2026-11".into(), salt: [5; 32] };
        let options = WriteOptions { encryption: Some(encryption), ..options() };
        let log = data(0, -1, &["a", "b"]);
        commit(&archive, 0, 0, 0, segment(info(0, 0, 2), options, &log, &[])).await;
        snapshot(&archive, &[0], "{}", None).await;
    });
    let made = Made { root };
    let ring = made.file("ring.json");
    fs::write(&ring, RING).unwrap();
    let ring = ["--key-ring", ring.to_str().unwrap()];
    assert_eq!(made.offsets(&ring), [0, 1]);
    let out = made.run("cat", &["orders"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("no key was given"), "{}", text(&out.stderr));
    let summary = |args: &[&str]| made.json("verify", args).pop().unwrap()["sealed"].clone();
    assert_eq!((summary(&[]), summary(&ring)), (1.into(), 0.into()));
    assert_eq!(made.json("ls", &["orders"])[0]["first_timestamp_ms"], Value::Null);
    assert_eq!(made.json("ls", &[&["orders"][..], &ring].concat())[0]["first_timestamp_ms"], T0);
}
