//! Uploads: blocks, and the list of them that makes the blob.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::Etag;
use azure_storage_blob::models::{
    AccessTier, BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockLookupList,
};
use bytes::Bytes;
use parking_lot::Mutex;

use super::write::{ID_METADATA, crc64};
use super::{Inner, failure};
use crate::contract::{Create, ObjectMeta, PutOptions, Result, Upload};
use crate::create::{Found, Signed as _, new_id};
use crate::error::Kind;
use crate::failure::{At, Failure};
use crate::key::Key;
use crate::parts::PartPlan;

enum State {
    Open,
    Completed(ObjectMeta),
    Aborted,
}

pub(super) struct AzureUpload {
    pub(super) inner: Arc<Inner>,
    key: Key,
    pub(super) full: String,
    /// In the object's metadata, and before each block's number: no other upload names the same blocks.
    write_id: String,
    plan: PartPlan,
    options: PutOptions,
    /// Sizes of the blocks that the store has.
    parts: Mutex<BTreeMap<u32, u64>>,
    state: Mutex<State>,
}

impl AzureUpload {
    /// Nothing is sent: Azure knows of an upload by its first block.
    pub(super) fn begin(
        inner: &Arc<Inner>,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Self> {
        let at = inner.at("upload", key.as_str());
        let plan = PartPlan::new(&inner.limits(), part_bytes, size_bytes)
            .map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        Ok(Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            full: inner.full(key, &at)?,
            write_id: new_id(),
            plan,
            options: options.clone(),
            parts: Mutex::default(),
            state: Mutex::new(State::Open),
        })
    }

    pub(super) fn at(&self, operation: impl Into<String>) -> At {
        self.inner.at(operation, self.key.as_str())
    }

    pub(super) fn record(&self, number: u32, size_bytes: u64) {
        self.parts.lock().insert(number, size_bytes);
    }

    /// All of one length, as Azure demands; at most 64 bytes.
    pub(super) fn block_id(&self, number: u32) -> Vec<u8> {
        format!("{}-{number:05}", self.write_id).into_bytes()
    }

    async fn commit(
        &self,
        size_bytes: u64,
        blocks: Vec<Vec<u8>>,
    ) -> std::result::Result<ObjectMeta, Failure> {
        let if_absent = self.options.create == Create::IfAbsent;
        let options = BlockBlobClientCommitBlockListOptions {
            if_none_match: if_absent.then(|| Etag::from("*")),
            metadata: Some(HashMap::from([(ID_METADATA.to_owned(), self.write_id.clone())])),
            tier: self.inner.access_tier(&self.options).and_then(|tier| AccessTier::from_str(&tier).ok()),
            ..Default::default()
        };
        let list = BlockLookupList { latest: Some(blocks), ..Default::default() };
        let list = list.try_into().map_err(failure::of)?;
        let client = self.inner.client.blob(&self.full, None)?.block_blob_client();
        let answer = client.commit_block_list(list, Some(options)).await.map_err(failure::of)?;
        Ok(self.inner.written_meta(&self.key, size_bytes, &self.options, answer.headers()))
    }

    async fn finish(&self) -> Result<ObjectMeta> {
        let at = self.at("complete");
        let parts = self.parts.lock().clone();
        let size_bytes = self.plan.check_complete(&parts).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let blocks: Vec<_> = parts.keys().map(|&number| self.block_id(number)).collect();
        let if_absent = self.options.create == Create::IfAbsent;
        let request = || self.commit(size_bytes, blocks.clone());
        // A list of many blocks is a body too.
        let list_bytes = 100 * blocks.len() as u64;
        let (mut course, mut in_doubt) = (self.inner.retry.course(), false);
        loop {
            let failure = match course.attempt(list_bytes, &request).await {
                Ok(meta) => return Ok(meta),
                Err(failure) if if_absent => failure::of_create(failure),
                Err(failure) => failure,
            };
            in_doubt |= failure.ambiguous;
            let refused = failure.kind == Kind::AlreadyExists;
            let lost = failure.code == failure::NO_SUCH_BLOCKS;
            if failure.ambiguous || lost || (refused && in_doubt) {
                match self.inner.find(&self.key, &self.write_id, &at).await? {
                    Found::Ours(meta) => return Ok(meta),
                    Found::Another if if_absent => {
                        return Err(at.error(Kind::AlreadyExists, "the object exists"));
                    }
                    Found::Another | Found::Nothing if lost => {
                        let detail = format!(
                            "no such upload: another write at the key made the store throw its blocks away ({})",
                            failure.detail
                        );
                        return Err(at.error(Kind::NotFound, detail));
                    }
                    Found::Another | Found::Nothing => {}
                }
            }
            if let Err(last) = course.again(failure, &at).await {
                return Err(last.error(&at, course.attempts));
            }
        }
    }
}

impl fmt::Debug for AzureUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureUpload")
            .field("key", &self.key)
            .field("id", &self.write_id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Upload for AzureUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        let at = self.at(format!("put part {number}"));
        if !matches!(*self.state.lock(), State::Open) {
            return Err(at.error(Kind::NotFound, "no such upload: it was completed or aborted"));
        }
        self.plan.check_part(number, body.len()).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let (id, checksum, size_bytes) = (self.block_id(number), crc64(&body), body.len() as u64);
        let request = || async {
            let options = BlockBlobClientStageBlockOptions {
                transactional_content_crc64: Some(checksum.to_vec()),
                ..Default::default()
            };
            let client = self.inner.client.blob(&self.full, None)?.block_blob_client();
            let sent = client.stage_block(&id, size_bytes, body.clone().into(), Some(options)).await;
            sent.map(drop).map_err(failure::of)
        };
        self.inner.retry.run(&at, size_bytes, request).await?;
        self.record(number, size_bytes);
        Ok(())
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        match &*self.state.lock() {
            State::Open => {}
            State::Completed(meta) => return Ok(meta.clone()),
            State::Aborted => {
                return Err(self.at("complete").error(Kind::NotFound, "no such upload: it was aborted"));
            }
        }
        let meta = self.finish().await?;
        *self.state.lock() = State::Completed(meta.clone());
        Ok(meta)
    }

    /// Its blocks can't be deleted by themselves, and deleting the blob would delete what stands at the key.
    async fn abort(&self) -> Result<()> {
        let mut state = self.state.lock();
        if matches!(*state, State::Open) {
            *state = State::Aborted;
        }
        Ok(())
    }
}
