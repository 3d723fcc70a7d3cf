use super::*;
use crate::document::tests::sample;

fn told(change: impl FnOnce(&mut ClusterState)) -> Vec<String> {
    let (before, mut after) = (sample(), sample());
    change(&mut after);
    let there: Vec<String> = diff(&before, &after).iter().map(ToString::to_string).collect();
    // The other way round it is the same in reverse.
    let back = diff(&after, &before);
    assert_eq!(back.len(), there.len());
    let mirrored = |d: Difference| {
        let kind = match d.kind {
            Kind::Added => Kind::Removed,
            Kind::Removed => Kind::Added,
            Kind::Changed => Kind::Changed,
        };
        Difference { kind, from: d.to, to: d.from, ..d }.to_string()
    };
    assert_eq!(back.into_iter().map(mirrored).collect::<Vec<_>>(), there);
    there
}

#[test]
fn equal_states_do_not_differ_whatever_was_observed() {
    assert!(told(|_| ()).is_empty());
    assert!(told(|s| s.observed.groups.clear()).is_empty());
}

#[test]
fn topics_differ_by_id_partitions_replicas_and_configs() {
    let gone = told(|s| drop(s.topics.pop()));
    let expected = [
        "- topic t: AAAAAAAAAAAAAAAAAAAABw",
        "- partitions of topic t: 2",
        "- replicas of t-0: 1,2",
        "- replicas of t-1: 2,1",
    ];
    assert_eq!(gone, expected);
    let grown = told(|s| s.topics[1].replicas.push(vec![1]));
    assert_eq!(grown, ["~ partitions of topic t: 2 → 3", "+ replicas of t-2: 1"]);
    let recreated = told(|s| s.topics[1].topic_id = "AAAAAAAAAAAAAAAAAAAACA".to_owned());
    assert_eq!(recreated, ["~ topic t: AAAAAAAAAAAAAAAAAAAABw → AAAAAAAAAAAAAAAAAAAACA"]);
    let altered = told(|s| s.topics[0].configs[0].value = Some("delete".to_owned()));
    assert_eq!(altered, ["~ cleanup.policy of topic __consumer_offsets: compact → delete"]);
    let inherited = told(|s| s.topics[0].configs[0].source = "STATIC_BROKER_CONFIG".to_owned());
    let expected = "~ cleanup.policy of topic __consumer_offsets: compact → compact (STATIC_BROKER_CONFIG)";
    assert_eq!(inherited, [expected]);
}

#[test]
fn the_rest_differs_by_name() {
    let offset = told(|s| s.groups[0].offsets[0].partitions[0].offset = 43);
    let note = "\"a \\\"note\\\"\\n\\u{1}\"";
    assert_eq!(
        offset,
        [format!("~ offset of group g ö/: in t-0: 42 in epoch 3, {note} → 43 in epoch 3, {note}")]
    );
    let acl = told(|s| s.acls[0].host = "10.0.0.1".to_owned());
    let expected = [
        "+ ACL ALLOW READ on LITERAL TOPIC t for User:ann from 10.0.0.1",
        "- ACL ALLOW READ on LITERAL TOPIC t for User:ann from *",
    ];
    let mut acl = acl;
    acl.sort();
    assert_eq!(acl, expected);
    let user = told(|s| s.users.clear());
    assert_eq!(user, ["- SCRAM user ann with SCRAM-SHA-512: 8192 iterations"]);
    let quota = told(|s| s.quotas[0].values[0].value = "5".to_owned());
    assert_eq!(quota, ["~ quota producer_byte_rate of any client-id user ann: 1048576.5 → 5"]);
    let config = told(|s| drop(s.configs.pop()));
    assert_eq!(config, ["- log.retention.ms of the cluster: 1000"]);
    let secret = told(|s| drop(s.configs.remove(0)));
    assert_eq!(secret, ["- ssl.keystore.password of broker 1: [not told]"]);
    let feature = told(|s| s.features[0].max = 26);
    assert_eq!(feature, ["~ feature metadata.version: 7 to 25 → 7 to 26"]);
    let broker = told(|s| s.brokers[0].rack = Some("a".to_owned()));
    assert_eq!(broker, ["~ broker 1:  → rack a"]);
    let missing = told(|s| s.missing.clear());
    assert_eq!(missing, ["- missing: topic hidden: not authorized"]);
}

#[test]
fn schemas_differ_by_version_and_never_silently() {
    let altered = told(|s| {
        let version = &mut s.schemas.as_mut().unwrap().subjects[0].versions[0];
        version.schema = "syntax = \"proto2\";\n".to_owned();
    });
    assert_eq!(altered.len(), 1);
    assert!(
        altered[0].starts_with("~ version 1 of subject t-value: id 100001, PROTOBUF, BLAKE3 "),
        "{altered:?}"
    );
    let levels = told(|s| {
        let schemas = s.schemas.as_mut().unwrap();
        schemas.config = None;
        schemas.subjects[0].mode = None;
    });
    let expected = ["- compatibility of the Schema Registry: FULL", "- mode of subject t-value: IMPORT"];
    assert_eq!(levels, expected);
}

#[test]
fn a_part_that_one_does_not_hold_is_said_once_and_not_compared() {
    let without = told(|s| {
        s.parts = s.parts.clone().without(Part::Groups);
        s.groups.clear();
        s.observed.groups.clear();
    });
    assert_eq!(without, ["- groups as a part of the document: held"]);
}
