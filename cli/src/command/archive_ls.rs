//! `varve ls URL [TOPIC[:PARTITION]]`

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use varve_archive::record::state::PartitionState;
use varve_archive::{Archive, LogReader, PieceContent};
use varve_format::Id;

use crate::Verdict;
use crate::archive::{
    BatchReader, Found, History, KeyCache, PartitionLog, Table, Topic, When, find_topic, logs, open, reason,
    split_partition, topics, warn_of_displaced,
};
use crate::args::archive::LsArgs;
use crate::output::{grouped, time};

const PARALLEL: usize = 16;
/// Gaps that a person is shown of a partition.
const GAPS_SHOWN: usize = 10;

pub(crate) async fn run(args: LsArgs) -> Result<Verdict> {
    let archive = open(&args.archive).await?;
    let outcome = list(&archive, args).await;
    warn_of_displaced(&archive).await;
    outcome
}

async fn list(archive: &Archive, args: LsArgs) -> Result<Verdict> {
    let when = When::of(archive, args.snapshot).await?;
    match &args.topic {
        None => list_topics(archive, &when, args.json).await?,
        Some(text) => {
            let (name, partition) = split_partition(text)?;
            let topic = find_topic(archive, name).await?;
            let keys = KeyCache::new(archive, args.keys.open(&archive.shelf().shared())?);
            list_partitions(archive, &when, &topic, partition, &keys, args.json).await?;
        }
    }
    Ok(Verdict::Clean)
}

/// What is summed up of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    partitions: u64,
    objects: u64,
    bytes: u64,
    offsets: u64,
    lagging: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.offsets = self.offsets.saturating_add(other.offsets);
        self.lagging += other.lagging;
    }

    /// Of one partition, up to `end`.
    fn of(state: &PartitionState, end: i64) -> Self {
        let start = state.branches.last().map_or(0, |b| if b.parent.is_some() { 0 } else { b.start_offset });
        let start = state.log_start_offset.unwrap_or(0).max(start);
        Self {
            partitions: 1,
            objects: state.branches.iter().map(|b| b.objects()).sum(),
            bytes: state.branches.iter().map(|b| b.object_bytes()).sum(),
            offsets: end.saturating_sub(start).max(0).unsigned_abs(),
            lagging: u64::from(state.lags()),
        }
    }
}

async fn list_topics(archive: &Archive, when: &When, json: bool) -> Result<()> {
    let mut sums: BTreeMap<Id, Sum> = BTreeMap::new();
    let all = topics(archive).await?;
    if when.now {
        sums = sums_now(archive, when, &all).await?;
    } else {
        let root = when.snapshot.as_ref().and_then(|s| s.record.root.as_ref());
        let mut walk = archive.partitions(root);
        while let Some(state) = walk.next().await? {
            sums.entry(state.topic_id).or_default().add(Sum::of(&state, state.end()));
        }
    }
    let snapshot = when.snapshot.as_ref().map(|s| &s.record);
    let mut out = std::io::stdout().lock();
    let mut table = Table::new(&["topic", "id", ">partitions", ">objects", ">bytes", ">offsets", ">lagging"]);
    for topic in &all {
        let sum = sums.get(&topic.id).copied().unwrap_or_default();
        if json {
            let line = json!({
                "type": "topic",
                "topic": topic.record.as_ref().map(|r| &r.topic),
                "topic_id": topic.id.to_string(),
                "cluster_id": topic.record.as_ref().map(|r| &r.cluster_id),
                "partitions": sum.partitions,
                "objects": sum.objects,
                "bytes": sum.bytes,
                "offsets": sum.offsets,
                "lagging": sum.lagging,
                "snapshot": snapshot.filter(|_| !when.now).map(|s| s.sequence),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let numbers = [sum.partitions, sum.objects, sum.bytes, sum.offsets, sum.lagging].map(grouped);
        table.row([topic.name(), topic.id.to_string()].into_iter().chain(numbers).collect());
    }
    if json {
        return Ok(());
    }
    table.print(&mut out)?;
    writeln!(out, "{}", as_of(when))?;
    Ok(())
}

/// The line below a table.
fn as_of(when: &When) -> String {
    let last = when.snapshot.as_ref().map(|s| &s.record);
    match (when.now, last) {
        (false, Some(s)) => format!("as of snapshot {} of {}", s.sequence, time(s.created_ms)),
        (_, Some(s)) => format!("as of now; the last snapshot is {} of {}", s.sequence, time(s.created_ms)),
        (_, None) => "as of now; there is no snapshot yet".to_owned(),
    }
}

/// What the last snapshot does not name is listed.
async fn sums_now(archive: &Archive, when: &When, all: &[Topic]) -> Result<BTreeMap<Id, Sum>> {
    let journal = archive.journal(|_, _| true).await?;
    let reader = archive.log_reader(when.snapshot.as_ref().map(|s| &s.record)).await?;
    let mut partitions: Vec<(Id, i32)> = journal.partitions().collect();
    for topic in all {
        let said = topic.record.as_ref().and_then(|r| r.partitions).unwrap_or(0);
        partitions.extend((0..said).map(|partition| (topic.id, partition)));
        let mut last = None;
        while let Some(partition) = archive.next_partition(topic.id, last).await? {
            partitions.push((topic.id, partition));
            last = Some(partition);
        }
    }
    partitions.sort_unstable();
    partitions.dedup();
    let (journal, reader) = (&journal, &reader);
    let sums = stream::iter(partitions).map(|(id, partition)| async move {
        let base = when.state(archive, id, partition).await?;
        let log = reader.now(id, partition, None, journal, base.as_ref()).await?;
        let of = archive.partition(id, partition);
        let known = base.as_ref().map_or(0, |s| s.branch());
        let mut sum = base.as_ref().map_or_else(Sum::default, |s| Sum::of(s, log.end_offset()));
        if base.is_none() {
            sum.partitions = 1;
            sum.offsets = log.end_offset().saturating_sub(log.start_offset()).max(0).unsigned_abs();
        }
        let newest = of.branches(known).await?.last().map(|(r, _)| r.branch);
        for branch in 0..=newest.unwrap_or(known) {
            let state = base.as_ref().and_then(|s| s.branches.iter().find(|b| b.branch == branch));
            let (objects, bytes) = of.tally(branch, state.map_or(0, |b| b.end_offset)).await?;
            sum.objects += objects;
            sum.bytes += bytes;
        }
        Ok::<_, anyhow::Error>((id, sum))
    });
    let sums: Vec<(Id, Sum)> = sums.buffer_unordered(PARALLEL).try_collect().await?;
    let mut by_topic: BTreeMap<Id, Sum> = BTreeMap::new();
    for (id, sum) in sums {
        by_topic.entry(id).or_default().add(sum);
    }
    Ok(by_topic)
}

/// What is known of one partition's history.
#[derive(Debug, Default)]
struct Partition {
    /// The first offset that is archived.
    start: Option<i64>,
    objects: u64,
    bytes: u64,
    gaps: Vec<Value>,
    gap_offsets: u64,
    pruned_offsets: u64,
    first_timestamp_ms: Option<i64>,
    last_timestamp_ms: Option<i64>,
}

async fn list_partitions(
    archive: &Archive,
    when: &When,
    topic: &Topic,
    only: Option<i32>,
    keys: &KeyCache,
    json: bool,
) -> Result<()> {
    let reader: LogReader = archive.log_reader(when.snapshot.as_ref().map(|s| &s.record)).await?;
    let all = logs(&reader, when, topic, only, None).await?;
    let mut table = Table::new(&[
        ">partition",
        ">branch",
        ">start",
        ">chain end",
        ">journal end",
        ">gaps",
        ">missing",
        ">objects",
        ">bytes",
        "first record",
        "last record",
    ]);
    let mut out = std::io::stdout().lock();
    let mut notes = Vec::new();
    for one in &all {
        let found = look(one, keys).await.with_context(|| format!("partition {}", one.partition))?;
        if json {
            writeln!(out, "{}", described(topic, when, one, &found))?;
            continue;
        }
        let shown = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), short);
        table.row(vec![
            one.partition.to_string(),
            one.log.branch().to_string(),
            found.start.map_or_else(|| "-".to_owned(), |o| o.to_string()),
            one.log.chain_end().to_string(),
            one.log.end_offset().to_string(),
            grouped(found.gaps.len() as u64),
            grouped(found.gap_offsets + found.pruned_offsets),
            grouped(found.objects),
            grouped(found.bytes),
            shown(found.first_timestamp_ms),
            shown(found.last_timestamp_ms),
        ]);
        let text = |gap: &Value| {
            let number = |name: &str| gap[name].as_i64().unwrap_or(-1);
            let reason = gap["reason"].as_str().unwrap_or("pruned").to_owned();
            format!(
                "{}: offsets {} to {}: {reason}",
                one.partition,
                number("first_offset"),
                number("last_offset")
            )
        };
        notes.extend(found.gaps.iter().take(GAPS_SHOWN).map(text));
        if found.gaps.len() > GAPS_SHOWN {
            notes.push(format!("{}: {} more", one.partition, found.gaps.len() - GAPS_SHOWN));
        }
    }
    if json {
        return Ok(());
    }
    let cluster = topic.record.as_ref().map_or("unknown", |r| r.cluster_id.as_str());
    writeln!(out, "topic {} ({}) of cluster {cluster}", topic.name(), topic.id)?;
    let states = all.iter().filter_map(|one| one.state.as_ref().filter(|_| !when.now));
    if let Some(since) = states.filter_map(|state| state.deleted_ms).min() {
        writeln!(out, "found to be deleted at {}", short(since))?;
    }
    table.print(&mut out)?;
    notes.iter().try_for_each(|note| writeln!(out, "missing in {note}"))?;
    writeln!(out, "{}", as_of(when))?;
    Ok(())
}

fn short(ms: i64) -> String {
    let text = time(ms);
    text.split_once(" (").map_or(text.as_str(), |(text, _)| text).to_owned()
}

fn described(topic: &Topic, when: &When, one: &PartitionLog, found: &Partition) -> Value {
    let stretches: Vec<Value> = one
        .log
        .stretches()
        .map(|s| json!({"branch": s.branch, "start_offset": s.start_offset, "end_offset": s.end_offset}))
        .collect();
    let state = one.state.as_ref().filter(|_| !when.now);
    json!({
        "type": "partition",
        "topic": topic.record.as_ref().map(|r| &r.topic),
        "topic_id": topic.id.to_string(),
        "partition": one.partition,
        "branch": one.log.branch(),
        "lineage": stretches,
        "start_offset": found.start,
        "chain_end_offset": one.log.chain_end(),
        "end_offset": one.log.end_offset(),
        "gaps": found.gaps,
        "gap_offsets": found.gap_offsets,
        "pruned_offsets": found.pruned_offsets,
        "objects": found.objects,
        "bytes": found.bytes,
        "first_timestamp_ms": found.first_timestamp_ms,
        "last_timestamp_ms": found.last_timestamp_ms,
        "log_start_offset": state.and_then(|s| s.log_start_offset),
        "log_end_offset": state.and_then(|s| s.log_end_offset),
        "deleted_ms": state.and_then(|s| s.deleted_ms),
        "problem": state.and_then(|s| s.problem.as_ref()),
        "open_transactions": state.map_or(0, |s| s.open_transactions.len()),
        "snapshot": when.snapshot.as_ref().filter(|_| !when.now).map(|s| s.record.sequence),
    })
}

/// Footers of the first and the last segment tell the times; of the rest, what names it is enough.
async fn look(one: &PartitionLog, keys: &KeyCache) -> Result<Partition> {
    let (log, mut found) = (&one.log, Partition::default());
    let history = History { log, keys };
    let (mut pieces, mut last) = (log.pieces(0), None);
    while let Some(piece) = pieces.next().await? {
        let offsets = piece.end_offset.saturating_sub(piece.first_offset).max(0).unsigned_abs();
        let mut absent = json!({
            "first_offset": piece.first_offset,
            "last_offset": piece.end_offset.saturating_sub(1),
        });
        if let Some(object) = piece.object() {
            found.objects += 1;
            found.bytes = found.bytes.saturating_add(object.bytes());
        }
        match &piece.content {
            PieceContent::Pruned => {
                found.pruned_offsets += offsets;
                absent["pruned"] = true.into();
                found.gaps.push(absent);
            }
            PieceContent::Gap(_) => {
                found.gap_offsets += offsets;
                let Some(mut object) = log.open(&piece).await? else { continue };
                keys.unlock(&mut object).await?;
                absent["reason"] = reason(history.gap(&object).await?.as_ref()).into();
                found.gaps.push(absent);
            }
            PieceContent::Segment(_) => {
                if found.start.is_none() {
                    found.start = Some(piece.first_offset);
                    found.first_timestamp_ms = first_timestamp(one, &piece, keys).await?;
                }
                last = Some(piece);
            }
        }
    }
    if let Some(piece) = last
        && let Some(object) = log.open(&piece).await?
    {
        found.last_timestamp_ms = Some(object.footer().info.max_timestamp_ms).filter(|ms| *ms >= 0);
    }
    Ok(found)
}

/// Of the first batch; `None` of what is sealed, and of formats that are not read.
async fn first_timestamp(
    one: &PartitionLog,
    piece: &varve_archive::Piece,
    keys: &KeyCache,
) -> Result<Option<i64>> {
    let Some(mut object) = one.log.open(piece).await? else { return Ok(None) };
    keys.unlock(&mut object).await?;
    let Ok(stream) = object.read(0, 1) else { return Ok(None) };
    match BatchReader::new(object.name(), stream).next().await? {
        Some(Found::Batch(batch)) => Ok(Some(batch.header.base_timestamp_ms).filter(|ms| *ms >= 0)),
        _ => Ok(None),
    }
}
