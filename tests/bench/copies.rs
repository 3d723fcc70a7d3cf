//! Copies of one segment, under each configuration, and several at once.

use anyhow::Result;
use varve_rsm::wire::SegmentMetadata;

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
    let mut copies = Copies::new(Stage::open(place, &config)?, source, 1);
    let limit = || Sample::of(|| place.lean_copy(&source.log, 0));
    Pairs::run(args.runs, source.bytes, || copies.next(), limit)?.print(name);
    let before = copies.stage.counts.calls();
    copies.stage.copy(source.request(copies.number, None))?;
    println!("{:<52} {} requests for one copy", "", copies.stage.counts.calls() - before);
    Ok(())
}

/// Copies one after the other. The one before is deleted first, unmeasured: the disk stays as full as it was.
pub(crate) struct Copies<'a> {
    stage: Stage,
    source: &'a Source,
    number: u32,
    last: Option<SegmentMetadata>,
}

impl<'a> Copies<'a> {
    pub(crate) fn new(stage: Stage, source: &'a Source, first_number: u32) -> Self {
        Self { stage, source, number: first_number, last: None }
    }

    pub(crate) fn next(&mut self) -> Result<Sample> {
        self.delete_last()?;
        let request = self.source.request(self.number, None);
        self.number += 1;
        Sample::of(|| {
            self.last = Some(self.stage.copy(request)?);
            Ok(())
        })
    }

    pub(crate) fn delete_last(&mut self) -> Result<()> {
        self.last.take().map_or(Ok(()), |metadata| self.stage.delete(&metadata))
    }
}
