//! Keys in a key service: one that is away, silent, or says no, and what brokers and people make of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    Cluster, Consume, Fault, Moto, Produce, Scratch, Shared, Suite, Tier, Toxiproxy, Vault, VaultMood, ended,
    ride_out, varve,
};

/// Of data keys in the clear; the least that there is to be had.
const CACHE: Duration = Duration::from_secs(4);
const TOKEN: &str = "hvs.a-token-for-tests";

struct Setup {
    cluster: Cluster,
    tier: Tier,
    vault: Vault,
    _scratch: Scratch,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .test_with(&shared, "a_service_that_is_sealed_delays", sealed)
        .test_with(&shared, "a_service_that_is_silent_delays", silent)
        .test_with(&shared, "a_service_that_says_no_in_mid_segment", says_no)
        .test_with(&shared, "what_is_shredded_stays_so", shredded)
        .test("aws_through_a_proxy_that_refuses", aws)
}

fn setup() -> Result<Setup> {
    let scratch = Scratch::new("keys")?;
    let tier = Tier::filesystem(&scratch.path().join("tier"))?;
    let vault = Vault::start(TOKEN)?;
    let token = scratch.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n"))?;
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("encryption.enabled", "true")
        .rsm("encryption.key", vault.key("brokers"))
        .rsm("encryption.key.cache.ms", CACHE.as_millis())
        .rsm("kms.vault.token.file", token.display())
        .rsm("kms.timeout.ms", 1_500)
        .rsm("kms.max.attempts", 2)
        // What is in memory needs no key.
        .rsm("cache.memory.bytes", 16 << 20)
        .rsm("rules.slow.topics", "slow-.*")
        .rsm("rules.slow.upload.rate.bytes.per.second", 100_000)
        .start()?;
    Ok(Setup { cluster, tier, vault, _scratch: scratch })
}

fn while_it_is(setup: &Setup, topic: &str, mood: VaultMood, logged: &[&str]) -> Result<()> {
    let fault = Fault {
        topic,
        begin: &|| {
            setup.vault.set(mood);
            // What brokers still hold is used up.
            std::thread::sleep(CACHE);
            Ok(())
        },
        end: &|| {
            setup.vault.set(VaultMood::Fair);
            Ok(())
        },
        logged,
        read_ms: 8_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)
}

fn sealed(setup: &Setup) -> Result<()> {
    while_it_is(
        setup,
        "key-sealed",
        VaultMood::Sealed,
        &["copying", "key-sealed", "key service is unavailable"],
    )
}

fn silent(setup: &Setup) -> Result<()> {
    while_it_is(
        setup,
        "key-silent",
        VaultMood::Silent,
        &["copying", "key-silent", "key service is unavailable"],
    )
}

/// A copy that is under way has its key, and ends well; the next ones wait until it says yes again.
fn says_no(setup: &Setup) -> Result<()> {
    while_it_is(setup, "key-no", VaultMood::SaysNo, &["copying", "key-no", "denied"])?;

    let (kafka, topic) = (setup.cluster.client(), "slow-no");
    kafka.create_tiered_topic(topic, 1, &[])?;
    // Segments of 1 MiB take ten seconds each.
    kafka.produce(topic, &Produce { count: 3_000, ..Produce::default() })?;
    let begun = Instant::now();
    let copying = || -> Result<bool> { Ok(setup.vault.asked().0 > 0 && !kafka.tier_segments()?.is_empty()) };
    while !copying()? {
        ensure!(begun.elapsed() < Duration::from_secs(30), "nothing is copied");
        std::thread::sleep(Duration::from_millis(100));
    }
    setup.vault.set(VaultMood::SaysNo);
    let refused = setup.cluster.wait_logged(0, &["copying", topic, "denied"]);
    setup.vault.set(VaultMood::Fair);
    refused?;
    setup.cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == 3_000);
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

/// Records that are put back open nothing, and other topics read on.
fn shredded(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    for topic in ["doomed", "kept"] {
        kafka.create_tiered_topic(topic, 1, &[])?;
        kafka.produce(topic, &Produce { count: 3_000, ..Produce::default() })?;
        setup.cluster.wait_tiered(topic, 0)?;
        kafka.consume_all(topic)?;
    }
    let topic_id = kafka.finished_segments("doomed", 0)?.first().context("no segment")?.topic_id.to_string();
    let prefix = format!("keys/{}/{topic_id}/", setup.cluster.id);
    let records: Vec<_> = setup.tier.list()?.into_keys().filter(|key| key.starts_with(&prefix)).collect();
    ensure!(records.len() == 1, "{records:?}");
    let bytes = setup.tier.read(&records[0])?;

    let url = setup.tier.rsm_config().remove("store.url").context("no URL")?;
    let token = format!("kms.vault.token={TOKEN}");
    let keys = ["--kek", &setup.vault.key("brokers"), "--key-config", &token].map(str::to_owned);
    let command = |args: &[&str]| -> Result<_> {
        let mut command = varve()?;
        command.arg("keys").args(args);
        Ok(command)
    };
    let mut audit = command(&["audit", &url, "--try", "--json"])?;
    audit.args(&keys);
    let (audit, _) = ended(audit, 0)?;
    ensure!(audit.contains(&topic_id), "{audit}");
    let shred = ["shred", &url, "--topic-id", &topic_id, "--all-periods", "--yes"];
    ended(command(&[&shred[..], &["--dry-run"]].concat())?, 0)?;
    ensure!(setup.tier.read(&records[0])? == bytes, "a dry run changes nothing");
    ended(command(&shred)?, 0)?;
    setup.tier.write(&records[0], &bytes)?;

    setup.cluster.broker().restart()?;
    let some = Consume { timeout_ms: 8_000, check_crcs: false, ..Consume::default() };
    let read = kafka.consume("doomed", &some)?;
    ensure!(read.count == 0, "{} records of a shredded topic are read", read.count);
    setup.cluster.wait_logged(0, &[&topic_id, "destroyed on purpose"])?;
    ensure!(kafka.consume_all("kept")?.count == 3_000);
    ["doomed", "kept"].iter().try_for_each(|topic| setup.cluster.delete_topic_and_tier(topic, &setup.tier))
}

fn aws() -> Result<()> {
    let (moto, toxiproxy, scratch) = (Moto::start()?, Toxiproxy::start()?, Scratch::new("keys-aws")?);
    let proxy = toxiproxy.proxy("kms", moto.port)?;
    let key = moto.kms_key()?;
    let tier = Tier::filesystem(&scratch.path().join("tier"))?;
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("encryption.enabled", "true")
        .rsm("encryption.key", format!("aws-kms://{key}"))
        .rsm("encryption.key.cache.ms", CACHE.as_millis())
        .rsm("kms.aws.endpoint.url", format!("http://127.0.0.1:{}", proxy.port))
        .rsm("kms.aws.access.key.id", "tests")
        .rsm("kms.aws.secret.access.key", "tests")
        .rsm("kms.timeout.ms", 1_500)
        .rsm("kms.max.attempts", 2)
        .rsm("cache.memory.bytes", 16 << 20)
        .start()?;
    let fault = Fault {
        topic: "aws-away",
        begin: &|| {
            proxy.close()?;
            std::thread::sleep(CACHE);
            Ok(())
        },
        end: &|| proxy.open(),
        logged: &["copying", "aws-away", "key service is unavailable"],
        read_ms: 8_000,
    };
    ride_out(&cluster, &tier, &fault)
}
