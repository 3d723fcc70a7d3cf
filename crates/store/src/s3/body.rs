//! Reading.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};

use super::{Inner, failure};
use crate::body::{self, Answer, Source};
use crate::contract::{GetRange, GetResult, Result};
use crate::error::Kind;
use crate::failure::{At, chain};
use crate::key::Key;
use crate::ranges::{delivered, header_of};
use crate::retry::Retry;

pub(super) async fn get(
    inner: &Arc<Inner>,
    key: &Key,
    version: Option<&str>,
    range: GetRange,
) -> Result<GetResult> {
    let at = inner.at("get", key.as_str());
    let full = inner.full(key, &at)?;
    let (inner, version) = (Arc::clone(inner), version.map(str::to_owned));
    body::get(Arc::new(Of { inner, key: key.clone(), full, version }), at, range).await
}

/// Which object: its key in the bucket, and which version if not the current one.
struct Of {
    inner: Arc<Inner>,
    key: Key,
    full: String,
    version: Option<String>,
}

#[async_trait]
impl Source for Of {
    fn retry(&self) -> &Retry {
        &self.inner.retry
    }

    async fn request(&self, at: &At, range: GetRange, etag: Option<&str>) -> Result<Answer> {
        let header = header_of(range).map_err(|flaw| at.error(Kind::InvalidRange, flaw))?;
        let send = || async {
            let call = self.inner.client.get_object().bucket(&self.inner.config.bucket).key(&self.full);
            let call = call.set_version_id(self.version.clone());
            let call = call.set_range(header.clone()).set_if_match(etag.map(str::to_owned));
            call.send().await.map_err(failure::of)
        };
        let answer = self.inner.retry.run(at, 0, send).await?;
        let length = answer.content_length().and_then(|len| u64::try_from(len).ok());
        let (range, object_size_bytes) =
            delivered(length, answer.content_range(), range).map_err(|flaw| at.error(Kind::Other, flaw))?;
        let body = stream::unfold(answer.body, |mut body| async {
            let piece = body.next().await?.map_err(|error| chain(&error));
            Some((piece, body))
        });
        let (etag, version) = (answer.e_tag, answer.version_id);
        Ok(Answer { range, object_size_bytes, etag, version, body: body.boxed() })
    }

    async fn examine(&self, at: &At) -> Result<(u64, Option<String>, Option<String>)> {
        let (meta, _) = self.inner.examine(&self.key, self.version.as_deref(), at).await?;
        Ok((meta.size_bytes, meta.etag, meta.version))
    }
}
