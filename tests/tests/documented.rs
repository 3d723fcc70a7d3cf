//! Every dependency has its line in docs/dependencies.md, and no line outlives its dependency.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_dependency_has_a_line() {
    let listed = listed(&read("docs/dependencies.md"));
    let mut used = entries(&read("Cargo.toml"), "[workspace.dependencies]");
    used.retain(|name| !name.starts_with("varve-"));
    used.extend(entries(&read("gradle/libs.versions.toml"), "[libraries]"));
    assert!(used.len() > 20, "found only {used:?}");
    assert_eq!(used.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "without a line");
    assert_eq!(listed.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "without a use");
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path)
}

/// The keys of one section: each entry is one line.
fn entries(toml: &str, section: &str) -> BTreeSet<String> {
    let lines =
        toml.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim().to_owned()).collect()
}

/// The first cells of all tables but that of the tools.
fn listed(markdown: &str) -> BTreeSet<String> {
    let crates = markdown.split("\n## Tools").next().unwrap_or_default();
    let first =
        crates.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")).map(|(cell, _)| cell);
    first.filter(|cell| !["crate", "library"].contains(cell)).map(str::to_owned).collect()
}
