//! All metrics there are: by this table they are told, and from it `docs/METRICS.md` is made.

use varve_store::{LATENCY_BUCKETS_SECONDS, OperationCount};

use super::failure::FailureKind;
use super::tally::{GAP_REASONS, PartitionState};
use super::view::{TopicView, View};

/// What all names begin with.
pub(super) const PREFIX: &str = "varve_archiver";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Bytes,
    Seconds,
}

pub(super) struct Metric {
    /// Without prefix, unit and what follows from the kind.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) labels: &'static [&'static str],
    /// Also the text's help.
    pub(super) doc: &'static str,
    pub(super) read: fn(&View) -> Vec<Sample>,
}

/// The values of the labels, and what is told.
pub(super) struct Sample(pub(super) Vec<String>, pub(super) Value);

pub(super) enum Value {
    Number(f64),
    Histogram {
        sum: f64,
        count: u64,
        /// Upper bounds, and how many lie in each alone.
        buckets: Vec<(f64, u64)>,
    },
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

impl Metric {
    const fn new(
        name: &'static str,
        kind: Kind,
        unit: Unit,
        labels: &'static [&'static str],
        doc: &'static str,
        read: fn(&View) -> Vec<Sample>,
    ) -> Self {
        Self { name, kind, unit, labels, doc, read }
    }

    /// As queries name it.
    pub(super) fn full_name(&self) -> String {
        let unit = match self.unit {
            Unit::None => "",
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
        };
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{PREFIX}_{}{unit}{end}", self.name)
    }
}

use Kind::{Counter, Gauge, Histogram, Info};
use Unit::{Bytes, Seconds};
const NONE: Unit = Unit::None;
const TOPIC: &[&str] = &["topic"];
const OPERATION: &[&str] = &["operation"];

pub(super) const METRICS: &[Metric] = &[
    Metric::new(
        "lag_records",
        Gauge,
        NONE,
        TOPIC,
        "Offsets that the logs have and the archive, journal included, has not.",
        |v| ours(v, |t| Some(t.lag_records as f64)),
    ),
    Metric::new(
        "lag",
        Gauge,
        Bytes,
        TOPIC,
        "Estimate of the record batches that are not archived: lag_records times the mean weight of an offset read since start. Absent while nothing was read of the topic.",
        |v| ours(v, |t| Some(t.lag_bytes? as f64)),
    ),
    Metric::new(
        "lag",
        Gauge,
        Seconds,
        TOPIC,
        "How long this archiver has known of the oldest record that is not archived, the worst of the topic's partitions. To be compared with rpo_seconds.",
        |v| ours(v, |t| Some(t.lag.as_secs_f64())),
    ),
    Metric::new("rpo", Gauge, Seconds, &[], "The configured journal.rpo.", |v| one(v.rpo.as_secs_f64())),
    Metric::new(
        "archived_end_offset_sum",
        Gauge,
        NONE,
        TOPIC,
        "Offsets up to which the partitions are in the archive, journal included, summed up.",
        |v| ours(v, |t| Some(t.archived_end as f64)),
    ),
    Metric::new(
        "log_end_offset_sum",
        Gauge,
        NONE,
        TOPIC,
        "High watermarks of the partitions, summed up. At most 15 seconds old.",
        |v| ours(v, |t| Some(t.log_end as f64)),
    ),
    Metric::new(
        "log_start_offset_sum",
        Gauge,
        NONE,
        TOPIC,
        "Where the partitions' logs begin, summed up, as of the last fetch.",
        |v| ours(v, |t| Some(t.log_start as f64)),
    ),
    Metric::new(
        "topic_partitions",
        Gauge,
        NONE,
        TOPIC,
        "Partitions of the topic that are this archiver's.",
        |v| ours(v, |t| Some(t.partitions as f64)),
    ),
    Metric::new(
        "partitions",
        Gauge,
        NONE,
        &["state"],
        "This archiver's partitions: waiting (for a leader), opening (its chain is looked at), reading, resting (after a failure), done.",
        |v| {
            let of = |s: &PartitionState| v.states.get(s).copied().unwrap_or(0);
            PartitionState::ALL.iter().map(|s| labelled(s.name(), of(s) as f64)).collect()
        },
    ),
    Metric::new(
        "partitions_failed",
        Gauge,
        NONE,
        &["kind"],
        "Partitions that can't go on for now, by the kind of their last error.",
        |v| FailureKind::ALL.iter().map(|k| labelled(k.name(), number(v.failed.get(k)))).collect(),
    ),
    Metric::new("read", Counter, Bytes, TOPIC, "Record batches taken from the brokers.", |v| {
        counted(v, |t| t.read_bytes)
    }),
    Metric::new("read_batches", Counter, NONE, TOPIC, "Record batches taken from the brokers.", |v| {
        counted(v, |t| t.read_batches)
    }),
    Metric::new(
        "segments",
        Counter,
        NONE,
        TOPIC,
        "Segments committed, but for those that were made of the journal alone.",
        |v| counted(v, |t| t.segments),
    ),
    Metric::new(
        "bundles",
        Counter,
        NONE,
        &[],
        "Bundles of the journal committed.",
        |v| one(v.bundles as f64),
    ),
    Metric::new("bundle_entries", Counter, NONE, &[], "Partitions' pieces in those bundles.", |v| {
        one(v.bundle_entries as f64)
    }),
    Metric::new(
        "gaps",
        Counter,
        NONE,
        &["reason"],
        "Gaps committed: offsets that are not archived, for a reason that stands in the archive.",
        |v| gaps(v, |(objects, _)| objects),
    ),
    Metric::new("gap_offsets", Counter, NONE, &["reason"], "Offsets in those gaps.", |v| {
        gaps(v, |(_, offsets)| offsets)
    }),
    Metric::new(
        "branches",
        Counter,
        NONE,
        &[],
        "Branches begun: the log became another than what was archived, or a compacted one was read too late.",
        |v| one(v.branches as f64),
    ),
    Metric::new(
        "lost_races",
        Counter,
        NONE,
        &[],
        "Commits at which another archiver was first. Nothing is lost by it.",
        |v| one(v.lost_races as f64),
    ),
    Metric::new("errors", Counter, NONE, &["kind"], "Attempts that failed; all are repeated.", |v| {
        FailureKind::ALL.iter().map(|k| labelled(k.name(), number(v.errors.get(k)))).collect()
    }),
    Metric::new("snapshots", Counter, NONE, &[], "Snapshots written by this archiver.", |v| {
        one(v.snapshots as f64)
    }),
    Metric::new(
        "snapshot_sequence",
        Gauge,
        NONE,
        &[],
        "Number of the newest snapshot that this archiver knows of.",
        |v| snapshot(v, |s, _| Some(s.sequence as f64)),
    ),
    Metric::new("snapshot_timestamp", Gauge, Seconds, &[], "When it was made, in seconds since 1970.", |v| {
        snapshot(v, |s, _| Some(s.created_ms as f64 / 1000.0))
    }),
    Metric::new("snapshot_age", Gauge, Seconds, &[], "How long ago that was.", |v| {
        snapshot(v, |s, now_ms| Some(now_ms.saturating_sub(s.created_ms).max(0) as f64 / 1000.0))
    }),
    Metric::new(
        "cluster_state_age",
        Gauge,
        Seconds,
        &[],
        "How long ago the cluster was asked for the state that it has: the cluster was away if that is longer.",
        |v| snapshot(v, |s, now_ms| Some(now_ms.saturating_sub(s.cluster_asked_ms?).max(0) as f64 / 1000.0)),
    ),
    Metric::new(
        "snapshot_duration",
        Gauge,
        Seconds,
        &[],
        "What it took, the wait for the archive included. Absent before this archiver's first.",
        |v| snapshot(v, |s, _| Some(s.duration?.as_secs_f64())),
    ),
    Metric::new(
        "snapshot_lagging_partitions",
        Gauge,
        NONE,
        &[],
        "Partitions that it names as lagging. Absent before this archiver's first.",
        |v| snapshot(v, |s, _| s.duration.map(|_| s.lagging as f64)),
    ),
    Metric::new("memory_used", Gauge, Bytes, &[], "Held between brokers and store.", |v| {
        one(v.memory_used_bytes as f64)
    }),
    Metric::new(
        "memory_limit",
        Gauge,
        Bytes,
        &[],
        "How much of it there may be: two thirds of limits.memory.bytes, the rest is for answers under way.",
        |v| one(v.memory_limit_bytes as f64),
    ),
    Metric::new("memory_resident", Gauge, Bytes, &[], "Of the whole process, by the kernel.", |v| {
        v.resident_bytes.map(|bytes| one(bytes as f64)).unwrap_or_default()
    }),
    Metric::new(
        "throttle",
        Counter,
        Seconds,
        &["by"],
        "Waited because of a broker's quota, or of limits.read.rate.bytes.per.second, summed over the brokers.",
        |v| {
            vec![
                labelled("broker", v.throttled.as_secs_f64()),
                labelled("read_rate", v.limited.as_secs_f64()),
            ]
        },
    ),
    Metric::new(
        "store_requests",
        Counter,
        NONE,
        OPERATION,
        "Operations asked of the store; retries within one are not told apart.",
        |v| store(v, |c| c.calls),
    ),
    Metric::new(
        "store_errors",
        Counter,
        NONE,
        OPERATION,
        "Of those, the ones that failed. An object that was there already, or is not there, counts too.",
        |v| store(v, |c| c.errors),
    ),
    Metric::new("store_sent", Counter, Bytes, OPERATION, "Bytes given to the store.", |v| {
        store(v, |c| c.sent_bytes)
    }),
    Metric::new("store_received", Counter, Bytes, OPERATION, "Bytes taken from the store.", |v| {
        store(v, |c| c.received_bytes)
    }),
    Metric::new(
        "store_request_duration",
        Histogram,
        Seconds,
        OPERATION,
        "Time of the store's operations, the waits for limits.upload.rate.bytes.per.second not included; of get, until the body begins.",
        |v| v.store.iter().map(|c| Sample(vec![c.operation.name().to_owned()], durations(c))).collect(),
    ),
    Metric::new(
        "store_cost_dollars",
        Counter,
        NONE,
        OPERATION,
        "Estimate of what the requests cost by list price (metrics.write.price.per.1000, metrics.read.price.per.1000). Storage and traffic are not in it.",
        |v| v.dollars.iter().map(|(operation, dollars)| labelled(operation, *dollars)).collect(),
    ),
    Metric::new("ready", Gauge, NONE, &[], "1 if /readyz says so, else 0.", |v| {
        one(f64::from(u8::from(v.ready)))
    }),
    Metric::new("uptime", Gauge, Seconds, &[], "Since the process was started.", |v| {
        one(v.uptime.as_secs_f64())
    }),
    Metric::new("build", Info, NONE, &["version"], "The version that runs.", |_| {
        vec![Sample(vec![env!("CARGO_PKG_VERSION").to_owned()], Value::Number(1.0))]
    }),
];

/// What to wake somebody for.
pub(super) struct Alert {
    pub(super) expression: &'static str,
    pub(super) lasting: &'static str,
    pub(super) means: &'static str,
}

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        expression: "varve_archiver_lag_seconds > on(instance) group_left varve_archiver_rpo_seconds",
        lasting: "5 min",
        means: "The recovery point objective is not met for the topic. `varve archive status` says why: a partition in trouble, or more records than fit through.",
    },
    Alert {
        expression: "up == 0 or varve_archiver_ready == 0",
        lasting: "5 min",
        means: "The archiver is gone, or can't reach the cluster or the store. `/readyz` names what is missing.",
    },
    Alert {
        expression: "sum by (kind) (varve_archiver_partitions_failed) > 0",
        lasting: "15 min",
        means: "Partitions can't go on. The kinds below say what to do; `varve archive status` names the partitions.",
    },
    Alert {
        expression: "varve_archiver_snapshot_age_seconds > 3600",
        lasting: "at once",
        means: "No recovery point for an hour. Set it to a few times `snapshots.interval`.",
    },
    Alert {
        expression: "varve_archiver_cluster_state_age_seconds - varve_archiver_snapshot_age_seconds > 3600",
        lasting: "at once",
        means: "Snapshots are made of the archive alone: the groups, configs and ACLs in them are from before the cluster was away.",
    },
    Alert {
        expression: "increase(varve_archiver_gap_offsets_total{reason!=\"compacted\"}[1h]) > 0",
        lasting: "at once",
        means: "Offsets will never be archived: retention was faster than the archiver, or the broker's bytes are corrupt.",
    },
    Alert {
        expression: "increase(varve_archiver_branches_total[1h]) > 0",
        lasting: "at once",
        means: "A log became another than what was archived: an unclean leader election or a lost disk. Both histories are in the archive.",
    },
    Alert {
        expression: "increase(varve_archiver_errors_total{kind=~\"denied|corrupt|setting\"}[15m]) > 0",
        lasting: "at once",
        means: "What will not go by itself.",
    },
];

fn one(value: f64) -> Vec<Sample> {
    vec![Sample(Vec::new(), Value::Number(value))]
}

fn labelled(label: &str, value: f64) -> Sample {
    Sample(vec![label.to_owned()], Value::Number(value))
}

fn number(count: Option<&u64>) -> f64 {
    count.copied().unwrap_or(0) as f64
}

/// Of the topics that are ours now.
fn ours(view: &View, read: impl Fn(&TopicView) -> Option<f64>) -> Vec<Sample> {
    view.ours().filter_map(|(name, topic)| Some(labelled(name, read(topic)?))).collect()
}

/// Of all topics that ever were.
fn counted(view: &View, read: impl Fn(&TopicView) -> u64) -> Vec<Sample> {
    view.topics.iter().map(|(name, topic)| labelled(name, read(topic) as f64)).collect()
}

fn gaps(view: &View, read: impl Fn((u64, u64)) -> u64) -> Vec<Sample> {
    let of = |reason| read(view.gaps.get(reason).copied().unwrap_or_default()) as f64;
    GAP_REASONS.iter().map(|reason| labelled(reason, of(reason))).collect()
}

fn snapshot(view: &View, read: impl Fn(&super::tally::SnapshotSeen, i64) -> Option<f64>) -> Vec<Sample> {
    let value = view.snapshot.as_ref().and_then(|seen| read(seen, view.now_ms));
    value.map(one).unwrap_or_default()
}

fn store(view: &View, read: impl Fn(&OperationCount) -> u64) -> Vec<Sample> {
    view.store.iter().map(|count| labelled(count.operation.name(), read(count) as f64)).collect()
}

fn durations(count: &OperationCount) -> Value {
    let bounds = LATENCY_BUCKETS_SECONDS.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(count.latencies).collect();
    // The buckets, and nothing else, say how many: they may be a moment ahead of the calls.
    let all = buckets.iter().map(|(_, n)| n).sum();
    Value::Histogram { sum: count.duration.as_secs_f64(), count: all, buckets }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_prometheus_manner() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let name = metric.full_name();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(!metric.doc.contains(['\n', '"', '|']) && metric.doc.ends_with('.'), "{name}");
            assert!(names.insert(name.clone()), "{name} twice");
        }
    }

    #[test]
    fn alerts_name_metrics_there_are() {
        let names: BTreeSet<String> = METRICS.iter().map(Metric::full_name).collect();
        for alert in ALERTS {
            let words = alert.expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for word in words.filter(|word| word.starts_with(PREFIX)) {
                assert!(names.contains(word), "{word}");
            }
        }
    }

    #[test]
    fn each_sample_has_its_labels() {
        for metric in METRICS {
            for Sample(labels, _) in (metric.read)(&View::default()) {
                assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
            }
        }
    }
}
