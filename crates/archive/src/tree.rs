//! The tree over all partitions: grown by what is new, walked in bounded memory.
//!
//! A subtree in that nothing changed is not read. Nodes are written before what names them, so that a crash
//! leaves manifests that nobody names, or that the next snapshot writes again with the same bytes. A partition
//! that can't be grown keeps its state and says why: it holds up no other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use varve_format::Id;

use crate::archive::Archive;
use crate::canonical::V1;
use crate::error::{Error, Result};
use crate::growth::{Growth, Target, Work};
use crate::hash::Hash;
use crate::record::node::{Child, Inner, LEAF_PARTITIONS, Leaf, Node, NodeRef, prefix_text};
use crate::record::state::{PartitionEntry, PartitionState, path};

/// Subtrees that are grown at once at each of the two highest levels, and partitions of a leaf.
const PARALLEL: usize = 4;
/// Chains that a walk fetches at once.
const CHAINS_AHEAD: usize = 8;

/// Owned: a borrow within streams of futures is more than the compiler can prove to be sendable.
type Works = Vec<(Hash, Work)>;

/// What a node is grown from.
enum Base {
    Nothing,
    Node(NodeRef),
    Entries(Vec<(Hash, PartitionEntry)>),
}

impl Growth<'_> {
    /// The tree in which each of `targets` has its state of now. Of one partition given twice the last counts.
    ///
    /// # Errors
    /// Of the store; nodes of the tree that are damaged.
    pub(crate) async fn grow(
        &self,
        root: Option<NodeRef>,
        targets: &[Target],
        pruned: &[crate::record::pruned::PrunedRange],
    ) -> Result<Option<NodeRef>> {
        let hash = self.archive.hash();
        let mut works: BTreeMap<Hash, Work> = BTreeMap::new();
        for range in pruned {
            let place = path(hash, range.topic_id, range.partition);
            let known = match works.get(&place) {
                Some(_) => true,
                None => self.archive.entry(root.as_ref(), range.topic_id, range.partition).await?.is_some(),
            };
            if known {
                works.entry(place).or_insert_with(|| Work::of(range)).pruned.push(range.clone());
            }
        }
        for target in targets {
            let place = path(hash, target.topic_id, target.partition);
            let work = works.entry(place).or_insert_with(|| Work::on(target));
            work.target = Some(target.clone());
        }
        self.node(Vec::new(), root.map_or(Base::Nothing, Base::Node), works.into_iter().collect()).await
    }

    fn node<'a>(
        &'a self,
        prefix: Vec<u8>,
        base: Base,
        works: Works,
    ) -> BoxFuture<'a, Result<Option<NodeRef>>> {
        async move {
            if let (Base::Node(node), true) = (&base, works.is_empty()) {
                return Ok(Some(node.clone()));
            }
            let before = match &base {
                Base::Node(reference) => Some(reference.clone()),
                _ => None,
            };
            let (entries, children) = match base {
                Base::Nothing => (Vec::new(), Vec::new()),
                Base::Entries(entries) => (entries, Vec::new()),
                Base::Node(reference) => match self.archive.node(&reference, &prefix).await? {
                    Node::Inner(inner) => (Vec::new(), inner.children),
                    Node::Leaf(leaf) => {
                        let of = |p: PartitionEntry| (p.path(self.archive.hash()), p);
                        (leaf.partitions.into_iter().map(of).collect(), Vec::new())
                    }
                },
            };
            let known = works.iter().filter(|(path, _)| entries.iter().any(|(p, _)| p == path)).count();
            let count = entries.len().saturating_add(works.len()).saturating_sub(known);
            if children.is_empty() && count == 0 {
                return Ok(None);
            }
            if children.is_empty() && count <= LEAF_PARTITIONS {
                return self.leaf(before, prefix, entries, works).await.map(Some);
            }
            self.inner(before, prefix, entries, children, works).await.map(Some)
        }
        .boxed()
    }

    async fn leaf(
        &self,
        before: Option<NodeRef>,
        prefix: Vec<u8>,
        entries: Vec<(Hash, PartitionEntry)>,
        works: Works,
    ) -> Result<NodeRef> {
        let mut entries: BTreeMap<Hash, PartitionEntry> = entries.into_iter().collect();
        let grown: Vec<_> = stream::iter(works)
            .map(|(path, work)| {
                let base = entries.get(&path).cloned();
                async move { self.entry(base, &work).await.map(|entry| (path, entry)) }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        if let Some(before) = before.filter(|_| grown.iter().all(|(p, e)| entries.get(p) == Some(e))) {
            return Ok(before);
        }
        entries.extend(grown);
        let leaf = Leaf {
            varve_leaf: V1,
            since: self.since,
            prefix: prefix_text(&prefix),
            partitions: entries.into_values().collect(),
            more: Vec::new(),
        };
        self.archive.put_node(&Node::Leaf(leaf)).await
    }

    /// Where nothing came of the work, the node stays what it was.
    async fn inner(
        &self,
        before: Option<NodeRef>,
        prefix: Vec<u8>,
        entries: Vec<(Hash, PartitionEntry)>,
        children: Vec<Child>,
        works: Works,
    ) -> Result<NodeRef> {
        let depth = u8::try_from(prefix.len()).unwrap_or(u8::MAX);
        let known = children.clone();
        let mut groups: BTreeMap<u8, (Base, Works)> = BTreeMap::new();
        for child in children {
            groups.insert(child.nibble, (Base::Node(child.node), Vec::new()));
        }
        for (path, entry) in entries {
            let group = groups.entry(path.nibble(depth)).or_insert((Base::Entries(Vec::new()), Vec::new()));
            if let Base::Entries(entries) = &mut group.0 {
                entries.push((path, entry));
            }
        }
        for (path, work) in works {
            groups.entry(path.nibble(depth)).or_insert((Base::Nothing, Vec::new())).1.push((path, work));
        }
        let children: Vec<Option<Child>> = stream::iter(groups)
            .map(|(nibble, (base, works))| {
                let prefix = [prefix.as_slice(), &[nibble]].concat();
                async move {
                    let node = self.node(prefix, base, works).await?;
                    Ok::<_, Error>(node.map(|node| Child { nibble, node }))
                }
            })
            .buffered(if depth < 2 { PARALLEL } else { 1 })
            .try_collect()
            .await?;
        let children: Vec<Child> = children.into_iter().flatten().collect();
        if let Some(before) = before.filter(|_| children == known) {
            return Ok(before);
        }
        let inner = Inner {
            varve_inner: V1,
            since: self.since,
            prefix: prefix_text(&prefix),
            children,
            more: Vec::new(),
        };
        self.archive.put_node(&Node::Inner(inner)).await
    }
}

impl Archive {
    /// Walks the tree in the order of paths: one partition's state after the other.
    pub fn partitions(&self, root: Option<&NodeRef>) -> Walk<'_> {
        Walk { leaves: self.leaves(root), ready: VecDeque::new() }
    }

    /// The same, without chains: one leaf after the other.
    pub fn leaves(&self, root: Option<&NodeRef>) -> Leaves<'_> {
        Leaves { archive: self, stack: root.map(|node| (node.clone(), Vec::new())).into_iter().collect() }
    }

    /// The state of one partition in a tree.
    ///
    /// # Errors
    /// As [`Archive::node`].
    pub async fn find(
        &self,
        root: Option<&NodeRef>,
        topic_id: Id,
        partition: i32,
    ) -> Result<Option<PartitionState>> {
        match self.entry(root, topic_id, partition).await? {
            Some(entry) => self.state(entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same, without its chains.
    ///
    /// # Errors
    /// As [`Archive::node`].
    pub async fn entry(
        &self,
        root: Option<&NodeRef>,
        topic_id: Id,
        partition: i32,
    ) -> Result<Option<PartitionEntry>> {
        let path = path(self.hash(), topic_id, partition);
        let (mut next, mut prefix) = (root.cloned(), Vec::new());
        while let Some(reference) = next {
            let inner = match self.node(&reference, &prefix).await? {
                Node::Inner(inner) => inner,
                Node::Leaf(leaf) => {
                    let same = |p: &PartitionEntry| p.topic_id == topic_id && p.partition == partition;
                    return Ok(leaf.partitions.into_iter().find(same));
                }
            };
            let nibble = path.nibble(u8::try_from(prefix.len()).unwrap_or(u8::MAX));
            prefix.push(nibble);
            next = inner.children.into_iter().find(|c| c.nibble == nibble).map(|c| c.node);
        }
        Ok(None)
    }
}

/// See [`Archive::leaves`]. Holds one path of the tree.
#[derive(Debug)]
pub struct Leaves<'a> {
    archive: &'a Archive,
    /// What comes next is last.
    stack: Vec<(NodeRef, Vec<u8>)>,
}

impl Leaves<'_> {
    /// The next that can be read; what is damaged is told, and passed over.
    ///
    /// # Errors
    /// Of the store.
    pub async fn next_whole(&mut self, told: impl Fn(&Error)) -> Result<Option<Vec<PartitionEntry>>> {
        loop {
            match self.next().await {
                Err(error) if error.is_damage() => told(&error),
                leaf => return leaf,
            }
        }
    }

    /// # Errors
    /// As [`Archive::node`]; what is behind a damaged node follows.
    pub async fn next(&mut self) -> Result<Option<Vec<PartitionEntry>>> {
        while let Some((reference, prefix)) = self.stack.pop() {
            match self.archive.node(&reference, &prefix).await? {
                Node::Leaf(leaf) => return Ok(Some(leaf.partitions)),
                Node::Inner(inner) => {
                    let below = |child: Child| (child.node, [prefix.as_slice(), &[child.nibble]].concat());
                    self.stack.extend(inner.children.into_iter().rev().map(below));
                }
            }
        }
        Ok(None)
    }
}

/// See [`Archive::partitions`]. Holds one path of the tree and one leaf.
#[derive(Debug)]
pub struct Walk<'a> {
    leaves: Leaves<'a>,
    ready: VecDeque<Result<PartitionState>>,
}

impl Walk<'_> {
    /// # Errors
    /// As [`Archive::node`]; what is behind a damaged node, or behind a partition whose chains are, follows.
    pub async fn next(&mut self) -> Result<Option<PartitionState>> {
        loop {
            if let Some(state) = self.ready.pop_front() {
                return state.map(Some);
            }
            let Some(entries) = self.leaves.next().await? else { return Ok(None) };
            let archive = self.leaves.archive;
            let states = stream::iter(entries).map(|entry| archive.state(entry));
            self.ready = states.buffered(CHAINS_AHEAD).collect().await;
        }
    }
}

/// Names of topics that were looked up.
pub(crate) type TopicNames = HashMap<Id, Option<String>>;
