//! `varve config check FILE`

use std::io::Write;

use serde_json::json;
use varve_archiver::config::Config;

use crate::Verdict;
use crate::args::ConfigCheckArgs;

/// Wrong configurations can't be used, as by any other command: exit code 2.
pub(crate) fn run(args: &ConfigCheckArgs) -> anyhow::Result<Verdict> {
    let env = |name: &str| std::env::var(name).ok();
    let checked = Config::check(&args.file, &args.sets, &env);
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = match &checked {
            Ok(checked) => json!({"valid": true, "config": checked.effective}),
            Err(error) => json!({"valid": false, "flaws": error.flaws}),
        };
        writeln!(out, "{line}")?;
        checked?;
    } else {
        write!(out, "{}", checked?.effective)?;
    }
    Ok(Verdict::Clean)
}
