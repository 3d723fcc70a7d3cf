//! Manifests: objects that are named by their hash. Whoever reads one checks it; whoever writes one that is
//! there already has written it.

use bytes::Bytes;

use crate::archive::Archive;
use crate::canonical::Record;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::names;
use crate::record::MANIFEST_MAX_BYTES;
use crate::record::chains::{BranchState, Chains};
use crate::record::node::{Node, NodeRef};
use crate::record::object::{BLOCK_ENTRIES, Block, BlockRef, LEVEL_MAX, ObjectEntry};
use crate::record::state::{PartitionEntry, PartitionState};
use crate::shelf::Created;

impl Archive {
    /// # Errors
    /// Of the store; [`Error::Corrupt`] where other bytes lie under the same hash.
    pub async fn put_manifest(&self, bytes: Bytes) -> Result<Hash> {
        let hash = self.hash().of(&[&bytes]);
        let name = names::manifest(hash);
        match self.shelf.create(&name, bytes).await? {
            Created::Ours => Ok(hash),
            Created::Other(_) => Err(Error::corrupt(self.shelf.place(&name), "bytes of its hash", "others")),
        }
    }

    /// # Errors
    /// Of the store; [`Error::Missing`]; [`Error::Corrupt`] for bytes of another hash.
    pub async fn manifest(&self, hash: Hash, max_bytes: u64) -> Result<Bytes> {
        match self.manifest_once(hash, max_bytes).await {
            Err(error) if self.shelf.again(&names::manifest(hash), &error).await? => {
                self.manifest_once(hash, max_bytes).await
            }
            found => found,
        }
    }

    async fn manifest_once(&self, hash: Hash, max_bytes: u64) -> Result<Bytes> {
        let name = names::manifest(hash);
        let found = self.shelf.get(&name, max_bytes).await?;
        let bytes = found.ok_or_else(|| Error::Missing { object: self.shelf.place(&name) })?;
        let actual = self.hash().of(&[&bytes]);
        if actual == hash {
            return Ok(bytes);
        }
        Err(Error::corrupt(self.shelf.place(&name), "bytes of its hash", actual))
    }

    /// A node of the tree, checked against what refers to it.
    ///
    /// # Errors
    /// As [`Archive::manifest`]; [`Error::Record`] for what is not that node.
    pub async fn node(&self, reference: &NodeRef, prefix: &[u8]) -> Result<Node> {
        let bytes = self.manifest(reference.hash, MANIFEST_MAX_BYTES).await?;
        let damaged = self.shelf.damaged(&names::manifest(reference.hash));
        let node = Node::decode(&bytes).map_err(&damaged)?;
        node.check_place(reference, self.hash(), prefix).map_err(damaged)?;
        Ok(node)
    }

    /// A block, checked against what refers to it.
    ///
    /// # Errors
    /// As [`Archive::manifest`]; [`Error::Record`] for what is not that block.
    pub async fn block(&self, level: u8, reference: &BlockRef) -> Result<Block> {
        let bytes = self.manifest(reference.hash, MANIFEST_MAX_BYTES).await?;
        let name = names::manifest(reference.hash);
        let block = Block::decode(&bytes).map_err(self.shelf.damaged(&name))?;
        if block.level == level && block.reference(reference.hash) == *reference {
            return Ok(block);
        }
        let expected = format!("level {level}, {reference:?}");
        let found = format!("level {}, {:?}", block.level, block.reference(reference.hash));
        Err(Error::corrupt(self.shelf.place(&name), expected, found))
    }

    /// A partition's entry with its chains, checked against what refers to them.
    ///
    /// # Errors
    /// As [`Archive::manifest`]; [`Error::Record`] for what is not these chains.
    pub async fn state(&self, entry: PartitionEntry) -> Result<PartitionState> {
        let Some(reference) = &entry.chains else {
            return Ok(PartitionState { entry, branches: vec![BranchState::first()] });
        };
        let bytes = self.manifest(reference.hash, MANIFEST_MAX_BYTES).await?;
        let name = names::manifest(reference.hash);
        let chains = Chains::decode(&bytes).map_err(self.shelf.damaged(&name))?;
        let found =
            (chains.topic_id, chains.partition, chains.reference(reference.hash, reference.last_epoch));
        let expected = (entry.topic_id, entry.partition, reference.clone());
        if found == expected {
            return Ok(PartitionState { entry, branches: chains.branches });
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{expected:?}"), format!("{found:?}")))
    }

    pub(crate) async fn put_node(&self, node: &Node) -> Result<NodeRef> {
        let bytes = node.encode().map_err(self.shelf.damaged("a node of the tree"))?;
        let hash = self.put_manifest(Bytes::from(bytes)).await?;
        Ok(node.reference(hash))
    }

    async fn put_block(&self, block: &Block) -> Result<BlockRef> {
        let bytes = block.encode().map_err(self.shelf.damaged("a block"))?;
        let hash = self.put_manifest(Bytes::from(bytes)).await?;
        Ok(block.reference(hash))
    }

    /// Appends an object to a chain's state; a block that it fills is written.
    pub(crate) async fn push(&self, since: u64, state: &mut BranchState, object: ObjectEntry) -> Result<()> {
        state.end_offset = object.end_offset;
        state.tail.push(object);
        if state.tail.len() < BLOCK_ENTRIES {
            return Ok(());
        }
        let mut full = Block::of_objects(since, std::mem::take(&mut state.tail));
        for level in 0..=LEVEL_MAX {
            let reference = self.put_block(&full).await?;
            if state.levels.len() <= usize::from(level) {
                state.levels.push(Vec::new());
            }
            let Some(blocks) = state.levels.get_mut(usize::from(level)) else { break };
            blocks.push(reference);
            if blocks.len() < BLOCK_ENTRIES {
                return Ok(());
            }
            full = Block::of_blocks(since, level.saturating_add(1), std::mem::take(blocks));
        }
        Err(Error::invalid("chain", "more than 32^10 objects", "fewer"))
    }

    /// The objects of a chain, in order: block by block, so that memory is bounded by one path of blocks.
    pub fn objects<'a>(&'a self, state: &'a BranchState) -> ChainObjects<'a> {
        self.objects_from(state, i64::MIN)
    }

    /// The same, from the object on that holds `offset`: blocks before are not read.
    pub fn objects_from<'a>(&'a self, state: &'a BranchState, offset: i64) -> ChainObjects<'a> {
        let blocks = state.blocks().filter(|(_, b)| b.end_offset > offset);
        let mut stack: Vec<(u8, BlockRef)> = blocks.map(|(l, b)| (l, b.clone())).collect();
        stack.reverse();
        ChainObjects { archive: self, offset, stack, ready: Vec::new(), tail: Some(state.tail.as_slice()) }
    }

    /// The last object of a chain.
    ///
    /// # Errors
    /// As [`Archive::block`].
    pub async fn last_object(&self, state: &BranchState) -> Result<Option<ObjectEntry>> {
        if let Some(last) = state.tail.last() {
            return Ok(Some(last.clone()));
        }
        let Some((mut level, reference)) = state.blocks().last() else { return Ok(None) };
        let mut block = self.block(level, reference).await?;
        while let Some(reference) = block.blocks.last().cloned() {
            level = level.saturating_sub(1);
            block = self.block(level, &reference).await?;
        }
        Ok(block.objects.last().cloned())
    }
}

/// See [`Archive::objects`].
#[derive(Debug)]
pub struct ChainObjects<'a> {
    archive: &'a Archive,
    /// What ends at it or before is passed over.
    offset: i64,
    /// What comes next is last.
    stack: Vec<(u8, BlockRef)>,
    ready: Vec<ObjectEntry>,
    tail: Option<&'a [ObjectEntry]>,
}

impl ChainObjects<'_> {
    /// # Errors
    /// As [`Archive::block`].
    pub async fn next(&mut self) -> Result<Option<ObjectEntry>> {
        loop {
            if let Some(object) = self.ready.pop() {
                return Ok(Some(object));
            }
            let mut objects = match self.stack.pop() {
                Some((level, reference)) => {
                    let block = self.archive.block(level, &reference).await?;
                    let below = level.saturating_sub(1);
                    let wanted = block.blocks.into_iter().filter(|b| b.end_offset > self.offset).rev();
                    self.stack.extend(wanted.map(|b| (below, b)));
                    block.objects
                }
                None => match self.tail.take() {
                    Some(tail) => tail.to_vec(),
                    None => return Ok(None),
                },
            };
            objects.retain(|o| o.end_offset > self.offset);
            objects.reverse();
            self.ready = objects;
        }
    }
}
