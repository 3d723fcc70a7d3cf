//! An S3 server that is down, slow, throttling, resetting connections, silent, or refusing the credentials.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use varve_tests::{
    Cluster, Consume, Fault, Minio, Produce, Proxy, Shared, StoreKind, Suite, Throttle, Tier, Toxiproxy,
    Weather, ride_out,
};

/// The broker speaks to toxiproxy, that to the throttle, and that to MinIO.
struct Setup {
    cluster: Cluster,
    tier: Tier,
    proxy: Proxy,
    _toxiproxy: Toxiproxy,
    throttle: Throttle,
    minio: Minio,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")
        .test_with(&shared, "the_server_is_down", the_server_is_down)
        .test_with(&shared, "the_server_is_slow", the_server_is_slow)
        .test_with(&shared, "the_server_throttles", the_server_throttles)
        .test_with(&shared, "the_server_throttles_now_and_then", the_server_throttles_now_and_then)
        .test_with(&shared, "connections_are_reset", connections_are_reset)
        .test_with(&shared, "bodies_end_in_the_middle", bodies_end_in_the_middle)
        .test_with(&shared, "the_server_is_silent", the_server_is_silent)
        .test_with(&shared, "the_credentials_are_wrong", the_credentials_are_wrong)
        .test_with(&shared, "a_flipped_byte_in_a_bucket", a_flipped_byte_in_a_bucket)
}

fn setup() -> Result<Setup> {
    let minio = Minio::start()?;
    let throttle = Throttle::start(minio.port)?;
    let toxiproxy = Toxiproxy::start()?;
    let proxy = toxiproxy.proxy("s3", throttle.port)?;
    let tier = Tier::s3(&minio, "tier", "faults")?.through(proxy.port);
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("cache.memory.bytes", 16 << 20)
        .rsm("s3.connect.timeout.ms", 2_000)
        .rsm("s3.timeout.ms", 4_000)
        .rsm("s3.max.attempts", 3)
        .start()?;
    Ok(Setup { cluster, tier, proxy, _toxiproxy: toxiproxy, throttle, minio })
}

fn the_server_is_down(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-down",
        begin: &|| {
            setup.minio.kill();
            Ok(())
        },
        end: &|| setup.minio.resume(),
        logged: &["copying", "s3-down", "unavailable"],
        read_ms: 10_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)
}

/// Slower than the broker waits for a remote fetch: work that is thrown away would never end.
fn the_server_is_slow(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-slow",
        begin: &|| setup.proxy.add_latency(800),
        end: &|| setup.proxy.heal(),
        logged: &[],
        read_ms: 60_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)?;

    // It is slow, and still everything gets through while it lasts.
    setup.proxy.add_latency(800)?;
    let outcome = tiers_and_reads(setup, "s3-slow-through")
        .and_then(|()| setup.cluster.delete_topic_and_tier("s3-slow-through", &setup.tier));
    setup.proxy.heal()?;
    outcome
}

fn tiers_and_reads(setup: &Setup, topic: &str) -> Result<()> {
    let kafka = setup.cluster.client();
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 4_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic).map(drop)
}

fn the_server_throttles(setup: &Setup) -> Result<()> {
    let before = setup.throttle.throttled();
    let fault = Fault {
        topic: "s3-throttled",
        begin: &|| {
            setup.throttle.set(Weather::SlowDown { percent: 100 });
            Ok(())
        },
        end: &|| {
            setup.throttle.set(Weather::Fair);
            Ok(())
        },
        logged: &["copying", "s3-throttled", "SlowDown"],
        read_ms: 10_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)?;
    ensure!(setup.throttle.throttled() > before, "nothing was throttled");
    Ok(())
}

/// What is refused once is asked for again, and the broker does not hear of it. The topic is deleted in fair weather: a
/// broker asks for each deletion once, and stops at the first error.
fn the_server_throttles_now_and_then(setup: &Setup) -> Result<()> {
    let (before, log_from) = (setup.throttle.throttled(), setup.cluster.broker().log_size());
    setup.throttle.set(Weather::EachOnce);
    let outcome = tiers_and_reads(setup, "s3-bumpy");
    setup.throttle.set(Weather::Fair);
    outcome?;
    ensure!(setup.throttle.throttled() > before, "nothing was throttled");
    let log = setup.cluster.broker().log_from(log_from)?;
    ensure!(!log.contains("SlowDown"), "the broker heard of it: {log}");
    setup.cluster.wait_settled(&setup.tier)?;
    setup.cluster.delete_topic_and_tier("s3-bumpy", &setup.tier)
}

fn connections_are_reset(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-reset",
        begin: &|| setup.proxy.add_resets(2),
        end: &|| setup.proxy.heal(),
        logged: &["copying", "s3-reset"],
        read_ms: 10_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)
}

/// Each connection ends after 300 KB of answers; a body of 1 MiB needs several.
fn bodies_end_in_the_middle(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-cut",
        begin: &|| setup.proxy.add_cut(300_000),
        end: &|| setup.proxy.heal(),
        logged: &[],
        read_ms: 20_000,
    };
    let before = setup.throttle.passed();
    ride_out(&setup.cluster, &setup.tier, &fault)?;
    let passed = setup.throttle.passed();
    let count = |kind: &str| passed.get(kind).unwrap_or(&0) - before.get(kind).unwrap_or(&0);
    let (gets, objects) = (count("GET range"), count("PUT object"));
    // Twice as many without it.
    ensure!(gets > 3 * objects, "nothing was cut: {gets} ranges of {objects} objects");
    Ok(())
}

fn the_server_is_silent(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-silent",
        begin: &|| setup.proxy.add_silence(),
        end: &|| setup.proxy.heal(),
        logged: &["copying", "s3-silent"],
        read_ms: 10_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)
}

fn the_credentials_are_wrong(setup: &Setup) -> Result<()> {
    let fault = Fault {
        topic: "s3-denied",
        begin: &|| {
            setup.minio.kill();
            setup.minio.resume_with_password("changed-behind-its-back")
        },
        end: &|| {
            setup.minio.kill();
            setup.minio.resume()
        },
        logged: &["copying", "s3-denied", "denied"],
        read_ms: 8_000,
    };
    ride_out(&setup.cluster, &setup.tier, &fault)?;
    let log = setup.cluster.broker().log_from(0)?;
    ensure!(!log.contains("not-a-secret"), "the secret key is in the broker's log");
    Ok(())
}

fn a_flipped_byte_in_a_bucket(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "s3-flipped";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 5_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    let broken = kafka.finished_segments(topic, 0)?[1].clone();
    let key = broken.object_key(&setup.cluster.id);
    let whole = setup.tier.read(&key)?;
    let mut spoilt = whole.clone();
    spoilt[300_000] ^= 1;
    let log_from = setup.cluster.broker().log_size();
    setup.tier.write(&key, &spoilt)?;
    let consume = Consume { timeout_ms: 8_000, check_crcs: false, ..Consume::default() };
    let consumed = kafka.consume(topic, &consume)?;
    consumed.is_true()?;
    ensure!(!consumed.complete && consumed.last <= broken.end.cast_signed(), "{consumed:?}");
    setup.cluster.wait_logged(log_from, &[&key, "byte 262144"])?;
    setup.tier.write(&key, &whole)?;
    sleep(Duration::from_millis(500));
    kafka.consume_all(topic)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}
