//! `varve archive status`: what a running archiver says of itself, by topic, with what to do about its troubles.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use url::Url;
use varve_archiver::config::Config;
use varve_archiver::metrics::{FailureKind, PartitionStatus, Status, ask};

use crate::Verdict;
use crate::archive::Table;
use crate::args::ArchiveStatusArgs;
use crate::output::{age, grouped};

/// Partitions named for each kind of trouble.
const NAMED: usize = 5;

pub(crate) async fn run(args: ArchiveStatusArgs) -> Result<Verdict> {
    let url = match (args.url, &args.config) {
        (Some(url), _) => url,
        (None, Some(path)) => {
            let env = |name: &str| std::env::var(name).ok();
            let config = Config::load(path, &args.set, &env)?;
            let listen = config.metrics.listen.with_context(|| {
                format!(
                    "{}: metrics.listen is not set, so the archiver can't be asked: let it have metrics: {{ listen: \
                     \"127.0.0.1:9644\" }} and start it anew",
                    path.display()
                )
            })?;
            Url::parse(&format!("http://{}", reachable(listen)))?
        }
        (None, None) => anyhow::bail!("give --config or --url"),
    };
    let status = ask(&url).await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&status)?)?;
    } else {
        print(&status, &mut out)?;
    }
    let fine = status.healthy && status.ready && status.partitions.iter().all(|p| is_fine(p, status.rpo_ms));
    Ok(if fine { Verdict::Clean } else { Verdict::Findings })
}

/// Who listens everywhere listens here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn is_fine(partition: &PartitionStatus, rpo_ms: u64) -> bool {
    partition.trouble.is_none() && partition.lag_ms <= rpo_ms
}

/// Sums of one topic's partitions.
#[derive(Default)]
struct Topic {
    partitions: u64,
    records: u64,
    /// Of those that tell.
    bytes: u64,
    ms: u64,
    /// Partitions whose lag is not known.
    unknown: u64,
    troubles: u64,
}

fn print(status: &Status, out: &mut impl Write) -> Result<()> {
    let word = |fine: bool, word: &str| if fine { word.to_owned() } else { format!("NOT {word}") };
    writeln!(
        out,
        "varve {}, up for {}, {}, {}",
        status.version,
        age(i64::try_from(status.uptime_ms).unwrap_or(i64::MAX)),
        word(status.healthy, "healthy"),
        word(status.ready, "ready"),
    )?;
    for line in status.unhealthy.iter().chain(&status.not_ready) {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "archive     {} ({})", status.archive_url, status.archive_id)?;
    match &status.snapshot {
        Some(snapshot) => {
            let ago = age(status.now_ms.saturating_sub(snapshot.created_ms));
            let lagging = match snapshot.lagging_partitions {
                Some(0) | None => String::new(),
                Some(n) => format!(", {} partitions lagged", grouped(n as u64)),
            };
            let asked_ms = snapshot.cluster_asked_ms.filter(|asked_ms| *asked_ms < snapshot.created_ms);
            let state = asked_ms.map_or_else(String::new, |asked_ms| {
                format!(
                    ", made without the cluster: its state is {} old",
                    age(status.now_ms.saturating_sub(asked_ms))
                )
            });
            writeln!(out, "snapshot    {}, {ago} ago{lagging}{state}", snapshot.sequence)?;
        }
        None => writeln!(out, "snapshot    none yet")?,
    }
    let percent = status.memory_used_bytes * 100 / status.memory_limit_bytes.max(1);
    writeln!(
        out,
        "memory      {} of {} bytes ({percent} %)",
        grouped(status.memory_used_bytes),
        grouped(status.memory_limit_bytes)
    )?;
    writeln!(
        out,
        "since start {} bytes read, {} segments, {} bundles, {} branches, {} offsets in gaps, {} errors",
        grouped(status.read_bytes),
        grouped(status.segments),
        grouped(status.bundles),
        grouped(status.branches),
        grouped(status.gap_offsets.values().sum()),
        grouped(status.errors.values().sum()),
    )?;
    writeln!(
        out,
        "store       {} requests, some ${:.2}",
        grouped(status.store_requests),
        status.store_cost_dollars
    )?;
    print_topics(status, out)?;
    print_troubles(status, out)
}

fn print_topics(status: &Status, out: &mut impl Write) -> Result<()> {
    let mut topics: BTreeMap<&str, Topic> = BTreeMap::new();
    for partition in &status.partitions {
        let topic = topics.entry(&partition.topic).or_default();
        topic.partitions += 1;
        topic.records += partition.lag_records.unwrap_or(0);
        topic.bytes += partition.lag_bytes.unwrap_or(0);
        topic.ms = topic.ms.max(partition.lag_ms);
        topic.unknown += u64::from(partition.lag_records.is_none());
        topic.troubles += u64::from(partition.trouble.is_some());
    }
    if topics.is_empty() {
        writeln!(out, "\nno partition is this archiver's")?;
        return Ok(());
    }
    let mut table =
        Table::new(&["topic", ">partitions", ">records behind", ">bytes", ">for", "RPO", ">in trouble"]);
    let (mut met, mut missed) = (0_u64, 0_u64);
    for (name, topic) in &topics {
        let fine = topic.ms <= status.rpo_ms;
        *(if fine { &mut met } else { &mut missed }) += 1;
        let unknown = if topic.unknown > 0 { "+?" } else { "" };
        table.row(vec![
            (*name).to_owned(),
            grouped(topic.partitions),
            format!("{}{unknown}", grouped(topic.records)),
            format!("~{}", grouped(topic.bytes)),
            age(i64::try_from(topic.ms).unwrap_or(i64::MAX)),
            if fine { "met" } else { "MISSED" }.to_owned(),
            grouped(topic.troubles),
        ]);
    }
    writeln!(out)?;
    table.print(out)?;
    let rpo = age(i64::try_from(status.rpo_ms).unwrap_or(i64::MAX));
    writeln!(out, "{} topics meet the RPO of {rpo}, {} do not", grouped(met), grouped(missed))?;
    Ok(())
}

fn print_troubles(status: &Status, out: &mut impl Write) -> Result<()> {
    let mut kinds: BTreeMap<&str, Vec<(&PartitionStatus, &str)>> = BTreeMap::new();
    for partition in &status.partitions {
        if let Some(trouble) = &partition.trouble {
            kinds.entry(&trouble.kind).or_default().push((partition, &trouble.text));
        }
    }
    for (kind, partitions) in kinds {
        writeln!(out, "\n{kind}: {} partitions", grouped(partitions.len() as u64))?;
        for (partition, text) in partitions.iter().take(NAMED) {
            writeln!(out, "  {}:{} {text}", partition.topic, partition.partition)?;
        }
        if partitions.len() > NAMED {
            writeln!(out, "  … and {} more (--json has all)", partitions.len() - NAMED)?;
        }
        writeln!(out, "  {}", FailureKind::from_name(kind).advice())?;
    }
    let waiting = status.partitions.iter().filter(|p| p.state == "waiting").count();
    if waiting > 0 {
        writeln!(out, "\n{} partitions wait for a leader", grouped(waiting as u64))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use varve_archiver::metrics::Trouble;

    use super::*;

    fn partition(partition: i32, lag_ms: u64) -> PartitionStatus {
        PartitionStatus {
            topic: "orders".into(),
            topic_id: "x".into(),
            partition,
            state: "reading".into(),
            branch: Some(0),
            chain_end_offset: Some(5),
            archived_end_offset: Some(10),
            log_start_offset: 0,
            log_end_offset: Some(1010),
            lag_records: Some(1000),
            lag_bytes: Some(50_000),
            lag_ms,
            trouble: None,
        }
    }

    #[test]
    fn a_missed_rpo_and_a_trouble_are_said() {
        let json = serde_json::json!({
            "version": "1", "archive_id": "a", "archive_url": "s3://b", "now_ms": 0, "uptime_ms": 5000,
            "rpo_ms": 60000, "healthy": true, "unhealthy": [], "ready": false,
            "not_ready": ["store: denied"], "read_bytes": 0, "segments": 0, "bundles": 0, "branches": 0,
            "lost_races": 0, "gap_offsets": {}, "errors": {}, "memory_used_bytes": 0,
            "memory_limit_bytes": 0, "resident_bytes": null, "store_requests": 0, "store_cost_dollars": 0.0,
            "snapshot": null, "partitions": [], "a_later_member": 1,
        });
        let mut status: Status = serde_json::from_value(json).unwrap();
        let mut ill = partition(1, 61_000);
        ill.trouble = Some(Trouble { kind: "denied".into(), text: "not allowed".into() });
        status.partitions = vec![partition(0, 1000), ill];
        let mut out = Vec::new();
        print(&status, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for said in
            ["NOT ready", "store: denied", "MISSED", "2,000", "~100,000", "orders:1 not allowed", "Renew"]
        {
            assert!(text.contains(said), "{said}\n{text}");
        }
        assert!(is_fine(&status.partitions[0], 60_000) && !is_fine(&status.partitions[1], 60_000));
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listen, asked) in
            [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9"), ("10.0.0.1:9", "10.0.0.1:9")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
