//! `varve verify URL`

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::json;
use varve_archive::{Archive, Depth, Finding, FindingKind, Progress, Report, VerifyOptions};

use crate::archive::{KeyCache, open, trusted_keys};
use crate::args::archive::{ArchiveVerifyArgs, DepthArg};
use crate::output::grouped;
use crate::{Verdict, progress};

pub(crate) async fn run(args: ArchiveVerifyArgs) -> Result<Verdict> {
    let trusted = trusted_keys(args.trust.as_deref())?;
    let archive = open(&args.archive).await?;
    let keys = KeyCache::new(&archive, args.keys.open(&archive.shelf().shared())?);
    let sequence = match args.snapshot {
        Some(sequence) => sequence,
        None => archive.latest_snapshot(0).await?.map_or(0, |s| s.record.sequence),
    };
    // A damaged record is a finding, and is told as such below; none at all is not.
    if let Ok(None) = archive.snapshot(sequence.max(1)).await {
        match args.snapshot {
            Some(sequence) => bail!("the archive has no snapshot {sequence}"),
            None => bail!("the archive has no snapshot yet: there is nothing to verify against"),
        }
    }
    let data_keys = |topic_id, info: &varve_format::EncryptionInfo| keys.now(topic_id, info);
    let options = VerifyOptions {
        depth: depth(args.depth),
        sample_ppm: args.sample,
        seed: args.seed,
        parallel: args.parallel.map_or_else(|| at_once(&archive), usize::from),
        since: args.since,
        trusted: &trusted,
        data_keys: keys.has_keys().then_some(&data_keys),
    };
    let bar = progress::count("verifying objects", 0);
    let shown = |p: Progress| {
        let expected = u128::from(p.objects_total) * u128::from(args.sample) / 1_000_000;
        bar.set_length(u64::try_from(expected).unwrap_or(u64::MAX).max(p.objects));
        bar.set_position(p.objects);
    };
    let report = archive.verify(sequence, &options, &shown).await;
    bar.finish_and_clear();
    let report = report?;
    print(&args, sequence, &report)?;
    Ok(if report.is_sound() { Verdict::Clean } else { Verdict::Findings })
}

/// Where nothing is waited for, more than the cores only drives them out of their caches.
fn at_once(archive: &Archive) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if archive.shelf().store().url().starts_with("file:") { cores } else { VerifyOptions::default().parallel }
}

fn depth(arg: DepthArg) -> Depth {
    match arg {
        DepthArg::Listed => Depth::Listed,
        DepthArg::Footers => Depth::Footers,
        DepthArg::Contents => Depth::Contents,
    }
}

fn line_of(finding: &Finding) -> serde_json::Value {
    let (object, what) = (&finding.object, &finding.what);
    match &finding.kind {
        FindingKind::Broken => json!({"type": "finding", "kind": "broken", "object": object, "what": what}),
        FindingKind::Displaced(displaced) => json!({
            "type": "finding",
            "kind": if displaced.hidden { "hidden" } else { "overwritten" },
            "object": object,
            "what": what,
            "version": displaced.version,
            "current_version": displaced.current,
        }),
    }
}

fn print(args: &ArchiveVerifyArgs, sequence: u64, report: &Report) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let p = &report.progress;
    for finding in &report.findings {
        if args.json {
            writeln!(out, "{}", line_of(finding))?;
        } else if finding.what.contains(&finding.object) {
            writeln!(out, "{}", finding.what)?;
        } else {
            writeln!(out, "{}: {}", finding.object, finding.what)?;
        }
    }
    if args.json {
        let line = json!({
            "type": "summary",
            "ok": report.is_sound(),
            "snapshot": sequence,
            "depth": format!("{:?}", args.depth).to_lowercase(),
            "sample_ppm": args.sample,
            "seed": args.seed,
            "snapshots": p.snapshots,
            "partitions": p.partitions,
            "objects": p.objects,
            "objects_total": p.objects_total,
            "bytes": p.bytes,
            "pruned": report.pruned,
            "sealed": report.sealed,
            "versions": report.versions,
            "findings": p.findings,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let hidden = p.findings.saturating_sub(report.findings.len() as u64);
    if hidden > 0 {
        writeln!(out, "and {} findings more", grouped(hidden))?;
    }
    if p.objects == 0 && p.objects_total > 0 {
        writeln!(
            out,
            "of {} objects none was drawn: take a larger --sample, or another --seed",
            grouped(p.objects_total)
        )?;
    }
    let verdict =
        if report.is_sound() { "ok".to_owned() } else { format!("{} FINDINGS", grouped(p.findings)) };
    let depth = match args.depth {
        DepthArg::Listed => "by their sizes",
        DepthArg::Footers => "by their footers",
        DepthArg::Contents => "byte by byte",
    };
    writeln!(
        out,
        "{verdict}: snapshot {sequence} and {} before it, {} partitions, {} of {} objects of {} bytes checked {depth}",
        grouped(p.snapshots.saturating_sub(1)),
        grouped(p.partitions),
        grouped(p.objects),
        grouped(p.objects_total),
        grouped(p.bytes)
    )?;
    if report.pruned > 0 {
        writeln!(out, "{} objects were pruned, as is declared", grouped(report.pruned))?;
    }
    if report.sealed > 0 {
        let sealed = grouped(report.sealed);
        writeln!(out, "{sealed} encrypted objects: checksums alone, for want of a key (--key-ring)")?;
    }
    Ok(())
}
