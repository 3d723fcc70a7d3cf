//! Plans and outcomes of a restore, for people and for programs.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use varve_cluster::{Part, StateParts};
use varve_restore::apply::{Applied, Cleaned};
use varve_restore::plan::{ASSUMED_BYTES_PER_SECOND, Plan};
use varve_restore::release::Release;
use varve_restore::verify::Verified;

use crate::archive::Table;
use crate::output::{age, grouped, time};

/// More of a kind are in the file.
const SHOWN: usize = 20;

/// From their names.
pub(crate) fn parts(names: &[String]) -> Result<StateParts> {
    // Users come with what they may do.
    let mut parts = Vec::new();
    for name in names {
        match name.as_str() {
            "groups" => parts.push(Part::Groups),
            "acls" => parts.extend([Part::Acls, Part::Users]),
            "quotas" => parts.push(Part::Quotas),
            "configs" => parts.push(Part::Configs),
            "schemas" => parts.push(Part::Schemas),
            "none" if names.len() == 1 => {}
            other => {
                bail!("--parts: expected groups, acls, quotas, configs, schemas or none, found {other:?}")
            }
        }
    }
    Ok(parts.into_iter().collect())
}

pub(crate) fn plan(plan: &Plan, path: &Path, out: &mut impl Write) -> Result<()> {
    let (archive, target, totals) = (&plan.archive, &plan.target, &plan.totals);
    writeln!(
        out,
        "from        {}, snapshot {} of {}",
        archive.url,
        archive.snapshot,
        time(archive.snapshot_created_ms)
    )?;
    writeln!(out, "            of cluster {}", archive.cluster_id)?;
    if let Some(as_of_ms) = archive.as_of_ms {
        writeln!(out, "as of       {}", time(as_of_ms))?;
    }
    writeln!(out, "to          {}, cluster {}", target.bootstrap_servers, target.cluster_id)?;
    match plan.is_produced() {
        true => writeln!(out, "how         by a producer: committed records, each once")?,
        false => writeln!(
            out,
            "how         as broker {}, leader of what it restores; brokers {:?} copy from it",
            target.broker_id, target.brokers
        )?,
    }
    let mut table = Table::new(&["topic", "as", ">partitions", ">replicas", ">bytes", ">offsets"]);
    for topic in plan.topics.iter().take(SHOWN) {
        let sum = |f: fn(&varve_restore::plan::PlannedPartition) -> u64| {
            topic.partitions.iter().map(f).sum::<u64>()
        };
        table.row(vec![
            topic.topic.clone(),
            topic.target.clone(),
            grouped(topic.partitions.len() as u64),
            topic.partitions.first().map_or(0, |p| p.replicas.len()).to_string(),
            grouped(sum(|p| p.log_bytes)),
            grouped(sum(|p| p.end_offset.saturating_sub(p.start_offset).unsigned_abs())),
        ]);
    }
    table.print(out)?;
    more(out, plan.topics.len(), "topics")?;
    writeln!(
        out,
        "in all      {} partitions, {} bytes ({} with all replicas), {} objects, about {} requests",
        grouped(totals.partitions),
        grouped(totals.log_bytes),
        grouped(totals.replica_bytes),
        grouped(totals.objects),
        grouped(totals.requests)
    )?;
    if totals.epoch_cycles > 0 {
        writeln!(out, "epochs      raised in {} rounds, of 0.1 to 0.2 s", grouped(totals.epoch_cycles))?;
    }
    if plan.is_produced() {
        let pace = ASSUMED_BYTES_PER_SECOND >> 20;
        writeln!(
            out,
            "time        about {} without verifying: {pace} MiB/s",
            seconds(totals.expected_seconds)
        )?;
    } else if totals.assumed_fetchers > 0 {
        writeln!(
            out,
            "time        about {} without verifying: {} MiB/s for each of a broker's {} fetchers, 0.15 s a round of epochs, \
             0.05 s a partition",
            seconds(totals.expected_seconds),
            ASSUMED_BYTES_PER_SECOND >> 20,
            totals.assumed_fetchers
        )?;
    }
    let offsets: usize = plan.groups.iter().map(|g| g.offsets.len()).sum();
    writeln!(
        out,
        "groups      {}, with {} offsets",
        grouped(plan.groups.len() as u64),
        grouped(offsets as u64)
    )?;
    let rest = &plan.rest;
    if !rest.is_empty() {
        let configs: usize = rest.configs.iter().map(|c| c.configs.len()).sum();
        let (acls, quotas, users) = (rest.acls.len(), rest.quotas.len(), rest.users.len());
        writeln!(out, "beside      {acls} ACLs, quotas of {quotas}, {configs} configs, {users} SCRAM users")?;
    }
    if let Some(schemas) = &plan.schemas {
        crate::schemas::planned(schemas, out)?;
    }
    writeln!(out, "retention   none until varve restore release {}", path.display())?;
    for difference in plan.differences.iter().take(SHOWN) {
        writeln!(out, "not as it was: {difference}")?;
    }
    more(out, plan.differences.len(), "such differences")?;
    for refusal in &plan.refusals {
        writeln!(out, "refused     {}: {}", refusal.what, refusal.todo)?;
    }
    writeln!(out, "plan        {}", path.display())?;
    Ok(())
}

/// What the throttle makes of the plan's time.
pub(crate) fn throttled(plan: &Plan, bytes_per_second: Option<u64>, out: &mut impl Write) -> Result<()> {
    if bytes_per_second.is_some() {
        writeln!(
            out,
            "time        about {} with --throttle",
            seconds(plan.totals.seconds(bytes_per_second))
        )?;
    }
    Ok(())
}

fn seconds(seconds: u64) -> String {
    age(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX))
}

fn more(out: &mut impl Write, all: usize, what: &str) -> Result<()> {
    if all > SHOWN {
        writeln!(out, "and {} {what} more", all - SHOWN)?;
    }
    Ok(())
}

/// What was done, and what it is like now.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) applied: Option<&'a Applied>,
    pub(crate) verified: Option<&'a Verified>,
    pub(crate) started_ms: i64,
    pub(crate) applied_ms: i64,
    pub(crate) ended_ms: i64,
}

impl Report<'_> {
    pub(crate) fn is_clean(&self) -> bool {
        self.verified.is_none_or(|v| v.findings.is_empty())
            && self.applied.is_none_or(|a| a.groups.iter().all(|g| g.refused.is_none()))
    }

    /// How old what is restored was when it began.
    fn rpo_ms(&self) -> i64 {
        self.started_ms.saturating_sub(self.plan.archive.snapshot_created_ms)
    }

    pub(crate) fn json(&self) -> Value {
        let plan = self.plan;
        let mut report = json!({
            "varve_restore_report": 1,
            "restore_id": plan.restore_id,
            "archive": plan.archive,
            "target": plan.target,
            "totals": plan.totals,
            "differences": plan.differences,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "rpo_ms": self.rpo_ms(),
            "rto_ms": self.applied_ms.saturating_sub(self.started_ms),
            "is_clean": self.is_clean(),
        });
        if let Some(applied) = self.applied {
            let groups = applied
                .groups
                .iter()
                .map(|g| json!({ "group_id": g.group_id, "offsets": g.offsets, "was_committed": g.was_committed, "refused": g.refused }));
            report["applied"] = json!({
                "is_resumed": applied.is_resumed,
                "served_bytes": applied.served_bytes,
                "epoch_cycles": applied.epoch_cycles,
                "copying_ms": u64::try_from(applied.copying.as_millis()).unwrap_or(u64::MAX),
                "partitions_done_before": applied.done_before,
                "aborted_transactions": applied.aborted_transactions,
                "notes": applied.notes,
                "groups": groups.collect::<Vec<_>>(),
            });
            if let Some(schemas) = &applied.schemas {
                report["applied"]["schemas"] = crate::schemas::json(schemas);
            }
        }
        if let Some(verified) = self.verified {
            let partitions = verified.partitions.iter().map(|p| {
                json!({
                    "topic": p.topic,
                    "partition": p.partition,
                    "start_offset": p.start_offset,
                    "end_offset": p.end_offset,
                    "bytes": p.bytes,
                    "sha256": p.sha256,
                })
            });
            report["verified"] = json!({
                "partitions": partitions.collect::<Vec<_>>(),
                "groups": verified.groups,
                "schemas": plan.schemas.as_ref().map(|s| s.versions.len()),
                "bytes": verified.bytes,
                "findings": verified.findings,
            });
        }
        report
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> Result<()> {
        if let Some(applied) = self.applied {
            let took = self.applied_ms.saturating_sub(self.started_ms);
            let seconds = took as f64 / 1000.0;
            let resumed = if applied.is_resumed { ", resumed" } else { "" };
            writeln!(
                out,
                "restored    {} partitions in {seconds:.1} s{resumed}, {} bytes given to the brokers",
                grouped(self.plan.totals.partitions),
                grouped(applied.served_bytes)
            )?;
            let before = applied.groups.iter().filter(|g| g.was_committed).count();
            let committed = applied.groups.iter().filter(|g| g.refused.is_none()).count() - before;
            write!(out, "groups      {} committed and read back", grouped(committed as u64))?;
            match before {
                0 => writeln!(out)?,
                before => {
                    writeln!(out, ", {} were before, and are left as they are", grouped(before as u64))?
                }
            }
            for group in applied.groups.iter().filter(|g| g.refused.is_some()) {
                let why = group.refused.as_deref().unwrap_or_default();
                writeln!(out, "group {} was not committed: {why}", group.group_id)?;
            }
            if let Some(schemas) = &applied.schemas {
                crate::schemas::restored(schemas, out)?;
            }
            for note in &applied.notes {
                writeln!(out, "note        {note}")?;
            }
            if applied.aborted_transactions > 0 {
                writeln!(
                    out,
                    "aborted     {} open transactions",
                    grouped(applied.aborted_transactions as u64)
                )?;
            }
        }
        if let Some(verified) = self.verified {
            let how = if self.plan.is_produced() { "record by record" } else { "byte for byte" };
            writeln!(
                out,
                "verified    {} partitions are the archive's {how} ({} bytes, SHA-256), {} groups{}",
                grouped(verified.partitions.len() as u64),
                grouped(verified.bytes),
                grouped(verified.groups),
                self.plan
                    .schemas
                    .as_ref()
                    .map_or_else(String::new, |s| format!(", {} schemas", grouped(s.versions.len() as u64)))
            )?;
            for finding in &verified.findings {
                writeln!(out, "differs     {finding}")?;
            }
        }
        writeln!(out, "RPO         {}: the snapshot's age at the start", age(self.rpo_ms()))?;
        Ok(())
    }
}

pub(crate) fn cleanup_question(cleaned: &Cleaned) -> String {
    match cleaned.topics.len() {
        0 => "No topic is unfinished. Take back what else the restore left in the cluster?".to_owned(),
        count => format!("Delete {count} unfinished topics ({})?", cleaned.topics.join(", ")),
    }
}

pub(crate) fn cleaned(cleaned: &Cleaned, out: &mut impl Write) -> Result<()> {
    let verb = if cleaned.is_done { "deleted" } else { "would go" };
    for topic in &cleaned.topics {
        writeln!(out, "{verb:<11} {topic}")?;
    }
    for topic in &cleaned.kept {
        writeln!(out, "stays       {topic}: it was handed over as a whole")?;
    }
    if cleaned.is_unregistered {
        writeln!(out, "the broker id of the restore is not known to the cluster any more")?;
    }
    Ok(())
}

pub(crate) fn release_json(release: &Release) -> Value {
    let changes: serde_json::Map<String, Value> =
        release.changes.iter().map(|c| (c.name.clone(), json!(c.value))).collect();
    json!({
        "topic": release.topic,
        "configs": changes,
        "left_out": release.left_out,
        "offsets": release.offsets,
        "expiring_offsets": release.expiring,
        "over_bytes": release.over_bytes,
        "is_compacted": release.is_compacted,
    })
}

pub(crate) fn releases(all: &[Release], out: &mut impl Write) -> Result<()> {
    for release in all {
        if !release.are_configs_known {
            let topic = &release.topic;
            writeln!(
                out,
                "{topic}: left as it is, its configs are not in the archive: kafka-configs.sh sets them"
            )?;
            continue;
        }
        let shown = |c: &varve_kafka::client::alter::ConfigChange| match &c.value {
            Some(value) => format!("{}={value}", c.name),
            None => format!("{} (the default)", c.name),
        };
        let changes: Vec<String> = release.changes.iter().map(shown).collect();
        writeln!(
            out,
            "{}: {}",
            release.topic,
            if changes.is_empty() { "as it was".to_owned() } else { changes.join(", ") }
        )?;
        if !release.left_out.is_empty() {
            writeln!(out, "  without {}: the brokers have no tiered storage", release.left_out.join(", "))?;
        }
        if release.expiring > 0 {
            writeln!(
                out,
                "  retention.ms deletes up to {} of {} offsets",
                grouped(release.expiring),
                grouped(release.offsets)
            )?;
        }
        if release.over_bytes > 0 {
            writeln!(out, "  retention.bytes deletes about {} bytes", grouped(release.over_bytes))?;
        }
        if release.is_compacted {
            writeln!(out, "  it is compacted again: of each key, only the last record stays")?;
        }
    }
    Ok(())
}
