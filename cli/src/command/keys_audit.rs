//! `varve keys audit URL`

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use varve_format::{Id, KeyRecordName};
use varve_keys::{DataKeys, Error, KeyUrl, Kind, Trusted};

use crate::archive::Table;
use crate::args::keys::AuditArgs;
use crate::keys::{KeyOf, KeyPlace, Needs, Seen, State, Topics, Usage, Wanted, counted, names};
use crate::output::{grouped, time};
use crate::{Verdict, progress};

/// Records that are read, and opened, at once.
const PARALLEL: usize = 8;
/// Objects whose footers can't be read that are named.
const UNREADABLE_SHOWN: u64 = 20;

pub(crate) async fn run(args: AuditArgs) -> Result<Verdict> {
    let place = KeyPlace::open(&args.at).await?;
    let (keys, trusted) = args.keys.open_records(&place.store)?;
    let wanted = Wanted::new(&args.topics)?;
    let mut topics = place.topics().await?;
    let mut audit =
        Audit { args, keys, trusted, usage: Usage::default(), called: BTreeMap::new(), unreadable: 0 };
    audit.records(&wanted, &topics).await?;
    topics.retain(|(_, id), name| wanted.has(*id, name.as_deref()));
    audit.called = topics.iter().filter_map(|((_, id), name)| Some((*id, name.clone()?))).collect();
    audit.objects(&place, &topics).await?;
    audit.look_again().await?;
    audit.report(&place)
}

struct Audit {
    args: AuditArgs,
    keys: DataKeys,
    trusted: Option<Trusted>,
    usage: Usage,
    called: BTreeMap<Id, String>,
    unreadable: u64,
}

/// What is known of a record.
struct Looked {
    record: Result<varve_format::KeyRecord, Error>,
    opens: Option<Result<(), String>>,
}

impl Audit {
    async fn records(&mut self, wanted: &Wanted, topics: &Topics) -> Result<()> {
        let (tombstones, records): (Vec<_>, Vec<_>) =
            names(&self.keys, |name| wanted.has_record(name, topics))
                .await?
                .into_iter()
                .partition(|n| n.is_tombstone);
        for name in &tombstones {
            self.usage.tombstone(name);
        }
        let bar = progress::count("reading key records", records.len() as u64);
        let (keys, try_open) = (&self.keys, self.args.try_open);
        let looked = stream::iter(records)
            .map(|name| async move { Ok::<_, anyhow::Error>((look(keys, &name, try_open).await?, name)) });
        let mut looked = looked.buffer_unordered(PARALLEL);
        while let Some((found, name)) = looked.try_next().await? {
            bar.inc(1);
            if let Some(found) = found {
                note(&mut self.usage, self.trusted.as_ref(), &name, found);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn objects(&mut self, place: &KeyPlace, topics: &Topics) -> Result<()> {
        let bar = progress::unknown("reading footers");
        let Self { usage, args, unreadable, called, .. } = self;
        let mut tell = |seen: Seen| -> Result<()> {
            let mut out = std::io::stdout().lock();
            match seen {
                Seen::Object(needs) => {
                    called.entry(needs.topic_id).or_insert_with(|| needs.topic.clone());
                    let of = usage.object(&needs);
                    if args.objects {
                        bar.suspend(|| object_line(&mut out, usage, &needs, of.as_ref(), args.json))?;
                    }
                }
                Seen::Unreadable { object, why } => {
                    *unreadable += 1;
                    if args.json {
                        writeln!(out, "{}", json!({"type": "unreadable", "object": object, "why": why}))?;
                    } else if *unreadable <= UNREADABLE_SHOWN {
                        bar.suspend(|| writeln!(out, "{object}: what it needs can't be told: {why}"))?;
                    }
                }
            }
            Ok(())
        };
        place.needs(topics, &bar, &mut tell).await?;
        bar.finish_and_clear();
        Ok(())
    }

    /// A writer's key has its record before any object, so that what was written since records were read has one now.
    async fn look_again(&mut self) -> Result<()> {
        let missing = self.usage.keys.keys().filter(|of| self.usage.state(of) == State::Missing);
        for of in missing.cloned().collect::<Vec<_>>() {
            let name = of.name();
            if let Some(found) = look(&self.keys, &name, self.args.try_open).await? {
                note(&mut self.usage, self.trusted.as_ref(), &name, found);
            } else if matches!(self.keys.try_open(&name).await, Err(e) if e.kind == Kind::Destroyed) {
                self.usage.tombstone(&KeyRecordName { is_tombstone: true, ..name });
            }
        }
        Ok(())
    }

    fn report(&self, place: &KeyPlace) -> Result<Verdict> {
        let mut out = std::io::stdout().lock();
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut findings, mut unneeded) = (0_u64, 0_u64);
        let head = [
            "topic",
            "period",
            "data key",
            "state",
            "wrapped by",
            "trusted",
            "opens",
            "created",
            ">objects",
            ">bytes",
        ];
        let mut table = Table::new(&head);
        for (of, key) in &self.usage.keys {
            *states.entry(self.usage.state(of).word()).or_default() += 1;
            findings += u64::from(self.usage.finding(of).is_some());
            unneeded += u64::from(self.usage.state(of) == State::There && key.objects == 0);
            let topic = self.called.get(&of.topic_id).map(String::as_str);
            if self.args.json {
                writeln!(out, "{}", self.usage.json(of, topic))?;
            } else {
                table.row(self.row(of, topic));
            }
        }
        findings += self.unreadable;
        if self.args.json {
            let usage = &self.usage;
            let line = json!({
                "type": "summary",
                "ok": findings == 0,
                "store": place.store.url(),
                "kind": place.kind(),
                "keys": states,
                "keys_no_object_needs": unneeded,
                "objects": usage.objects,
                "bytes": usage.bytes,
                "plain_objects": usage.plain_objects,
                "plain_bytes": usage.plain_bytes,
                "unreadable_objects": self.unreadable,
                "tried": self.args.try_open,
                "findings": findings,
            });
            writeln!(out, "{line}")?;
        } else {
            if !self.usage.keys.is_empty() {
                table.print(&mut out)?;
            }
            self.details(&mut out)?;
            self.sums(&mut out, findings, unneeded)?;
        }
        Ok(if findings == 0 { Verdict::Clean } else { Verdict::Findings })
    }

    fn row(&self, of: &KeyOf, topic: Option<&str>) -> Vec<String> {
        let word = |said: Option<bool>| said.map_or("", |yes| if yes { "yes" } else { "NO" }).to_owned();
        let Some(key) = self.usage.keys.get(of) else { return Vec::new() };
        let recorded = key.record.as_ref().and_then(|record| record.as_ref().ok());
        vec![
            topic.map_or_else(|| of.topic_id.to_string(), str::to_owned),
            of.period.clone(),
            of.shown_id(),
            self.usage.state(of).word().to_owned(),
            recorded.map(|r| r.wrapped_by.clone()).unwrap_or_default(),
            word(key.trusted),
            word(key.opens.as_ref().map(Result::is_ok)),
            recorded
                .map(|r| time(r.created_ms))
                .and_then(|t| Some(t.get(..10)?.to_owned()))
                .unwrap_or_default(),
            grouped(key.objects),
            grouped(key.bytes),
        ]
    }

    /// What is wrong with which key, and what can't be read any more.
    fn details(&self, out: &mut impl Write) -> Result<()> {
        for (of, key) in &self.usage.keys {
            let state = self.usage.state(of);
            let finding = self.usage.finding(of);
            let (id, period) = (of.shown_id(), &of.period);
            if let Some(finding) = &finding {
                writeln!(out, "data key {id} of {}, {period}: {finding}", of.topic_id)?;
            }
            if state == State::There || key.objects == 0 {
                continue;
            }
            let how = if state == State::Destroyed { "on purpose" } else { "as it is" };
            writeln!(
                out,
                "data key {id}: {} of {} bytes can't be read, {how}:",
                counted(key.objects, "object"),
                grouped(key.bytes)
            )?;
            for object in &key.named {
                writeln!(out, "  {object}")?;
            }
            let more = key.objects.saturating_sub(key.named.len() as u64);
            if more > 0 {
                writeln!(out, "  and {} more (--objects lists them)", grouped(more))?;
            }
        }
        Ok(())
    }

    fn sums(&self, out: &mut impl Write, findings: u64, unneeded: u64) -> Result<()> {
        let usage = &self.usage;
        if self.unreadable > UNREADABLE_SHOWN {
            writeln!(
                out,
                "and {} more whose footers can't be read",
                grouped(self.unreadable - UNREADABLE_SHOWN)
            )?;
        }
        if unneeded > 0 {
            writeln!(
                out,
                "{} {} needed by no object that is there",
                counted(unneeded, "key"),
                if unneeded == 1 { "is" } else { "are" }
            )?;
        }
        let verdict = if findings == 0 { "ok".to_owned() } else { format!("{} FINDINGS", grouped(findings)) };
        writeln!(
            out,
            "{verdict}: {}, {} of {} bytes, {} of them not encrypted",
            counted(usage.keys.len() as u64, "data key"),
            counted(usage.objects, "object"),
            grouped(usage.bytes),
            grouped(usage.plain_objects)
        )?;
        Ok(())
    }
}

fn note(usage: &mut Usage, trusted: Option<&Trusted>, name: &KeyRecordName, found: Looked) {
    let Looked { record, opens } = found;
    let of = usage.record(name, record.as_ref().map_err(ToString::to_string));
    let Some(key) = usage.keys.get_mut(&of) else { return };
    key.opens = opens;
    if let (Ok(record), Some(trusted)) = (&record, trusted) {
        let by = KeyUrl::parse(&record.wrapping.wrapped_by);
        key.trusted = Some(by.is_ok_and(|by| trusted.check(&by).is_ok()));
    }
}

/// `None` of a record that is gone since it was listed.
async fn look(keys: &DataKeys, name: &KeyRecordName, try_open: bool) -> Result<Option<Looked>> {
    let record = match keys.record(name).await {
        Err(e) if e.kind == Kind::NotFound => return Ok(None),
        Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Denied) => return Err(e.into()),
        found => found,
    };
    let opens = match record.is_ok() && try_open {
        true => Some(keys.try_open(name).await.map(|_| ()).map_err(|e| e.to_string())),
        false => None,
    };
    Ok(Some(Looked { record, opens }))
}

fn object_line(
    out: &mut impl Write,
    usage: &Usage,
    needs: &Needs,
    of: Option<&KeyOf>,
    json: bool,
) -> Result<()> {
    let state = of.map(|of| usage.state(of).word());
    let id = of.map(KeyOf::shown_id);
    if json {
        let line = json!({
            "type": "object",
            "object": needs.object,
            "bytes": needs.bytes,
            "topic": needs.topic,
            "topic_id": needs.topic_id.to_string(),
            "period": of.map(|of| &of.period),
            "data_key_id": id,
            "key_state": state,
        });
        writeln!(out, "{line}")?;
    } else {
        let key = match (of, &id, state) {
            (Some(of), Some(id), Some(state)) => format!("{id} of {} ({state})", of.period),
            _ => "not encrypted".to_owned(),
        };
        writeln!(out, "{:>15}  {}  {key}", grouped(needs.bytes), needs.object)?;
    }
    Ok(())
}
