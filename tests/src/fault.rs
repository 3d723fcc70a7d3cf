//! The course of every fault that ends: something breaks, the broker lives and says what is wrong, nothing
//! false is ever read, and when it ends everything catches up.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::driver::{Consume, Produce};
use crate::tier::Tier;

/// A fault of the store, from outside.
pub struct Fault<'a> {
    pub topic: &'a str,
    pub begin: &'a dyn Fn() -> Result<()>,
    pub end: &'a dyn Fn() -> Result<()>,
    /// What a line of the broker's log must hold while it lasts; nothing if it may go unnoticed.
    pub logged: &'a [&'a str],
    /// How long a consumer tries to read from the tier meanwhile.
    pub read_ms: u64,
}

/// Tiers some records, breaks the store, produces and reads meanwhile, heals it, and checks that nothing is lost,
/// wrong or left over.
pub fn ride_out(cluster: &Cluster, tier: &Tier, fault: &Fault<'_>) -> Result<()> {
    let kafka = cluster.client();
    let topic = fault.topic;
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 5_000, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    let log_from = cluster.broker().log_size();

    (fault.begin)()?;
    let during = || -> Result<()> {
        kafka.produce(topic, &Produce { count: 4_000, seed: 2, ..Produce::default() })?;
        let consume = Consume { timeout_ms: fault.read_ms, check_crcs: false, ..Consume::default() };
        kafka.consume(topic, &consume)?.is_true()?;
        if !fault.logged.is_empty() {
            cluster.wait_logged(log_from, fault.logged)?;
        }
        ensure!(cluster.broker().alive(), "the broker died");
        // What is on the broker's own disk is served whatever the store does.
        let active = *cluster.broker().local_segments(topic, 0)?.last().context("no local segment")?;
        kafka.consume(topic, &Consume { from: active.cast_signed(), ..Consume::default() })?.is_whole()?;
        Ok(())
    };
    let outcome = during().context("while the fault lasted");
    (fault.end)()?;
    outcome?;

    cluster.wait_tiered(topic, 0).context("catching up")?;
    ensure!(kafka.consume_all(topic)?.count == 9_000);
    cluster.wait_settled(tier)?;
    cluster.delete_topic_and_tier(topic, tier)?;
    ensure!(cluster.broker().alive(), "the broker died afterwards");
    Ok(())
}
