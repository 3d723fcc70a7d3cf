//! `varve keys rewrap URL --to KEK-URL`

use std::io::Write;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use serde_json::json;
use varve_format::KeyRecordName;
use varve_keys::{DataKeys, Error, KeyUrl, Kind, Rewrapped};

use crate::args::keys::RewrapArgs;
use crate::keys::{KeyPlace, Topics, Wanted, counted, names};
use crate::output::grouped;
use crate::{Verdict, progress};

const PARALLEL: usize = 4;

pub(crate) async fn run(args: RewrapArgs) -> Result<Verdict> {
    let to = KeyUrl::configured(&args.to)?;
    let place = KeyPlace::open(&args.at).await?;
    let keys = args.keys.open_with(&place.store, std::slice::from_ref(&to))?;
    let keys = keys.context("no key is given")?;
    keys.check_ring(&to).await?;
    let wanted = Wanted::new(&args.topics)?;
    // Names are needed for patterns alone.
    let topics = if args.topics.is_empty() { Topics::new() } else { place.topics().await? };
    let is_wanted = |name: &KeyRecordName| {
        wanted.has_record(name, &topics)
            && args.cluster.as_ref().is_none_or(|cluster| *cluster == name.cluster_id)
            && (args.periods.is_empty() || args.periods.contains(&name.period))
    };
    let all: Vec<_> = names(&keys, |name| !name.is_tombstone && is_wanted(name)).await?;
    let what = if args.dry_run { "reading key records" } else { "wrapping data keys" };
    let bar = progress::count(what, all.len() as u64);
    let (keys, to, args) = (&keys, &to, &args);
    let work = stream::iter(all).map(|name| async move { (one(keys, &name, to, args).await, name) });
    let mut work = work.buffer_unordered(PARALLEL);
    let mut sums = Sums::default();
    while let Some((outcome, name)) = work.next().await {
        bar.inc(1);
        sums.add(&outcome);
        bar.suspend(|| tell(&name, &outcome, args.json))?;
    }
    bar.finish_and_clear();
    sums.report(to, args, place.store.url())?;
    Ok(if sums.failed == 0 { Verdict::Clean } else { Verdict::Findings })
}

enum Outcome {
    Done,
    /// With --dry-run.
    Would {
        wrapped_by: String,
    },
    Already,
    /// Destroyed, or gone since it was listed.
    Gone(Error),
    Failed(Error),
}

#[derive(Default)]
struct Sums {
    done: u64,
    already: u64,
    gone: u64,
    failed: u64,
}

async fn one(keys: &DataKeys, name: &KeyRecordName, to: &KeyUrl, args: &RewrapArgs) -> Outcome {
    let outcome = match args.dry_run {
        true => would(keys, name, to, args).await,
        false => keys.rewrap(name, to, args.again).await.map(|rewrapped| match rewrapped {
            Rewrapped::Done => Outcome::Done,
            Rewrapped::Already => Outcome::Already,
        }),
    };
    match outcome {
        Ok(outcome) => outcome,
        Err(e) if matches!(e.kind, Kind::Destroyed) => Outcome::Gone(e),
        // A record, not the key that wraps it.
        Err(e) if e.kind == Kind::NotFound && e.operation == "read" => Outcome::Gone(e),
        Err(e) => Outcome::Failed(e),
    }
}

/// By names alone: which version of the key wrapped it is not asked.
async fn would(
    keys: &DataKeys,
    name: &KeyRecordName,
    to: &KeyUrl,
    args: &RewrapArgs,
) -> Result<Outcome, Error> {
    let record = keys.record(name).await?;
    let wrapped_by = KeyUrl::parse(&record.wrapping.wrapped_by)?;
    let is_same = record.cluster_id.is_some() && to.covers(&wrapped_by) == Some(true);
    Ok(match is_same && !args.again {
        true => Outcome::Already,
        false => Outcome::Would { wrapped_by: wrapped_by.as_str().to_owned() },
    })
}

fn tell(name: &KeyRecordName, outcome: &Outcome, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (word, detail) = match outcome {
        Outcome::Already => return Ok(()),
        Outcome::Done => ("done", String::new()),
        Outcome::Would { wrapped_by } => ("would", format!("wrapped by {wrapped_by}")),
        Outcome::Gone(e) => ("gone", e.to_string()),
        Outcome::Failed(e) => ("failed", e.to_string()),
    };
    if json {
        let line = json!({"type": "key", "record": name.record(), "outcome": word, "detail": detail});
        writeln!(out, "{line}")?;
    } else if !matches!(outcome, Outcome::Done) {
        writeln!(out, "{word}: {}: {detail}", name.record())?;
    }
    Ok(())
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Done | Outcome::Would { .. } => &mut self.done,
            Outcome::Already => &mut self.already,
            Outcome::Gone(_) => &mut self.gone,
            Outcome::Failed(_) => &mut self.failed,
        } += 1;
    }

    fn report(&self, to: &KeyUrl, args: &RewrapArgs, store: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let to = to.as_str();
        if args.json {
            let line = json!({
                "type": "summary",
                "ok": self.failed == 0,
                "store": store,
                "to": to,
                "dry_run": args.dry_run,
                "done": self.done,
                "already": self.already,
                "gone": self.gone,
                "failed": self.failed,
            });
            writeln!(out, "{line}")?;
            return Ok(());
        }
        let done = if args.dry_run { "would be wrapped anew" } else { "wrapped anew" };
        writeln!(
            out,
            "{} {done} by {to}, {} were already, {} destroyed or gone, {} failed",
            counted(self.done, "data key"),
            grouped(self.already),
            grouped(self.gone),
            grouped(self.failed)
        )?;
        if self.failed > 0 {
            writeln!(out, "what failed is as it was: repeat this when its cause is mended")?;
        } else if self.done > 0 && !args.dry_run {
            writeln!(
                out,
                "nothing is taken back from who opened a data key before, or has a copy of its former record"
            )?;
        }
        Ok(())
    }
}
