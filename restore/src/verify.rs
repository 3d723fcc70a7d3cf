//! The target read back, and compared with the archive.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use varve_archive::{JournalView, LogReader};
use varve_format::{DigestAlgorithm, Hasher};
use varve_kafka::client::{Client, OffsetSpec};
use varve_kafka::protocol::Batches;

use crate::apply::{facts, groups_differ, produce};
use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::log::Blocks;
use crate::plan::{Plan, PlannedPartition, PlannedTopic};
use crate::source::{Source, SourceTopic};

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub partitions: Vec<VerifiedPartition>,
    pub groups: u64,
    pub bytes: u64,
    /// What is not as the plan says.
    pub findings: Vec<String>,
}

/// The batches of a partition that are the same, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPartition {
    pub topic: String,
    pub partition: i32,
    pub start_offset: i64,
    pub end_offset: i64,
    pub bytes: u64,
    pub sha256: String,
}

/// Reads all of it, from both sides.
///
/// # Errors
/// Of archive and target. What differs is a finding.
pub async fn verify(
    plan: &Plan,
    plan_file: &Path,
    source: &Source,
    keys: &Arc<KeyCache>,
    client: &Client,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Verified> {
    let (mut verified, groups) = if plan.is_produced() {
        produce::verify(plan, plan_file, source, keys, client, told).await?
    } else {
        (led(plan, source, keys, client, told).await?, plan.groups.clone())
    };
    verified.findings.extend(plan.rest.differs(client).await?);
    for group in &groups {
        if let Some(odd) = groups_differ(client, group).await? {
            verified.findings.push(format!("group {}: {odd}", group.group_id));
        }
        verified.groups += 1;
    }
    Ok(verified)
}

/// What was restored in mode leader.
async fn led(
    plan: &Plan,
    source: &Source,
    keys: &Arc<KeyCache>,
    client: &Client,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Verified> {
    let (reader, journal) = source.reader().await?;
    let mut verified = Verified::default();
    for topic in &plan.topics {
        offsets(topic, client, &mut verified).await?;
        let target = target(topic, client, verified.bytes, told).await?;
        let known = source.topic(&topic.topic_id);
        for partition in &topic.partitions {
            let archived = archived(known, partition, keys, (&reader, &journal)).await?;
            let found = target.get(&partition.partition);
            let (bytes, sha256) = (archived.bytes, archived.end());
            verified.bytes = verified.bytes.saturating_add(bytes);
            match found {
                Some(found) if found.0 == bytes && found.1 == sha256 => {
                    verified.partitions.push(VerifiedPartition {
                        topic: topic.target.clone(),
                        partition: partition.partition,
                        start_offset: partition.start_offset,
                        end_offset: partition.end_offset,
                        bytes,
                        sha256,
                    });
                }
                found => {
                    let shown =
                        found.map_or_else(|| "nothing".to_owned(), |f| format!("{} bytes, {}", f.0, f.1));
                    verified.findings.push(format!(
                        "{}-{}: expected {bytes} bytes, {sha256}, found {shown}",
                        topic.target, partition.partition
                    ));
                }
            }
        }
    }
    Ok(verified)
}

/// Log starts and ends. Others may have written behind the end meanwhile.
async fn offsets(topic: &PlannedTopic, client: &Client, verified: &mut Verified) -> Result<()> {
    let numbers: Vec<i32> = topic.partitions.iter().map(|p| p.partition).collect();
    let starts = client.list_offsets(&topic.target, &numbers, OffsetSpec::Earliest).await?;
    let ends = client.list_offsets(&topic.target, &numbers, OffsetSpec::Latest).await?;
    for partition in &topic.partitions {
        let at =
            |of: &BTreeMap<i32, Option<i64>>| of.get(&partition.partition).copied().flatten().unwrap_or(-1);
        let (start, end) = (at(&starts), at(&ends));
        if start != partition.start_offset || end < partition.end_offset {
            verified.findings.push(format!(
                "{}-{}: expected offsets {} to {}, found {start} to {end}",
                topic.target, partition.partition, partition.start_offset, partition.end_offset
            ));
        }
    }
    Ok(())
}

/// Of one side.
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    hasher: Option<Hasher>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { bytes: 0, hasher: DigestAlgorithm::Sha256.hasher() }
    }
}

impl Sum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    /// As hexadecimal digits.
    pub(crate) fn end(self) -> String {
        self.hasher.map_or_else(String::new, |hasher| hasher.finish().to_string())
    }
}

/// Of each partition how many bytes there are up to the plan's end, and their digest.
async fn target(
    topic: &PlannedTopic,
    client: &Client,
    before: u64,
    told: &(dyn Fn(u64) + Sync),
) -> Result<BTreeMap<i32, (u64, String)>> {
    let ends: BTreeMap<i32, i64> = topic.partitions.iter().map(|p| (p.partition, p.end_offset)).collect();
    let mut sums: BTreeMap<i32, Sum> = ends.keys().map(|n| (*n, Sum::default())).collect();
    let (mut reader, mut bytes) = (client.read_topic_to_end(&topic.target).await?, before);
    while let Some(batches) = reader.next().await? {
        let Some(sum) = sums.get_mut(&batches.partition) else { continue };
        let end = ends.get(&batches.partition).copied().unwrap_or(0);
        let counted = up_to(&topic.target, &batches.bytes, batches.next_offset, end)?;
        sum.add(&counted);
        bytes = bytes.saturating_add(counted.len() as u64);
        told(bytes);
    }
    Ok(sums.into_iter().map(|(n, sum)| (n, (sum.bytes, sum.end()))).collect())
}

/// The batches before `end`.
fn up_to(topic: &str, bytes: &Bytes, next_offset: i64, end: i64) -> Result<Bytes> {
    if next_offset <= end {
        return Ok(bytes.clone());
    }
    let mut counted = 0;
    for batch in Batches::new(bytes.clone(), 0) {
        let batch = batch.map_err(|source| Error::Protocol { object: topic.to_owned(), source })?;
        if batch.header.base_offset >= end {
            break;
        }
        counted += batch.bytes.len();
    }
    Ok(bytes.slice(..counted))
}

async fn archived(
    topic: Option<&SourceTopic>,
    partition: &PlannedPartition,
    keys: &Arc<KeyCache>,
    (reader, journal): (&LogReader, &JournalView),
) -> Result<Sum> {
    let mut sum = Sum::default();
    let Some(state) = topic.and_then(|t| t.partitions.get(&partition.partition)) else { return Ok(sum) };
    let log = reader.at(state, None, journal)?;
    let mut blocks = Blocks::new(log, Arc::clone(keys), facts(partition), partition.base_offset);
    while let Some(block) = blocks.next().await? {
        block.parts().iter().for_each(|part| sum.add(part));
    }
    Ok(sum)
}
