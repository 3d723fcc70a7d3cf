//! `varve cat URL TOPIC`

use std::io::{BufWriter, Write};
use std::ops::Range;

use anyhow::{Context, Result, bail};

use varve_archive::Archive;

use crate::Verdict;
use crate::archive::{
    Event, History, KeyCache, Outcomes, PartitionLog, Printer, When, find_topic, given_bytes, logs, open,
    warn_of_displaced,
};
use crate::args::archive::{CatArgs, Isolation};

pub(crate) async fn run(args: CatArgs) -> Result<Verdict> {
    let archive = open(&args.archive).await?;
    let outcome = cat(&archive, args).await;
    warn_of_displaced(&archive).await;
    outcome
}

async fn cat(archive: &Archive, args: CatArgs) -> Result<Verdict> {
    let keys = KeyCache::new(archive, args.keys.open(&archive.shelf().shared())?);
    let topic = find_topic(archive, &args.topic).await?;
    let when = When::of(archive, Some(args.snapshot)).await?;
    let reader = archive.log_reader(when.snapshot.as_ref().map(|s| &s.record)).await?;
    let all = logs(&reader, &when, &topic, args.partition, args.branch).await?;
    let offsets = args.offset.clone().unwrap_or(0..i64::MAX);
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    if args.raw_batches {
        for one in &all {
            raw(&History { log: &one.log, keys: &keys }, offsets.clone(), &mut out).await?;
        }
        out.flush()?;
        return Ok(Verdict::Clean);
    }
    let mut printer = Printer {
        out,
        format: args.format,
        key: args.key.as_deref().map(given_bytes).transpose()?,
        times: args.time.clone(),
        left: args.max.unwrap_or(u64::MAX),
        markers: args.isolation == Isolation::ReadUncommitted && args.key.is_none(),
        old_sets: 0,
    };
    for one in &all {
        if printer.left == 0 {
            break;
        }
        let printed = partition(&args, one, &keys, offsets.clone(), &mut printer).await;
        printed.with_context(|| format!("partition {}", one.partition))?;
    }
    printer.out.flush()?;
    if printer.old_sets > 0 {
        let sets = printer.old_sets;
        eprintln!("note: {sets} message sets of formats 0 and 1 were passed over: --raw-batches gives them");
    }
    Ok(Verdict::Clean)
}

async fn partition(
    args: &CatArgs,
    one: &PartitionLog,
    keys: &KeyCache,
    mut offsets: Range<i64>,
    printer: &mut Printer<impl Write>,
) -> Result<()> {
    let history = History { log: &one.log, keys };
    let mut outcomes = None;
    if args.isolation == Isolation::ReadCommitted {
        // Those that a snapshot names may have begun before the range.
        let open = one.state.iter().filter(|s| s.end() == one.log.end_offset());
        let open = open.flat_map(|s| s.open_transactions.iter().map(|t| t.first_offset));
        let read = Outcomes::read(&history, offsets.clone(), open).await?;
        if let Some(undecided) = read.undecided() {
            offsets.end = offsets.end.min(undecided);
        }
        outcomes = Some(read);
    }
    if offsets.is_empty() {
        return Ok(());
    }
    let since_ms = args.time.as_ref().map(|times| times.start).filter(|ms| *ms > 0);
    let print = |event: Event| {
        match (&event, &outcomes) {
            (Event::Batch { batch, .. }, Some(outcomes)) if !outcomes.is_committed(batch) => return Ok(true),
            _ => {}
        }
        printer.event(one.partition, &event)
    };
    history.each(offsets, since_ms, print).await
}

/// Batches as they are. What is not there is said, and leaves no trace in the bytes.
async fn raw(history: &History<'_>, offsets: Range<i64>, out: &mut impl Write) -> Result<()> {
    history
        .each(offsets, None, |event| {
            match event {
                Event::Batch { batch, .. } => out.write_all(&batch.bytes)?,
                Event::OldSet(set) => bail!("a message set of format {} at byte {}", set.magic, set.position),
                Event::Gap { offsets, .. } | Event::Pruned { offsets } => {
                    eprintln!("note: offsets {} to {} are not there", offsets.start, offsets.end - 1);
                }
            }
            Ok(true)
        })
        .await
}
