//! Copies of one segment, under each configuration, and several at once.

use anyhow::Result;
use varve_tests::Scratch;

use crate::measure::{Pairs, Sample, at_once};
use crate::segment::Source;
use crate::stage::{Place, Stage};
use crate::tier::{Args, PARALLEL};

/// Its data is of another kind.
pub(crate) const DENSE: &str = "copy, zstd'd data, compression=auto";

pub(crate) fn dense(args: &Args, place: &Place, source: &Source) -> Result<()> {
    copy(args, place, source, DENSE, &[("compression", "auto")])
}

pub(crate) fn run(args: &Args, place: &Place, source: &Source) -> Result<()> {
    copy(args, place, source, "copy, digest=none", &[("digest", "none")])?;
    copy(args, place, source, "copy, digest=blake3", &[])?;
    copy(args, place, source, "copy, compression=zstd", &[("compression", "zstd")])?;
    let ring = Scratch::new("bench-keys")?;
    let file = ring.path().join("ring.json");
    std::fs::write(&file, r#"{"active":"k","keys":{"k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}"#)?;
    let encrypted =
        [("encryption.enabled", "true"), ("encryption.key.ring.file", file.to_str().unwrap_or_default())];
    copy(args, place, source, "copy, encrypted", &encrypted)?;
    parallel_copies(args, place, source)
}

fn parallel_copies(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let name = format!("{PARALLEL} copies at once, digest=blake3");
    if !args.wants(&name) {
        return Ok(());
    }
    let stage = Stage::open(place, &[])?;
    let pairs = Pairs::run(
        args.runs,
        source.bytes * u64::from(PARALLEL),
        || {
            let mut copied = Vec::new();
            let sample = Sample::of(|| {
                copied = at_once(PARALLEL, |n| stage.copy(source.request(n, None)))?;
                Ok(())
            })?;
            copied.iter().try_for_each(|metadata| stage.delete(metadata))?;
            Ok(sample)
        },
        || Sample::of(|| at_once(PARALLEL, |n| place.lean_copy(&source.log, n)).map(drop)),
    )?;
    pairs.print(&name);
    Ok(())
}

fn copy(args: &Args, place: &Place, source: &Source, name: &str, config: &[(&str, &str)]) -> Result<()> {
    if !args.wants(name) {
        return Ok(());
    }
    let config: Vec<_> = config.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let stage = Stage::open(place, &config)?;
    let mut attempt = 0;
    let mut last = None;
    let pairs = Pairs::run(
        args.runs,
        source.bytes,
        || {
            // The one before is deleted outside the measured time: the disk stays as full as it was.
            if let Some(metadata) = last.take() {
                stage.delete(&metadata)?;
            }
            attempt += 1;
            let request = source.request(attempt, None);
            Sample::of(|| {
                last = Some(stage.copy(request)?);
                Ok(())
            })
        },
        || Sample::of(|| place.lean_copy(&source.log, 0)),
    )?;
    pairs.print(name);
    let before = stage.counts.calls();
    stage.copy(source.request(attempt + 1, None))?;
    println!("{:<52} {} requests for one copy", "", stage.counts.calls() - before);
    Ok(())
}
