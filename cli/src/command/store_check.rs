//! `varve store check URL`

use std::io::Write;

use serde_json::json;
use varve_store::conformance::{self, Outcome, Purpose};

use crate::args::{CheckArgs, CheckFor};
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
    let purpose = match args.purpose {
        CheckFor::Tier => Purpose::Tier,
        CheckFor::EncryptedTier => Purpose::EncryptedTier,
        CheckFor::Archive => Purpose::Archive,
    };
    let (mut failed, mut spared) = (0, 0);
    for result in &results {
        let is_broken = result.outcome == Outcome::Failed;
        let remark = result.remark(purpose).filter(|_| is_broken);
        failed += usize::from(is_broken && remark.is_none());
        spared += usize::from(remark.is_some());
        if args.json {
            let line = json!({
                "name": result.name,
                "promise": result.promise,
                "ok": result.outcome == Outcome::Passed,
                "needed": remark.is_none(),
                "detail": result.detail,
                "duration_ms": result.duration.as_millis() as u64,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{result}")?;
            if let Some(remark) = remark {
                writeln!(out, "        Not needed here; but: {remark}")?;
            }
        }
    }
    if !args.json {
        let kept = results.len() - failed - spared;
        writeln!(out, "{kept} of {} promises kept by {}", results.len(), store.url())?;
        if spared > 0 {
            writeln!(out, "{spared} of those that are broken are not needed for this")?;
        }
    }
    Ok(if failed == 0 { Verdict::Clean } else { Verdict::Findings })
}
