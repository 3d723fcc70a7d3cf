//! Deletes: a hundred keys in one request, where the server knows batches.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::{StreamExt, stream};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::client::read_within;
use super::failure::{is_of_bucket, told};
use super::{Inner, batch};
use crate::contract::Result;
use crate::create::new_id;
use crate::error::Kind;
use crate::failure::{At, Failure, Passing};
use crate::key::Key;

/// Google's limit.
const BATCH: usize = 100;
const PARALLEL_BATCHES: usize = 4;
const PARALLEL_DELETES: usize = 16;
/// Of the answer to a batch.
const ANSWER_BYTES_MAX: usize = 8 << 20;

impl Inner {
    pub(super) async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        if let [key] = keys {
            return Ok(vec![self.delete_one(key).await]);
        }
        let batches: Vec<_> = keys.chunks(BATCH).map(|keys| self.delete_some(keys)).collect();
        Ok(stream::iter(batches).buffered(PARALLEL_BATCHES).flat_map(stream::iter).collect().await)
    }

    /// At most a hundred.
    async fn delete_some(&self, keys: &[Key]) -> Vec<Result<()>> {
        if self.has_no_batches.load(Ordering::Relaxed) {
            return self.delete_each(keys).await;
        }
        match self.delete_batch(keys).await {
            Ok(mut failures) => {
                let outcomes = keys.iter().enumerate().map(|(number, key)| {
                    let at = self.at("delete", key.as_str());
                    failures.remove(&number).map_or(Ok(()), |failure| Err(failure.error(&at, 1)))
                });
                outcomes.collect()
            }
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unsupported) => {
                tracing::debug!(
                    url = self.config.url,
                    "the server knows no batches: keys are deleted one by one"
                );
                self.has_no_batches.store(true, Ordering::Relaxed);
                self.delete_each(keys).await
            }
            Err(error) => {
                let at = |key: &Key| self.at("delete", key.as_str());
                keys.iter().map(|key| Err(at(key).error(error.kind, &error.detail))).collect()
            }
        }
    }

    async fn delete_each(&self, keys: &[Key]) -> Vec<Result<()>> {
        let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key)).collect();
        stream::iter(deletes).buffered(PARALLEL_DELETES / PARALLEL_BATCHES).collect().await
    }

    /// The failures by number; one that may pass fails the attempt, so that all of it is repeated.
    async fn delete_batch(&self, keys: &[Key]) -> Result<HashMap<usize, Failure>> {
        let at = self.at("delete", &format!("({} keys)", keys.len()));
        let paths = keys.iter().map(|key| self.path_with_query(key, &at)).collect::<Result<Vec<_>>>()?;
        let boundary = new_id();
        let body = batch::compose(&boundary, paths.into_iter().map(|path| ("DELETE", path)));
        let url = self.url("/batch/storage/v1", &[], &at)?;
        let request = || async {
            let call = self.client.request(Method::POST, url.clone()).body(body.clone());
            let call = call.header(CONTENT_TYPE, format!("multipart/mixed; boundary={boundary}"));
            let answer = self.client.send(call).await?;
            let kind = answer.headers().get(CONTENT_TYPE).cloned();
            let body = read_within(answer, ANSWER_BYTES_MAX).await?;
            failures(keys.len(), kind.as_ref(), &body)
        };
        self.retry.run(&at, body.len() as u64, request).await
    }

    pub(super) async fn delete_one(&self, key: &Key) -> Result<()> {
        let at = self.at("delete", key.as_str());
        let url = self.url(&self.object_path(key, &at)?, &[], &at)?;
        self.delete_at(url, &at).await
    }

    /// One version, for good.
    pub(super) async fn delete_generation(&self, key: &Key, generation: u64, at: &At) -> Result<()> {
        let generation = generation.to_string();
        let query = [("generation", Some(generation.as_str()))];
        let url = self.url(&self.object_path(key, at)?, &query, at)?;
        self.delete_at(url, at).await
    }

    async fn delete_at(&self, url: url::Url, at: &At) -> Result<()> {
        let request =
            || async { self.client.send(self.client.request(Method::DELETE, url.clone())).await.map(drop) };
        match self.retry.run(at, 0, request).await {
            Err(error) if error.kind == Kind::NotFound && !is_of_bucket(&error.detail) => Ok(()),
            other => other,
        }
    }
}

fn failures(
    count: usize,
    kind: Option<&HeaderValue>,
    body: &[u8],
) -> std::result::Result<HashMap<usize, Failure>, Failure> {
    let unread = || {
        let detail = "the answer to a batch can't be read";
        Failure::new(Kind::Unavailable, Passing::Transient, true, detail)
    };
    let boundary = kind.and_then(|kind| batch::boundary_of(kind.to_str().ok()?)).ok_or_else(unread)?;
    let answers = batch::parse(&String::from_utf8_lossy(body), boundary);
    let mut failures = HashMap::new();
    for number in 0..count {
        let (status, body) = answers.get(&number).ok_or_else(unread)?;
        if (200..300).contains(status) {
            continue;
        }
        let failure = told(*status, body.as_bytes());
        if failure.may_pass() {
            return Err(failure);
        }
        if failure.kind != Kind::NotFound || is_of_bucket(&failure.detail) {
            failures.insert(number, failure);
        }
    }
    Ok(failures)
}
