//! `varve config check`, as a person or a program sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const MINIMAL: &str = include_str!("../../examples/archive-minimal.yaml");

fn check(file: &Path, args: &[&str]) -> (Output, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_varve"));
    let output = command.args(["config", "check"]).arg(file).args(args).env("VARVE_TEST", "hunter2").output();
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn what_holds_is_shown_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive.yaml");
    std::fs::write(&file, MINIMAL).unwrap();
    let sets = [
        "--set",
        "source.security.protocol=SASL_SSL",
        "--set",
        "source.sasl.mechanism=PLAIN",
        "--set",
        "source.sasl.username=me",
        "--set",
        "source.sasl.password=${VARVE_TEST}",
    ];
    let (output, out, err) = check(&file, &sets);
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    assert!(out.starts_with("source:\n  bootstrap.servers: host:9092\n"), "{out}");
    assert!(out.contains("sasl.password: \"[hidden]\"  # --set\n") && !out.contains("hunter2"), "{out}");
    let (_, out, _) = check(&file, &[&sets[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["valid"], json!(true));
    assert_eq!(json["config"]["source"]["sasl.password"]["value"], json!("[hidden]"));
}

#[test]
fn all_flaws_are_shown_and_the_exit_code_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive.yaml");
    std::fs::write(&file, format!("{MINIMAL}segments: {{byte: 5}}\nlog: {{level: loud}}\n")).unwrap();
    let (output, out, err) = check(&file, &[]);
    assert_eq!((output.status.code(), out.as_str()), (Some(2), ""));
    assert!(
        err.contains("archive.yaml: 2 flaws\n  line 4: segments.byte: no such key; did you mean bytes?"),
        "{err}"
    );
    let (output, out, _) = check(&file, &["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((output.status.code(), &json["valid"]), (Some(2), &json!(false)));
    assert_eq!(json["flaws"][1]["key"], json!("log.level"));
    assert_eq!(json["flaws"][1]["line"], json!(5));
}
