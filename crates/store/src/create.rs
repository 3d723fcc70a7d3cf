//! Writes of which only one may succeed, where an answer was lost: was it ours? Every write carries an id of its own
//! in the object's metadata ([`ID_METADATA`]), and that of what stands at the key tells.

use std::future::Future;

use async_trait::async_trait;

use crate::contract::{ObjectMeta, Result};
use crate::error::Kind;
use crate::failure::{At, Failure};
use crate::key::Key;
use crate::retry::{Course, Retry};

/// Whose write made an object.
pub(crate) const ID_METADATA: &str = "varve-write";

pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// What is at the key after an answer was lost or refused.
pub(crate) enum Found {
    Ours(ObjectMeta),
    Another,
    Nothing,
}

/// A store whose objects say which write made them.
#[async_trait]
pub(crate) trait Signed: Sync {
    fn retry(&self) -> &Retry;

    /// The object's state, and the id of the write that made it.
    async fn written(&self, key: &Key, at: &At) -> Result<(ObjectMeta, Option<String>)>;

    async fn find(&self, key: &Key, id: &str, at: &At) -> Result<Found> {
        match self.written(key, at).await {
            Ok((meta, written_by)) if written_by.as_deref() == Some(id) => Ok(Found::Ours(meta)),
            Ok(_) => Ok(Found::Another),
            Err(error) if error.kind == Kind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// After a failed create: our success after all, an error, or `None` to try again.
    async fn settle(
        &self,
        key: &Key,
        id: &str,
        at: &At,
        course: &mut Course<'_>,
        failure: Failure,
        in_doubt: bool,
    ) -> Result<Option<ObjectMeta>> {
        let refused = failure.kind == Kind::AlreadyExists;
        if in_doubt && (refused || failure.ambiguous) {
            match self.find(key, id, at).await? {
                Found::Ours(meta) => return Ok(Some(meta)),
                Found::Another => return Err(at.error(Kind::AlreadyExists, "the object exists")),
                Found::Nothing => {}
            }
        }
        match course.again(failure, at).await {
            Ok(()) => Ok(None),
            Err(last) => Err(last.error(at, course.attempts)),
        }
    }
}

/// Sends `request`, which creates the object only where there is none, until one thing is certain.
pub(crate) async fn create_once<S, F, R>(
    store: &S,
    key: &Key,
    id: &str,
    at: &At,
    body_bytes: u64,
    request: R,
) -> Result<ObjectMeta>
where
    S: Signed + ?Sized,
    F: Future<Output = std::result::Result<ObjectMeta, Failure>>,
    R: Fn() -> F,
{
    let (mut course, mut in_doubt) = (store.retry().course(), false);
    loop {
        match course.attempt(body_bytes, &request).await {
            Ok(meta) => return Ok(meta),
            Err(failure) => {
                in_doubt |= failure.ambiguous;
                if let Some(meta) = store.settle(key, id, at, &mut course, failure, in_doubt).await? {
                    return Ok(meta);
                }
            }
        }
    }
}
