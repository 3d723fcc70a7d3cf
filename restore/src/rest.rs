//! The rest of a cluster: ACLs, client quotas, and dynamic configs of the cluster, of groups and of client metrics.
//!
//! Only what the target lacks is added. Where it has another value, its own stays, and the plan says so: a living
//! cluster's limits are not turned back by an old archive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use varve_cluster::{
    Acl, ClusterState, Config, Part, Quota, ResourceConfigs, ResourceType, StateParts, User, collect,
};
use varve_kafka::client::admin::{AclEntry, ConfigResource, QuotaEntity, QuotaEntry, ScramCredential};
use varve_kafka::client::alter::ConfigChange;
use varve_kafka::client::{Client, Secret};

use crate::error::{Error, Result};

/// As a state names what an older cluster can't tell.
const NAMED_KINDS: &str = "configs of client metrics";

/// What brokers have not heard of by then was not done.
const HEARD: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// What is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acls: Vec<Acl>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ResourceConfigs>,
    /// SCRAM users. They are made if their passwords are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
}

impl Rest {
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// What `archived` has of `parts` and the target lacks.
    ///
    /// # Errors
    /// Of the target.
    pub(crate) async fn planned(
        archived: &ClusterState,
        client: &Client,
        parts: &StateParts,
        differences: &mut Vec<String>,
    ) -> Result<Self> {
        let wanted: StateParts = [Part::Acls, Part::Quotas, Part::Configs, Part::Users]
            .into_iter()
            .filter(|part| parts.has(*part))
            .collect();
        let target = collect(client, &wanted, None).await?;
        for missing in &target.missing {
            differences.push(format!(
                "{} of the target are not known ({}): they are left out",
                missing.what, missing.error
            ));
        }
        let mut rest = Self::default();
        if parts.has(Part::Acls) && !target.missing.iter().any(|m| m.what.starts_with("ACLs")) {
            let known: BTreeSet<&Acl> = target.acls.iter().collect();
            rest.acls = archived.acls.iter().filter(|acl| !known.contains(acl)).cloned().collect();
        }
        if parts.has(Part::Quotas) {
            rest.quotas = quotas(archived, &target, differences);
        }
        if parts.has(Part::Configs) {
            rest.configs = configs(archived, &target, differences);
        }
        if parts.has(Part::Users) {
            let is_known = |user: &&User| !target.users.iter().any(|known| known.name == user.name);
            rest.users = archived.users.iter().filter(is_known).cloned().collect();
            if !rest.users.is_empty() {
                let names: Vec<&str> = rest.users.iter().map(|u| u.name.as_str()).collect();
                differences.push(format!(
                    "SCRAM users need new passwords, which no cluster tells: --users FILE gives or makes them: {}",
                    names.join(", ")
                ));
            }
        }
        Ok(rest)
    }

    /// Adds all of it; what is there already stays as it is.
    ///
    /// # Errors
    /// Of the target.
    pub(crate) async fn apply(&self, client: &Client, passwords: &BTreeMap<String, Secret>) -> Result<()> {
        let acls: Vec<AclEntry> = self.acls.iter().map(entry).collect();
        client.create_acls(&acls).await?;
        let quotas: Vec<QuotaEntry> = self.quotas.iter().map(quota).collect::<Result<_>>()?;
        if !quotas.is_empty() {
            client.set_client_quotas(&quotas).await?;
        }
        for user in &self.users {
            let Some(password) = passwords.get(&user.name) else { continue };
            let of = |c: &varve_cluster::Credential| ScramCredential {
                mechanism: c.mechanism.clone(),
                iterations: c.iterations,
            };
            let credentials: Vec<ScramCredential> = user.credentials.iter().map(of).collect();
            client.set_scram_user(&user.name, &credentials, password).await?;
        }
        for configs in &self.configs {
            let Some(resource) = resource(configs) else { continue };
            let changes: Vec<ConfigChange> = configs
                .configs
                .iter()
                .map(|c| ConfigChange { name: c.name.clone(), value: c.value.clone() })
                .collect();
            client.alter_configs(&resource, &changes).await?;
        }
        Ok(())
    }

    /// What of it the target has not got. Brokers hear of a change a moment later than the controller, which answered.
    ///
    /// # Errors
    /// Of the target.
    pub(crate) async fn differs(&self, client: &Client) -> Result<Vec<String>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let (begun, mut pause) = (Instant::now(), LOOK);
        loop {
            let found = self.lacking(client).await?;
            let left = HEARD.saturating_sub(begun.elapsed());
            if found.is_empty() || left.is_zero() {
                return Ok(found);
            }
            // All of the state is read each time.
            tokio::time::sleep(pause.min(left)).await;
            pause *= 2;
        }
    }

    async fn lacking(&self, client: &Client) -> Result<Vec<String>> {
        let parts: StateParts = [Part::Acls, Part::Quotas, Part::Configs].into_iter().collect();
        let target = collect(client, &parts, None).await?;
        let mut found = Vec::new();
        let lacking = self.acls.iter().filter(|acl| !target.acls.contains(acl));
        found.extend(lacking.map(|a| {
            format!(
                "the ACL {} {} of {} on {} {} is not there",
                a.permission, a.operation, a.principal, a.resource_type, a.resource_name
            )
        }));
        for wanted in &self.quotas {
            let known = target.quotas.iter().find(|q| q.entity == wanted.entity);
            let lacks = wanted.values.iter().filter(|v| known.is_none_or(|q| !q.values.contains(v)));
            found.extend(
                lacks.map(|v| format!("the quota {} of {:?} is not {}", v.key, wanted.entity, v.value)),
            );
        }
        for wanted in &self.configs {
            let known =
                target.configs.iter().find(|c| (c.resource, &c.name) == (wanted.resource, &wanted.name));
            let value =
                |name: &str| known.and_then(|k| k.configs.iter().find(|c| c.name == name)?.value.clone());
            let lacks = wanted.configs.iter().filter(|c| value(&c.name) != c.value);
            found.extend(lacks.map(|c| format!("the config {} of {} is another", c.name, named(wanted))));
        }
        Ok(found)
    }
}

fn quotas(archived: &ClusterState, target: &ClusterState, differences: &mut Vec<String>) -> Vec<Quota> {
    let mut wanted = Vec::new();
    for quota in &archived.quotas {
        let known = target.quotas.iter().find(|q| q.entity == quota.entity);
        let mut lacking = quota.clone();
        lacking.values.retain(|value| {
            match known.and_then(|k| k.values.iter().find(|v| v.key == value.key)) {
                None => true,
                Some(own) => {
                    if own.value != value.value {
                        differences.push(format!(
                            "the quota {} of {:?} stays {}; the archive has {}",
                            value.key, quota.entity, own.value, value.value
                        ));
                    }
                    false
                }
            }
        });
        if !lacking.values.is_empty() {
            wanted.push(lacking);
        }
    }
    wanted
}

/// Those of single brokers are left out: the target's brokers are others.
fn configs(
    archived: &ClusterState,
    target: &ClusterState,
    differences: &mut Vec<String>,
) -> Vec<ResourceConfigs> {
    let mut wanted = Vec::new();
    for configs in &archived.configs {
        if configs.resource == ResourceType::Broker {
            differences.push(format!(
                "the configs of {} are left out: the target's brokers are others",
                named(configs)
            ));
            continue;
        }
        let named_kind = matches!(configs.resource, ResourceType::Group | ResourceType::ClientMetrics);
        if named_kind && target.missing.iter().any(|m| m.what.starts_with(NAMED_KINDS)) {
            differences.push(format!(
                "the configs of {} are left out: the target has no such configs",
                named(configs)
            ));
            continue;
        }
        let known =
            target.configs.iter().find(|c| (c.resource, &c.name) == (configs.resource, &configs.name));
        let mut lacking = configs.clone();
        lacking.configs.retain(|config| is_lacking(configs, config, known, differences));
        if !lacking.configs.is_empty() {
            wanted.push(lacking);
        }
    }
    wanted
}

fn is_lacking(
    of: &ResourceConfigs,
    config: &Config,
    known: Option<&ResourceConfigs>,
    differences: &mut Vec<String>,
) -> bool {
    if config.sensitive || config.value.is_none() {
        differences.push(format!(
            "the config {} of {} is a secret, which no cluster tells",
            config.name,
            named(of)
        ));
        return false;
    }
    if !config.source.starts_with("DYNAMIC_") {
        return false;
    }
    match known.and_then(|k| k.configs.iter().find(|c| c.name == config.name)) {
        None => true,
        Some(own) => {
            if own.value != config.value {
                let shown = |value: &Option<String>| value.clone().unwrap_or_default();
                differences.push(format!(
                    "the config {} of {} stays {}; the archive has {}",
                    config.name,
                    named(of),
                    shown(&own.value),
                    shown(&config.value)
                ));
            }
            false
        }
    }
}

fn named(configs: &ResourceConfigs) -> String {
    let name = configs.name.as_deref().unwrap_or_default();
    match configs.resource {
        ResourceType::Broker => format!("broker {name}"),
        ResourceType::ClientMetrics => format!("client metrics {name}"),
        ResourceType::Cluster => "the cluster".to_owned(),
        ResourceType::Group => format!("group {name}"),
    }
}

fn resource(configs: &ResourceConfigs) -> Option<ConfigResource> {
    let name = configs.name.clone().unwrap_or_default();
    match configs.resource {
        ResourceType::Broker => None,
        ResourceType::ClientMetrics => Some(ConfigResource::ClientMetrics(name)),
        ResourceType::Cluster => Some(ConfigResource::ClusterDefault),
        ResourceType::Group => Some(ConfigResource::Group(name)),
    }
}

fn entry(acl: &Acl) -> AclEntry {
    AclEntry {
        resource_type: acl.resource_type.clone(),
        resource_name: acl.resource_name.clone(),
        pattern_type: acl.pattern_type.clone(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.clone(),
        permission: acl.permission.clone(),
    }
}

fn quota(quota: &Quota) -> Result<QuotaEntry> {
    let entity =
        quota.entity.iter().map(|e| QuotaEntity { entity_type: e.entity_type.clone(), name: e.name.clone() });
    let value = |v: &varve_cluster::QuotaValue| {
        let number = v.value.parse::<f64>();
        number.map(|n| (v.key.clone(), n)).map_err(|_| Error::unexpected("a quota", "a number", &v.value))
    };
    Ok(QuotaEntry {
        entity: entity.collect(),
        values: quota.values.iter().map(value).collect::<Result<_>>()?,
    })
}
