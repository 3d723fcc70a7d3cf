//! `varve completion SHELL`

use clap::CommandFactory;

use crate::Verdict;
use crate::args::{Cli, CompletionArgs};

pub(crate) fn run(args: &CompletionArgs) -> anyhow::Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "varve", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(Verdict::Clean)
}
