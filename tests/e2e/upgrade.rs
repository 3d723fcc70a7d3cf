//! A broker is upgraded over its tier.

use anyhow::{Result, ensure};
use varve_tests::{Cluster, Produce, Scratch, Suite, Tier, Transactions};

pub(crate) fn suite() -> Suite {
    Suite::new().test("kafka_4_1_is_upgraded_to_4_2", kafka_4_1_is_upgraded_to_4_2)
}

fn kafka_4_1_is_upgraded_to_4_2() -> Result<()> {
    let store = Scratch::new("store")?;
    let tier = Tier::chosen(&store.path().join("tier"))?;
    let cluster = Cluster::builder().version("4.1.1").tier(&tier).start()?;
    let kafka = cluster.client();
    let topic = "upgraded";
    kafka.create_tiered_topic(topic, 1, &[])?;
    let transactions = Transactions {
        transactional_id: "upgrader".to_owned(),
        transactions: 30,
        records_per_transaction: 100,
        abort_every: 3,
        seed: 4,
        value_bytes: 1000,
        partition: 0,
    };
    kafka.produce_transactions(topic, &transactions)?;
    kafka.produce(topic, &Produce { count: 3_000, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    let before = kafka.consume_all(topic)?;

    cluster.broker().stop()?;
    cluster.broker().set_version("4.2.0");
    cluster.broker().start()?;
    ensure!(kafka.consume_all(topic)?.digest == before.digest);
    kafka.produce(topic, &Produce { count: 3_000, seed: 2, ..Produce::default() })?;
    cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic)?;
    cluster.wait_settled(&tier)?;
    cluster.delete_topic_and_tier(topic, &tier)
}
