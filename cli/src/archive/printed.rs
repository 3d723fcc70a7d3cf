//! Records as lines: text for people, JSON for programs.
//!
//! Bytes that are UTF-8 are shown as they are (control characters escaped, in text), all others in base64.

use std::io::Write;
use std::ops::Range;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use varve_kafka::protocol::{Batch, ControlRecord, Record};

use super::{Event, reason};
use crate::args::archive::CatFormat;
use crate::output::time;

/// Unpacked records of one batch: more are refused, lest a hostile one fills the memory.
const BATCH_LIMIT_BYTES: usize = 1 << 30;

/// Prints what it is given, as far as it is wanted.
#[derive(Debug)]
pub(crate) struct Printer<W> {
    pub(crate) out: W,
    pub(crate) format: CatFormat,
    /// All if none is given.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) times: Option<Range<i64>>,
    /// Records that may still be printed.
    pub(crate) left: u64,
    /// Whether transaction markers are shown too.
    pub(crate) markers: bool,
    /// Message sets of old formats that were passed over.
    pub(crate) old_sets: u64,
}

impl<W: Write> Printer<W> {
    /// Whether there is room for more.
    pub(crate) fn event(&mut self, partition: i32, event: &Event) -> Result<bool> {
        match event {
            Event::Batch { batch, offsets } => self.batch(partition, batch, offsets)?,
            Event::OldSet(_) => self.old_sets += 1,
            Event::Gap { offsets, record } => {
                let why = reason(record.as_ref());
                let detail = record.as_ref().and_then(|r| r.detail.clone());
                self.absent(partition, "gap", offsets, Some(why), detail)?;
            }
            Event::Pruned { offsets } => self.absent(partition, "pruned", offsets, None, None)?,
        }
        Ok(self.left > 0)
    }

    fn absent(
        &mut self,
        partition: i32,
        what: &str,
        offsets: &Range<i64>,
        reason: Option<&str>,
        detail: Option<String>,
    ) -> Result<()> {
        let last = offsets.end.saturating_sub(1);
        if self.format == CatFormat::Text {
            let reason = reason.map(|r| format!(" ({r})")).unwrap_or_default();
            eprintln!("note: {partition}: offsets {} to {last}: {what}{reason}", offsets.start);
            return Ok(());
        }
        let mut line = json!({
            "type": what,
            "partition": partition,
            "first_offset": offsets.start,
            "last_offset": last,
        });
        if let Some(reason) = reason {
            line["reason"] = reason.into();
        }
        if let Some(detail) = detail {
            line["detail"] = detail.into();
        }
        Ok(writeln!(self.out, "{line}")?)
    }

    fn batch(&mut self, partition: i32, batch: &Batch, offsets: &Range<i64>) -> Result<()> {
        let control = batch.header.attributes.is_control();
        if control && !self.markers {
            return Ok(());
        }
        let place = || format!("partition {partition}, batch at offset {}", batch.header.base_offset);
        for record in batch.records(BATCH_LIMIT_BYTES).with_context(place)? {
            let record = record.with_context(place)?;
            if self.left == 0 {
                return Ok(());
            }
            if !offsets.contains(&record.offset) || !self.is_wanted(&record) {
                continue;
            }
            if !control {
                self.left -= 1;
            }
            match self.format {
                CatFormat::Json if control => writeln!(self.out, "{}", marker(partition, batch, &record)?)?,
                CatFormat::Json => writeln!(self.out, "{}", object(partition, batch, &record))?,
                CatFormat::Text if control => {}
                CatFormat::Text => text(&mut self.out, partition, &record)?,
            }
        }
        Ok(())
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let key = self.key.as_ref().is_none_or(|k| record.key.as_ref().is_some_and(|found| found == k));
        key && self.times.as_ref().is_none_or(|times| times.contains(&record.timestamp_ms))
    }
}

/// The bytes that a person gives: text, or `base64:…`.
pub(crate) fn given_bytes(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("base64:") {
        Some(coded) => STANDARD.decode(coded).with_context(|| format!("expected base64, found {coded:?}")),
        None => Ok(text.as_bytes().to_vec()),
    }
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|b| (b, std::str::from_utf8(b))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), text.into()),
        Some((bytes, Err(_))) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

fn head(kind: &str, partition: i32, batch: &Batch, record: &Record) -> Map<String, Value> {
    let header = &batch.header;
    let mut line = Map::new();
    let mut add = |name: &str, value: Value| line.insert(name.to_owned(), value);
    add("type", kind.into());
    add("partition", partition.into());
    add("offset", record.offset.into());
    add("timestamp_ms", record.timestamp_ms.into());
    add("timestamp_type", header.attributes.timestamp_type().to_string().into());
    add("leader_epoch", header.partition_leader_epoch.into());
    if header.producer_id >= 0 {
        add("producer_id", header.producer_id.into());
        add("producer_epoch", header.producer_epoch.into());
    }
    if header.attributes.is_transactional() {
        add("transactional", true.into());
    }
    line
}

fn object(partition: i32, batch: &Batch, record: &Record) -> Value {
    let mut line = head("record", partition, batch, record);
    put(&mut line, "key", record.key.as_deref());
    put(&mut line, "value", record.value.as_deref());
    let header = |h: &varve_kafka::protocol::Header| {
        let mut pair = Map::new();
        put(&mut pair, "key", Some(&h.key));
        put(&mut pair, "value", h.value.as_deref());
        Value::Object(pair)
    };
    line.insert("headers".to_owned(), record.headers.iter().map(header).collect());
    Value::Object(line)
}

fn marker(partition: i32, batch: &Batch, record: &Record) -> Result<Value> {
    let mut line = head("marker", partition, batch, record);
    let key = record.key.clone().unwrap_or_default();
    let control = ControlRecord::parse(&key, &record.value.clone().unwrap_or_default())?;
    line.insert("marker".to_owned(), control.control_type.to_string().into());
    if let Some(epoch) = control.coordinator_epoch {
        line.insert("coordinator_epoch".to_owned(), epoch.into());
    }
    Ok(Value::Object(line))
}

fn text(out: &mut impl Write, partition: i32, record: &Record) -> Result<()> {
    let when = time(record.timestamp_ms);
    // Without the number beside it.
    let when = when.split_once(" (").map_or(when.as_str(), |(text, _)| text);
    write!(out, "{partition}:{}\t{when}\t{}\t", record.offset, shown(record.key.as_deref()))?;
    write!(out, "{}", shown(record.value.as_deref()))?;
    for header in &record.headers {
        write!(out, "\t{}={}", shown(Some(&header.key)), shown(header.value.as_deref()))?;
    }
    Ok(writeln!(out)?)
}

fn shown(bytes: Option<&[u8]>) -> String {
    match bytes.map(|b| (b, std::str::from_utf8(b))) {
        None => "null".to_owned(),
        Some((bytes, Err(_))) => format!("base64:{}", STANDARD.encode(bytes)),
        Some((_, Ok(text))) if !text.contains(|c: char| c.is_control() || c == '\\') => text.to_owned(),
        Some((_, Ok(text))) => text.chars().fold(String::new(), |mut out, c| {
            if c.is_control() || c == '\\' {
                out.extend(c.escape_default())
            } else {
                out.push(c)
            }
            out
        }),
    }
}
