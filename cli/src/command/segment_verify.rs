//! `varve segment verify URL`

use std::io::Write;

use serde_json::json;

use crate::args::VerifyArgs;
use crate::object::SegmentObject;
use crate::output::grouped;
use crate::verify::{Report, verify};
use crate::{Verdict, location, progress};

pub(crate) async fn run(args: VerifyArgs) -> anyhow::Result<Verdict> {
    let (store, key) = location::open_segment(&args.segment).await?;
    let keys = args.segment.keys.open(&store)?;
    let checked = async {
        let object = SegmentObject::open(&store, &key, keys.as_ref()).await?;
        let total = object.footer.extents.iter().map(|e| e.plain_bytes).sum();
        let bar = progress::bytes("verifying", total);
        let report = verify(&object, &bar).await;
        bar.finish_and_clear();
        report
    };
    let report = match checked.await {
        Ok(report) => report,
        // Damage is what was asked for: a finding, not a failure.
        Err(e) if e.is_corruption() => Report { findings: vec![e.to_string()], ..Report::default() },
        Err(e) => return Err(e.into()),
    };
    let ok = report.findings.is_empty();
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut line = json!(report);
        line["object"] = args.segment.url.as_str().into();
        line["ok"] = ok.into();
        writeln!(out, "{line}")?;
    } else {
        report.findings.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
        let (batches, records) = (grouped(report.batches), grouped(report.records));
        let verdict = if ok { "ok" } else { "NOT OK" };
        let log_bytes = grouped(report.log_bytes);
        writeln!(out, "{verdict}: {log_bytes} bytes of log, {batches} batches, {records} records checked")?;
    }
    Ok(if ok { Verdict::Clean } else { Verdict::Findings })
}
