//! The arrows between our crates are those of docs/ARCHITECTURE.md and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate and which of ours it may depend on. A crate that is not in this list fails the test:
/// a new room comes with its arrows.
const ARROWS: [(&str, &[&str]); 12] = [
    ("varve-format", &[]),
    ("varve-script", &[]),
    ("varve-tls", &[]),
    ("varve-store", &["varve-tls"]),
    ("varve-keys", &["varve-format", "varve-store", "varve-tls"]),
    ("varve-archive", &["varve-format", "varve-store"]),
    ("varve-kafka", &["varve-format", "varve-tls"]),
    ("varve-cluster", &["varve-archive", "varve-format", "varve-kafka", "varve-tls"]),
    (
        "varve-archiver",
        &["varve-archive", "varve-cluster", "varve-format", "varve-kafka", "varve-keys", "varve-store"],
    ),
    (
        "varve-restore",
        &["varve-archive", "varve-cluster", "varve-format", "varve-kafka", "varve-keys", "varve-store"],
    ),
    ("varve-rsm", &["varve-archive", "varve-format", "varve-keys", "varve-store"]),
    (
        "varve-cli",
        &[
            "varve-archive",
            "varve-archiver",
            "varve-cluster",
            "varve-format",
            "varve-kafka",
            "varve-keys",
            "varve-restore",
            "varve-store",
        ],
    ),
];

/// What builds and tests the others may use all of them.
const FREE: [&str; 2] = ["varve-tests", "xtask"];

#[test]
fn only_the_designs_arrows() {
    let found = arrows(&metadata());
    assert!(found.contains_key("varve-format") && found.contains_key("varve-rsm"), "{found:?}");
    assert_eq!(foreign(&found), Vec::<String>::new());
}

#[test]
fn a_foreign_arrow_and_an_unknown_crate_are_seen() {
    let given = BTreeMap::from([
        ("varve-rsm".to_owned(), BTreeSet::from(["varve-kafka".to_owned(), "varve-store".to_owned()])),
        ("varve-utils".to_owned(), BTreeSet::new()),
        ("xtask".to_owned(), BTreeSet::from(["varve-store".to_owned()])),
    ]);
    assert_eq!(
        foreign(&given),
        ["varve-rsm → varve-kafka", "varve-utils: no arrows are written down for it"]
    );
}

fn foreign(found: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, targets) in found.iter().filter(|(from, _)| !FREE.contains(&from.as_str())) {
        match ARROWS.iter().find(|(name, _)| name == from) {
            Some((_, allowed)) => {
                let outside = targets.iter().filter(|to| !allowed.contains(&to.as_str()));
                wrong.extend(outside.map(|to| format!("{from} → {to}")));
            }
            None => wrong.push(format!("{from}: no arrows are written down for it")),
        }
    }
    wrong
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata gives JSON")
}

/// Our crates and the ones of ours that each depends on, in builds; a test may look at more.
fn arrows(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let targets = |package: &Value| {
        let used =
            list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"] != "dev");
        used.map(|dependency| name(&dependency)).filter(|to| ours.contains(to)).collect()
    };
    packages.iter().map(|package| (name(package), targets(package))).collect()
}
