//! The reference pages whole: parts made by the crates, from the tables that their code goes by.

const INTRO: &str = "\
# Configuration

- [The broker's plug-in](#the-brokers-plug-in): `rsm.config.` keys in a broker's `server.properties`.
- [The archiver](#the-archiver): a YAML file for `varve archive`.

";

const METRICS_INTRO: &str = "\
# Metrics

- [The broker's plug-in](#the-brokers-plug-in): JMX beans.
- [The archiver](#the-archiver): Prometheus metrics, health and readiness over HTTP.

";

const END: &str = "\nMade by `cargo xtask docs` from the tables that the code itself goes by.\n";

/// Path from the tree's root, and contents.
pub fn reference_pages() -> [(&'static str, String); 2] {
    let (plug_in, archiver) = (varve_rsm::reference::config(), varve_archiver::config::reference());
    let (beans, prometheus) = (varve_rsm::reference::metrics(), varve_archiver::metrics::reference());
    [
        ("docs/CONFIG.md", format!("{INTRO}{plug_in}\n{archiver}{END}")),
        ("docs/METRICS.md", format!("{METRICS_INTRO}{beans}\n{prometheus}{END}")),
    ]
}
