//! Which partitions differ between two snapshots. What is the same in both is not read: a subtree of the same
//! hash is passed over.

use std::collections::BTreeMap;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use varve_archive::Archive;
use varve_archive::record::node::{Node, NodeRef};
use varve_archive::record::state::PartitionEntry;
use varve_format::Id;

/// What a snapshot says of a partition, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionSummary {
    pub(crate) branch: u32,
    pub(crate) chain_end: i64,
    /// Of the journal, the recovery point.
    pub(crate) end_offset: i64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) log_end_offset: Option<i64>,
}

impl PartitionSummary {
    pub(crate) fn of(entry: &PartitionEntry) -> Self {
        let chains = entry.chains.as_ref();
        Self {
            branch: entry.branch(),
            chain_end: entry.chain_end(),
            end_offset: entry.end(),
            objects: chains.map_or(0, |c| c.objects),
            bytes: chains.map_or(0, |c| c.object_bytes),
            log_end_offset: entry.log_end_offset,
        }
    }
}

/// A partition that is not the same in both; absent in one of them, perhaps.
#[derive(Clone, Debug)]
pub(crate) struct PartitionChange {
    pub(crate) topic_id: Id,
    pub(crate) partition: i32,
    pub(crate) before: Option<PartitionSummary>,
    pub(crate) after: Option<PartitionSummary>,
}

type States = BTreeMap<(Id, i32), PartitionEntry>;

/// In order of topics and partitions.
pub(crate) async fn changes(
    archive: &Archive,
    before: Option<NodeRef>,
    after: Option<NodeRef>,
) -> Result<Vec<PartitionChange>> {
    let mut found = Vec::new();
    below(archive, Vec::new(), before, after, &mut found).await?;
    found.sort_by_key(|c| (c.topic_id, c.partition));
    Ok(found)
}

fn below<'a>(
    archive: &'a Archive,
    prefix: Vec<u8>,
    before: Option<NodeRef>,
    after: Option<NodeRef>,
    found: &'a mut Vec<PartitionChange>,
) -> BoxFuture<'a, Result<()>> {
    async move {
        if before.as_ref().map(|n| n.hash) == after.as_ref().map(|n| n.hash) {
            return Ok(());
        }
        let (a, b) = (read(archive, &before, &prefix).await?, read(archive, &after, &prefix).await?);
        if let (Some(Node::Inner(a)), Some(Node::Inner(b))) = (&a, &b) {
            let mut nibbles: BTreeMap<u8, (Option<NodeRef>, Option<NodeRef>)> = BTreeMap::new();
            a.children.iter().for_each(|c| nibbles.entry(c.nibble).or_default().0 = Some(c.node.clone()));
            b.children.iter().for_each(|c| nibbles.entry(c.nibble).or_default().1 = Some(c.node.clone()));
            for (nibble, (a, b)) in nibbles {
                below(archive, [prefix.as_slice(), &[nibble]].concat(), a, b, found).await?;
            }
            return Ok(());
        }
        // A leaf, at least on one side: so there is little of it.
        let (a, mut b) = (states(archive, a, &prefix).await?, states(archive, b, &prefix).await?);
        for ((topic_id, partition), before) in a {
            let after = b.remove(&(topic_id, partition));
            if after.as_ref() != Some(&before) {
                let (before, after) =
                    (Some(PartitionSummary::of(&before)), after.as_ref().map(PartitionSummary::of));
                found.push(PartitionChange { topic_id, partition, before, after });
            }
        }
        for ((topic_id, partition), state) in b {
            let after = Some(PartitionSummary::of(&state));
            found.push(PartitionChange { topic_id, partition, before: None, after });
        }
        Ok(())
    }
    .boxed()
}

async fn read(archive: &Archive, node: &Option<NodeRef>, prefix: &[u8]) -> Result<Option<Node>> {
    match node {
        Some(reference) => Ok(Some(archive.node(reference, prefix).await?)),
        None => Ok(None),
    }
}

fn states<'a>(archive: &'a Archive, node: Option<Node>, prefix: &'a [u8]) -> BoxFuture<'a, Result<States>> {
    async move {
        let mut all = States::new();
        match node {
            None => {}
            Some(Node::Leaf(leaf)) => {
                all.extend(leaf.partitions.into_iter().map(|p| ((p.topic_id, p.partition), p)));
            }
            Some(Node::Inner(inner)) => {
                for child in inner.children {
                    let prefix = [prefix, &[child.nibble]].concat();
                    let node = archive.node(&child.node, &prefix).await?;
                    all.extend(states(archive, Some(node), &prefix).await?);
                }
            }
        }
        Ok(all)
    }
    .boxed()
}
