//! Three brokers over one tier: leaders that move and die in mid-copy, followers that rebuild from the tier.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use varve_tests::{Client, Cluster, Look, Produce, Scratch, Shared, Suite, Tier, Transactions, eventually};

/// Uploads of a killed broker are swept when they are older; the shortest that is allowed.
const SWEEP_AGE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);

struct Setup {
    cluster: Cluster,
    tier: Tier,
    _store: Scratch,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .test_with(&shared, "leadership_moves_in_mid_copy", leadership_moves_in_mid_copy)
        .test_with(&shared, "a_follower_rebuilds_from_the_tier", a_follower_rebuilds_from_the_tier)
        .test_with(&shared, "a_broker_is_killed_in_mid_copy", a_broker_is_killed_in_mid_copy)
}

fn setup() -> Result<Setup> {
    let store = Scratch::new("store")?;
    let tier = Tier::chosen(&store.path().join("tier"))?;
    let cluster = Cluster::builder()
        .nodes(3)
        .tier(&tier)
        // A copy of 1 MiB lasts two seconds: whatever happens, happens in mid-copy.
        .rsm("rules.slow.topics", "slow-.*")
        .rsm("rules.slow.upload.rate.bytes.per.second", 512 << 10)
        .rsm("sweep.upload.age.ms", SWEEP_AGE.as_millis())
        .start()?;
    Ok(Setup { cluster, tier, _store: store })
}

fn leadership_moves_in_mid_copy(setup: &Setup) -> Result<()> {
    let topic = "slow-moves";
    let cluster = &setup.cluster;
    let kafka = cluster.client();
    kafka.create_tiered_topic(topic, 3, &[])?;
    let (produced, moves) = (AtomicBool::new(false), AtomicU32::new(0));
    let count = thread::scope(|scope| -> Result<u64> {
        let producer = scope.spawn(|| {
            let outcome = produce_while_it_moves(&kafka, topic, &moves);
            produced.store(true, Ordering::Relaxed);
            outcome
        });
        while !produced.load(Ordering::Relaxed) {
            // Time for a copy and a half: one is finished, the next is in flight.
            thread::sleep(Duration::from_secs(3));
            kafka.move_leader(topic, 0, 1 + moves.load(Ordering::Relaxed) % 3)?;
            moves.fetch_add(1, Ordering::Relaxed);
        }
        producer.join().unwrap_or_else(|_| bail!("the producer panicked"))
    })?;
    cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == count);
    let copiers: std::collections::BTreeSet<_> =
        kafka.finished_segments(topic, 0)?.iter().map(|segment| segment.broker).collect();
    ensure!(copiers.len() > 1, "only broker {copiers:?} copied");
    cluster.wait_settled(&setup.tier)?;
    cluster.delete_topic_and_tier(topic, &setup.tier)
}

/// Until the leader has moved often enough, also on a busy machine. How many records.
fn produce_while_it_moves(kafka: &Client<'_>, topic: &str, moves: &AtomicU32) -> Result<u64> {
    let (started, mut count) = (Instant::now(), 0);
    loop {
        let more = Produce { count: 3_000, seed: count, records_per_second: 600, ..Produce::default() };
        count += kafka.produce(topic, &more)?.count;
        let moves = moves.load(Ordering::Relaxed);
        if count >= 12_000 && moves >= 5 {
            return Ok(count);
        }
        ensure!(started.elapsed() < LIMIT, "the leader moved only {moves} times");
    }
}

fn a_follower_rebuilds_from_the_tier(setup: &Setup) -> Result<()> {
    let topic = "rebuilt";
    let cluster = &setup.cluster;
    let kafka = cluster.client();
    kafka.create_tiered_topic(topic, 3, &[])?;
    let transactions = Transactions {
        transactional_id: "rebuilder".to_owned(),
        transactions: 40,
        records_per_transaction: 100,
        abort_every: 4,
        seed: 9,
        value_bytes: 1000,
        partition: 0,
    };
    kafka.produce_transactions(topic, &transactions)?;
    kafka.produce(topic, &Produce { count: 3_000, ..Produce::default() })?;
    kafka.move_leader(topic, 0, 1)?;
    let local_from = cluster.wait_tiered(topic, 0)?;

    let follower = cluster.node(3)?;
    follower.stop()?;
    cluster.wipe_replica(follower, topic, 0)?;
    follower.start()?;
    eventually("the follower is in sync again", Duration::from_secs(90), || {
        let isr = kafka.describe_topic(topic)?.partitions[0].isr.clone();
        Ok(Look::when(isr.contains(&3), (), isr))
    })?;
    let first = follower.local_segments(topic, 0)?;
    ensure!(
        first.first().is_some_and(|base| *base >= local_from),
        "copied from the leader: {first:?} < {local_from}"
    );

    // As the leader it must know what it never had: leader epochs. The producers' states it asks the tier for, and
    // deletes them again before it reads them (apache/kafka#14652): `shim` compares those.
    kafka.move_leader(topic, 0, 3)?;
    kafka.consume_all(topic)?;
    kafka.produce_transactions(topic, &transactions)?;
    kafka.produce(topic, &Produce { count: 3_000, seed: 2, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic)?;
    cluster.wait_settled(&setup.tier)?;
    cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn a_broker_is_killed_in_mid_copy(setup: &Setup) -> Result<()> {
    let topic = "slow-killed";
    let cluster = &setup.cluster;
    let kafka = cluster.client();
    kafka.create_tiered_topic(topic, 3, &[])?;
    kafka.move_leader(topic, 0, 2)?;
    let leader = cluster.node(2)?;
    // Ten segments are closed at least.
    kafka.produce(topic, &Produce { count: 12_000, ..Produce::default() })?;
    eventually("some segments are copied", LIMIT, || {
        let done = kafka.finished_segments(topic, 0)?.len();
        Ok(Look::when(done >= 1, (), done))
    })?;
    leader.kill();
    let killed = Instant::now();
    let copied = kafka.finished_segments(topic, 0)?.len();
    ensure!(copied < 10, "{copied} segments were copied already: nothing was in flight");

    // The others go on, and lose nothing.
    kafka.produce(topic, &Produce { count: 3_000, seed: 2, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == 15_000);

    thread::sleep((SWEEP_AGE + Duration::from_secs(2)).saturating_sub(killed.elapsed()));
    leader.start()?;
    eventually("the killed broker is in sync again", Duration::from_secs(90), || {
        let isr = kafka.describe_topic(topic)?.partitions[0].isr.clone();
        Ok(Look::when(isr.contains(&2), (), isr))
    })?;
    kafka.move_leader(topic, 0, 2)?;
    ensure!(kafka.consume_all(topic)?.count == 15_000);
    cluster.wait_settled(&setup.tier)?;
    cluster.delete_topic_and_tier(topic, &setup.tier)?;
    let left = setup.tier.list()?;
    ensure!(
        left.keys()
            .all(|key| key.starts_with(&format!("{}/", cluster.id)) && !key.contains(".varve-uploads")),
        "{left:?}"
    );
    Ok(())
}
