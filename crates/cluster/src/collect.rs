//! Collecting the state of a living cluster. Nothing is changed on it.
//!
//! The parts are read side by side, each with a bounded number of requests under way; they are no single moment's
//! state, since Kafka has none to give. What a broker refuses is noted as missing. What fails after all retries
//! fails the collection, unless it concerns single things (one group, one topic): those are noted.

use std::collections::{BTreeMap, BTreeSet};

use varve_archive::{RecordError, V1};
use varve_kafka::client::Client;
use varve_kafka::client::admin::{
    AclEntry, AdminError, AdminResult, BrokerDescription, ConfigEntry, ConfigResource, ConfigSource,
    Features, QuotaEntry, ScramUser, TopicDescription,
};

use super::check::decimal;
use super::document::{
    Acl, Broker, ClusterState, Config, Credential, Feature, Observed, Quota, QuotaEntity, QuotaValue, Reason,
    ResourceConfigs, ResourceType, Topic, User,
};
use super::groups::{CollectedGroups, collect_groups};
use super::missing::{self, MissingList};
use super::parts::{Part, StateParts};
use super::read_schemas::read_schemas;
use super::schema_registry::SchemaRegistry;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the cluster's state: {0}")]
    Admin(#[from] AdminError),
    #[error("the cluster's state can't be written: {0}")]
    Record(#[from] RecordError),
}

/// All that is wanted, the groups first.
///
/// # Errors
/// If brokers fail. What they refuse is named in the document.
pub async fn collect(
    client: &Client,
    wanted: &StateParts,
    registry: Option<&SchemaRegistry>,
) -> Result<ClusterState, StateError> {
    let groups = collect_groups(client, wanted).await?;
    collect_rest(client, wanted, registry, groups).await
}

/// All but the groups, which were read before.
///
/// # Errors
/// As [`collect`].
pub async fn collect_rest(
    client: &Client,
    wanted: &StateParts,
    registry: Option<&SchemaRegistry>,
    groups: CollectedGroups,
) -> Result<ClusterState, StateError> {
    let wanted = if registry.is_some() { wanted.clone() } else { wanted.clone().without(Part::Schemas) };
    let cluster = client.describe_cluster().await?;
    let brokers = &cluster.brokers;
    let ((topics, configs, acls, users, quotas, features), schemas) = tokio::try_join!(
        async {
            tokio::try_join!(
                part(&wanted, Part::Topics, topics(client)),
                part(&wanted, Part::Configs, configs(client, brokers)),
                part(&wanted, Part::Acls, acls(client)),
                part(&wanted, Part::Users, users(client)),
                part(&wanted, Part::Quotas, quotas(client)),
                part(&wanted, Part::Features, features(client)),
            )
        },
        async {
            match registry.filter(|_| wanted.has(Part::Schemas)) {
                Some(registry) => Ok(read_schemas(registry).await),
                None => Ok((None, MissingList::default())),
            }
        },
    )?;
    let mut missing = groups.missing;
    for more in [topics.1, configs.1, acls.1, users.1, quotas.1, features.1, schemas.1] {
        missing.extend(more);
    }
    let missing = missing.into_entries();
    missing::warn(&missing);
    Ok(ClusterState {
        varve_cluster_state: V1,
        cluster_id: cluster.cluster_id,
        parts: wanted,
        brokers: brokers.iter().map(|b| Broker { node_id: b.node_id, rack: b.rack.clone() }).collect(),
        features: features.0,
        topics: topics.0,
        configs: configs.0,
        groups: groups.groups,
        acls: acls.0,
        users: users.0,
        quotas: quotas.0,
        schemas: schemas.0,
        missing,
        observed: Observed { groups: groups.observed },
    })
}

type Section<T> = (Vec<T>, MissingList);

async fn part<T>(
    wanted: &StateParts,
    part: Part,
    read: impl Future<Output = AdminResult<Section<T>>>,
) -> AdminResult<Section<T>> {
    if wanted.has(part) { read.await } else { Ok((Vec::new(), MissingList::default())) }
}

async fn topics(client: &Client) -> AdminResult<Section<Topic>> {
    let mut missing = MissingList::default();
    let listed = client.list_topics().await?;
    let visible: BTreeSet<&str> = listed.iter().map(|t| t.name.as_str()).collect();
    let resources: Vec<ConfigResource> =
        listed.iter().map(|t| ConfigResource::Topic(t.name.clone())).collect();
    let (described, hidden) =
        tokio::join!(client.describe_configs(&resources), client.hidden_topics(&visible));
    if let Some(hidden) = missing.allow("topics that may not be described", hidden)? {
        for topic in missing.take(hidden) {
            let what = format!("topic {topic}");
            let needs = varve_kafka::client::admin::NeededAcl::on_topic("Describe", &topic);
            missing.admin(what.clone(), &AdminError::NotAuthorized { what, needs });
        }
    }
    let described = described?;
    let gone: BTreeSet<String> =
        described.missing.iter().filter(|m| m.error.is_gone()).map(|m| m.what.clone()).collect();
    let mut configs: BTreeMap<String, Vec<Config>> = BTreeMap::new();
    for found in missing.take(described) {
        if let ConfigResource::Topic(name) = &found.resource {
            let own = entries(&found.resource, found.entries, |_| true, &mut missing);
            configs.insert(name.clone(), own);
        }
    }
    let mut topics = Vec::with_capacity(listed.len());
    for topic in listed {
        let resource = ConfigResource::Topic(topic.name.clone()).to_string();
        let configs = configs.remove(&topic.name).unwrap_or_default();
        if !gone.contains(&resource) {
            topics.extend(self::topic(topic, configs, &mut missing));
        }
    }
    Ok((topics, missing))
}

fn topic(topic: TopicDescription, configs: Vec<Config>, missing: &mut MissingList) -> Option<Topic> {
    let dense = topic.partitions.iter().zip(0..).all(|(p, number)| p.partition == number);
    if topic.partitions.is_empty() || !dense {
        let what = format!("topic {}", topic.name);
        missing.note(what, Reason::Failed, "the brokers did not tell all of its partitions");
        return None;
    }
    Some(Topic {
        name: topic.name,
        topic_id: topic.topic_id,
        internal: topic.is_internal,
        replicas: topic.partitions.into_iter().map(|p| p.replicas).collect(),
        configs,
    })
}

/// Dynamic ones of the cluster, of brokers, of client metrics and of groups.
async fn configs(client: &Client, brokers: &[BrokerDescription]) -> AdminResult<Section<ResourceConfigs>> {
    let mut missing = MissingList::default();
    let mut resources = vec![ConfigResource::ClusterDefault];
    resources.extend(brokers.iter().map(|b| ConfigResource::Broker(b.node_id)));
    let what = "configs of client metrics and of groups";
    if let Some(found) = missing.allow(what, client.list_config_resources().await)? {
        resources.extend(missing.take(found));
    }
    let described = client.describe_configs(&resources).await?;
    let mut all = Vec::new();
    for found in missing.take(described) {
        let (resource, name, own) = match &found.resource {
            ConfigResource::Topic(_) => continue,
            ConfigResource::ClusterDefault => {
                (ResourceType::Cluster, None, ConfigSource::DynamicDefaultBrokerConfig)
            }
            ConfigResource::Broker(id) => {
                (ResourceType::Broker, Some(id.to_string()), ConfigSource::DynamicBrokerConfig)
            }
            ConfigResource::ClientMetrics(name) => {
                (ResourceType::ClientMetrics, Some(name.clone()), ConfigSource::DynamicClientMetricsConfig)
            }
            ConfigResource::Group(name) => {
                (ResourceType::Group, Some(name.clone()), ConfigSource::DynamicGroupConfig)
            }
        };
        let configs = entries(&found.resource, found.entries, |source| source == own, &mut missing);
        if !configs.is_empty() {
            all.push(ResourceConfigs { resource, name, configs });
        }
    }
    all.sort_by(|a, b| (a.resource, &a.name).cmp(&(b.resource, &b.name)));
    Ok((all, missing))
}

/// Those of the wanted sources, by name; sensitive ones without a value, which is noted.
fn entries(
    resource: &ConfigResource,
    entries: Vec<ConfigEntry>,
    wanted: impl Fn(ConfigSource) -> bool,
    missing: &mut MissingList,
) -> Vec<Config> {
    let mut configs = Vec::new();
    for entry in entries.into_iter().filter(|e| wanted(e.source)) {
        if entry.is_sensitive {
            let what = format!("value of {} in {resource}", entry.name);
            missing.note(what, Reason::Withheld, "Kafka tells sensitive values to nobody");
        }
        configs.push(Config {
            name: entry.name,
            value: entry.value.filter(|_| !entry.is_sensitive),
            source: source(entry.source),
            sensitive: entry.is_sensitive,
        });
    }
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs.dedup_by(|a, b| a.name == b.name);
    configs
}

fn source(source: ConfigSource) -> String {
    let name = match source {
        ConfigSource::DynamicTopicConfig => "DYNAMIC_TOPIC_CONFIG",
        ConfigSource::DynamicBrokerConfig => "DYNAMIC_BROKER_CONFIG",
        ConfigSource::DynamicDefaultBrokerConfig => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigSource::StaticBrokerConfig => "STATIC_BROKER_CONFIG",
        ConfigSource::DefaultConfig => "DEFAULT_CONFIG",
        ConfigSource::DynamicBrokerLoggerConfig => "DYNAMIC_BROKER_LOGGER_CONFIG",
        ConfigSource::DynamicClientMetricsConfig => "DYNAMIC_CLIENT_METRICS_CONFIG",
        ConfigSource::DynamicGroupConfig => "DYNAMIC_GROUP_CONFIG",
        ConfigSource::Unknown(code) => return format!("UNKNOWN({code})"),
    };
    name.to_owned()
}

async fn acls(client: &Client) -> AdminResult<Section<Acl>> {
    let mut missing = MissingList::default();
    let found = missing.allow("ACLs", client.list_acls().await)?.unwrap_or_default();
    let mut acls: Vec<Acl> = found.into_iter().map(acl).collect();
    acls.sort();
    acls.dedup();
    Ok((acls, missing))
}

fn acl(entry: AclEntry) -> Acl {
    Acl {
        resource_type: entry.resource_type,
        resource_name: entry.resource_name,
        pattern_type: entry.pattern_type,
        principal: entry.principal,
        host: entry.host,
        operation: entry.operation,
        permission: entry.permission,
    }
}

async fn users(client: &Client) -> AdminResult<Section<User>> {
    let mut missing = MissingList::default();
    let found = missing.allow("SCRAM users", client.list_scram_users().await)?;
    let mut users: Vec<User> =
        found.map(|f| missing.take(f)).unwrap_or_default().into_iter().map(user).collect();
    users.retain(|u| !u.credentials.is_empty());
    users.sort_by(|a, b| a.name.cmp(&b.name));
    users.dedup_by(|a, b| a.name == b.name);
    if !users.is_empty() {
        let told = "Kafka tells salts, keys and passwords to nobody: restore needs them from elsewhere";
        missing.note("secrets of SCRAM users", Reason::Withheld, told);
    }
    Ok((users, missing))
}

fn user(user: ScramUser) -> User {
    let credential = |c: varve_kafka::client::admin::ScramCredential| Credential {
        mechanism: c.mechanism,
        iterations: c.iterations,
    };
    let mut credentials: Vec<Credential> = user.credentials.into_iter().map(credential).collect();
    credentials.sort_by(|a, b| a.mechanism.cmp(&b.mechanism));
    User { name: user.name, credentials }
}

async fn quotas(client: &Client) -> AdminResult<Section<Quota>> {
    let mut missing = MissingList::default();
    let found = missing.allow("client quotas", client.list_client_quotas().await)?.unwrap_or_default();
    let mut quotas: Vec<Quota> = found.into_iter().map(quota).collect();
    quotas.retain(|q| !q.values.is_empty());
    quotas.sort_by(|a, b| a.entity.cmp(&b.entity));
    Ok((quotas, missing))
}

fn quota(entry: QuotaEntry) -> Quota {
    let entity = entry.entity.into_iter();
    let mut entity: Vec<QuotaEntity> =
        entity.map(|e| QuotaEntity { entity_type: e.entity_type, name: e.name }).collect();
    entity.sort();
    let values = entry.values.into_iter();
    Quota { entity, values: values.map(|(key, v)| QuotaValue { key, value: decimal(v) }).collect() }
}

async fn features(client: &Client) -> AdminResult<Section<Feature>> {
    let mut missing = MissingList::default();
    let found: Option<Features> = missing.allow("features", client.features().await)?;
    if found.as_ref().is_some_and(|f| f.finalized_epoch.is_none()) {
        missing.note("features", Reason::Failed, "the broker has not heard of finalized ones yet");
    }
    let finalized = found.map(|f| f.finalized).unwrap_or_default().into_iter();
    Ok((finalized.map(|(name, r)| Feature { name, min: r.min, max: r.max }).collect(), missing))
}
