//! The tree over all partitions: grown by what is new, walked in bounded memory.
//!
//! A subtree in that nothing changed is not read. Nodes are written before what names them, so that a crash
//! leaves manifests that nobody names, or that the next snapshot writes again with the same bytes.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use varve_format::Id;

use crate::archive::Archive;
use crate::canonical::V1;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::journal::continuation;
use crate::record::node::{Child, Inner, LEAF_PARTITIONS, Leaf, Node, NodeRef};
use crate::record::state::{BranchState, JournalEntry, OpenTransaction, PartitionState, path};

/// Subtrees that are grown at once at each of the two highest levels, partitions of a leaf, and heads of a chain.
const PARALLEL: usize = 4;

/// What a snapshot is to say of a partition, besides its chains, which are found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub topic_id: Id,
    pub partition: i32,
    /// Entries beyond the chain's end, in order; those that the chain covers by now are left out.
    pub journal: Vec<JournalEntry>,
    pub log_start_offset: Option<i64>,
    /// The log end that was to be reached: kept where it is not.
    pub log_end_offset: Option<i64>,
    pub open_transactions: Vec<OpenTransaction>,
}

impl Target {
    pub fn new(topic_id: Id, partition: i32) -> Self {
        Self {
            topic_id,
            partition,
            journal: Vec::new(),
            log_start_offset: None,
            log_end_offset: None,
            open_transactions: Vec::new(),
        }
    }
}

/// Owned: a borrow within streams of futures is more than the compiler can prove to be sendable.
type Targets = Vec<(Hash, Target)>;

/// What a node is grown from.
enum Base {
    Nothing,
    Node(NodeRef),
    States(Vec<(Hash, PartitionState)>),
}

impl Archive {
    /// The tree in which each of `targets` has its state of now. Of one partition given twice the last counts.
    ///
    /// # Errors
    /// Of the store; whatever is found to be damaged on the way.
    pub async fn grow(&self, root: Option<NodeRef>, targets: &[Target]) -> Result<Option<NodeRef>> {
        let by_path: BTreeMap<Hash, Target> =
            targets.iter().map(|t| (path(self.hash(), t.topic_id, t.partition), t.clone())).collect();
        let base = root.map_or(Base::Nothing, Base::Node);
        self.grow_node(Vec::new(), base, by_path.into_iter().collect()).await
    }

    fn grow_node<'a>(
        &'a self,
        prefix: Vec<u8>,
        base: Base,
        targets: Targets,
    ) -> BoxFuture<'a, Result<Option<NodeRef>>> {
        async move {
            if let (Base::Node(node), true) = (&base, targets.is_empty()) {
                return Ok(Some(node.clone()));
            }
            let (states, children) = match base {
                Base::Nothing => (Vec::new(), Vec::new()),
                Base::States(states) => (states, Vec::new()),
                Base::Node(reference) => match self.node(&reference, &prefix).await? {
                    Node::Inner(inner) => (Vec::new(), inner.children),
                    Node::Leaf(leaf) => {
                        let of = |p: PartitionState| (p.path(self.hash()), p);
                        (leaf.partitions.into_iter().map(of).collect(), Vec::new())
                    }
                },
            };
            let known = targets.iter().filter(|(path, _)| states.iter().any(|(p, _)| p == path)).count();
            let count = states.len().saturating_add(targets.len()).saturating_sub(known);
            if children.is_empty() && count == 0 {
                return Ok(None);
            }
            if children.is_empty() && count <= LEAF_PARTITIONS {
                return self.grow_leaf(prefix, states, targets).await.map(Some);
            }
            self.grow_inner(prefix, states, children, targets).await.map(Some)
        }
        .boxed()
    }

    async fn grow_leaf(
        &self,
        prefix: Vec<u8>,
        states: Vec<(Hash, PartitionState)>,
        targets: Targets,
    ) -> Result<NodeRef> {
        let mut states: BTreeMap<Hash, PartitionState> = states.into_iter().collect();
        let grown: Vec<_> = stream::iter(targets)
            .map(|(path, target)| {
                let base = states.get(&path).cloned();
                async move { self.state(base, &target).await.map(|state| (path, state)) }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        states.extend(grown);
        let depth = u8::try_from(prefix.len()).unwrap_or(u8::MAX);
        self.put_node(&Node::Leaf(Leaf { varve_leaf: V1, depth, partitions: states.into_values().collect() }))
            .await
    }

    async fn grow_inner(
        &self,
        prefix: Vec<u8>,
        states: Vec<(Hash, PartitionState)>,
        children: Vec<Child>,
        targets: Targets,
    ) -> Result<NodeRef> {
        let depth = u8::try_from(prefix.len()).unwrap_or(u8::MAX);
        let mut groups: BTreeMap<u8, (Base, Targets)> = BTreeMap::new();
        for child in children {
            groups.insert(child.nibble, (Base::Node(child.node), Vec::new()));
        }
        for (path, state) in states {
            let group = groups.entry(path.nibble(depth)).or_insert((Base::States(Vec::new()), Vec::new()));
            if let Base::States(states) = &mut group.0 {
                states.push((path, state));
            }
        }
        for (path, target) in targets {
            groups.entry(path.nibble(depth)).or_insert((Base::Nothing, Vec::new())).1.push((path, target));
        }
        let children: Vec<Option<Child>> = stream::iter(groups)
            .map(|(nibble, (base, targets))| {
                let prefix = [prefix.as_slice(), &[nibble]].concat();
                async move {
                    let node = self.grow_node(prefix, base, targets).await?;
                    Ok::<_, Error>(node.map(|node| Child { nibble, node }))
                }
            })
            .buffered(if depth < 2 { PARALLEL } else { 1 })
            .try_collect()
            .await?;
        let children = children.into_iter().flatten().collect();
        self.put_node(&Node::Inner(Inner { varve_inner: V1, depth, children })).await
    }

    /// The state of a partition: the base's, and what its chains have behind it.
    async fn state(&self, base: Option<PartitionState>, target: &Target) -> Result<PartitionState> {
        let mut branches = base.map_or_else(|| vec![BranchState::first()], |state| state.branches);
        let known = branches.last().map_or(0, |b| b.branch);
        let partition = self.partition(target.topic_id, target.partition);
        for (record, hash) in partition.branches(known).await? {
            branches.push(BranchState::of(&record, hash));
        }
        for branch in &mut branches {
            self.extend(target, branch).await?;
        }
        let mut state = PartitionState {
            topic_id: target.topic_id,
            partition: target.partition,
            branches,
            journal: Vec::new(),
            log_start_offset: target.log_start_offset,
            log_end_offset: None,
            open_transactions: target.open_transactions.clone(),
        };
        state.journal = self.joined(&state, target).await?;
        state.log_end_offset = target.log_end_offset.filter(|log_end| *log_end > state.end());
        Ok(state)
    }

    /// The target's journal entries that go on from the chain's end.
    async fn joined(&self, state: &PartitionState, target: &Target) -> Result<Vec<JournalEntry>> {
        let Some(branch) = state.branches.last() else { return Ok(Vec::new()) };
        let mut entries = target.journal.clone();
        entries.retain(|e| e.branch == branch.branch && e.end_offset > branch.end_offset);
        if entries.is_empty() {
            return Ok(entries);
        }
        let partition = self.partition(target.topic_id, target.partition);
        let epoch = partition.last_epoch(branch, self.last_object(branch).await?).await?;
        Ok(continuation(&entries, branch.end_offset, epoch))
    }

    /// Takes what the store has of a branch's chain behind `state`.
    async fn extend(&self, target: &Target, state: &mut BranchState) -> Result<()> {
        let partition = self.partition(target.topic_id, target.partition);
        let branch = state.branch;
        loop {
            let (names, more) = partition.page(branch, state.end_offset).await?;
            let heads = stream::iter(names).map(|(first_offset, meta)| async move {
                let head = partition.head(branch, first_offset).await?;
                let name = partition.object_name(branch, first_offset);
                let head = head.ok_or_else(|| partition.missing(&name))?;
                Ok::<_, Error>(head.entry(meta.version))
            });
            let mut heads = Box::pin(heads.buffered(PARALLEL));
            while let Some(object) = heads.next().await {
                let object = object?;
                if object.first_offset != state.end_offset {
                    let prefix = crate::names::chain_prefix(target.topic_id, target.partition, branch);
                    let found = format!("one at {}", object.first_offset);
                    let expected = format!("an object at {}", state.end_offset);
                    return Err(Error::corrupt(self.shelf.place(&prefix), expected, found));
                }
                self.push(state, object).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Walks the tree in the order of paths: one partition's state after the other.
    pub fn partitions(&self, root: Option<&NodeRef>) -> Walk<'_> {
        let stack = root.map(|node| (node.clone(), Vec::new())).into_iter().collect();
        Walk { archive: self, stack, ready: Vec::new() }
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
        let path = path(self.hash(), topic_id, partition);
        let (mut next, mut prefix) = (root.cloned(), Vec::new());
        while let Some(reference) = next {
            let inner = match self.node(&reference, &prefix).await? {
                Node::Inner(inner) => inner,
                Node::Leaf(leaf) => {
                    let same = |p: &PartitionState| p.topic_id == topic_id && p.partition == partition;
                    return Ok(leaf.partitions.into_iter().find(same));
                }
            };
            let nibble = path.nibble(inner.depth);
            prefix.push(nibble);
            next = inner.children.into_iter().find(|c| c.nibble == nibble).map(|c| c.node);
        }
        Ok(None)
    }
}

/// See [`Archive::partitions`]. Holds one path of the tree and one leaf.
#[derive(Debug)]
pub struct Walk<'a> {
    archive: &'a Archive,
    /// What comes next is last.
    stack: Vec<(NodeRef, Vec<u8>)>,
    ready: Vec<PartitionState>,
}

impl Walk<'_> {
    /// # Errors
    /// As [`Archive::node`]. The walk may go on: what could not be read is left out.
    pub async fn next(&mut self) -> Result<Option<PartitionState>> {
        loop {
            if let Some(state) = self.ready.pop() {
                return Ok(Some(state));
            }
            let Some((reference, prefix)) = self.stack.pop() else { return Ok(None) };
            match self.archive.node(&reference, &prefix).await? {
                Node::Leaf(leaf) => {
                    self.ready = leaf.partitions;
                    self.ready.reverse();
                }
                Node::Inner(inner) => {
                    let below = inner.children.into_iter().rev();
                    self.stack.extend(below.map(|c| (c.node, [prefix.as_slice(), &[c.nibble]].concat())));
                }
            }
        }
    }
}
