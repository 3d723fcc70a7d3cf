//! The reference pages whole: parts made by the crates, from the tables that their code goes by.

const INTRO: &str = "\
# Configuration

- [The broker's plug-in](#the-brokers-plug-in): `rsm.config.` keys in a broker's `server.properties`.
- [The archiver](#the-archiver): a YAML file for `varve archive`.

";

const END: &str = "\nMade by `cargo xtask docs` from the tables that the code itself goes by.\n";

/// Path from the tree's root, and contents.
pub fn reference_pages() -> [(&'static str, String); 2] {
    let (plug_in, archiver) = (varve_rsm::reference::config(), varve_archiver::config::reference());
    [
        ("docs/CONFIG.md", format!("{INTRO}{plug_in}\n{archiver}{END}")),
        ("docs/METRICS.md", varve_rsm::reference::metrics()),
    ]
}
