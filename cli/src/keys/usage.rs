//! Which keys there are, and what needs them: sums by key, however many objects there are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use varve_format::{EncryptionInfo, Id, KeyRecord, KeyRecordName, tombstone_name};

use super::needs::Needs;

/// Objects that are named of a key.
const NAMED: usize = 5;

/// A tombstone proves nothing: whoever can write to the store can put one.
const CONFIRMED: &str = "If a report of varve keys shred confirms that it was, or somebody who knows, destroy it again (varve \
     keys shred)";

/// Which data key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyOf {
    pub(crate) cluster_id: String,
    pub(crate) topic_id: Id,
    pub(crate) period: String,
    /// `None` where only the record would tell, and can't be read or was destroyed.
    pub(crate) id: Option<Id>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) version: u16,
    pub(crate) wrapped_by: String,
    pub(crate) algorithm: String,
    pub(crate) created_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    There,
    /// Its record is there and can't be used.
    Damaged,
    /// Neither a record nor a tombstone.
    Missing,
    Destroyed,
    /// A tombstone says that it was destroyed, and its record is there.
    Returned,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AuditedKey {
    /// The record's name, if there is a record.
    pub(crate) name: Option<KeyRecordName>,
    pub(crate) record: Option<Result<Recorded, String>>,
    is_tombstoned: bool,
    pub(crate) trusted: Option<bool>,
    /// Whether it opened, or why not.
    pub(crate) opens: Option<Result<(), String>>,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// The first objects that need it.
    pub(crate) named: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) keys: BTreeMap<KeyOf, AuditedKey>,
    /// Those that have a tombstone of a record of version 1.
    periods: BTreeSet<(String, Id, String)>,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) plain_objects: u64,
    pub(crate) plain_bytes: u64,
}

impl KeyOf {
    pub(crate) fn of(needs: &Needs, info: &EncryptionInfo) -> Self {
        Self {
            cluster_id: needs.cluster_id.clone(),
            topic_id: needs.topic_id,
            period: info.period.clone(),
            id: Some(info.data_key_id),
        }
    }

    pub(crate) fn of_name(name: &KeyRecordName, id: Option<Id>) -> Self {
        let KeyRecordName { cluster_id, topic_id, period, .. } = name.clone();
        Self { cluster_id, topic_id, period, id: id.or(name.id) }
    }

    /// Of a record of it by its id, if that is known.
    pub(crate) fn name(&self) -> KeyRecordName {
        KeyRecordName {
            cluster_id: self.cluster_id.clone(),
            topic_id: self.topic_id,
            period: self.period.clone(),
            id: self.id,
            is_tombstone: false,
        }
    }

    pub(crate) fn shown_id(&self) -> String {
        self.id.map_or_else(|| "(unknown)".to_owned(), |id| id.to_string())
    }
}

impl AuditedKey {
    /// Its record, if there is one, is under a period's name.
    fn is_of_version_1(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.id.is_none())
    }
}

impl Recorded {
    pub(crate) fn of(record: &KeyRecord) -> Self {
        Self {
            version: if record.cluster_id.is_some() { 2 } else { 1 },
            wrapped_by: record.wrapping.wrapped_by.clone(),
            algorithm: record.wrapping.algorithm.clone(),
            created_ms: record.created_ms,
        }
    }
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::There => "there",
            State::Damaged => "damaged",
            State::Missing => "missing",
            State::Destroyed => "destroyed",
            State::Returned => "returned",
        }
    }
}

impl Usage {
    pub(crate) fn tombstone(&mut self, name: &KeyRecordName) {
        if name.id.is_none() {
            self.periods.insert((name.cluster_id.clone(), name.topic_id, name.period.clone()));
        }
        self.keys.entry(KeyOf::of_name(name, None)).or_default().is_tombstoned = true;
    }

    /// What is at a record's name. Of a key with records of both versions the newer one counts.
    pub(crate) fn record(&mut self, name: &KeyRecordName, found: Result<&KeyRecord, String>) -> KeyOf {
        let of = KeyOf::of_name(name, found.as_ref().ok().map(|record| record.id));
        let key = self.keys.entry(of.clone()).or_default();
        if key.name.as_ref().is_none_or(|known| known.id.is_none()) {
            key.name = Some(name.clone());
            key.record = Some(found.map(Recorded::of));
        }
        of
    }

    /// Of one key, whatever is known of it.
    ///
    /// A tombstone of a period, as a record of version 1 has it, does not say whose key was destroyed. It refuses that
    /// record, and it accounts for no key whose record is gone: whoever shreds a period leaves a tombstone by the id of
    /// each key that has a record there which can be read, or that an object needs.
    pub(crate) fn state(&self, of: &KeyOf) -> State {
        let Some(key) = self.keys.get(of) else { return State::Missing };
        let is_refused = key.is_tombstoned || (key.is_of_version_1() && self.has_period(of));
        match &key.record {
            None if key.is_tombstoned => State::Destroyed,
            None => State::Missing,
            Some(_) if is_refused => State::Returned,
            Some(Ok(_)) => State::There,
            Some(Err(_)) => State::Damaged,
        }
    }

    fn has_period(&self, of: &KeyOf) -> bool {
        self.periods.contains(&(of.cluster_id.clone(), of.topic_id, of.period.clone()))
    }

    /// The names of its tombstones: its own, and its period's, unless it has a record by its id, which that does not
    /// refuse.
    fn tombstones(&self, of: &KeyOf) -> String {
        let Some(key) = self.keys.get(of) else { return String::new() };
        let counts = self.has_period(of) && (key.record.is_none() || key.is_of_version_1());
        let of_period = counts.then(|| KeyRecordName { id: None, ..of.name() });
        let own = key.is_tombstoned.then(|| of.name());
        let names: BTreeSet<_> =
            of_period.into_iter().chain(own).map(|name| tombstone_name(&name.record())).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    }

    /// The key that it needs, if any.
    pub(crate) fn object(&mut self, needs: &Needs) -> Option<KeyOf> {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(needs.bytes);
        let Some(info) = &needs.encryption else {
            self.plain_objects += 1;
            self.plain_bytes = self.plain_bytes.saturating_add(needs.bytes);
            return None;
        };
        let of = KeyOf::of(needs, info);
        let key = self.keys.entry(of.clone()).or_default();
        key.objects += 1;
        key.bytes = key.bytes.saturating_add(needs.bytes);
        if key.named.len() < NAMED {
            key.named.push(needs.object.clone());
        }
        Some(of)
    }

    /// What a person must look at.
    pub(crate) fn finding(&self, of: &KeyOf) -> Option<String> {
        let key = self.keys.get(of)?;
        match self.state(of) {
            State::Missing if self.has_period(of) => Some(format!(
                "no record, and no tombstone of its own; that of its period, {}, does not show that it was destroyed \
                 on purpose. {CONFIRMED}. Else restore keys/ from a copy of this store; a record of version 1 opens \
                 nothing before that tombstone is deleted, which was planted then, or put there by mistake",
                self.tombstones(of)
            )),
            State::Missing => Some(
                "no record, and it was not destroyed on purpose: restore keys/ from a copy of this store"
                    .to_owned(),
            ),
            State::Returned => Some(format!(
                "a tombstone says that it was destroyed, and its record is there. {CONFIRMED}. Else delete {}: planted, \
                 or put there by mistake. Until then nothing is sealed or read by this key",
                self.tombstones(of)
            )),
            State::Damaged => key.record.as_ref().and_then(|record| record.clone().err()),
            State::There => key.opens.as_ref().and_then(|opens| opens.clone().err()),
            State::Destroyed => None,
        }
    }

    pub(crate) fn json(&self, of: &KeyOf, topic: Option<&str>) -> Value {
        let key = self.keys.get(of).cloned().unwrap_or_default();
        let recorded = key.record.as_ref().and_then(|record| record.as_ref().ok());
        let state = self.state(of);
        json!({
            "type": "key",
            "cluster_id": of.cluster_id,
            "topic_id": of.topic_id.to_string(),
            "topic": topic,
            "period": of.period,
            "data_key_id": of.id.map(|id| id.to_string()),
            "state": state.word(),
            "record": key.name.as_ref().map(KeyRecordName::record),
            "version": recorded.map(|r| r.version),
            "wrapped_by": recorded.map(|r| &r.wrapped_by),
            "algorithm": recorded.map(|r| &r.algorithm),
            "created_ms": recorded.map(|r| r.created_ms),
            "trusted": key.trusted,
            "opens": key.opens.as_ref().map(Result::is_ok),
            "objects": key.objects,
            "bytes": key.bytes,
            "first_objects": if state == State::There { &[] } else { key.named.as_slice() },
            "finding": self.finding(of),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: Option<Id>, is_tombstone: bool) -> KeyRecordName {
        KeyRecordName {
            cluster_id: "c".into(),
            topic_id: Id([1; 16]),
            period: "2026".into(),
            id,
            is_tombstone,
        }
    }

    fn needs(id: Id) -> Needs {
        let encryption = EncryptionInfo { data_key_id: id, salt: [0; 32], period: "2026".into() };
        Needs {
            object: format!("o {id}"),
            bytes: 10,
            cluster_id: "c".into(),
            topic_id: Id([1; 16]),
            topic: "t".into(),
            encryption: Some(encryption),
        }
    }

    fn record(id: Id) -> KeyRecord {
        let mut record = KeyRecord::new(id, "c", Id([1; 16]), "2026", 5).unwrap();
        record.wrapping.wrapped_by = "ring:1".into();
        record
    }

    #[test]
    fn states() {
        let (a, b, c, d) = (Id([1; 16]), Id([2; 16]), Id([3; 16]), Id([4; 16]));
        let mut usage = Usage::default();
        let of_a = usage.record(&name(Some(a), false), Ok(&record(a)));
        usage.tombstone(&name(Some(b), true));
        let of_b = usage.record(&name(Some(b), false), Ok(&record(b)));
        usage.tombstone(&name(Some(c), true));
        let of_c = KeyOf::of_name(&name(Some(c), false), None);
        let of_d = usage.object(&needs(d)).unwrap();
        for _ in 0..10 {
            usage.object(&needs(a));
        }
        let states = [&of_a, &of_b, &of_c, &of_d].map(|of| usage.state(of));
        assert_eq!(states, [State::There, State::Returned, State::Destroyed, State::Missing]);
        assert_eq!(
            [&of_a, &of_b, &of_c, &of_d].map(|of| usage.finding(of).is_some()),
            [false, true, false, true]
        );
        assert_eq!((usage.keys[&of_a].objects, usage.keys[&of_a].named.len()), (10, NAMED));
    }

    #[test]
    fn a_periods_tombstone_accounts_for_no_key_that_is_lost() {
        let (a, b, c) = (Id([1; 16]), Id([2; 16]), Id([3; 16]));
        let mut usage = Usage::default();
        let lost = usage.object(&needs(a)).unwrap();
        let there = usage.record(&name(Some(b), false), Ok(&record(b)));
        let old = usage.record(&name(None, false), Ok(&KeyRecord { cluster_id: None, ..record(c) }));
        let states = |usage: &Usage| [&lost, &there, &old].map(|of| usage.state(of));
        assert_eq!(states(&usage), [State::Missing, State::There, State::There]);
        usage.tombstone(&name(None, true));
        assert_eq!(states(&usage), [State::Missing, State::There, State::Returned]);
        let of_period = tombstone_name(&name(None, false).record());
        for of in [&lost, &old] {
            let finding = usage.finding(of).unwrap();
            assert!(finding.contains(&of_period) && finding.contains("keys shred"), "{finding}");
        }
        // Both are named, and the key's own alone says that it was destroyed.
        usage.tombstone(&name(Some(c), true));
        let both = format!("{of_period} and {}", tombstone_name(&name(Some(c), false).record()));
        let finding = usage.finding(&old).unwrap();
        assert!(finding.contains(&format!("delete {both}")), "{finding}");
        usage.tombstone(&name(Some(b), true));
        let own = format!("delete {}:", tombstone_name(&name(Some(b), false).record()));
        assert!(usage.finding(&there).unwrap().contains(&own));
        usage.tombstone(&name(Some(a), true));
        assert_eq!((usage.state(&lost), usage.finding(&lost)), (State::Destroyed, None));
    }

    #[test]
    fn a_record_of_version_1_counts_by_its_keys_id() {
        let a = Id([1; 16]);
        let mut usage = Usage::default();
        let old = KeyRecord { cluster_id: None, ..record(a) };
        let of = usage.record(&name(None, false), Ok(&old));
        assert_eq!((of.id, usage.json(&of, None)["version"].clone()), (Some(a), json!(1)));
        usage.record(&name(Some(a), false), Ok(&record(a)));
        usage.record(&name(None, false), Ok(&old));
        assert_eq!(usage.json(&of, None)["version"], 2);
        let odd = usage.record(&name(None, false), Err("odd".into()));
        assert_eq!((odd.id, usage.state(&odd)), (None, State::Damaged));
    }
}
