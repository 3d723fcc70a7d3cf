//! Every supported broker tiers and reads back.

use anyhow::{Result, ensure};
use varve_tests::{At, Cluster, KAFKA_VERSIONS, Produce, Scratch, Suite, Tier};

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite
            .test(&format!("kafka_{version}_tiers_and_reads_back"), move || tiers_and_reads_back(version));
    }
    suite
}

fn tiers_and_reads_back(version: &str) -> Result<()> {
    let scratch = Scratch::new("store")?;
    let tier = Tier::chosen(&scratch.path().join("tier"))?;
    let cluster = Cluster::builder().version(version).tier(&tier).start()?;
    let kafka = cluster.client();
    kafka.create_tiered_topic("smoke", 1, &[])?;
    let produced = kafka.produce("smoke", &Produce { count: 6000, headers: 2, ..Produce::default() })?;
    let local_from = cluster.wait_tiered("smoke", 0)?;
    ensure!(local_from > 4000, "only {local_from} of 6000 records left the disk");
    ensure!(kafka.offset("smoke", 0, At::Earliest)? == 0);
    cluster.wait_settled(&tier)?;
    let consumed = kafka.consume_all("smoke")?;
    ensure!((consumed.first, consumed.last) == (0, produced.last), "{consumed:?}");

    // The same after a restart: nothing that reads need lives in memory alone.
    cluster.broker().restart()?;
    ensure!(kafka.consume_all("smoke")?.digest == consumed.digest);

    cluster.delete_topic_and_tier("smoke", &tier)
}
