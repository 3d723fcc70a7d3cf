//! `varve segment inspect URL`

use std::io::{BufWriter, Write};

use anyhow::Result;
use serde_json::{Value, json};
use varve_format::{Codec, Extent, ExtentKind};
use varve_kafka::protocol::{
    BatchScanner, Scanned, parse_leader_epochs, parse_offset_index, parse_producer_snapshot,
    parse_time_index, parse_transaction_index,
};

use crate::args::InspectArgs;
use crate::object::{ObjectError, SegmentObject};
use crate::output::{grouped, time};
use crate::{Verdict, location};

pub(crate) async fn run(args: InspectArgs) -> Result<Verdict> {
    let (store, key) = location::open_segment(&args.segment).await?;
    let keys = args.segment.keys.open(&store)?;
    let object = SegmentObject::open(&store, &key, keys.as_ref()).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if args.json {
        writeln!(out, "{}", description(&object))?;
    } else {
        describe(&object, &mut out)?;
    }
    if args.indexes {
        for number in object.sections() {
            let bytes = object.section(number).await?;
            let Some(extent) = object.footer.extents.get(number) else { continue };
            if !args.json {
                writeln!(out, "\n{}", extent.kind.name())?;
            }
            for (text, value) in entries(extent.kind, object.footer.info.base_offset, &bytes)? {
                if args.json { writeln!(out, "{value}")? } else { writeln!(out, "  {text}")? }
            }
        }
    }
    if args.batches {
        if !args.json {
            writeln!(out)?;
        }
        list_batches(&object, args.json, &mut out).await?;
    }
    out.flush()?;
    Ok(Verdict::Clean)
}

fn describe(object: &SegmentObject, out: &mut impl Write) -> Result<()> {
    let (footer, trailer) = (&object.footer, &object.trailer);
    let info = &footer.info;
    let id = |id: &Option<varve_format::Id>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let encryption = match &footer.encryption {
        None => "none".to_owned(),
        Some(e) => format!("AES-256-GCM, data key {} of {}", e.data_key_id, e.period),
    };
    let root = match (&footer.root, &footer.encryption) {
        (Some(root), _) => format!("{:?} {root}", footer.digest),
        (None, Some(_)) => format!("{:?} (sealed: give --key-ring)", footer.digest),
        (None, None) => "none".to_owned(),
    };
    let epochs: Vec<String> =
        info.leader_epochs.iter().map(|e| format!("{} from {}", e.epoch, e.start_offset)).collect();
    let rows = [
        ("object", object.name.clone()),
        ("size", format!("{} bytes", grouped(object.size_bytes))),
        ("format version", trailer.version.to_string()),
        ("object id", footer.object_id.to_string()),
        ("written by", info.writer.clone()),
        ("created", time(info.created_ms)),
        ("cluster", info.cluster_id.clone()),
        ("topic", format!("{} (id {})", info.topic, info.topic_id)),
        ("partition", info.partition.to_string()),
        ("segment id", id(&info.segment_id)),
        ("broker", info.broker_id.map_or_else(|| "none".to_owned(), |id| id.to_string())),
        ("offsets", format!("{} to {}", info.base_offset, info.last_offset)),
        ("max timestamp", time(info.max_timestamp_ms)),
        ("leader epochs", epochs.join(", ")),
        ("log", format!("{} bytes", grouped(footer.log_bytes))),
        (
            "chunk, frame",
            format!("{}, {} bytes", grouped(footer.chunk_bytes.into()), grouped(footer.frame_bytes.into())),
        ),
        ("encryption", encryption),
        ("digest", root),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<16}{value}")?;
    }
    for seen in &info.observed {
        let (hw, lso) = (seen.high_watermark, seen.last_stable_offset);
        writeln!(
            out,
            "{:<16}{}: high watermark {hw}, last stable offset {lso}",
            "observed",
            time(seen.time_ms)
        )?;
    }
    writeln!(
        out,
        "\n{:<20}{:<6}{:>16}{:>16}{:>16}{:>8}  digest",
        "extent", "codec", "plain", "stored", "at", "frames"
    )?;
    for (number, extent) in footer.extents.iter().enumerate() {
        let digest = footer.digests.get(number).map(ToString::to_string).unwrap_or_default();
        writeln!(
            out,
            "{:<20}{:<6}{:>16}{:>16}{:>16}{:>8}  {}",
            extent.kind.name(),
            codec(extent),
            grouped(extent.plain_bytes),
            grouped(extent.stored_bytes),
            grouped(extent.stored_offset),
            extent.frame_count(),
            digest.get(..16).unwrap_or("-")
        )?;
    }
    Ok(())
}

fn codec(extent: &Extent) -> &'static str {
    match extent.codec {
        Codec::None => "none",
        Codec::Zstd => "zstd",
    }
}

fn description(object: &SegmentObject) -> Value {
    let (footer, trailer) = (&object.footer, &object.trailer);
    let info = &footer.info;
    let extents: Vec<Value> = footer
        .extents
        .iter()
        .enumerate()
        .map(|(number, e)| {
            json!({
                "kind": e.kind.name(),
                "codec": codec(e),
                "plain_offset": e.plain_offset,
                "plain_bytes": e.plain_bytes,
                "stored_offset": e.stored_offset,
                "stored_bytes": e.stored_bytes,
                "frames": e.frame_count(),
                "digest": footer.digests.get(number).map(ToString::to_string),
            })
        })
        .collect();
    let epochs: Vec<Value> = info
        .leader_epochs
        .iter()
        .map(|e| json!({ "epoch": e.epoch, "start_offset": e.start_offset }))
        .collect();
    let observed: Vec<Value> = info
        .observed
        .iter()
        .map(|o| {
            json!({
                "time_ms": o.time_ms,
                "high_watermark": o.high_watermark,
                "last_stable_offset": o.last_stable_offset,
            })
        })
        .collect();
    let encryption = footer
        .encryption
        .as_ref()
        .map(|e| json!({ "data_key_id": e.data_key_id.to_string(), "period": e.period }));
    json!({
        "type": "segment",
        "object": object.name,
        "size_bytes": object.size_bytes,
        "format_version": trailer.version,
        "required_features": trailer.features.required,
        "optional_features": trailer.features.optional,
        "object_id": footer.object_id.to_string(),
        "writer": info.writer,
        "created_ms": info.created_ms,
        "cluster_id": info.cluster_id,
        "topic": info.topic,
        "topic_id": info.topic_id.to_string(),
        "partition": info.partition,
        "segment_id": info.segment_id.map(|id| id.to_string()),
        "broker_id": info.broker_id,
        "base_offset": info.base_offset,
        "last_offset": info.last_offset,
        "max_timestamp_ms": info.max_timestamp_ms,
        "leader_epochs": epochs,
        "observed": observed,
        "log_bytes": footer.log_bytes,
        "chunk_bytes": footer.chunk_bytes,
        "frame_bytes": footer.frame_bytes,
        "digest": format!("{:?}", footer.digest).to_lowercase(),
        "root": footer.root.as_ref().map(ToString::to_string),
        "footer_digest": object.footer_digest.to_string(),
        "encryption": encryption,
        "extents": extents,
    })
}

/// Each entry as a line for people, and as JSON.
fn entries(kind: ExtentKind, base_offset: i64, bytes: &[u8]) -> Result<Vec<(String, Value)>> {
    let name = kind.name();
    Ok(match kind {
        ExtentKind::Log | ExtentKind::Unknown(_) => Vec::new(),
        ExtentKind::OffsetIndex => parse_offset_index(bytes, base_offset)?
            .into_iter()
            .map(|e| {
                let value = json!({ "type": name, "offset": e.offset, "position": e.position });
                (format!("offset: {} position: {}", e.offset, e.position), value)
            })
            .collect(),
        ExtentKind::TimeIndex => parse_time_index(bytes, base_offset)?
            .into_iter()
            .map(|e| {
                let value = json!({ "type": name, "timestamp_ms": e.timestamp_ms, "offset": e.offset });
                (format!("timestamp: {} offset: {}", e.timestamp_ms, e.offset), value)
            })
            .collect(),
        ExtentKind::TransactionIndex => parse_transaction_index(bytes)?
            .into_iter()
            .map(|e| {
                let value = json!({
                    "type": name,
                    "producer_id": e.producer_id,
                    "first_offset": e.first_offset,
                    "last_offset": e.last_offset,
                    "last_stable_offset": e.last_stable_offset,
                });
                let text = format!(
                    "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                    e.producer_id, e.first_offset, e.last_offset, e.last_stable_offset
                );
                (text, value)
            })
            .collect(),
        ExtentKind::ProducerSnapshot => parse_producer_snapshot(bytes)?
            .into_iter()
            .map(|e| {
                let value = json!({
                    "type": name,
                    "producer_id": e.producer_id,
                    "producer_epoch": e.producer_epoch,
                    "coordinator_epoch": e.coordinator_epoch,
                    "last_sequence": e.last_sequence,
                    "last_offset": e.last_offset,
                    "offset_delta": e.offset_delta,
                    "timestamp_ms": e.timestamp_ms,
                    "current_txn_first_offset": e.current_txn_first_offset,
                });
                let open = e.current_txn_first_offset.map_or_else(|| "none".to_owned(), |o| o.to_string());
                let text = format!(
                    "producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {open} \
                     lastTimestamp: {} lastSequence: {} lastOffset: {} offsetDelta: {}",
                    e.producer_id,
                    e.producer_epoch,
                    e.coordinator_epoch,
                    e.timestamp_ms,
                    e.last_sequence,
                    e.last_offset,
                    e.offset_delta
                );
                (text, value)
            })
            .collect(),
        ExtentKind::LeaderEpochs => parse_leader_epochs(bytes)?
            .into_iter()
            .map(|e| {
                let value = json!({ "type": name, "epoch": e.epoch, "start_offset": e.start_offset });
                (format!("epoch: {} startOffset: {}", e.epoch, e.start_offset), value)
            })
            .collect(),
    })
}

async fn list_batches(object: &SegmentObject, json: bool, out: &mut impl Write) -> Result<()> {
    let mut scanner = BatchScanner::new();
    let listing = object.read(0..object.footer.chunks().len(), |_, plain| {
        let mut written = Ok(());
        let scanned = scanner.feed(plain, |found| {
            if written.is_ok() {
                written = write_batch(&found, json, out);
            }
        });
        written?;
        scanned.map_err(std::io::Error::other)
    });
    match listing.await {
        // Only a listing: what can't be told apart is an error here, not a finding.
        Err(ObjectError::Sink(error)) => return Err(error.into()),
        other => other?,
    }
    Ok(scanner.finish()?)
}

fn write_batch(found: &Scanned, json: bool, out: &mut impl Write) -> std::io::Result<()> {
    match found {
        Scanned::Batch { header, position, .. } if json => {
            let a = header.attributes;
            let value = json!({
                "type": "batch",
                "base_offset": header.base_offset,
                "last_offset": header.last_offset(),
                "count": header.records_count,
                "base_sequence": header.base_sequence,
                "last_sequence": header.last_sequence(),
                "producer_id": header.producer_id,
                "producer_epoch": header.producer_epoch,
                "partition_leader_epoch": header.partition_leader_epoch,
                "is_transactional": a.is_transactional(),
                "is_control": a.is_control(),
                "delete_horizon_ms": header.delete_horizon_ms(),
                "position": position,
                "timestamp_type": a.timestamp_type().to_string(),
                "base_timestamp_ms": header.base_timestamp_ms,
                "max_timestamp_ms": header.max_timestamp_ms,
                "size_bytes": header.size_bytes(),
                "magic": 2,
                "codec": a.codec().to_string(),
                "crc": header.crc,
                "is_valid": found.crc_is_valid(),
            });
            writeln!(out, "{value}")
        }
        Scanned::Batch { .. } => found.line().map_or(Ok(()), |line| writeln!(out, "{line}")),
        Scanned::OldMessageSet(set) if json => {
            let value = json!({
                "type": "message set",
                "last_offset": set.last_offset,
                "position": set.position,
                "size_bytes": set.size_bytes,
                "magic": set.magic,
            });
            writeln!(out, "{value}")
        }
        Scanned::OldMessageSet(set) => writeln!(
            out,
            "offset: {} position: {} size: {} magic: {}",
            set.last_offset, set.position, set.size_bytes, set.magic
        ),
    }
}
