//! The map, kept beside the archive: whoever has an offset of the source finds what became of it.

use bytes::Bytes;
use varve_archive::record::restore::RestoreRecord;
use varve_archive::{Archive, V1};
use varve_format::Id;

use super::map::MapDir;
use crate::error::{Error, Result};
use crate::plan::Plan;

/// Of one object: with it in memory, and what it is made of, there is room.
const PART_BYTES: usize = 4 << 20;

/// In parts, and the record that names them last. What is there already stays.
///
/// # Errors
/// Of the store, as one that may only be read; a map that can't be read.
pub(crate) async fn keep(plan: &Plan, maps: &MapDir, archive: &Archive, writer: &str) -> Result<()> {
    let restore_id = Id::parse(&plan.restore_id)
        .map_err(|_| Error::unexpected("the plan's restore_id", "an id", &plan.restore_id))?;
    let (mut part, mut parts) = (String::new(), 0_u32);
    for topic in &plan.topics {
        for partition in &topic.partitions {
            for run in maps.runs(topic, partition.partition)? {
                part.push_str(&format!("{} {} {}\n", topic.topic_id, partition.partition, run?));
                if part.len() >= PART_BYTES {
                    archive.keep_map(restore_id, parts, Bytes::from(std::mem::take(&mut part))).await?;
                    parts += 1;
                }
            }
        }
    }
    if !part.is_empty() {
        archive.keep_map(restore_id, parts, Bytes::from(part)).await?;
        parts += 1;
    }
    let record = RestoreRecord {
        varve_restore: V1,
        restore_id,
        archive_id: archive.id(),
        snapshot: plan.archive.snapshot,
        target_cluster_id: plan.target.cluster_id.clone(),
        parts,
        writer: writer.to_owned(),
        created_ms: plan.created_ms,
        more: Vec::new(),
    };
    Ok(archive.keep_restore(&record).await?)
}
