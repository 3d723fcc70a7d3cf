//! The small text files of a log directory: offset checkpoints, `partition.metadata`, `meta.properties`, and the names
//! of partitions' directories. Pure.

use std::collections::BTreeMap;

use varve_format::Id;
use varve_kafka::client::parse_properties;

use super::error::{ImportError, Result};

/// By topic and partition.
pub(crate) type Offsets = BTreeMap<(String, i32), i64>;

/// `*-offset-checkpoint`: version (0), count, then `topic partition offset` each. A broker makes it empty first.
pub(crate) fn parse_offsets(file: &str, bytes: &[u8]) -> Result<Offsets> {
    let refuse = |line: &str, expected: &str| ImportError::checkpoint(file, expected, format!("{line:?}"));
    let text = text(file, bytes)?;
    let mut lines = text.lines();
    match lines.next() {
        None => return Ok(Offsets::new()),
        Some("0") => {}
        other => return Err(refuse(other.unwrap_or_default(), "version 0")),
    }
    let count = lines.next().unwrap_or_default();
    let mut offsets = Offsets::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let parsed = (|| {
            let topic = words.next()?.to_owned();
            let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            words.next().is_none().then_some(((topic, partition), offset))
        })();
        let (key, offset) = parsed.ok_or_else(|| refuse(line, "a topic, a partition and an offset"))?;
        offsets.insert(key, offset);
    }
    if count.parse() == Ok(offsets.len()) {
        return Ok(offsets);
    }
    Err(refuse(count, &format!("a count of {}", offsets.len())))
}

/// `partition.metadata`: the topic's id.
pub(crate) fn parse_topic_id(file: &str, bytes: &[u8]) -> Result<Id> {
    let text = text(file, bytes)?;
    let found =
        text.lines().find_map(|line| line.strip_prefix("topic_id:")).map(str::trim).unwrap_or_default();
    Id::parse(found).map_err(|_| ImportError::checkpoint(file, "topic_id: with an id", format!("{found:?}")))
}

/// `meta.properties`: the cluster's id and the broker's.
pub(crate) fn parse_meta(file: &str, bytes: &[u8]) -> Result<(Option<String>, Option<i32>)> {
    let text = text(file, bytes)?;
    let pairs = parse_properties(&text)
        .map_err(|error| ImportError::checkpoint(file, "KEY=VALUE lines", error.to_string()))?;
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let broker_id = value("node.id").or_else(|| value("broker.id"));
    Ok((value("cluster.id"), broker_id.and_then(|id| id.parse().ok())))
}

fn text(file: &str, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ImportError::checkpoint(file, "UTF-8", "other bytes"))
}

/// What a directory in a log directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryName {
    Partition {
        topic: String,
        partition: i32,
    },
    /// Of a partition, but none to be read: why, in words.
    PassedOver(&'static str),
    Other,
}

/// `topic-partition`, or `topic-partition.<unique>-<suffix>` while it is on its way in or out.
pub(crate) fn parse_directory(name: &str) -> DirectoryName {
    for (suffix, why) in [
        ("-delete", "is being deleted"),
        ("-future", "is a replica that moves between directories, and not current yet"),
        ("-stray", "is a replica that the cluster does not assign to this broker"),
    ] {
        if name.ends_with(suffix) && name.contains('.') && name.strip_suffix(suffix).is_some_and(has_unique) {
            return DirectoryName::PassedOver(why);
        }
    }
    let Some((topic, partition)) = name.rsplit_once('-') else { return DirectoryName::Other };
    let digits = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
    match partition.parse() {
        Ok(partition) if digits && !topic.is_empty() => {
            DirectoryName::Partition { topic: topic.to_owned(), partition }
        }
        _ => DirectoryName::Other,
    }
}

/// Whether it ends with a dot and 32 hexadecimal digits.
fn has_unique(name: &str) -> bool {
    let unique = name.rsplit_once('.').map(|(_, unique)| unique);
    unique.is_some_and(|unique| unique.len() == 32 && unique.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The base offset in the name of a segment's log.
pub(crate) fn parse_log_name(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_as_brokers_write_them() {
        let offsets = parse_offsets("f", b"0\n2\nt 0 17\na.b-c 11 9223372036854775807\n").unwrap();
        assert_eq!(offsets[&("a.b-c".to_owned(), 11)], i64::MAX);
        assert!(parse_offsets("f", b"0\n0\n").unwrap().is_empty());
        assert!(parse_offsets("f", b"").unwrap().is_empty());
        for bad in [
            "1\n0\n",
            "0\n",
            "0\n2\nt 0 1\n",
            "0\n1\nt 0\n",
            "0\n1\nt 0 x\n",
            "0\n1\nt 0 1 2\n",
            "0\n1\n\u{fffd}",
        ] {
            assert!(parse_offsets("f", bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse_offsets("f", b"0\n1\n\xff 0 1\n").is_err());
    }

    #[test]
    fn ids() {
        let id = "AAAAAAAAAAAAAAAAAAAAAQ";
        assert_eq!(
            parse_topic_id("f", format!("version: 0\ntopic_id: {id}").as_bytes()).unwrap().to_string(),
            id
        );
        assert!(parse_topic_id("f", b"version: 0\n").is_err());
        let meta = "#\n#Sat Nov 21\nnode.id=3\nversion=1\ncluster.id=abc\ndirectory.id=x\n";
        assert_eq!(parse_meta("f", meta.as_bytes()).unwrap(), (Some("abc".to_owned()), Some(3)));
    }

    #[test]
    fn names_of_directories() {
        let partition =
            |topic: &str, partition| DirectoryName::Partition { topic: topic.to_owned(), partition };
        assert_eq!(parse_directory("t-0"), partition("t", 0));
        assert_eq!(parse_directory("a-b.c-delete-12"), partition("a-b.c-delete", 12));
        for suffix in ["delete", "future", "stray"] {
            let name = format!("t-0.0123456789abcdef0123456789abcdef-{suffix}");
            assert!(matches!(parse_directory(&name), DirectoryName::PassedOver(_)), "{name}");
        }
        for other in
            ["t", "-0", "t-", "t-x", "t-+1", "t-99999999999", "t-0.short-delete", "remote-log-index-cache"]
        {
            assert_eq!(parse_directory(other), DirectoryName::Other, "{other}");
        }
        assert_eq!(parse_log_name("00000000000000000042.log"), Some(42));
        for other in [
            "42.log",
            "00000000000000000042.index",
            "00000000000000000042.log.deleted",
            "99999999999999999999.log",
        ] {
            assert_eq!(parse_log_name(other), None);
        }
    }
}
