//! `varve snapshots URL [SEQUENCE]`

use std::io::Write;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use varve_archive::record::snapshot::{CLUSTER_STATE, Signable, Signed, SnapshotRecord};
use varve_archive::{Archive, Snapshot};
use varve_cluster::EarlierState;

use crate::Verdict;
use crate::archive::{Table, open, topics, trusted_keys, warn_of_displaced};
use crate::args::archive::SnapshotsArgs;
use crate::output::{grouped, time};

const PARALLEL: usize = 8;

pub(crate) async fn run(args: SnapshotsArgs) -> Result<Verdict> {
    let trusted = trusted_keys(args.trust.as_deref())?;
    let archive = open(&args.archive).await?;
    let outcome = show(&archive, &args, &trusted).await;
    warn_of_displaced(&archive).await;
    outcome
}

async fn show(archive: &Archive, args: &SnapshotsArgs, trusted: &[[u8; 32]]) -> Result<Verdict> {
    match args.sequence {
        None => list(archive, args, trusted).await,
        Some(sequence) => {
            let found = archive.snapshot(sequence).await?;
            let snapshot = found.with_context(|| format!("the archive has no snapshot {sequence}"))?;
            detail(archive, &snapshot, args.json, trusted).await
        }
    }
}

/// In one word, and whether it is as it must be where keys are given.
fn signed(record: &SnapshotRecord, trusted: &[[u8; 32]]) -> (&'static str, bool) {
    match (record.signed(trusted), trusted.is_empty()) {
        (Signed::Not, none_given) => ("no", none_given),
        (Signed::ByTrusted, _) => ("trusted", true),
        // Without keys nothing can be said but that there is a signature.
        (Signed::Refused, true) => ("yes", true),
        (Signed::Refused, false) => ("REFUSED", false),
    }
}

async fn list(archive: &Archive, args: &SnapshotsArgs, trusted: &[[u8; 32]]) -> Result<Verdict> {
    let latest = archive.latest_snapshot(0).await?.map_or(0, |s| s.record.sequence);
    let wanted = (1..=latest).rev().take(usize::try_from(args.max).unwrap_or(usize::MAX));
    let read = stream::iter(wanted).map(|sequence| async move {
        let found = archive.snapshot(sequence).await?;
        found.with_context(|| format!("snapshot {sequence} is missing: the chain is broken"))
    });
    let mut read = Box::pin(read.buffered(PARALLEL));
    let mut table = Table::new(&[
        ">snapshot",
        "created",
        ">partitions",
        ">objects",
        ">bytes",
        ">lagging",
        ">open transactions",
        "cluster state",
        "signed",
    ]);
    let (mut out, mut verdict) = (std::io::stdout().lock(), Verdict::Clean);
    while let Some(snapshot) = read.try_next().await? {
        let record = &snapshot.record;
        let (signature, holds) = signed(record, trusted);
        if !holds {
            verdict = Verdict::Findings;
        }
        if args.json {
            writeln!(out, "{}", described(&snapshot, signature))?;
            continue;
        }
        let root = record.root.as_ref();
        let count = |f: fn(&varve_archive::record::node::NodeRef) -> u64| grouped(root.map_or(0, f));
        table.row(vec![
            record.sequence.to_string(),
            time(record.created_ms).split_once(" (").map_or_else(String::new, |(text, _)| text.to_owned()),
            count(|r| r.partitions),
            count(|r| r.objects),
            count(|r| r.object_bytes),
            count(|r| r.lagging),
            count(|r| r.open_transactions),
            match (record.document(CLUSTER_STATE), record.document(EarlierState::DOCUMENT)) {
                (Some(_), Some(_)) => "earlier",
                (Some(_), None) => "yes",
                (None, _) => "no",
            }
            .to_owned(),
            signature.to_owned(),
        ]);
    }
    if !args.json {
        table.print(&mut out)?;
    }
    Ok(verdict)
}

fn described(snapshot: &Snapshot, signature: &str) -> Value {
    let record = &snapshot.record;
    let root = record.root.as_ref();
    json!({
        "type": "snapshot",
        "sequence": record.sequence,
        "created_ms": record.created_ms,
        "hash": snapshot.hash.to_string(),
        "previous": record.previous.map(|p| p.hash.to_string()),
        "root": root.map(|r| r.hash.to_string()),
        "partitions": root.map_or(0, |r| r.partitions),
        "objects": root.map_or(0, |r| r.objects),
        "bytes": root.map_or(0, |r| r.object_bytes),
        "lagging": root.map_or(0, |r| r.lagging),
        "open_transactions": root.map_or(0, |r| r.open_transactions),
        "is_cluster_state_earlier": record.document(EarlierState::DOCUMENT).is_some(),
        "cluster_state_bytes": record.document(CLUSTER_STATE).map(|d| d.bytes),
        "writer": record.writer,
        "signed": signature,
        "public_key": record.signature.as_ref().map(|s| &s.public_key),
    })
}

async fn detail(archive: &Archive, snapshot: &Snapshot, json: bool, trusted: &[[u8; 32]]) -> Result<Verdict> {
    let record = &snapshot.record;
    let (signature, holds) = signed(record, trusted);
    let names = topics(archive).await?;
    let name = |id| names.iter().find(|t| t.id == id).map_or_else(|| format!("{id}"), |t| t.name());
    let state = match record.document(CLUSTER_STATE) {
        Some(document) => summary(&archive.document(document).await?),
        None => json!(null),
    };
    let (mut lagging, mut open, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut walk = archive.partitions(record.root.as_ref());
    while let Some(partition) = walk.next().await? {
        let place = json!({"topic": name(partition.topic_id), "partition": partition.partition});
        if let Some(log_end) = partition.log_end_offset {
            let mut line = place.clone();
            line["end_offset"] = partition.end().into();
            line["log_end_offset"] = log_end.into();
            lagging.push(line);
        }
        if let Some(problem) = &partition.problem {
            let mut line = place.clone();
            line["problem"] = problem.as_str().into();
            problems.push(line);
        }
        for transaction in &partition.open_transactions {
            let mut line = place.clone();
            line["producer_id"] = transaction.producer_id.into();
            line["producer_epoch"] = transaction.producer_epoch.into();
            line["first_offset"] = transaction.first_offset.into();
            open.push(line);
        }
    }
    let mut out = std::io::stdout().lock();
    let verdict = if holds { Verdict::Clean } else { Verdict::Findings };
    if json {
        let mut line = described(snapshot, signature);
        line["lagging_partitions"] = lagging.into();
        line["problems"] = problems.into();
        line["open"] = open.into();
        line["cluster_state"] = state;
        writeln!(out, "{line}")?;
        return Ok(verdict);
    }
    let root = record.root.as_ref();
    let key = record.signature.as_ref().map_or_else(String::new, |s| format!(" (key {})", s.public_key));
    writeln!(out, "snapshot {} of {}, by {}", record.sequence, time(record.created_ms), record.writer)?;
    writeln!(out, "hash        {}", snapshot.hash)?;
    writeln!(
        out,
        "previous    {}",
        record.previous.map_or_else(|| "none".to_owned(), |p| p.hash.to_string())
    )?;
    writeln!(out, "root        {}", root.map_or_else(|| "none".to_owned(), |r| r.hash.to_string()))?;
    writeln!(out, "signed      {signature}{key}")?;
    let counts = root.map_or([0; 3], |r| [r.partitions, r.objects, r.object_bytes]).map(grouped);
    writeln!(out, "holds       {} partitions, {} objects, {} bytes", counts[0], counts[1], counts[2])?;
    for line in &lagging {
        let (topic, partition) = (&line["topic"], &line["partition"]);
        let ends = (&line["end_offset"], &line["log_end_offset"]);
        writeln!(out, "lagging     {topic}:{partition} ends at {}, the log at {}", ends.0, ends.1)?;
    }
    for line in &problems {
        let (topic, partition, problem) = (&line["topic"], &line["partition"], &line["problem"]);
        writeln!(out, "problem     {topic}:{partition}: {problem}")?;
    }
    for line in &open {
        let (topic, partition) = (&line["topic"], &line["partition"]);
        let of = (&line["first_offset"], &line["producer_id"], &line["producer_epoch"]);
        let text = format!("{topic}:{partition} from {}, producer {} epoch {}", of.0, of.1, of.2);
        writeln!(out, "open        {text}")?;
    }
    match state.as_object() {
        None => writeln!(out, "cluster     no state of the cluster")?,
        Some(members) => {
            for (name, value) in members {
                if let Value::Array(missing) = value {
                    for one in missing {
                        let told = |name: &str| one[name].as_str().unwrap_or_default();
                        writeln!(out, "cluster     not in it: {}: {}", told("what"), told("error"))?;
                    }
                    continue;
                }
                writeln!(
                    out,
                    "cluster     {name}: {}",
                    value.as_str().map_or(value.to_string(), str::to_owned)
                )?;
            }
        }
    }
    Ok(verdict)
}

/// Of the document about the cluster: how many of each kind, and what is short enough to be shown.
fn summary(document: &[u8]) -> Value {
    let Ok(Value::Object(members)) = serde_json::from_slice(document) else {
        return json!({"document": "not readable"});
    };
    let short = members.into_iter().filter(|(name, _)| !name.starts_with("varve_")).map(|(name, value)| {
        let value = match value {
            // What could not be read is said in full.
            Value::Array(list) if name == "missing" => Value::Array(list),
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            other => other,
        };
        (name, value)
    });
    Value::Object(short.collect())
}
