//! `varve store check URL`

use std::io::Write;

use serde_json::json;
use varve_store::conformance::{self, Outcome};

use crate::args::CheckArgs;
use crate::{Verdict, location, progress};

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<Verdict> {
    let store = location::open_store(&args.url, &args.store.settings()?).await?;
    // One call that must work before thirty promises are tried: a wrong key shows here, once.
    store.list("", None, 1).await?;
    let scratch = format!("varve-check-{}/", uuid::Uuid::new_v4());
    let spinner = progress::unknown(&format!("checking {} under {scratch}", store.url()));
    let results = conformance::run(&store, &scratch).await;
    spinner.finish_and_clear();
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    for result in &results {
        failed += usize::from(result.outcome == Outcome::Failed);
        if args.json {
            let line = json!({
                "name": result.name,
                "promise": result.promise,
                "ok": result.outcome == Outcome::Passed,
                "detail": result.detail,
                "duration_ms": result.duration.as_millis() as u64,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{result}")?;
        }
    }
    if !args.json {
        writeln!(out, "{} of {} promises kept by {}", results.len() - failed, results.len(), store.url())?;
    }
    Ok(if failed == 0 { Verdict::Clean } else { Verdict::Findings })
}
