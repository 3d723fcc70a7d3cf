//! `varve restore` from an old and a new cluster into each supported version, of one node and of three. All of them
//! take a quarter of an hour: `VARVE_RESTORE_MATRIX=all`, by hand; `restore` has a part of them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use varve_tests::{
    Archived, Cluster, KAFKA_VERSION, KAFKA_VERSIONS, Shared, Suite, USUAL, ended, has_left, write_usual,
    writers_go_on,
};

const OLDEST: &str = "3.9.2";

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    if std::env::var_os("VARVE_RESTORE_MATRIX").is_some() {
        let old = Shared::new(|| source(OLDEST));
        let new = Shared::new(|| source(KAFKA_VERSION));
        for (from, source) in [(OLDEST, old), (KAFKA_VERSION, new)] {
            for (to, nodes) in KAFKA_VERSIONS.into_iter().flat_map(|to| [(to, 1), (to, 3)]) {
                let name = format!("from_{from}_to_{nodes}_of_{to}");
                suite = suite.test_with(&source, &name, move |source| restored(source, from, to, nodes));
            }
        }
    }
    suite
}

fn source(version: &str) -> Result<Archived> {
    let cluster = Cluster::builder().version(version).start()?;
    write_usual(&cluster)?;
    Archived::of(&cluster, &USUAL.map(|(topic, _)| topic))
}

/// On three nodes each partition is on all of them, and two have to be in sync.
fn restored(source: &Archived, from: &str, to: &str, nodes: u32) -> Result<()> {
    let cluster = Cluster::builder().version(to).nodes(nodes).start()?;
    let plan = source.plan(&format!("{to}-{nodes}"));
    let begun = Instant::now();
    let factor = nodes.to_string();
    let command = source.restore(&cluster, &plan, &["--replication-factor", &factor, "--json"])?;
    let (out, _) = ended(command, 0).with_context(|| format!("see {:?}", cluster.logs()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let report: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(report["is_clean"] == true, "{out}");
    source.same(&cluster)?;
    has_left(&cluster)?;
    writers_go_on(&cluster, &source.logs, &["plain", "trimmed", "empty"], "transactional")?;
    let copying = &report["applied"]["copying_ms"];
    println!("from {from} to {nodes} of {to}: {seconds:.1} s in all, {copying} ms of copying");
    Ok(())
}
