//! `varve keys shred URL`
//!
//! Says what will be unreadable, destroys, and proves it by looking. A call that is broken off may be repeated: keys
//! that have a tombstone are destroyed and proven again.
//!
//! A topic's name stands in its objects, where whoever can write to the store can put any: by a name nothing is
//! destroyed unless all of the topic's objects agree to it. Only an id can't be claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use varve_archive::{Archive, Depth, VerifyOptions};
use varve_format::{Id, KeyRecordName};
use varve_keys::{DataKeys, Kind};

use crate::args::keys::ShredArgs;
use crate::args::sealed_keys;
use crate::keys::{
    Claims, KeyOf, KeyPlace, Proof, Seen, Topics, Usage, counted, names, prove, topic_name, typed,
};
use crate::output::grouped;
use crate::process::now_ms;
use crate::{Verdict, progress};

/// Keys that are destroyed at once.
const PARALLEL: usize = 4;

const STILL: [&str; 2] = [
    "what runs now and holds a key uses it for up to encryption.key.cache.ms more, an archiver also until it has ended \
     what it began (half of journal.rpo): wait for it, or restart brokers and archivers",
    "copies of key records elsewhere (backups, replicated buckets, copies of the archive) open what they sealed: destroy \
     them there too",
];

pub(crate) async fn run(args: ShredArgs) -> Result<Verdict> {
    let place = KeyPlace::open(&args.at).await?;
    let keys = sealed_keys(&place.store)?;
    let topics = place.topics().await?;
    let records = names(&keys, |_| true).await?;
    let (cluster_id, topic_id) = KeyPlace::one_topic(
        &topics,
        &records,
        args.topic_id,
        args.topic.as_deref(),
        args.cluster.as_deref(),
    )?;
    let is_wanted = |name: &&KeyRecordName| name.cluster_id == cluster_id && name.topic_id == topic_id;
    let records: Vec<_> = records.iter().filter(is_wanted).cloned().collect();
    let topics: Topics = topics.into_iter().filter(|((_, id), _)| *id == topic_id).collect();
    let name = topic_name(&topics, &cluster_id, topic_id).map(str::to_owned);
    let mut shred = Shred {
        claims: Claims::new(&cluster_id, topic_id),
        topic: name,
        disagreement: None,
        place,
        keys,
        cluster_id,
        topic_id,
        usage: Usage::default(),
        unreadable: 0,
        plan: BTreeMap::new(),
        started_ms: now_ms()?,
        args,
    };
    shred.look(&records, &topics).await?;
    shred.run().await
}

struct Shred {
    args: ShredArgs,
    place: KeyPlace,
    keys: DataKeys,
    cluster_id: String,
    topic_id: Id,
    /// If all of its objects say the same.
    topic: Option<String>,
    claims: Claims,
    /// What they say, if they don't.
    disagreement: Option<String>,
    usage: Usage,
    unreadable: u64,
    /// Which keys, with the names of all of their records.
    plan: BTreeMap<KeyOf, BTreeSet<KeyRecordName>>,
    started_ms: i64,
}

/// What came of a key.
#[derive(Serialize)]
struct Shredded {
    #[serde(flatten)]
    said: Value,
    proofs: Vec<Proof>,
    errors: Vec<String>,
}

impl Shredded {
    fn is_gone(&self) -> bool {
        self.errors.is_empty() && !self.proofs.is_empty() && self.proofs.iter().all(Proof::holds)
    }
}

impl Shred {
    fn has_period(&self, period: &str) -> bool {
        self.args.all_periods || self.args.periods.iter().any(|wanted| wanted == period)
    }

    /// What there is of the topic, and which of it is to be destroyed.
    async fn look(&mut self, records: &[KeyRecordName], topics: &Topics) -> Result<()> {
        for name in records.iter().filter(|name| name.is_tombstone) {
            self.usage.tombstone(name);
            self.wish(KeyOf::of_name(name, None), name);
        }
        for name in records.iter().filter(|name| !name.is_tombstone) {
            let found = match self.keys.record(name).await {
                Err(e) if e.kind == Kind::NotFound => continue,
                Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Denied) => return Err(e.into()),
                found => found,
            };
            let of = self.usage.record(name, found.as_ref().map_err(ToString::to_string));
            self.wish(of, name);
        }
        let bar = progress::unknown("reading footers");
        let (usage, claims, unreadable) = (&mut self.usage, &mut self.claims, &mut self.unreadable);
        let mut tell = |seen: Seen| -> Result<()> {
            match seen {
                Seen::Object(needs) => {
                    claims.object(&needs);
                    usage.object(&needs);
                }
                Seen::Unreadable { .. } => *unreadable += 1,
            }
            Ok(())
        };
        self.place.needs(topics, &bar, &mut tell).await?;
        bar.finish_and_clear();
        if let Err(why) = self.claims.check(self.topic.as_deref()) {
            if let Some(name) = &self.args.topic {
                bail!("{why}\nso its name may not be {name}: give --topic-id of the topic that is meant");
            }
            (self.topic, self.disagreement) = (None, Some(why));
        }
        // A key without a record gets a tombstone: the record may be in a copy that is put back.
        let needed: Vec<_> = self.usage.keys.keys().filter(|of| self.is_ours(of)).cloned().collect();
        for of in needed {
            let name = of.name();
            self.wish(of, &name);
        }
        Ok(())
    }

    fn is_ours(&self, of: &KeyOf) -> bool {
        of.cluster_id == self.cluster_id && of.topic_id == self.topic_id
    }

    fn wish(&mut self, of: KeyOf, name: &KeyRecordName) {
        if !self.has_period(&of.period) {
            return;
        }
        let by_id = of.name();
        let name = KeyRecordName { is_tombstone: false, ..name.clone() };
        self.plan.entry(of).or_default().extend([name, by_id]);
    }

    async fn run(&self) -> Result<Verdict> {
        self.show()?;
        if self.plan.is_empty() || self.args.dry_run {
            if self.args.json {
                println!("{}", self.document(&[], &Value::Null)?);
            }
            return Ok(Verdict::Clean);
        }
        // Before anything is destroyed: a proof that can't be kept is of no use.
        let report = self.args.report.as_deref().map(create).transpose()?;
        let (question, word) = self.question();
        let agreed = match self.args.yes {
            true => Ok(true),
            false => typed(&question, &word),
        };
        if !matches!(agreed, Ok(true)) {
            // Nothing is in it.
            self.args.report.as_deref().map(std::fs::remove_file).transpose()?;
            return agreed.map(|_| Verdict::Clean);
        }
        let bar = progress::count("destroying keys", self.plan.len() as u64);
        let progress = &bar;
        let work = stream::iter(&self.plan).map(|(of, names)| async move {
            let shredded = self.destroy(of, names).await;
            progress.inc(1);
            shredded
        });
        let shredded: Vec<Shredded> = work.buffered(PARALLEL).collect().await;
        bar.finish_and_clear();
        let verified = match &self.place.archive {
            Some(archive) => verified(archive).await,
            None => Value::Null,
        };
        let document = self.document(&shredded, &verified)?;
        if let Some(mut file) = report {
            file.write_all(serde_json::to_string_pretty(&document)?.as_bytes())?;
            file.sync_all()?;
        }
        if self.args.json {
            println!("{document}");
        } else {
            self.tell(&shredded, &verified)?;
        }
        let is_sound = verified.is_null() || verified["ok"] != Value::Bool(false);
        let is_done = shredded.iter().all(Shredded::is_gone) && is_sound;
        Ok(if is_done { Verdict::Clean } else { Verdict::Findings })
    }

    /// What is asked, and what is to be typed: what the person named it by.
    fn question(&self) -> (String, String) {
        let (id, cluster_id) = (self.topic_id.to_string(), &self.cluster_id);
        let shown = match &self.topic {
            Some(name) => format!("{name}, {id} of cluster {cluster_id}"),
            None => format!("{id} of cluster {cluster_id}"),
        };
        let word = self.args.topic.clone().unwrap_or(id);
        (format!("Keys of topic {shown}: this can't be undone. To go on, type {word}:"), word)
    }

    async fn destroy(&self, of: &KeyOf, names: &BTreeSet<KeyRecordName>) -> Shredded {
        let (mut proofs, mut errors) = (Vec::new(), Vec::new());
        let said = self.usage.json(of, self.topic.as_deref());
        for name in names {
            let destroyed = match now_ms() {
                Ok(now_ms) => self.keys.destroy(name, now_ms).await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            errors.extend(destroyed.err());
            match prove(&self.place.store, &self.keys, name).await {
                Ok(proof) => proofs.push(proof),
                Err(e) => errors.push(e.to_string()),
            }
        }
        Shredded { said, proofs, errors }
    }

    /// Of the keys that are to be destroyed: how many, and objects and bytes that need them.
    fn sums(&self) -> (u64, u64, u64) {
        let used = self.plan.keys().filter_map(|of| self.usage.keys.get(of));
        used.fold((0, 0, 0), |(keys, objects, bytes), key| {
            (keys + 1, objects + key.objects, bytes.saturating_add(key.bytes))
        })
    }

    fn show(&self) -> Result<()> {
        if self.args.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let topic = match (&self.topic, &self.disagreement) {
            (Some(name), _) => name,
            (None, None) => "(no object tells its name)",
            (None, Some(_)) => "(its objects tell several names)",
        };
        writeln!(out, "topic       {topic}, {} of cluster {}", self.topic_id, self.cluster_id)?;
        writeln!(out, "{:<12}{}", self.place.kind(), self.place.store.url())?;
        if self.plan.is_empty() {
            writeln!(out, "there is no key of it to destroy")?;
            return Ok(());
        }
        for of in self.plan.keys() {
            let Some(key) = self.usage.keys.get(of) else { continue };
            writeln!(
                out,
                "{:<12}data key {} ({}): {} of {} bytes",
                of.period,
                of.shown_id(),
                self.usage.state(of).word(),
                counted(key.objects, "object"),
                grouped(key.bytes)
            )?;
        }
        let (keys, objects, bytes) = self.sums();
        let would = if self.args.dry_run { "would" } else { "will" };
        writeln!(
            out,
            "{}: {} of {} bytes {would} be unreadable for ever",
            counted(keys, "key"),
            counted(objects, "object"),
            grouped(bytes)
        )?;
        if self.usage.plain_objects > 0 {
            let objects = counted(self.usage.plain_objects, "object");
            writeln!(out, "note        {objects} of the topic not encrypted stay readable")?;
        }
        if let Some(why) = &self.disagreement {
            writeln!(out, "note        {why}")?;
        }
        if self.unreadable > 0 {
            let objects = counted(self.unreadable, "object");
            writeln!(out, "note        of {objects} the footer can't be read: varve keys audit names them")?;
        }
        Ok(())
    }

    fn document(&self, shredded: &[Shredded], verified: &Value) -> Result<Value> {
        let (keys, objects, bytes) = self.sums();
        let planned: Vec<_> = self.plan.keys().map(|of| self.usage.json(of, self.topic.as_deref())).collect();
        let is_dry = shredded.is_empty();
        Ok(json!({
            "varve_shred_report": 1,
            "store": self.place.store.url(),
            "kind": self.place.kind(),
            "cluster_id": self.cluster_id,
            "topic_id": self.topic_id.to_string(),
            "topic": self.topic,
            "disagreement": self.disagreement,
            "periods": self.plan.keys().map(|of| &of.period).collect::<BTreeSet<_>>(),
            "dry_run": self.args.dry_run,
            "ok": !is_dry && shredded.iter().all(Shredded::is_gone),
            "keys": keys,
            "objects": objects,
            "bytes": bytes,
            "plain_objects": self.usage.plain_objects,
            "unreadable_footers": self.unreadable,
            "data_keys": if is_dry { json!(planned) } else { json!(shredded) },
            "verified": verified,
            "started_ms": self.started_ms,
            "finished_ms": now_ms()?,
            "notes": STILL,
        }))
    }

    fn tell(&self, shredded: &[Shredded], verified: &Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let gone = shredded.iter().filter(|one| one.is_gone()).count() as u64;
        for one in shredded.iter().filter(|one| !one.is_gone()) {
            let id = one.said["data_key_id"].as_str().unwrap_or("(unknown)");
            for error in &one.errors {
                writeln!(out, "data key {id} STILL LIVES: {error}")?;
            }
            for proof in one.proofs.iter().filter(|proof| !proof.holds()) {
                writeln!(out, "data key {id} STILL LIVES: {}: {}", proof.record, proof.flaws().join("; "))?;
            }
        }
        let left = shredded.len() as u64 - gone;
        writeln!(
            out,
            "{} destroyed, and proven: no record, no version, a tombstone; {left} left",
            counted(gone, "key")
        )?;
        if left > 0 {
            writeln!(
                out,
                "next        what a lock holds can be deleted when it ends: repeat this then. Tombstones are there: \
                 Varve opens nothing by these keys any more"
            )?;
        }
        match verified["ok"].as_bool() {
            Some(true) => {
                let url = &self.args.at.url;
                writeln!(
                    out,
                    "the archive is whole as listed; for more: varve verify {url} --depth footers"
                )?;
            }
            Some(false) => writeln!(out, "THE ARCHIVE DOES NOT HOLD: {}", verified["detail"])?,
            None if !verified.is_null() => {
                writeln!(out, "the archive was not verified: {}", verified["detail"])?
            }
            None => {}
        }
        for note in STILL {
            writeln!(out, "note        {note}")?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).open(path).with_context(|| format!("report {}", path.display()))
}

/// The last snapshot, by listing: it takes no key.
async fn verified(archive: &Archive) -> Value {
    let latest = match archive.latest_snapshot(0).await {
        Ok(latest) => latest,
        Err(e) => return json!({"ok": false, "detail": e.to_string()}),
    };
    let Some(latest) = latest else { return json!({"ok": null, "detail": "it has no snapshot yet"}) };
    let sequence = latest.record.sequence;
    let bar = progress::unknown("verifying the archive");
    let options = VerifyOptions { depth: Depth::Listed, ..VerifyOptions::default() };
    let report = archive.verify(sequence, &options, &|p| bar.set_position(p.objects)).await;
    bar.finish_and_clear();
    match report {
        Ok(report) => json!({
            "ok": report.is_sound(),
            "snapshot": sequence,
            "depth": "listed",
            "objects": report.progress.objects,
            "findings": report.progress.findings,
            "detail": report.findings.first().map(|finding| finding.what.clone()),
        }),
        Err(e) => json!({"ok": false, "snapshot": sequence, "detail": e.to_string()}),
    }
}
