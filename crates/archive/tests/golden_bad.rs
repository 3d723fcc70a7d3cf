//! Records that every reader must refuse, frozen: in each one thing is wrong. Beside them stands for each what kind
//! of record it passes for, and what error must come.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use varve_archive::record::archive::ArchiveRecord;
use varve_archive::record::branch::BranchRecord;
use varve_archive::record::bundles::{BundleBlock, Bundles};
use varve_archive::record::chains::Chains;
use varve_archive::record::gap::GapRecord;
use varve_archive::record::node::{Inner, Leaf};
use varve_archive::record::object::Block;
use varve_archive::record::pruned::PrunedRecord;
use varve_archive::record::snapshot::SnapshotRecord;
use varve_archive::record::topic::TopicRecord;
use varve_archive::record::upgrade::UpgradeRecord;
use varve_archive::{Record, RecordError};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/archive/v1/bad")
}

/// The first frozen record whose first member is this.
fn good(kind: &str) -> String {
    match kind {
        "gap" => return r#"{"varve_gap":1,"reason":"log-start","detail":"x"}"#.into(),
        "upgrade" => {
            return r#"{"varve_upgrade":1,"archive_id":"CQkJCQkJCQkJCQkJCQkJCQ","number":1,"requires":["x"],"writer":"w","created_ms":1}"#.into();
        }
        _ => {}
    }
    let begin = format!("{{\"varve_{kind}\":1,");
    let mut found = vec![];
    fn walk(at: &Path, begin: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, begin, found);
            } else if let Ok(text) = String::from_utf8(std::fs::read(path).unwrap()) {
                found.extend(text.starts_with(begin).then_some(text));
            }
        }
    }
    walk(&folder().join("../blake3"), &begin, &mut found);
    found.sort_by_key(|text| (std::cmp::Reverse(text.len()), text.clone()));
    found.into_iter().next().unwrap_or_else(|| panic!("no {kind}"))
}

fn decode(kind: &str, bytes: &[u8]) -> Result<(), RecordError> {
    match kind {
        "archive" => ArchiveRecord::decode(bytes).map(drop),
        "topic" => TopicRecord::decode(bytes).map(drop),
        "branch" => BranchRecord::decode(bytes).map(drop),
        "snapshot" => SnapshotRecord::decode(bytes).map(drop),
        "pruned" => PrunedRecord::decode(bytes).map(drop),
        "gap" => GapRecord::decode(bytes).map(drop),
        "leaf" => Leaf::decode(bytes).map(drop),
        "inner" => Inner::decode(bytes).map(drop),
        "chains" => Chains::decode(bytes).map(drop),
        "block" => Block::decode(bytes).map(drop),
        "bundles" => Bundles::decode(bytes).map(drop),
        "bundle_block" => BundleBlock::decode(bytes).map(drop),
        "upgrade" => UpgradeRecord::decode(bytes).map(drop),
        other => panic!("{other}"),
    }
}

/// Name, kind, what is replaced by what in a good record, and the error.
const CASES: &[(&str, &str, &str, &str, &str)] = &[
    ("version-2", "archive", "_archive\":1", "_archive\":2", "future version"),
    ("version-0", "archive", "_archive\":1", "_archive\":0", "corrupt"),
    ("leading-zero", "archive", "_ms\":1760000000000", "_ms\":01", "corrupt"),
    ("minus-zero", "archive", "_ms\":1760000000000", "_ms\":-0", "corrupt"),
    ("fraction", "archive", "_ms\":1760000000000", "_ms\":1.0", "corrupt"),
    ("exponent", "archive", "_ms\":1760000000000", "_ms\":1e3", "corrupt"),
    ("null", "archive", "1760000000000", "null", "corrupt"),
    ("number-too-high", "archive", "1760000000000", "9223372036854775808", "corrupt"),
    ("white-space", "archive", ",\"hash\"", ", \"hash\"", "corrupt"),
    (
        "members-swapped",
        "archive",
        "\"hash\":\"blake3\",\"writer\":\"varve 0.1.0\"",
        "\"writer\":\"varve 0.1.0\",\"hash\":\"blake3\"",
        "corrupt",
    ),
    ("member-twice", "archive", ",\"writer\"", ",\"hash\":\"blake3\",\"writer\"", "corrupt"),
    ("member-unknown", "archive", ",\"created_ms\"", ",\"color\":\"red\",\"created_ms\"", "corrupt"),
    ("member-missing", "archive", ",\"hash\":\"blake3\"", "", "corrupt"),
    ("list-empty", "archive", ",\"writer\"", ",\"requires\":[],\"writer\"", "corrupt"),
    ("requires-descend", "archive", ",\"writer\"", ",\"requires\":[\"b\",\"a\"],\"writer\"", "corrupt"),
    ("escape-unneeded", "archive", "varve", "\\u0076arve", "corrupt"),
    ("control-character", "archive", "varve", "\u{85}", "corrupt"),
    ("id-not-canonical", "archive", "CQkJCQkJCQkJCQkJCQkJCQ", "CQkJCQkJCQkJCQkJCQkJCR", "corrupt"),
    ("topic-unsafe", "topic", "\"topic\":\"empty\"", "\"topic\":\"a/b\"", "corrupt"),
    ("cluster-keys", "topic", "\"cluster_id\":\"cluster\"", "\"cluster_id\":\"keys\"", "corrupt"),
    ("more-unordered", "topic", "\"more\":[", "\"more\":[{\"name\":\"z\",\"value\":\"v\"},", "corrupt"),
    ("parent-itself", "branch", "\"parent\":1", "\"parent\":2", "corrupt"),
    ("reason-unsafe", "branch", "divergence", "di vergence", "corrupt"),
    ("epochs-descend", "branch", "\"epoch\":4", "\"epoch\":0", "corrupt"),
    ("leader-epoch-below", "branch", "\"leader_epoch\":4", "\"leader_epoch\":-2", "corrupt"),
    (
        "previous-itself",
        "snapshot",
        "\"previous\":{\"sequence\":2",
        "\"previous\":{\"sequence\":3",
        "corrupt",
    ),
    ("skip-elsewhere", "snapshot", "\"skip\":{\"sequence\":2", "\"skip\":{\"sequence\":1", "corrupt"),
    ("hash-in-capitals", "snapshot", "\"hash\":\"", "\"hash\":\"A", "corrupt"),
    ("signature-short", "snapshot", "==\"}}", "\"}}", "corrupt"),
    ("ranges-overlap", "pruned", "\"end_offset\":1024", "\"end_offset\":1031", "corrupt"),
    ("no-objects", "pruned", "\"objects\":10", "\"objects\":0", "corrupt"),
    ("snapshots-above", "pruned", "\"last\":1", "\"last\":2", "corrupt"),
    ("reason-empty", "gap", "log-start", "", "corrupt"),
    ("detail-empty", "gap", "\"x\"", "\"\"", "corrupt"),
    ("prefix-in-capitals", "leaf", "\"prefix\":\"", "\"prefix\":\"A", "corrupt"),
    ("since-0", "leaf", "\"since\":", "\"since\":0,\"since\":", "corrupt"),
    ("nibbles-twice", "inner", "\"nibble\":1,", "\"nibble\":0,", "corrupt"),
    ("nibble-16", "inner", "\"nibble\":15,", "\"nibble\":16,", "corrupt"),
    ("hole", "chains", "\"end_offset\":430,", "\"end_offset\":431,", "corrupt"),
    ("parent-unknown", "chains", "\"parent\":1", "\"parent\":3", "corrupt"),
    ("block-short", "block", "\"level\":1", "\"level\":0", "corrupt"),
    ("block-too-full", "bundles", "\"bundles\":2", "\"bundles\":33", "corrupt"),
    ("sequence-of-another-block", "bundle_block", "\"block\":0", "\"block\":1", "corrupt"),
    ("number-0", "upgrade", "\"number\":1", "\"number\":0", "corrupt"),
    ("requires-nothing", "upgrade", "[\"x\"]", "[]", "corrupt"),
];

fn name(case: &(&str, &str, &str, &str, &str)) -> String {
    format!("{}-{}", case.1.replace('_', "-"), case.0)
}

fn check(kind: &str, bytes: &[u8], expected: &str, name: &str) {
    let found = match decode(kind, bytes) {
        Ok(()) => panic!("{name} is accepted"),
        Err(RecordError::Future { .. }) => "future version",
        Err(RecordError::Corrupt { .. } | RecordError::TooLong { .. }) => "corrupt",
    };
    assert_eq!(found, expected, "{name}");
}

#[test]
fn bad_records_are_refused() {
    let expected: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    assert_eq!(expected.len(), CASES.len());
    for case in CASES {
        decode(case.1, good(case.1).as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", case.1));
        let bytes = std::fs::read(folder().join(format!("{}.json", name(case)))).unwrap();
        check(case.1, &bytes, case.4, &name(case));
        assert_eq!(expected[&name(case)], json!({"record": case.1, "error": case.4}));
    }
}

/// How the files were made. Never again: it refuses where one exists.
#[test]
#[ignore = "writes frozen files, once"]
fn freeze_bad() {
    std::fs::create_dir(folder()).unwrap();
    let mut expected = Map::new();
    for case in CASES {
        let text = good(case.1);
        assert!(text.contains(case.2), "{}: no {} in {text}", name(case), case.2);
        let bad = text.replacen(case.2, case.3, 1);
        check(case.1, bad.as_bytes(), case.4, &name(case));
        std::fs::write(folder().join(format!("{}.json", name(case))), bad).unwrap();
        expected.insert(name(case), json!({"record": case.1, "error": case.4}));
    }
    let text = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(folder().join("expected.json"), format!("{text}\n")).unwrap();
}
