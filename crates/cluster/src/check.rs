//! What the types of the document do not rule out: orders, and numbers that Kafka can't mean.

use varve_archive::RecordError;

use super::document::{ClusterState, Config, Group, Quota, Topic};
use super::schemas::SchemaState;

type Checked = Result<(), RecordError>;

pub(super) fn document(state: &ClusterState) -> Checked {
    ascending("brokers", &state.brokers, |b| b.node_id)?;
    ascending("features", &state.features, |f| f.name.as_str())?;
    ascending("topics", &state.topics, |t| t.name.as_str())?;
    state.topics.iter().try_for_each(topic)?;
    ascending("configs", &state.configs, |r| (r.resource, r.name.as_deref()))?;
    state.configs.iter().try_for_each(|r| {
        filled("configs", &r.configs)?;
        configs(&r.configs)
    })?;
    ascending("groups", &state.groups, |g| g.group_id.as_str())?;
    state.groups.iter().try_for_each(group)?;
    ascending("acls", &state.acls, |acl| acl)?;
    ascending("users", &state.users, |u| u.name.as_str())?;
    state.users.iter().try_for_each(|u| {
        filled("credentials", &u.credentials)?;
        ascending("credentials", &u.credentials, |c| c.mechanism.as_str())
    })?;
    ascending("quotas", &state.quotas, |q| q.entity.as_slice())?;
    state.quotas.iter().try_for_each(quota)?;
    state.schemas.as_ref().map_or(Ok(()), schemas)?;
    ascending("missing", &state.missing, |m| m)?;
    ascending("observed groups", &state.observed.groups, |g| g.group_id.as_str())?;
    let members = |g: &super::document::ObservedGroup| ascending("members", &g.members, |m| &m.member_id);
    state.observed.groups.iter().try_for_each(members)
}

fn topic(topic: &Topic) -> Checked {
    filled("replicas", &topic.replicas)?;
    configs(&topic.configs)
}

fn configs(configs: &[Config]) -> Checked {
    ascending("configs", configs, |c| c.name.as_str())
}

fn group(group: &Group) -> Checked {
    ascending("offsets", &group.offsets, |t| t.topic.as_str())?;
    group.offsets.iter().try_for_each(|topic| {
        filled("partitions", &topic.partitions)?;
        ascending("partitions", &topic.partitions, |p| p.partition)?;
        let wrong = topic.partitions.iter().find(|p| p.partition < 0 || p.offset < 0);
        wrong.map_or(Ok(()), |p| {
            let found = format!("partition {}, offset {}", p.partition, p.offset);
            Err(flaw("offsets", "numbers from 0 up", found))
        })
    })
}

fn quota(quota: &Quota) -> Checked {
    filled("entity", &quota.entity)?;
    ascending("entity", &quota.entity, |e| e.entity_type.as_str())?;
    filled("values", &quota.values)?;
    ascending("values", &quota.values, |v| v.key.as_str())?;
    quota.values.iter().try_for_each(|v| match v.value.parse::<f64>() {
        Ok(number) if number.is_finite() && decimal(number) == v.value => Ok(()),
        _ => Err(flaw("quota", "the shortest decimal of a double", &v.value)),
    })
}

/// The shortest decimal, without exponent, that reads back as the same double; 0 without a sign.
pub(super) fn decimal(number: f64) -> String {
    (number + 0.0).to_string()
}

fn schemas(state: &SchemaState) -> Checked {
    ascending("subjects", &state.subjects, |s| s.subject.as_str())?;
    state.subjects.iter().try_for_each(|s| ascending("versions", &s.versions, |v| v.version))
}

fn ascending<'a, T, K: PartialOrd>(what: &'static str, list: &'a [T], key: impl Fn(&'a T) -> K) -> Checked {
    if list.is_sorted_by(|a, b| key(a) < key(b)) {
        return Ok(());
    }
    Err(flaw(what, "strictly ascending", "another order"))
}

fn filled<T>(what: &'static str, list: &[T]) -> Checked {
    if list.is_empty() { Err(flaw(what, "at least one", "none")) } else { Ok(()) }
}

fn flaw(what: &'static str, expected: &str, found: impl ToString) -> RecordError {
    RecordError::Corrupt { what, expected: expected.to_owned(), found: found.to_string() }
}
