use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use varve_archive::{HashAlgorithm, Record, RecordError, V1};

use super::*;
use crate::parts::Part;
use crate::schemas::{RegistryConfig, SchemaReference, SchemaVersion, Subject};

/// Never regenerated: see tests/golden/README.md.
const FROZEN: &[u8] = include_bytes!("../../../../tests/golden/cluster-state/v1.json");
const FROZEN_BLAKE3: &str = "72f0eb5fb40dcc83646ad0d487ce3a3d903321d23d8baa0aa607de678db7bb35";

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn config(name: &str, value: Option<&str>, source: &str) -> Config {
    let sensitive = value.is_none();
    Config { name: name.to_owned(), value: value.map(str::to_owned), source: source.to_owned(), sensitive }
}

/// Something of every kind.
pub(crate) fn sample() -> ClusterState {
    let committed =
        Committed { partition: 0, offset: 42, leader_epoch: Some(3), metadata: text("a \"note\"\n\u{1}") };
    let member = Member {
        member_id: "m-1".to_owned(),
        instance_id: text("instance-1"),
        client_id: "client".to_owned(),
        host: "/10.0.0.7".to_owned(),
        rack: text("a"),
        subscribed: vec!["t".to_owned()],
        subscribed_regex: text("t.*"),
        assigned: Some(vec![Assigned { topic: "t".to_owned(), partitions: vec![0, 1] }]),
    };
    let acl = Acl {
        resource_type: "TOPIC".to_owned(),
        resource_name: "t".to_owned(),
        pattern_type: "LITERAL".to_owned(),
        principal: "User:ann".to_owned(),
        host: "*".to_owned(),
        operation: "READ".to_owned(),
        permission: "ALLOW".to_owned(),
    };
    let quota = Quota {
        entity: vec![
            QuotaEntity { entity_type: "client-id".to_owned(), name: None },
            QuotaEntity { entity_type: "user".to_owned(), name: text("ann") },
        ],
        values: vec![QuotaValue { key: "producer_byte_rate".to_owned(), value: "1048576.5".to_owned() }],
    };
    let denied = MissingEntry {
        what: "topic hidden".to_owned(),
        reason: Reason::Denied,
        needs: Some(Needs {
            operation: "Describe".to_owned(),
            resource_type: "Topic".to_owned(),
            resource_name: "hidden".to_owned(),
        }),
        error: "not authorized".to_owned(),
    };
    let version = SchemaVersion {
        version: 1,
        id: 100_001,
        schema_type: "PROTOBUF".to_owned(),
        deleted: true,
        schema: "syntax = \"proto3\";\n".to_owned(),
        references: vec![SchemaReference {
            name: "o.proto".to_owned(),
            subject: "other".to_owned(),
            version: 2,
        }],
        more: text("{\"ruleSet\":{}}"),
    };
    ClusterState {
        varve_cluster_state: V1,
        cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        parts: StateParts::all(),
        brokers: vec![Broker { node_id: 1, rack: None }, Broker { node_id: 2, rack: text("b") }],
        features: vec![Feature { name: "metadata.version".to_owned(), min: 7, max: 25 }],
        topics: vec![
            Topic {
                name: "__consumer_offsets".to_owned(),
                topic_id: "AAAAAAAAAAAAAAAAAAAABg".to_owned(),
                internal: true,
                replicas: vec![vec![1]],
                configs: vec![config("cleanup.policy", Some("compact"), "DYNAMIC_TOPIC_CONFIG")],
            },
            Topic {
                name: "t".to_owned(),
                topic_id: "AAAAAAAAAAAAAAAAAAAABw".to_owned(),
                internal: false,
                replicas: vec![vec![1, 2], vec![2, 1]],
                configs: Vec::new(),
            },
        ],
        configs: vec![
            ResourceConfigs {
                resource: ResourceType::Broker,
                name: text("1"),
                configs: vec![config("ssl.keystore.password", None, "DYNAMIC_BROKER_CONFIG")],
            },
            ResourceConfigs {
                resource: ResourceType::Cluster,
                name: None,
                configs: vec![config("log.retention.ms", Some("1000"), "DYNAMIC_DEFAULT_BROKER_CONFIG")],
            },
        ],
        groups: vec![Group {
            group_id: "g ö/:".to_owned(),
            group_type: "consumer".to_owned(),
            protocol_type: text("consumer"),
            offsets: vec![TopicOffsets { topic: "t".to_owned(), partitions: vec![committed] }],
        }],
        acls: vec![acl],
        users: vec![User {
            name: "ann".to_owned(),
            credentials: vec![Credential { mechanism: "SCRAM-SHA-512".to_owned(), iterations: 8192 }],
        }],
        quotas: vec![quota],
        schemas: Some(SchemaState {
            config: Some(RegistryConfig { compatibility: text("FULL"), more: None }),
            mode: text("READWRITE"),
            subjects: vec![Subject {
                subject: "t-value".to_owned(),
                deleted: false,
                config: Some(RegistryConfig {
                    compatibility: text("NONE"),
                    more: text("{\"normalize\":true}"),
                }),
                mode: text("IMPORT"),
                versions: vec![version],
            }],
        }),
        missing: vec![denied],
        observed: Observed {
            groups: vec![ObservedGroup {
                group_id: "g ö/:".to_owned(),
                state: "Stable".to_owned(),
                assignor: text("uniform"),
                members: vec![member],
            }],
        },
    }
}

#[test]
fn the_frozen_document_stays_readable_and_is_written_again_in_the_same_bytes() {
    let state = ClusterState::decode(FROZEN).unwrap();
    assert_eq!(state, sample());
    assert_eq!(state.encode().unwrap(), FROZEN);
    assert_eq!(HashAlgorithm::Blake3.of(&[FROZEN]).to_string(), FROZEN_BLAKE3);
}

#[test]
fn the_smallest_document_names_version_cluster_and_parts() {
    let state =
        ClusterState { cluster_id: "c".to_owned(), parts: StateParts::none(), ..ClusterState::default() };
    let bytes = state.encode().unwrap();
    assert_eq!(bytes, br#"{"varve_cluster_state":1,"cluster_id":"c","parts":[]}"#);
    assert_eq!(ClusterState::decode(&bytes).unwrap(), state);
}

fn refused(change: impl FnOnce(&mut ClusterState)) {
    let mut state = sample();
    change(&mut state);
    assert!(matches!(state.encode(), Err(RecordError::Corrupt { .. })), "{state:?}");
    // Whoever wrote it all the same is refused too.
    let bytes = serde_json::to_vec(&state).unwrap();
    assert!(matches!(ClusterState::decode(&bytes), Err(RecordError::Corrupt { .. })));
}

#[test]
fn what_is_out_of_order_or_impossible_is_refused() {
    refused(|s| s.topics.reverse());
    refused(|s| s.brokers.reverse());
    refused(|s| s.configs.reverse());
    refused(|s| s.acls.push(s.acls[0].clone()));
    refused(|s| s.topics[1].replicas.clear());
    refused(|s| s.configs[0].configs.clear());
    refused(|s| s.groups[0].offsets[0].partitions.clear());
    refused(|s| s.groups[0].offsets[0].partitions[0].offset = -1);
    refused(|s| s.quotas[0].entity.reverse());
    refused(|s| s.users[0].credentials.clear());
    for value in ["1e6", "1.0", "NaN", "inf", "-0", "01", "", "+1", "0.1000000000000000055511151231257827"] {
        refused(|s| s.quotas[0].values[0].value = value.to_owned());
    }
}

#[test]
fn other_bytes_of_the_same_contents_are_refused() {
    let good = String::from_utf8(sample().encode().unwrap()).unwrap();
    let others = [
        good.replacen("\"internal\":true", "\"internal\": true", 1),
        good.replacen("\"name\":\"t\",", "\"name\":\"t\",\"internal\":false,", 1),
        good.replacen("\"node_id\":1", "\"node_id\":1,\"rack\":null", 1),
        good.replacen("\"node_id\":1", "\"node_id\":1,\"new\":1", 1),
        good.replacen("\"parts\":[\"acls\",\"configs\"", "\"parts\":[\"configs\",\"acls\"", 1),
        good.replacen("\\u0001", "\\u0001\\u000a", 1),
        good.replacen('ö', "\\u00f6", 1),
        format!("{good}\n"),
        format!(" {good}"),
        good.replacen("\"varve_cluster_state\":1", "\"varve_cluster_state\":01", 1),
        good.replacen("\"varve_cluster_state\":1,", "", 1),
    ];
    for other in others {
        assert_ne!(other, good);
        let found = ClusterState::decode(other.as_bytes());
        assert!(matches!(found, Err(RecordError::Corrupt { .. })), "{other}: {found:?}");
    }
}

#[test]
fn a_later_version_is_refused_as_such_and_before_anything_else() {
    let bytes = br#"{"varve_cluster_state":2,"cluster":{"unheard":"of"#;
    let found = ClusterState::decode(bytes);
    assert_eq!(found, Err(RecordError::Future { found: 2, supported: 1 }));
}

#[test]
fn a_document_that_is_too_long_is_refused_before_it_is_parsed() {
    let bytes = vec![b' '; usize::try_from(MAX_BYTES).unwrap() + 1];
    let found = ClusterState::decode(&bytes);
    assert_eq!(found, Err(RecordError::TooLong { found: MAX_BYTES + 1, allowed: MAX_BYTES }));
}

/// Whatever it gives, it does not panic; and what it takes is canonical.
fn harmless(bytes: &[u8]) {
    let decoded = catch_unwind(AssertUnwindSafe(|| ClusterState::decode(bytes)));
    if let Ok(state) = decoded.expect("a panic on outside bytes") {
        assert_eq!(state.encode().unwrap(), bytes);
    }
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let committed = (0..i64::MAX, proptest::option::of(0..9_i32), proptest::option::of("\\PC{1,8}"));
    let topics = btree_map("[a-z]{1,4}", btree_map(0..5_i32, committed, 1..4), 0..4);
    btree_map(".{0,6}", topics, 0..5).prop_map(|groups| {
        let groups = groups.into_iter().map(|(group_id, topics)| Group {
            group_id,
            group_type: "classic".to_owned(),
            protocol_type: None,
            offsets: topics
                .into_iter()
                .map(|(topic, partitions)| TopicOffsets {
                    topic,
                    partitions: partitions
                        .into_iter()
                        .map(|(partition, (offset, leader_epoch, metadata))| Committed {
                            partition,
                            offset,
                            leader_epoch,
                            metadata,
                        })
                        .collect(),
                })
                .collect(),
        });
        groups.collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        groups in groups(),
        parts in btree_set(0..8_usize, 0..8),
        names in btree_set(".{1,20}", 0..6),
        rate in proptest::num::f64::NORMAL,
    ) {
        let mut state = sample();
        state.groups = groups;
        state.parts = parts.into_iter().map(|n| Part::ALL[n]).collect();
        let user = |name: String| User { name, credentials: sample().users[0].credentials.clone() };
        state.users = names.into_iter().map(user).collect();
        state.quotas[0].values[0].value = crate::check::decimal(rate);
        let bytes = state.encode().unwrap();
        prop_assert_eq!(ClusterState::decode(&bytes).unwrap(), state);
    }

    #[test]
    fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..400)) {
        harmless(&bytes);
        let mut begun = br#"{"varve_cluster_state":1,"#.to_vec();
        begun.extend(bytes);
        harmless(&begun);
    }

    #[test]
    fn damaged_documents_are_harmless(at in 0..FROZEN.len(), byte: u8, cut in 0..FROZEN.len()) {
        let mut bytes = FROZEN.to_vec();
        bytes[at] = byte;
        harmless(&bytes);
        bytes.truncate(cut);
        harmless(&bytes);
    }
}
