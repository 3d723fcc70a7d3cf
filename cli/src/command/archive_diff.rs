//! `varve diff URL SNAPSHOT SNAPSHOT`, and `varve diff URL --bootstrap-server …`

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use varve_archive::record::snapshot::{CLUSTER_STATE, DocumentRef, SnapshotRecord};
use varve_archive::{Archive, Record as _};
use varve_cluster::{ClusterState, Difference, diff};
use varve_kafka::client::Client;

use crate::Verdict;
use crate::archive::{PartitionChange, PartitionLag, Table, changes, lags, open, topics, warn_of_displaced};
use crate::args::archive::{DiffArgs, MaxLag};
use crate::args::client_config;
use crate::output::{age, grouped};
use crate::process::now_ms;

pub(crate) async fn run(args: DiffArgs) -> Result<Verdict> {
    let archive = open(&args.archive).await?;
    let outcome = compare(&archive, &args).await;
    warn_of_displaced(&archive).await;
    outcome
}

async fn compare(archive: &Archive, args: &DiffArgs) -> Result<Verdict> {
    match (&args.bootstrap_server, args.snapshot_a, args.snapshot_b) {
        (Some(servers), ..) => against_cluster(archive, servers, args).await,
        (None, Some(a), Some(b)) => {
            let (a, b) = (snapshot(archive, a).await?, snapshot(archive, b).await?);
            between(archive, &a, &b, args.json).await
        }
        _ => anyhow::bail!("give two snapshots, or --bootstrap-server"),
    }
}

async fn snapshot(archive: &Archive, sequence: u64) -> Result<SnapshotRecord> {
    let found = archive.snapshot(sequence).await?;
    Ok(found.with_context(|| format!("the archive has no snapshot {sequence}"))?.record)
}

/// What differs is what was asked for: no finding.
async fn between(archive: &Archive, a: &SnapshotRecord, b: &SnapshotRecord, json: bool) -> Result<Verdict> {
    let found = changes(archive, a.root.clone(), b.root.clone()).await?;
    let state = state_changes(archive, a.document(CLUSTER_STATE), b.document(CLUSTER_STATE)).await?;
    let names = topics(archive).await?;
    let name = |id| names.iter().find(|t| t.id == id).map_or_else(|| format!("{id}"), |t| t.name());
    let mut out = std::io::stdout().lock();
    if json {
        for change in &found {
            writeln!(out, "{}", described(&name(change.topic_id), change))?;
        }
        for difference in state.differences() {
            let mut line = json!(difference);
            line["type"] = "cluster_state".into();
            writeln!(out, "{line}")?;
        }
        return Ok(Verdict::Clean);
    }
    let mut table =
        Table::new(&["topic", ">partition", ">from", ">to", ">offsets", ">objects", ">bytes", ">branch", ""]);
    for change in &found {
        table.row(row(&name(change.topic_id), change));
    }
    table.print(&mut out)?;
    writeln!(out, "{} partitions differ", grouped(found.len() as u64))?;
    match &state {
        StateChange::Same => writeln!(out, "the cluster's state is the same")?,
        StateChange::Unknown(why) => writeln!(out, "the cluster's state: {why}")?,
        StateChange::Differs(all) => all.iter().try_for_each(|d| writeln!(out, "{d}"))?,
    }
    Ok(Verdict::Clean)
}

fn row(topic: &str, change: &PartitionChange) -> Vec<String> {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let end =
        |s: Option<&crate::archive::PartitionSummary>| s.map_or("-".to_owned(), |s| s.end_offset.to_string());
    let grown = |f: fn(&crate::archive::PartitionSummary) -> i128| {
        let difference = after.map_or(0, f) - before.map_or(0, f);
        let digits = grouped(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
        if difference < 0 { format!("-{digits}") } else { format!("+{digits}") }
    };
    let branch = match (before.map(|s| s.branch), after.map(|s| s.branch)) {
        (Some(a), Some(b)) if a != b => format!("{a} → {b}"),
        (a, b) => b.or(a).map_or_else(String::new, |n| n.to_string()),
    };
    let note = match (before, after) {
        (None, _) => "new",
        (_, None) => "gone",
        (_, Some(s)) if s.log_end_offset.is_some() => "lagging",
        _ => "",
    };
    vec![
        topic.to_owned(),
        change.partition.to_string(),
        end(before),
        end(after),
        grown(|s| s.end_offset.into()),
        grown(|s| s.objects.into()),
        grown(|s| s.bytes.into()),
        branch,
        note.to_owned(),
    ]
}

fn described(topic: &str, change: &PartitionChange) -> Value {
    let side = |s: Option<&crate::archive::PartitionSummary>| {
        s.map(|s| {
            json!({
                "branch": s.branch,
                "chain_end_offset": s.chain_end,
                "end_offset": s.end_offset,
                "objects": s.objects,
                "bytes": s.bytes,
                "log_end_offset": s.log_end_offset,
            })
        })
    };
    json!({
        "type": "partition",
        "topic": topic,
        "topic_id": change.topic_id.to_string(),
        "partition": change.partition,
        "before": side(change.before.as_ref()),
        "after": side(change.after.as_ref()),
    })
}

enum StateChange {
    Same,
    Unknown(String),
    Differs(Vec<Difference>),
}

impl StateChange {
    fn differences(&self) -> &[Difference] {
        match self {
            StateChange::Differs(all) => all,
            _ => &[],
        }
    }
}

async fn state_changes(
    archive: &Archive,
    a: Option<&DocumentRef>,
    b: Option<&DocumentRef>,
) -> Result<StateChange> {
    let (a, b) = match (a, b) {
        (a, b) if a == b => return Ok(StateChange::Same),
        (Some(a), Some(b)) => (archive.document(a).await?, archive.document(b).await?),
        (None, _) => return Ok(StateChange::Unknown("the earlier snapshot has none".to_owned())),
        (_, None) => return Ok(StateChange::Unknown("the later snapshot has none".to_owned())),
    };
    match (ClusterState::decode(&a), ClusterState::decode(&b)) {
        (Ok(a), Ok(b)) => Ok(StateChange::Differs(diff(&a, &b))),
        (Err(e), _) | (_, Err(e)) => Ok(StateChange::Unknown(format!("differs, and can't be read: {e}"))),
    }
}

async fn against_cluster(archive: &Archive, servers: &str, args: &DiffArgs) -> Result<Verdict> {
    let client = Client::new(client_config(servers, args.command_config.as_deref())?)?;
    let reader = archive.log_reader(None).await?;
    let (found, others) = lags(&reader, &client, now_ms()?).await?;
    let late: Vec<&PartitionLag> = found.iter().filter(|lag| is_late(lag, args.max_lag)).collect();
    let mut out = std::io::stdout().lock();
    if args.json {
        for lag in &found {
            writeln!(out, "{}", lag_line(lag, is_late(lag, args.max_lag)))?;
        }
        let lines = others.iter().map(|topic| json!({"type": "not_archived", "topic": topic}));
        lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
    } else {
        print_lags(&mut out, &found, &others)?;
        if args.max_lag.is_some() {
            writeln!(out, "{} partitions lag by more than is allowed", grouped(late.len() as u64))?;
        }
    }
    Ok(if late.is_empty() { Verdict::Clean } else { Verdict::Findings })
}

/// A lag whose age is not known counts as too old.
fn is_late(lag: &PartitionLag, max: Option<MaxLag>) -> bool {
    match max {
        None => false,
        Some(MaxLag::Offsets(max)) => lag.offsets() > max,
        Some(MaxLag::Milliseconds(max)) => lag.offsets() > 0 && lag.age_ms.is_none_or(|ms| ms > max),
    }
}

fn lag_line(lag: &PartitionLag, late: bool) -> Value {
    json!({
        "type": "partition",
        "topic": lag.topic,
        "topic_id": lag.topic_id.to_string(),
        "partition": lag.partition,
        "archived_end_offset": lag.archived_end,
        "log_start_offset": lag.log_start,
        "log_end_offset": lag.log_end,
        "lag_offsets": lag.offsets(),
        "lag_bytes": lag.bytes.map(|b| b.bytes),
        "lag_bytes_is_estimate": lag.bytes.is_some_and(|b| b.is_estimate),
        "lag_ms": lag.age_ms,
        "missed_offsets": lag.missed(),
        "late": late,
    })
}

fn print_lags(out: &mut impl Write, found: &[PartitionLag], others: &[String]) -> Result<()> {
    let mut table = Table::new(&[
        "topic",
        ">partition",
        ">archived",
        ">log end",
        ">offsets",
        ">bytes",
        ">behind",
        ">missed",
    ]);
    let shown: Vec<&PartitionLag> =
        found.iter().filter(|lag| lag.offsets() > 0 || lag.missed() > 0).collect();
    for lag in &shown {
        let bytes =
            lag.bytes.map(|b| format!("{}{}", if b.is_estimate { "~" } else { "" }, grouped(b.bytes)));
        table.row(vec![
            lag.topic.clone(),
            lag.partition.to_string(),
            lag.archived_end.map_or_else(|| "-".to_owned(), |end| end.to_string()),
            lag.log_end.to_string(),
            grouped(lag.offsets()),
            bytes.unwrap_or_else(|| "?".to_owned()),
            lag.age_ms.map_or_else(|| "?".to_owned(), age),
            grouped(lag.missed()),
        ]);
    }
    if !shown.is_empty() {
        table.print(out)?;
    }
    let level = found.len() - shown.len();
    writeln!(
        out,
        "{} partitions lag, {} are archived to their end",
        grouped(shown.len() as u64),
        grouped(level as u64)
    )?;
    if !others.is_empty() {
        writeln!(out, "not archived: {}", others.join(", "))?;
    }
    Ok(())
}
