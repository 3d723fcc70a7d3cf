//! What is written down about the code agrees with it: every dependency is used and has its line in
//! docs/dependencies.md, no line outlives its dependency, and the reference pages are those that the code makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_dependency_has_a_line() {
    let listed = listed(&read("docs/dependencies.md"));
    let mut used = entries(&read("Cargo.toml"), "[workspace.dependencies]");
    used.extend(entries(&read("crates/format/fuzz/Cargo.toml"), "[dependencies]"));
    used.retain(|name| !name.starts_with("varve-"));
    used.extend(entries(&read("gradle/libs.versions.toml"), "[libraries]"));
    assert!(used.len() > 20, "found only {used:?}");
    assert_eq!(used.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "without a line");
    assert_eq!(listed.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "without a use");
}

#[test]
fn every_version_of_the_workspace_is_used_by_a_member() {
    let members = list(&read("Cargo.toml"), "members");
    assert!(members.len() > 5, "found only {members:?}");
    let manifests: String = members.iter().map(|member| read(&format!("{member}/Cargo.toml"))).collect();
    let mut unused = entries(&read("Cargo.toml"), "[workspace.dependencies]");
    unused.retain(|name| !manifests.lines().any(|line| line.starts_with(&format!("{name}.workspace"))));
    assert_eq!(unused, BTreeSet::new());
}

#[test]
fn reference_pages_are_what_the_code_makes() {
    for (path, text) in varve_tests::reference_pages() {
        let there = read(path);
        let differs = there.lines().zip(text.lines()).find(|(there, made)| there != made);
        assert!(
            there == text,
            "{path} is out of date: run `cargo xtask docs`. First difference: {differs:#?}"
        );
    }
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

/// The texts of a list that stands on one line.
fn list(toml: &str, key: &str) -> Vec<String> {
    let line =
        toml.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('=')).unwrap_or_default();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The first cells of all tables but that of the tools.
fn listed(markdown: &str) -> BTreeSet<String> {
    let crates = markdown.split("\n## Tools").next().unwrap_or_default();
    let first =
        crates.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")).map(|(cell, _)| cell);
    first.filter(|cell| !["crate", "library"].contains(cell)).map(str::to_owned).collect()
}
