//! `varve man`

use clap::CommandFactory;

use crate::Verdict;
use crate::args::{Cli, ManArgs};

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<Verdict> {
    match &args.into {
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
        }
    }
    Ok(Verdict::Clean)
}
