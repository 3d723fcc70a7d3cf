//! What encryption costs: our own work with it against our own work without.

use anyhow::Result;
use varve_tests::Scratch;

use crate::copies::Copies;
use crate::measure::Pairs;
use crate::reads::Fresh;
use crate::segment::Source;
use crate::stage::{Place, Stage};
use crate::tier::Args;

pub(crate) fn run(args: &Args, place: &Place, source: &Source) -> Result<()> {
    let ring = Scratch::new("bench-keys")?;
    let file = ring.path().join("ring.json");
    std::fs::write(&file, r#"{"active":"k","keys":{"k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}"#)?;
    let sealing = [
        ("encryption.enabled", "true".to_owned()),
        ("encryption.key.ring.file", file.to_string_lossy().into_owned()),
    ];
    copy(args, place, source, &sealing)?;
    read(args, place, source, &sealing)
}

fn copy(args: &Args, place: &Place, source: &Source, sealing: &[(&str, String)]) -> Result<()> {
    let name = "copy, encrypted (limit: ours, plain)";
    if !args.wants(name) {
        return Ok(());
    }
    let mut sealed = Copies::new(Stage::open(place, sealing)?, source, 2_000_000);
    let mut plain = Copies::new(Stage::open(place, &[])?, source, 2_500_000);
    Pairs::run(args.runs, source.bytes, || sealed.next(), || plain.next())?.print(name);
    sealed.delete_last()?;
    plain.delete_last()
}

fn read(args: &Args, place: &Place, source: &Source, sealing: &[(&str, String)]) -> Result<()> {
    let name = "cold sequential read, encrypted (limit: ours, plain)";
    if !args.wants(name) {
        return Ok(());
    }
    let sealed = Fresh::by(place, source, Stage::open(place, sealing)?, 3_000_000)?;
    let plain = Fresh::by(place, source, Stage::open(place, &[])?, 4_000_000)?;
    let (of_sealed, of_plain) = (Stage::open(place, sealing)?, Stage::open(place, &[])?);
    let bytes = source.bytes;
    let ours = || sealed.sample(true, |metadata| of_sealed.read(metadata, 0, bytes));
    let limit = || plain.sample(true, |metadata| of_plain.read(metadata, 0, bytes));
    Pairs::run(args.runs, bytes, ours, limit)?.print(name);
    Ok(())
}
