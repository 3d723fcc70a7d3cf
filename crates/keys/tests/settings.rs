//! Settings that are wrong are found before anything is asked.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeMap;

use varve_keys::{KeyServices, Kind, settings};

fn flaws(given: &[(&str, &str)]) -> Vec<String> {
    let given: BTreeMap<_, _> =
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flaws = KeyServices::check(&given);
    assert!(flaws.iter().all(|flaw| flaw.kind == Kind::Invalid && flaw.operation == "configuration"));
    assert_eq!(KeyServices::new(&given, None).is_err(), !flaws.is_empty());
    flaws.iter().map(|flaw| format!("{flaw} {flaw:?}")).collect()
}

#[test]
fn nothing_is_needed_and_all_flaws_are_told_at_once() {
    assert_eq!(flaws(&[]), Vec::<String>::new());
    let found =
        flaws(&[("kms.timeout.ms", "0"), ("kms.vault.tokn", "hush"), ("kms.aws.secret.access.key", "hush")]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|text| !text.contains("hush")), "{found:?}");
    assert!(found.iter().any(|text| text.contains("did you mean kms.vault.token?")), "{found:?}");
}

#[test]
fn settings_that_need_one_another_are_told() {
    for (given, about, words) in [
        (&[("kms.aws.access.key.id", "x")][..], "kms.aws.secret.access.key", "missing"),
        (&[("kms.aws.session.token", "hush")], "kms.aws.access.key.id", "missing"),
        (
            &[
                ("kms.aws.access.key.id", "x"),
                ("kms.aws.secret.access.key", "hush"),
                ("kms.aws.profile", "p"),
            ],
            "kms.aws.profile",
            "given too",
        ),
        (
            &[("kms.azure.client.secret", "hush"), ("kms.azure.client.id", "x")],
            "kms.azure.tenant.id",
            "missing",
        ),
        (&[("kms.vault.token", "hush"), ("kms.vault.token.file", "x")], "kms.vault.token.file", "given too"),
        (&[("kms.vault.auth", "kubernetes")], "kms.vault.kubernetes.role", "missing"),
        (
            &[
                ("kms.vault.auth", "kubernetes"),
                ("kms.vault.kubernetes.role", "r"),
                ("kms.vault.token", "hush"),
            ],
            "kms.vault.token",
            "belongs to",
        ),
        (&[("kms.vault.auth.mount", "../sys")], "kms.vault.auth.mount", "expected"),
        (&[("kms.gcp.endpoint.url", "http://kms.example")], "kms.gcp.endpoint.url", "loopback"),
        (&[("kms.aws.endpoint.url", "http://kms.example")], "kms.aws.endpoint.url", "loopback"),
        (&[("kms.azure.endpoint.url", "https://me:hush@x")], "kms.azure.endpoint.url", "user"),
    ] {
        let found = flaws(given);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(about) && found[0].contains(words), "{found:?}");
        assert!(!found[0].contains("hush"), "{found:?}");
    }
}

#[test]
fn files_are_read_when_services_are_made() {
    for path in ["/nowhere/ca.pem", "/dev/null"] {
        let given = BTreeMap::from([("kms.tls.ca.file".to_owned(), path.to_owned())]);
        assert!(KeyServices::check(&given).is_empty());
        let error = KeyServices::new(&given, None).unwrap_err();
        assert!(error.kind == Kind::Invalid && error.to_string().contains(path), "{error}");
    }
    assert!(settings().iter().filter(|setting| setting.secret).count() >= 5);
}
