//! What differs between two states of a cluster, or of two clusters.
//!
//! Both documents are in order, so they are read side by side: no memory but for what differs. Parts that one of
//! them was not to hold are not compared; what one of them could not read shows as a difference in `missing`.
//! [`super::document::Observed`] is not compared: it changes by itself.

mod item;

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;
use varve_archive::HashAlgorithm;

use super::document::{
    Broker, ClusterState, Committed, Config, Credential, Group, MissingEntry, Quota, QuotaValue,
    ResourceConfigs, Topic, TopicOffsets, User,
};
use super::parts::Part;
use super::schemas::{RegistryConfig, SchemaState, SchemaVersion, Subject};

pub use item::Item;

/// One thing that differs; without `from` it was added, without `to` removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    pub what: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Added,
    Removed,
    Changed,
}

/// All differences, in the document's order.
pub fn diff(a: &ClusterState, b: &ClusterState) -> Vec<Difference> {
    let mut out = Differences(Vec::new());
    out.value(|| Item::Cluster, Some(&a.cluster_id), Some(&b.cluster_id));
    for part in Part::ALL {
        let held = |state: &ClusterState| state.parts.has(part).then_some("held");
        out.value(|| Item::Part { part }, held(a), held(b));
    }
    let both = |part| a.parts.has(part) && b.parts.has(part);
    join(
        &a.brokers,
        &b.brokers,
        |b| b.node_id,
        |x, y| {
            let shown = |b: &Broker| b.rack.as_ref().map_or_else(String::new, |r| format!("rack {r}"));
            out.pair(x, y, |b| Item::Broker { node_id: b.node_id }, shown);
        },
    );
    if both(Part::Features) {
        join(
            &a.features,
            &b.features,
            |f| f.name.as_str(),
            |x, y| {
                out.pair(
                    x,
                    y,
                    |f| Item::Feature { name: f.name.clone() },
                    |f| format!("{} to {}", f.min, f.max),
                );
            },
        );
    }
    if both(Part::Topics) {
        join(&a.topics, &b.topics, |t| t.name.as_str(), |x, y| out.topic(x, y));
    }
    if both(Part::Configs) {
        let key = |r: &ResourceConfigs| (r.resource, r.name.clone());
        join(&a.configs, &b.configs, key, |x, y| out.resource(x, y));
    }
    if both(Part::Groups) {
        join(&a.groups, &b.groups, |g| g.group_id.as_str(), |x, y| out.group(x, y));
    }
    people(a, b, &mut out);
    if both(Part::Schemas) {
        let empty = SchemaState::default();
        out.schemas(a.schemas.as_ref().unwrap_or(&empty), b.schemas.as_ref().unwrap_or(&empty));
    }
    let shown = |m: &MissingEntry| m.error.clone();
    join(
        &a.missing,
        &b.missing,
        |m| (m.what.as_str(), m.reason, &m.needs),
        |x, y| {
            out.pair(x, y, |m| Item::Missing { what: m.what.clone() }, shown);
        },
    );
    out.0
}

/// Who may do what, and how much.
fn people(a: &ClusterState, b: &ClusterState, out: &mut Differences) {
    let both = |part| a.parts.has(part) && b.parts.has(part);
    if both(Part::Acls) {
        join(
            &a.acls,
            &b.acls,
            |acl| acl,
            |x, y| {
                out.pair(x, y, |acl| Item::Acl { acl: acl.clone() }, |_| String::new());
            },
        );
    }
    if both(Part::Users) {
        join(&a.users, &b.users, |u| u.name.as_str(), |x, y| out.user(x, y));
    }
    if both(Part::Quotas) {
        join(&a.quotas, &b.quotas, |q| q.entity.as_slice(), |x, y| out.quota(x, y));
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    /// Two values of one thing, each there or not.
    fn value<F: AsRef<str>, T: AsRef<str>>(
        &mut self,
        what: impl FnOnce() -> Item,
        from: Option<F>,
        to: Option<T>,
    ) {
        let owned = |text: &str| text.to_owned();
        let (from, to) = (from.map(|v| owned(v.as_ref())), to.map(|v| owned(v.as_ref())));
        let kind = match (&from, &to) {
            (None, None) => return,
            (Some(from), Some(to)) if from == to => return,
            (Some(_), Some(_)) => Kind::Changed,
            (None, Some(_)) => Kind::Added,
            (Some(_), None) => Kind::Removed,
        };
        self.0.push(Difference { kind, what: what(), from, to });
    }

    fn pair<T: PartialEq>(
        &mut self,
        from: Option<&T>,
        to: Option<&T>,
        what: impl Fn(&T) -> Item,
        shown: impl Fn(&T) -> String,
    ) {
        if let Some(known) = from.or(to).filter(|_| from != to) {
            self.value(|| what(known), from.map(&shown), to.map(&shown));
        }
    }

    fn topic(&mut self, from: Option<&Topic>, to: Option<&Topic>) {
        let Some(name) = from.or(to).filter(|_| from != to).map(|t| &t.name) else { return };
        let topic = || name.clone();
        let id = |t: &Topic| t.topic_id.clone();
        self.value(|| Item::Topic { topic: topic() }, from.map(id), to.map(id));
        let count = |t: &Topic| t.replicas.len().to_string();
        self.value(|| Item::PartitionCount { topic: topic() }, from.map(count), to.map(count));
        let replicas = |t: Option<&Topic>, p: usize| t.and_then(|t| t.replicas.get(p)).map(|r| list(r));
        let partitions = [from, to].into_iter().flatten().map(|t| t.replicas.len()).max();
        for partition in 0..partitions.unwrap_or(0) {
            let what = || Item::Replicas { topic: topic(), partition };
            self.value(what, replicas(from, partition), replicas(to, partition));
        }
        let what = |name: &str| Item::TopicConfig { topic: topic(), name: name.to_owned() };
        let shown = |c: &Config| match c.source.as_str() {
            "DYNAMIC_TOPIC_CONFIG" => told(c),
            source => format!("{} ({source})", told(c)),
        };
        self.configs(from.map(|t| &t.configs[..]), to.map(|t| &t.configs[..]), what, shown);
    }

    fn resource(&mut self, from: Option<&ResourceConfigs>, to: Option<&ResourceConfigs>) {
        let Some(known) = from.or(to) else { return };
        let what = |name: &str| Item::Config {
            resource: known.resource,
            resource_name: known.name.clone(),
            name: name.to_owned(),
        };
        self.configs(from.map(|r| &r.configs[..]), to.map(|r| &r.configs[..]), what, told);
    }

    fn configs(
        &mut self,
        from: Option<&[Config]>,
        to: Option<&[Config]>,
        what: impl Fn(&str) -> Item,
        shown: impl Fn(&Config) -> String,
    ) {
        join(
            from.unwrap_or_default(),
            to.unwrap_or_default(),
            |c| c.name.as_str(),
            |x, y| {
                let Some(known) = x.or(y) else { return };
                self.value(|| what(&known.name), x.map(&shown), y.map(&shown));
            },
        );
    }

    fn group(&mut self, from: Option<&Group>, to: Option<&Group>) {
        let Some(known) = from.or(to).filter(|_| from != to) else { return };
        let group_id = || known.group_id.clone();
        let kind = |g: &Group| match &g.protocol_type {
            Some(protocol) => format!("{}, {protocol}", g.group_type),
            None => g.group_type.clone(),
        };
        self.value(|| Item::Group { group_id: group_id() }, from.map(kind), to.map(kind));
        let offsets =
            |g: Option<&Group>| -> Vec<TopicOffsets> { g.map(|g| g.offsets.clone()).unwrap_or_default() };
        let (from, to) = (offsets(from), offsets(to));
        join(
            &from,
            &to,
            |t| t.topic.as_str(),
            |x, y| {
                let Some(topic) = x.or(y).map(|t| &t.topic) else { return };
                let partitions =
                    |t: Option<&TopicOffsets>| t.map(|t| t.partitions.clone()).unwrap_or_default();
                let (from, to) = (partitions(x), partitions(y));
                join(
                    &from,
                    &to,
                    |p| p.partition,
                    |x, y| {
                        let Some(partition) = x.or(y).map(|p| p.partition) else { return };
                        let what = || Item::Offset { group_id: group_id(), topic: topic.clone(), partition };
                        self.value(what, x.map(committed), y.map(committed));
                    },
                );
            },
        );
    }

    fn user(&mut self, from: Option<&User>, to: Option<&User>) {
        let Some(name) = from.or(to).map(|u| &u.name) else { return };
        let credentials = |u: Option<&User>| u.map(|u| u.credentials.clone()).unwrap_or_default();
        let (from, to) = (credentials(from), credentials(to));
        join(
            &from,
            &to,
            |c| c.mechanism.as_str(),
            |x, y| {
                let what = |c: &Credential| Item::User { name: name.clone(), mechanism: c.mechanism.clone() };
                self.pair(x, y, what, |c| format!("{} iterations", c.iterations));
            },
        );
    }

    fn quota(&mut self, from: Option<&Quota>, to: Option<&Quota>) {
        let Some(entity) = from.or(to).map(|q| &q.entity) else { return };
        let values = |q: Option<&Quota>| q.map(|q| q.values.clone()).unwrap_or_default();
        let (from, to) = (values(from), values(to));
        join(
            &from,
            &to,
            |v| v.key.as_str(),
            |x, y| {
                let what = |v: &QuotaValue| Item::Quota { entity: entity.clone(), key: v.key.clone() };
                self.pair(x, y, what, |v| v.value.clone());
            },
        );
    }

    fn schemas(&mut self, from: &SchemaState, to: &SchemaState) {
        self.value(|| Item::RegistryCompatibility, level(from.config.as_ref()), level(to.config.as_ref()));
        self.value(|| Item::RegistryMode, from.mode.as_ref(), to.mode.as_ref());
        join(&from.subjects, &to.subjects, |s| s.subject.as_str(), |x, y| self.subject(x, y));
    }

    fn subject(&mut self, from: Option<&Subject>, to: Option<&Subject>) {
        let Some(known) = from.or(to).filter(|_| from != to) else { return };
        let subject = || known.subject.clone();
        let state = |s: &Subject| if s.deleted { "deleted" } else { "active" };
        self.value(|| Item::Subject { subject: subject() }, from.map(state), to.map(state));
        let config = |s: Option<&Subject>| s.and_then(|s| level(s.config.as_ref()));
        self.value(|| Item::SubjectCompatibility { subject: subject() }, config(from), config(to));
        let mode = |s: Option<&Subject>| s.and_then(|s| s.mode.clone());
        self.value(|| Item::SubjectMode { subject: subject() }, mode(from), mode(to));
        let versions = |s: Option<&Subject>| s.map(|s| s.versions.clone()).unwrap_or_default();
        let (from, to) = (versions(from), versions(to));
        join(
            &from,
            &to,
            |v| v.version,
            |x, y| {
                let what = |v: &SchemaVersion| Item::Schema { subject: subject(), version: v.version };
                self.pair(x, y, what, schema);
            },
        );
    }
}

fn level(config: Option<&RegistryConfig>) -> Option<String> {
    let config = config?;
    let parts = [config.compatibility.as_deref(), config.more.as_deref()];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn told(config: &Config) -> String {
    config.value.clone().unwrap_or_else(|| "[not told]".to_owned())
}

fn committed(committed: &Committed) -> String {
    let epoch = committed.leader_epoch.map(|e| format!(" in epoch {e}")).unwrap_or_default();
    let metadata = committed.metadata.as_ref().map(|m| format!(", {m:?}")).unwrap_or_default();
    format!("{}{epoch}{metadata}", committed.offset)
}

/// A schema is too long to be shown, but for its hash.
fn schema(version: &SchemaVersion) -> String {
    let mut text = format!("id {}, {}", version.id, version.schema_type);
    let hash = HashAlgorithm::Blake3.of(&[version.schema.as_bytes()]).to_string();
    text.push_str(&format!(", BLAKE3 {}", hash.get(..16).unwrap_or_default()));
    for reference in &version.references {
        text.push_str(&format!(", {} = {}:{}", reference.name, reference.subject, reference.version));
    }
    if version.deleted {
        text.push_str(", deleted");
    }
    if let Some(more) = &version.more {
        text.push_str(&format!(", {more}"));
    }
    text
}

fn list(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Walks two lists that ascend by `key`, giving what has the same key together.
fn join<'a, T, K: Ord>(
    a: &'a [T],
    b: &'a [T],
    key: impl Fn(&'a T) -> K,
    mut visit: impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => key(x).cmp(&key(y)),
        };
        match order {
            Ordering::Less => visit(a.next(), None),
            Ordering::Greater => visit(None, b.next()),
            Ordering::Equal => visit(a.next(), b.next()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        write!(f, "{sign} {}", self.what)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, ": {from} → {to}"),
            (Some(one), None) | (None, Some(one)) if !one.is_empty() => write!(f, ": {one}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
