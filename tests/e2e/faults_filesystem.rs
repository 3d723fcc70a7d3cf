//! A broken filesystem store, and damaged objects in it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use varve_tests::{
    Cluster, Consume, Fault, Look, Produce, Scratch, Shared, StoreKind, Suite, Tier, TierSegment,
    Unavailable, eventually, ride_out,
};

struct Setup {
    cluster: Cluster,
    tier: Tier,
    store: Scratch,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .only_on(&[StoreKind::File], "it is about a filesystem's faults")
        .test_with(&shared, "the_store_goes_away_and_comes_back", the_store_goes_away_and_comes_back)
        .test_with(
            &shared,
            "a_flipped_byte_never_reaches_a_consumer",
            a_flipped_byte_never_reaches_a_consumer,
        )
        .test_with(&shared, "flips_anywhere_in_an_object_are_found", flips_anywhere_in_an_object_are_found)
        .test_with(&shared, "a_missing_object_is_named", a_missing_object_is_named)
        .test_with(&shared, "a_truncated_object_is_named", a_truncated_object_is_named)
        .test_with(&shared, "an_object_in_anothers_place_is_refused", an_object_in_anothers_place_is_refused)
        .test("the_store_is_full", the_store_is_full)
        .test("the_wrong_key_opens_nothing", the_wrong_key_opens_nothing)
}

fn setup() -> Result<Setup> {
    let store = Scratch::new("store")?;
    let tier = Tier::filesystem(&store.path().join("tier"))?;
    // The least cache there is, so that reads reach the store.
    let cluster = Cluster::builder().tier(&tier).rsm("cache.memory.bytes", 16 << 20).start()?;
    Ok(Setup { cluster, tier, store })
}

fn the_store_goes_away_and_comes_back(setup: &Setup) -> Result<()> {
    let root = setup.store.path().join("tier");
    let away = setup.store.path().join("tier.away");
    let fault = Fault {
        topic: "store-down",
        // A file in the directory's place: also root can't make anything below it.
        begin: &|| {
            fs::rename(&root, &away)?;
            Ok(fs::write(&root, "")?)
        },
        end: &|| {
            fs::remove_file(&root)?;
            Ok(fs::rename(&away, &root)?)
        },
        logged: &["copying", "store-down", "/tier"],
        read_ms: 6_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)
}

/// A topic in the tier that nobody has read yet, and its segments.
fn unread(setup: &Setup, topic: &str, count: u64, value_bytes: u32) -> Result<Vec<TierSegment>> {
    let kafka = setup.cluster.client();
    kafka.create_tiered_topic(topic, 1, &[])?;
    // Time indexes of the same length, whatever the machine's pace.
    let timestamp_from = Some(1_700_000_000_000);
    kafka.produce(topic, &Produce { count, value_bytes, timestamp_from, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    kafka.finished_segments(topic, 0)
}

/// Reads one segment's offsets, without the client's own check, for a short time.
fn read_segment(setup: &Setup, segment: &TierSegment) -> Result<bool> {
    let consume = Consume {
        from: segment.base.cast_signed(),
        to: segment.end.cast_signed() + 1,
        timeout_ms: 4_000,
        check_crcs: false,
        ..Consume::default()
    };
    let consumed = setup.cluster.client().consume(&segment.topic, &consume)?;
    Ok(consumed.is_true()?.complete)
}

/// Damages one segment's object, and checks that a reader is told what and where, gets nothing false, and goes
/// on when the object is whole again.
fn damage(
    setup: &Setup,
    topic: &str,
    logged: &[&str],
    spoil: impl FnOnce(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    // Each record fills a batch: segments of the same length, whatever the producer's pace.
    let segments = unread(setup, topic, 620, 10_000)?;
    let broken = &segments[2];
    let key = broken.object_key(&setup.cluster.id);
    let whole = setup.tier.read(&key)?;
    let log_from = setup.cluster.broker().log_size();
    spoil(&key, &whole)?;

    let consume = Consume { timeout_ms: 8_000, check_crcs: false, ..Consume::default() };
    let consumed = setup.cluster.client().consume(topic, &consume)?;
    consumed.is_true()?;
    ensure!(!consumed.complete, "read past the damage: {consumed:?}");
    ensure!(consumed.count > 0 && consumed.last <= broken.end.cast_signed(), "{consumed:?}");
    let mut needles = vec![key.as_str()];
    needles.extend(logged);
    let line = setup.cluster.wait_logged(log_from, &needles)?;
    println!("{topic}: {line}");
    ensure!(setup.cluster.broker().alive(), "the broker died");

    setup.tier.write(&key, &whole)?;
    ensure!(setup.cluster.client().consume_all(topic)?.count == 620);
    setup.cluster.wait_settled(&setup.tier)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn a_flipped_byte_never_reaches_a_consumer(setup: &Setup) -> Result<()> {
    damage(setup, "flipped", &["byte 524288"], |key, whole| {
        let mut bytes = whole.to_vec();
        bytes[524_288 + 77] ^= 0x10;
        setup.tier.write(key, &bytes)
    })
}

fn a_missing_object_is_named(setup: &Setup) -> Result<()> {
    damage(setup, "missing", &["not found"], |key, _| setup.tier.remove(key))
}

fn a_truncated_object_is_named(setup: &Setup) -> Result<()> {
    damage(setup, "truncated", &[], |key, whole| setup.tier.write(key, &whole[..whole.len() / 2]))
}

/// Whole in itself, of the same topic and the same size, but not what the broker asked for.
fn an_object_in_anothers_place_is_refused(setup: &Setup) -> Result<()> {
    damage(setup, "swapped", &[], |key, whole| {
        let topic = key.rsplit_once('/').context("a key without a folder")?.0;
        let mut sizes = Vec::new();
        for other in setup.tier.list()?.keys().filter(|other| other.starts_with(topic) && *other != key) {
            let other = setup.tier.read(other)?;
            if other.len() == whole.len() {
                return setup.tier.write(key, &other);
            }
            sizes.push(other.len());
        }
        bail!("{sizes:?}, none of {}", whole.len())
    })
}

/// One flip in each of many objects, spread over the whole length: log, indexes, footer and trailer.
fn flips_anywhere_in_an_object_are_found(setup: &Setup) -> Result<()> {
    let topic = "flips";
    let segments = unread(setup, topic, 16_000, 1000)?;
    let mut whole = BTreeMap::new();
    for (number, segment) in segments.iter().enumerate() {
        let key = segment.object_key(&setup.cluster.id);
        let bytes = setup.tier.read(&key)?;
        let last = bytes.len() - 1;
        // Half of them spread over the log, half over the last few KiB, where everything else is.
        let at = match number % 2 {
            0 => last * number / segments.len(),
            _ => last - (last - usize::try_from(segment.size_bytes)?) * number / segments.len(),
        };
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 1 << (number % 8);
        setup.tier.write(&key, &spoilt)?;
        whole.insert(key, bytes);
    }
    for (number, segment) in segments.iter().enumerate() {
        // A flip in an index that a read does not need may go unnoticed by it; one in the log may not.
        let is_given = read_segment(setup, segment)?;
        ensure!(!is_given || number % 2 == 1, "segment {number} of {} was given", segments.len());
    }
    for (key, bytes) in &whole {
        setup.tier.write(key, bytes)?;
    }
    ensure!(setup.cluster.client().consume_all(topic)?.count == 16_000);
    ensure!(setup.cluster.broker().alive(), "the broker died");
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

/// A filesystem of its own, too small on purpose.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf, size: &str) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let tmpfs = Self(path);
        tmpfs.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])?;
        Ok(tmpfs)
    }

    fn grow(&self, size: &str) -> Result<()> {
        self.run("mount", &["-o", &format!("remount,size={size}")])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let done = Command::new(program).args(arguments).arg(&self.0).output()?;
        if done.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(Unavailable { what: "a tmpfs".to_owned(), why: format!("{why}: only root may mount") }.into())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = self.run("umount", &["-l"]) {
            eprintln!("unmounting {}: {error:#}", self.0.display());
        }
    }
}

fn the_store_is_full() -> Result<()> {
    let scratch = Scratch::new("full")?;
    let small = Tmpfs::mount(scratch.path().join("small"), "6m")?;
    let tier = Tier::filesystem(&scratch.path().join("small/tier"))?;
    let cluster = Cluster::builder().tier(&tier).start()?;
    let kafka = cluster.client();
    let topic = "full";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 12_000, ..Produce::default() })?;
    cluster.wait_logged(0, &["copying", "full-0", "no space left"])?;
    ensure!(cluster.broker().alive(), "the broker died");
    // Nothing leaves the disk that isn't in the store, and failed copies leave no room taken.
    kafka.consume_all(topic)?;
    eventually("only finished segments take room", Duration::from_secs(60), || {
        let known: u64 = kafka.finished_segments(topic, 0)?.iter().map(|segment| segment.size_bytes).sum();
        let stored: u64 = tier.list()?.values().sum();
        Ok(Look::when(stored < known + (1 << 20), (), (known, stored)))
    })?;
    small.grow("64m")?;
    cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == 12_000);
    cluster.wait_settled(&tier)?;
    cluster.delete_topic_and_tier(topic, &tier)?;
    drop(cluster);
    drop(small);
    Ok(())
}

fn the_wrong_key_opens_nothing() -> Result<()> {
    const RIGHT: &str = r#"{"active": "k", "keys": {"k": "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;
    const WRONG: &str = r#"{"active": "k", "keys": {"k": "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3I="}}"#;
    const OTHER: &str =
        r#"{"active": "other", "keys": {"other": "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3I="}}"#;
    const BOTH: &str = r#"{"active": "k", "keys": {"k": "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU=", "other": "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3I="}}"#;
    let scratch = Scratch::new("keys")?;
    let ring = scratch.path().join("ring.json");
    fs::write(&ring, RIGHT)?;
    let tier = Tier::filesystem(&scratch.path().join("tier"))?;
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("encryption.enabled", "true")
        .rsm("encryption.key.ring.file", ring.display())
        .start()?;
    let kafka = cluster.client();
    let topic = "sealed";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 4_000, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic)?;
    let key = kafka.finished_segments(topic, 0)?[0].object_key(&cluster.id);

    // Another key of the same id seals nothing, one of another id does.
    for (text, said) in [
        (WRONG, &["copying", "none of the key records", "is it another key of the same id?"][..]),
        (OTHER, &["unwrap by ring:k", "the file key ring holds no such key"]),
    ] {
        cluster.broker().stop()?;
        fs::write(&ring, text)?;
        let log_from = cluster.broker().log_size();
        cluster.broker().start()?;
        kafka.produce(topic, &Produce { count: 1_500, seed: 2, ..Produce::default() })?;
        let consume = Consume { timeout_ms: 6_000, check_crcs: false, ..Consume::default() };
        let consumed = kafka.consume(topic, &consume)?;
        consumed.is_true()?;
        ensure!(consumed.count == 0 && !consumed.complete, "read without the key: {consumed:?}");
        let line = cluster.wait_logged(log_from, said).context("an error that names the key")?;
        println!("{topic}: {line}");
        ensure!(cluster.broker().alive(), "the broker died");
    }
    cluster.broker().stop()?;
    fs::write(&ring, BOTH)?;
    cluster.broker().start()?;
    cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == 7_000, "{key}");
    cluster.wait_settled(&tier)?;
    cluster.delete_topic_and_tier(topic, &tier)
}
