//! What the beans show: the same tables make the values, and `docs/METRICS.md`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{Metrics, Numbers, TopicNumbers};

/// A bean's name and its attributes.
pub type Bean = (String, Vec<(&'static str, f64)>);

/// One number of a bean.
pub struct Attribute<T: 'static> {
    pub name: &'static str,
    pub unit: &'static str,
    pub doc: &'static str,
    value: fn(&T) -> f64,
}

/// Copies, fetches and so on: one bean each, all with the attributes of [`OPERATION`].
pub struct OperationBean {
    pub name: &'static str,
    pub doc: &'static str,
    numbers: fn(&Metrics) -> &Numbers,
}

/// Bytes in use, and what may be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub copy_used_bytes: u64,
    pub copy_max_bytes: u64,
    pub cache_used_bytes: u64,
    pub cache_max_bytes: u64,
}

/// What is worth waking somebody for, or looking at.
pub struct Alert {
    /// The bean, as in its name.
    pub bean: &'static str,
    pub attribute: &'static str,
    pub when: &'static str,
    pub means: &'static str,
}

const fn attribute<T>(
    name: &'static str,
    unit: &'static str,
    doc: &'static str,
    value: fn(&T) -> f64,
) -> Attribute<T> {
    Attribute { name, unit, doc, value }
}

fn load(number: &AtomicU64) -> f64 {
    number.load(Ordering::Relaxed) as f64
}

fn load_signed(number: &AtomicI64) -> f64 {
    number.load(Ordering::Relaxed) as f64
}

pub const OPERATIONS: &[OperationBean] = &[
    OperationBean {
        name: "copy",
        doc: "Segments copied to the store. Bytes are log bytes, before compression, counted when a copy has succeeded; the latency is of the whole copy, its wait for memory included.",
        numbers: |metrics| &metrics.copy,
    },
    OperationBean {
        name: "fetchLog",
        doc: "Log streams that the broker read from. Bytes are what it was given; the latency is from the stream's opening to its first byte. Streams are not counted as in flight or cancelled.",
        numbers: |metrics| &metrics.fetch_log,
    },
    OperationBean {
        name: "fetchIndex",
        doc: "Indexes that the broker asked for, from memory or not.",
        numbers: |metrics| &metrics.fetch_index,
    },
    OperationBean {
        name: "delete",
        doc: "Segments deleted from the store. Bytes are not counted.",
        numbers: |metrics| &metrics.delete,
    },
    OperationBean {
        name: "storeGet",
        doc: "Ranges of log and index bytes read from the store, read-ahead included; retries within one are not told apart. Bytes are stored bytes; the latency is until the last of them was checked.",
        numbers: |metrics| &metrics.store_get,
    },
];

pub const OPERATION: &[Attribute<Numbers>] = &[
    attribute("Count", "operations", "Succeeded since start.", |n| load(&n.count)),
    attribute("ErrorCount", "operations", "Failed since start.", |n| load(&n.errors)),
    attribute(
        "CancelledCount",
        "operations",
        "Given up by the broker since start: leadership moved, the topic was deleted, the broker stops.",
        |n| load(&n.cancelled),
    ),
    attribute("BytesTotal", "bytes", "Since start.", |n| load(&n.bytes)),
    attribute("InFlight", "operations", "Under way now.", |n| load_signed(&n.in_flight)),
    attribute("OneMinuteRate", "per second", "Operations that succeeded, mean of the last minute.", |n| {
        n.rate.per_second().0
    }),
    attribute("BytesPerSecond", "bytes per second", "Mean of the last minute.", |n| n.rate.per_second().1),
    attribute("LatencyMsMean", "ms", "Mean since start, of those that succeeded.", |n| n.latency.mean()),
    attribute("LatencyMs50thPercentile", "ms", "Since start; up to 9 % above the true one.", |n| {
        n.latency.quantile(0.5)
    }),
    attribute("LatencyMs95thPercentile", "ms", "Since start; up to 9 % above the true one.", |n| {
        n.latency.quantile(0.95)
    }),
    attribute("LatencyMs99thPercentile", "ms", "Since start; up to 9 % above the true one.", |n| {
        n.latency.quantile(0.99)
    }),
    attribute("LatencyMs999thPercentile", "ms", "Since start; up to 9 % above the true one.", |n| {
        n.latency.quantile(0.999)
    }),
    attribute("LatencyMsMax", "ms", "Longest since start.", |n| n.latency.max()),
];

pub const MEMORY: &[Attribute<Memory>] = &[
    attribute("CopyBytesUsed", "bytes", "Held by copies now.", |m| m.copy_used_bytes as f64),
    attribute("CopyBytesMax", "bytes", "`copy.memory.bytes`.", |m| m.copy_max_bytes as f64),
    attribute(
        "CacheBytesUsed",
        "bytes",
        "Held by cached bytes and requests under way now. Near the maximum is normal: what was read stays until room is needed.",
        |m| m.cache_used_bytes as f64,
    ),
    attribute(
        "CacheBytesMax",
        "bytes",
        "Seven eighths of `cache.memory.bytes`; the rest is for footers.",
        |m| m.cache_max_bytes as f64,
    ),
];

pub const CACHE: &[Attribute<Metrics>] = &[
    attribute("HitCount", "frames", "Were in memory when a stream came to them, since start.", |m| {
        load(&m.cache_hits)
    }),
    attribute("MissCount", "frames", "Had to be waited for, since start.", |m| load(&m.cache_misses)),
    attribute("HitRatio", "0 to 1", "Hits of hits and misses, since start; 0 before the first.", |m| {
        let (hits, misses) = (load(&m.cache_hits), load(&m.cache_misses));
        if hits + misses > 0.0 { hits / (hits + misses) } else { 0.0 }
    }),
    attribute("PrefetchedBytesTotal", "bytes", "Asked for by read-ahead, since start.", |m| {
        load(&m.prefetched_bytes)
    }),
    attribute(
        "EvictedUnreadBytesTotal",
        "bytes",
        "Fetched and dropped before anybody read them, since start.",
        |m| load(&m.evicted_unread_bytes),
    ),
    attribute(
        "SweptUploadsTotal",
        "uploads",
        "Unfinished uploads that the sweep aborted, since start: what killed brokers left.",
        |m| load(&m.swept_uploads),
    ),
];

pub const TOPIC: &[Attribute<TopicNumbers>] = &[
    attribute("CopiedBytesTotal", "bytes", "Log bytes copied since start.", |t| load(&t.copied_bytes)),
    attribute("CopiedSegmentsTotal", "segments", "Copied since start.", |t| load(&t.copied_segments)),
    attribute("CopyErrorCount", "copies", "Failed or cancelled since start.", |t| load(&t.copy_errors)),
    attribute("FetchedBytesTotal", "bytes", "Log bytes given to the broker since start.", |t| {
        load(&t.fetched_bytes)
    }),
    attribute("FetchErrorCount", "reads", "Failed since start.", |t| load(&t.fetch_errors)),
];

pub const ALERTS: &[Alert] = &[
    Alert {
        bean: "operation=copy",
        attribute: "ErrorCount",
        when: "rises for 15 minutes",
        means: "Segments stay on the broker's disk, which fills up. The broker tries again by itself; its log names object and cause.",
    },
    Alert {
        bean: "operation=fetchLog",
        attribute: "ErrorCount",
        when: "rises",
        means: "Consumers of old data stand still. The broker's log tells an unreachable store from a missing or corrupt object; for the latter run `varve segment verify`.",
    },
    Alert {
        bean: "operation=delete",
        attribute: "ErrorCount",
        when: "rises for an hour",
        means: "Expired segments stay in the store and cost money. Often a permission.",
    },
    Alert {
        bean: "operation=copy",
        attribute: "Count",
        when: "stands still for hours while the broker's `RemoteCopyLagSegments` grows",
        means: "Copies hang or are not begun.",
    },
    Alert {
        bean: "name=memory",
        attribute: "CopyBytesUsed",
        when: "is at `CopyBytesMax` for long",
        means: "Copies wait for each other. If the network has room, raise `copy.memory.bytes`.",
    },
    Alert {
        bean: "name=cache",
        attribute: "EvictedUnreadBytesTotal",
        when: "rises by more than a tenth of what `storeGet`'s `BytesTotal` does",
        means: "The cache is small for the readers there are: bytes are fetched twice. Raise `cache.memory.bytes`, or lower `prefetch.max.bytes`.",
    },
    Alert {
        bean: "name=cache",
        attribute: "SweptUploadsTotal",
        when: "rises day after day",
        means: "Brokers die in mid-copy, or another cluster uses the same `cluster.id`.",
    },
];

fn bean<T>(name: String, attributes: &[Attribute<T>], of: &T) -> Bean {
    (name, attributes.iter().map(|a| (a.name, (a.value)(of))).collect())
}

impl Metrics {
    /// All beans, as the shim shows them.
    pub fn beans(&self, memory: Memory) -> Vec<Bean> {
        let operations = OPERATIONS.iter();
        let mut beans: Vec<Bean> =
            operations.map(|o| bean(format!("operation={}", o.name), OPERATION, (o.numbers)(self))).collect();
        beans.push(bean("name=memory".into(), MEMORY, &memory));
        beans.push(bean("name=cache".into(), CACHE, self));
        let topics = self.topics.lock();
        beans.extend(topics.iter().map(|(topic, numbers)| bean(format!("topic={topic}"), TOPIC, &**numbers)));
        beans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards hold these names: one is changed only with a line in the changelog.
    #[test]
    fn names_stay() {
        let metrics = Metrics::default();
        metrics.topic("orders");
        let beans = metrics.beans(Memory::default());
        let names: Vec<_> = beans.iter().map(|(name, _)| name.as_str()).collect();
        let operations = [
            "operation=copy",
            "operation=fetchLog",
            "operation=fetchIndex",
            "operation=delete",
            "operation=storeGet",
        ];
        assert_eq!(names, [&operations[..], &["name=memory", "name=cache", "topic=orders"]].concat());
        let attributes = |bean: &str| {
            let found = beans.iter().find(|(name, _)| name == bean).unwrap();
            found.1.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            attributes("operation=copy"),
            "Count ErrorCount CancelledCount BytesTotal InFlight OneMinuteRate BytesPerSecond LatencyMsMean \
             LatencyMs50thPercentile LatencyMs95thPercentile LatencyMs99thPercentile LatencyMs999thPercentile \
             LatencyMsMax"
        );
        assert_eq!(attributes("name=memory"), "CopyBytesUsed CopyBytesMax CacheBytesUsed CacheBytesMax");
        assert_eq!(
            attributes("name=cache"),
            "HitCount MissCount HitRatio PrefetchedBytesTotal EvictedUnreadBytesTotal SweptUploadsTotal"
        );
        assert_eq!(
            attributes("topic=orders"),
            "CopiedBytesTotal CopiedSegmentsTotal CopyErrorCount FetchedBytesTotal FetchErrorCount"
        );
    }

    #[test]
    fn alerts_name_what_there_is() {
        let beans = Metrics::default().beans(Memory::default());
        for alert in ALERTS {
            let bean = beans.iter().find(|(name, _)| name == alert.bean);
            let found = bean.is_some_and(|(_, all)| all.iter().any(|(name, _)| *name == alert.attribute));
            assert!(found, "{} {}", alert.bean, alert.attribute);
        }
    }
}
