//! `varve tier scrub`

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use varve_format::Id;
use varve_kafka::client::Client;
use varve_kafka::protocol::{PartitionKey, RemoteLogState, RemoteSegment, SegmentState};
use varve_keys::DataKeys;
use varve_store::{Key, Kind, SharedStore};

use crate::args::{ScrubArgs, client_config};
use crate::output::{age, grouped};
use crate::process::now_ms;
use crate::scrub::{
    Checked, Classified, Finding, FindingKind, Listed, View, check_segment, classify, list_first_parts,
    list_store, list_uploads, read_metadata,
};
use crate::{Verdict, location, progress};

pub(crate) async fn run(args: ScrubArgs) -> Result<Verdict> {
    let store = location::open_store(&args.store_url, &args.store.settings()?).await?;
    let keys = args.keys.open(&store)?;
    let client = Client::new(client_config(&args.bootstrap_server, args.command_config.as_deref())?)?;
    let cluster_id = match &args.cluster_id {
        Some(id) => id.clone(),
        None => {
            let metadata = client.metadata(Some(&[])).await?;
            metadata.cluster_id.context("the brokers name no cluster id: give --cluster-id")?
        }
    };
    varve_format::check_cluster_id(&cluster_id)?;
    let scrub = Scrub { args, keys, store, client, cluster_id };
    scrub.run().await
}

/// Names that a message lists.
const OTHERS_SHOWN: usize = 5;

struct Scrub {
    args: ScrubArgs,
    keys: Option<DataKeys>,
    store: SharedStore,
    client: Client,
    cluster_id: String,
}

type Segment = (String, PartitionKey, RemoteSegment);

impl Scrub {
    async fn run(&self) -> Result<Verdict> {
        let prefix = format!("{}/", self.cluster_id);
        let bar = progress::unknown("listing the store");
        let (uploads, no_uploads) = list_uploads(&self.store, &prefix).await?;
        let objects = list_store(&self.store, &prefix, &bar).await?;
        bar.finish_and_clear();
        let (state, mut notes) = self.metadata().await?;
        notes.extend(no_uploads);
        let topics: HashSet<Id> = self.client.topic_ids().await?.into_keys().collect();
        let now_ms = now_ms()?;
        let grace_ms = i64::try_from(self.args.grace.as_millis()).unwrap_or(i64::MAX);
        let view = View {
            cluster_id: &self.cluster_id,
            objects: &objects,
            state: &state,
            topics: &topics,
            now_ms,
            grace_ms,
        };
        let mut classified = classify(&view);
        if objects.is_empty() && !classified.absent.is_empty() {
            self.check_cluster_id().await?;
        }
        let mut findings = self.still_there(std::mem::take(&mut classified.findings)).await?;
        let (mut found, gone) = self.check_present(&view, &classified.present).await?;
        findings.append(&mut found);
        let missing = [std::mem::take(&mut classified.absent), gone].concat();
        let checked = classified.present.len() as u64;
        let (mut found, settled) = self.losses(&view, missing).await?;
        findings.append(&mut found);
        for upload in &uploads {
            let upload_age = upload.started_ms.map(|ms| now_ms.saturating_sub(ms));
            if upload_age.is_some_and(|ms| ms < grace_ms) {
                classified.in_flight += 1;
                continue;
            }
            findings.push(Finding {
                kind: FindingKind::LeftOverUpload,
                key: upload.key.to_string(),
                topic: None,
                size_bytes: None,
                detail: match upload_age {
                    Some(ms) => format!("upload {} began {} ago", upload.id, age(ms)),
                    None => format!("upload {}, of unknown age", upload.id),
                },
            });
        }
        findings.sort();
        self.report(&findings, &notes, &classified, checked + settled, &objects)
    }

    /// Nothing of what the brokers name is there: before that is called a loss, whether it is looked for elsewhere than
    /// they put it.
    async fn check_cluster_id(&self) -> Result<()> {
        let others = list_first_parts(&self.store, OTHERS_SHOWN).await?;
        if others.is_empty() {
            return Ok(());
        }
        anyhow::bail!(
            "nothing is under {0}/ of {1}, which has {2}: give the brokers' rsm.config.cluster.id as --cluster-id. If \
             that is {0}, all of its segments are lost",
            self.cluster_id,
            self.store.url(),
            others.join(", ")
        )
    }

    async fn metadata(&self) -> Result<(RemoteLogState, Vec<String>)> {
        let bar = progress::count("reading __remote_log_metadata", 0);
        let read = read_metadata(&self.client, &bar).await;
        bar.finish_and_clear();
        read
    }

    /// Findings about objects count only if the object is still there now.
    async fn still_there(&self, findings: Vec<Finding>) -> Result<Vec<Finding>> {
        let asked = futures::stream::iter(findings).map(|finding| async move {
            Ok::<_, anyhow::Error>(self.exists(&finding.key).await?.then_some(finding))
        });
        let kept: Vec<_> = asked.buffer_unordered(self.args.parallel.into()).try_collect().await?;
        Ok(kept.into_iter().flatten().collect())
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        match self.store.head(&Key::new(key)?).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind == Kind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Findings, and segments whose objects vanished since they were listed.
    async fn check_present(
        &self,
        view: &View<'_>,
        present: &[Segment],
    ) -> Result<(Vec<Finding>, Vec<Segment>)> {
        let bar = progress::count("checking segments", present.len() as u64);
        let checks = futures::stream::iter(present).map(|segment| {
            let bar = &bar;
            async move {
                let (key, partition, remote) = segment;
                let whole = self.args.verify;
                let ring = self.keys.as_ref();
                let checked = check_segment(&self.store, key, *partition, remote, ring, whole).await;
                bar.inc(1);
                checked.map(|checked| (segment, checked))
            }
        });
        let mut checks = checks.buffer_unordered(self.args.parallel.into());
        let (mut findings, mut gone) = (Vec::new(), Vec::new());
        while let Some((segment, checked)) = checks.try_next().await? {
            let (key, partition, _) = segment;
            match checked {
                Checked::Gone => gone.push(segment.clone()),
                Checked::Findings(found) => findings.extend(found.into_iter().map(|(kind, detail)| {
                    view.finding(kind, key, *partition, view.objects.get(key).copied(), detail)
                })),
            }
        }
        bar.finish_and_clear();
        Ok((findings, gone))
    }

    /// Of segments without an object those that the brokers *still* rely on; and how many have settled.
    async fn losses(&self, view: &View<'_>, missing: Vec<Segment>) -> Result<(Vec<Finding>, u64)> {
        let mut suspects = Vec::new();
        let mut settled = 0;
        for segment in missing {
            if self.exists(&segment.0).await? { settled += 1 } else { suspects.push(segment) }
        }
        if suspects.is_empty() {
            return Ok((Vec::new(), settled));
        }
        let (now, _) = self.metadata().await?;
        let mut findings = Vec::new();
        for (key, partition, segment) in suspects {
            let state = now.segment(partition, segment.segment_id).map(|s| s.state);
            if state != Some(SegmentState::CopyFinished) {
                settled += 1;
                continue;
            }
            let detail = format!(
                "offsets {} to {} ({} bytes) are said to be in the tier, and the object is not there",
                segment.start_offset, segment.end_offset, segment.size_bytes
            );
            findings.push(view.finding(FindingKind::Loss, &key, partition, None, detail));
        }
        Ok((findings, settled))
    }

    fn report(
        &self,
        findings: &[Finding],
        notes: &[String],
        classified: &Classified,
        checked: u64,
        objects: &BTreeMap<String, Listed>,
    ) -> Result<Verdict> {
        let mut out = std::io::stdout().lock();
        let mut by_kind: BTreeMap<&str, u64> = BTreeMap::new();
        for finding in findings {
            *by_kind.entry(finding.kind.name()).or_default() += 1;
            if self.args.json {
                let mut line = json!(finding);
                line["type"] = "finding".into();
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{finding}")?;
            }
        }
        let bytes: u64 = objects.values().map(|o| o.size_bytes).sum();
        if self.args.json {
            let line = json!({
                "type": "summary",
                "store": self.store.url(),
                "cluster_id": self.cluster_id,
                "objects": objects.len(),
                "bytes": bytes,
                "segments_checked": checked,
                "verified": self.args.verify,
                "in_flight": classified.in_flight,
                "archived": classified.archived,
                "findings": by_kind,
                "notes": notes,
            });
            writeln!(out, "{line}")?;
        } else {
            for note in notes {
                eprintln!("note: {note}");
            }
            let depth = if self.args.verify { "every byte" } else { "footers and sizes" };
            let counts: Vec<String> = by_kind.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            let verdict = if counts.is_empty() { "clean".to_owned() } else { counts.join(", ") };
            writeln!(
                out,
                "{verdict}: {} objects of {} bytes, {} segments checked ({depth}), {} in flight",
                grouped(objects.len() as u64),
                grouped(bytes),
                grouped(checked),
                grouped(classified.in_flight)
            )?;
        }
        Ok(if findings.is_empty() { Verdict::Clean } else { Verdict::Findings })
    }
}
