//! `varve segment extract URL`
//!
//! Each file is written beside its name, synced and then linked to it, which never replaces anything. A
//! crash leaves files with the ending `.partial`, and whole files under their names; nothing in between.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use varve_format::{ExtentKind, Footer};

use crate::args::ExtractArgs;
use crate::object::SegmentObject;
use crate::output::grouped;
use crate::{Verdict, location, progress};

pub(crate) async fn run(args: ExtractArgs) -> Result<Verdict> {
    let (store, key) = location::open_segment(&args.segment).await?;
    let keys = args.segment.keys.open(&store)?;
    let object = SegmentObject::open(&store, &key, keys.as_ref()).await?;
    fs::create_dir_all(&args.into).with_context(|| args.into.display().to_string())?;
    let plan = plan(&object.footer, &args.into)?;
    for file in &plan {
        if file.target.symlink_metadata().is_ok() {
            bail!("{} exists: nothing was written", file.target.display());
        }
    }
    let total = object.footer.extents.iter().map(|e| e.plain_bytes).sum();
    let bar = progress::bytes("extracting", total);
    for file in &plan {
        let partial = partial(&file.target);
        let written = write(&object, file, &partial, &bar).await;
        if written.is_err() {
            // What is half written is of no use; that it can't be removed doesn't matter more.
            let _ = fs::remove_file(&partial);
        }
        written.with_context(|| file.target.display().to_string())?;
    }
    for file in &plan {
        publish(&partial(&file.target), &file.target)?;
    }
    File::open(&args.into)?.sync_all()?;
    bar.finish_and_clear();
    report(&plan, args.json)?;
    Ok(Verdict::Clean)
}

struct Planned {
    target: PathBuf,
    extents: std::ops::Range<usize>,
    size_bytes: u64,
}

/// Files as a broker names them. A producer snapshot is named after the offset behind the segment.
fn plan(footer: &Footer, into: &Path) -> Result<Vec<Planned>> {
    let base = footer.info.base_offset;
    let next = footer.info.last_offset.checked_add(1).context("the last offset has none behind it")?;
    let chunks = footer.chunks().len();
    let log = Planned {
        target: into.join(format!("{base:020}.log")),
        extents: 0..chunks,
        size_bytes: footer.log_bytes,
    };
    let sections = footer.extents.iter().enumerate().skip(chunks).filter_map(|(number, extent)| {
        let name = match extent.kind {
            // What this build does not know is no file of the broker's that it could name.
            ExtentKind::Log | ExtentKind::Unknown(_) => return None,
            ExtentKind::OffsetIndex => format!("{base:020}.index"),
            ExtentKind::TimeIndex => format!("{base:020}.timeindex"),
            ExtentKind::TransactionIndex => format!("{base:020}.txnindex"),
            ExtentKind::ProducerSnapshot => format!("{next:020}.snapshot"),
            ExtentKind::LeaderEpochs => "leader-epoch-checkpoint".to_owned(),
        };
        let extents = number..number + 1;
        Some(Planned { target: into.join(name), extents, size_bytes: extent.plain_bytes })
    });
    Ok([log].into_iter().chain(sections).collect())
}

fn partial(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

async fn write(
    object: &SegmentObject,
    file: &Planned,
    partial: &Path,
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    let mut out = File::create(partial)?;
    let reading = object.read(file.extents.clone(), |_, plain| {
        out.write_all(plain)?;
        bar.inc(plain.len() as u64);
        Ok(())
    });
    reading.await?;
    out.sync_all()?;
    Ok(())
}

/// A link fails where the name exists, unlike a rename.
fn publish(partial: &Path, target: &Path) -> Result<()> {
    fs::hard_link(partial, target).with_context(|| format!("naming {}", target.display()))?;
    fs::remove_file(partial).with_context(|| format!("removing {}", partial.display()))
}

fn report(plan: &[Planned], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let files: Vec<_> = plan
            .iter()
            .map(|f| json!({ "file": f.target.display().to_string(), "size_bytes": f.size_bytes }))
            .collect();
        writeln!(out, "{}", json!({ "files": files }))?;
    } else {
        for file in plan {
            writeln!(out, "{:>15}  {}", grouped(file.size_bytes), file.target.display())?;
        }
    }
    Ok(())
}
