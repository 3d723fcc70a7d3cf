//! Copies and reads of the tier, scenario by scenario.

use anyhow::Result;
use varve_tests::{Scratch, end_servers};

use crate::measure::Pairs;
use crate::segment::{Data, Source};
use crate::stage::Place;
use crate::{copies, reads, sealed};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// file, s3, delay (S3 with 30 ms on each answer), gcs, azure, or all
    #[arg(long, default_value = "all")]
    pub(crate) store: String,
    /// Sizes of segments, in MiB
    #[arg(long, value_delimiter = ',', default_value = "256,1024")]
    pub(crate) sizes: Vec<u64>,
    /// Counted runs of each
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Only what has this in its name: "copy", "read", "cold sequential" …
    #[arg(long, default_value = "")]
    pub(crate) only: String,
}

impl Args {
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = Scratch::new("bench-source")?;
    for store in ["file", "s3", "delay", "gcs", "azure"] {
        if args.store != "all" && args.store != store {
            continue;
        }
        for mib in &args.sizes {
            let place = match store {
                "file" => Place::file()?,
                "s3" => Place::s3(0)?,
                "gcs" => Place::gcs()?,
                "azure" => Place::azure()?,
                _ => Place::s3(30)?,
            };
            println!("\n{} store, segments of {mib} MiB, median of {} runs", place.name(), args.runs);
            Pairs::header();
            let plain = Source::make(scratch.path(), Data::Plain, mib << 20, 1)?;
            copies::run(args, &place, &plain)?;
            if args.wants(copies::DENSE) {
                copies::dense(args, &place, &Source::make(scratch.path(), Data::Zstd, mib << 20, 2)?)?;
            }
            reads::run(args, &place, &plain)?;
            sealed::run(args, &place, &plain)?;
            drop(place);
            end_servers();
        }
    }
    Ok(())
}

/// How many copies, or reads, run at once where they do.
pub(crate) const PARALLEL: u32 = 4;
