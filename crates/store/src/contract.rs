//! What every object store must keep, and what callers may rely on.
//!
//! * **Atomic.** An object appears under its key whole, or not at all. A reader never sees part of a `put`
//!   or of an upload that was not completed, also after a crash of this process or of the machine.
//! * **Durable.** When `put`, `complete` or `copy` returns `Ok`, the object outlives a crash.
//! * **Idempotent.** `put` with [`Create::Overwrite`] and `delete` may be repeated. Deleting what is absent
//!   succeeds. `abort` may be repeated.
//! * **Create-if-absent.** With [`Create::IfAbsent`], of any number of racing writers exactly one gets `Ok`;
//!   the others get [`Kind::AlreadyExists`]. A writer whose answer was lost may also get `AlreadyExists`
//!   for its own success: only the object's content tells. Implementations never retry it blindly.
//! * **Retries.** The implementation retries what is safe to repeat (reads, overwriting puts, parts, deletes)
//!   with backoff and jitter, a bounded number of times; callers do not retry. An error that leaves here as
//!   [`Kind::Unavailable`] was retried already; whoever calls again does so minutes later.
//! * **Ranges.** A range that begins at or after the end is [`Kind::InvalidRange`]; one that ends after it is
//!   clamped; one that holds no byte (`5..5`, the last 0 bytes) is [`Kind::InvalidRange`] too. All of an empty
//!   object, or its last `n` bytes, is an empty body. Exactly the bytes of the (clamped) range are delivered or
//!   an error: a body that ends early is [`Kind::Truncated`], never a short success.
//! * **Consistency.** After a write returns, every `get`, `head` and `list` sees it.
//! * **Cancellation.** Every future may be dropped at any await. A dropped `put` has happened or has not. A
//!   dropped [`Upload`] leaves parts behind (no async work in `drop`): call `abort`, or let a sweep find it
//!   by [`Store::list_uploads`].
//! * **Names.** No key is another key's folder (`a` beside `a/b`): a filesystem cannot hold both and says
//!   [`Kind::Invalid`]. Objects in the store whose names are no [`Key`] are passed over by `list`.
//! * **Listings.** A page that says `more` holds at least one key, so whoever goes on from its last key gets on.
//! * **Versions.** Some stores keep what a write replaces and a delete removes; [`Store::versions`] says whether
//!   this one does, and gives access to them. `put`, `get`, `head`, `list` and `delete` are always about the current
//!   version: a delete leaves a *delete marker* as the current version, under which the key is absent, and free for
//!   create-if-absent. A version's bytes never change. The versions of a key are in the order in which they were
//!   stored, the oldest first; the last is the current one.
//! * **Bounded.** No call buffers more than the caller's bytes and one page of a listing.
//!
//! GCS and Azure fit: parts are numbered from 1, may be sent in any order and in parallel, and all but the
//! last have exactly the size declared at the start (so an Azure block, a GCS part and a file offset follow
//! from the number alone).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::{Error, Kind};
use crate::key::Key;
use crate::versions::Versions;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A store in use, shared by everything that reads and writes.
pub type SharedStore = Arc<dyn Store>;

/// Whether a write may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Create {
    #[default]
    Overwrite,
    IfAbsent,
}

/// How an object is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    pub create: Create,
    /// The store's own name of a storage class (`STANDARD_IA`, `NEARLINE`, `Cool`); `None` is the store's default.
    pub storage_class: Option<String>,
}

/// What a store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: Key,
    pub size_bytes: u64,
    /// Opaque; changes whenever the content does. `None` where the store has none.
    pub etag: Option<String>,
    /// Of a versioned bucket.
    pub version: Option<String>,
    /// Milliseconds since 1970-01-01 UTC; of a write, by the writer's clock where the store does not say.
    pub last_modified_ms: i64,
    pub storage_class: Option<String>,
}

/// One page of a listing, in ascending byte order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    pub objects: Vec<ObjectMeta>,
    /// Whether more keys follow the last of `objects`, of which there is at least one: ask again with it as
    /// `start_after`.
    pub more: bool,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    pub key: Key,
    /// The store's id of it, for [`Store::abort_upload`].
    pub id: String,
    /// Milliseconds since 1970-01-01 UTC; `None` where the store does not say.
    pub started_ms: Option<i64>,
}

/// The body of a `get`. Pieces arrive in order, of any size, and add up to exactly `range`.
pub struct GetResult {
    /// The bytes that the body delivers, after clamping.
    pub range: Range<u64>,
    /// Size of the whole object, where the store says it along with the body.
    pub object_size_bytes: Option<u64>,
    pub etag: Option<String>,
    /// Of a store that keeps versions.
    pub version: Option<String>,
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for GetResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetResult").field("range", &self.range).finish_non_exhaustive()
    }
}

/// Which bytes a `get` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetRange {
    Full,
    /// From `start` up to and excluding `end`.
    Bounded {
        start: u64,
        end: u64,
    },
    /// From `start` to the end of the object.
    From(u64),
    /// The last `n` bytes (all of a shorter object).
    Suffix(u64),
}

impl GetRange {
    /// The bytes of an object of `size_bytes` that this asks for; `None` is an invalid range.
    pub fn resolve(self, size_bytes: u64) -> Option<Range<u64>> {
        match self {
            GetRange::Full => Some(0..size_bytes),
            GetRange::Bounded { start, end } if start < end && start < size_bytes => {
                Some(start..end.min(size_bytes))
            }
            GetRange::From(start) if start < size_bytes => Some(start..size_bytes),
            GetRange::Suffix(n) if n > 0 => Some(size_bytes - n.min(size_bytes)..size_bytes),
            _ => None,
        }
    }
}

/// Limits and preferences of a store that a writer plans by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Below this, `put` rather than an upload.
    pub min_part_bytes: u64,
    pub max_part_bytes: u64,
    pub max_parts: u32,
    pub max_put_bytes: u64,
    pub max_object_bytes: u64,
    /// The part size at which this store is fast and lean.
    pub preferred_part_bytes: u64,
    /// Parts of one upload that are worth sending at once.
    pub preferred_parallel_parts: usize,
    /// Whether [`Store::list_uploads`] finds uploads that were left behind. Where not, the store itself forgets them.
    pub lists_uploads: bool,
    /// Of an upload that must create, where the store takes an object's bytes in order only, parts that arrive before
    /// their turn: so many are held in memory, further ones wait until the parts before them have come. So a caller
    /// that awaits some parts before it sends others must begin them in the order of their numbers; one that has all
    /// of them under way at once may begin them in any. A store that knows no other uploads does so with each.
    /// `None` where parts go to the store as they come.
    pub creates_hold_parts: Option<usize>,
}

/// An object store. See the module for the contract.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The URL that opened it, without secrets: for messages.
    fn url(&self) -> &str;

    fn limits(&self) -> Limits;

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta>;

    /// Begins an upload in parts of exactly `part_bytes` (the last may be shorter, and is not empty).
    /// `size_bytes` is the object's size where the caller knows it.
    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>>;

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult>;

    async fn head(&self, key: &Key) -> Result<ObjectMeta>;

    /// Keys that begin with `prefix` (a plain string prefix; empty for all), after `start_after`, at most
    /// `max_keys` (the store may return fewer and still say `more`).
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage>;

    /// Deletes all of `keys`, in as few requests as the store allows. The outcome of each stands at its index.
    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>>;

    /// Copies within the store, without the bytes passing through here.
    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta>;

    /// Uploads under `prefix` that are neither completed nor aborted, by whomever.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>>;

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()>;

    /// The versions that the store keeps; `None` if it keeps none. To be asked once: one request.
    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>>;
}

/// An upload under way. Parts may be sent from many tasks at once.
#[async_trait]
pub trait Upload: Send + Sync + fmt::Debug {
    /// Part `number`, from 1. Sending a number again replaces it; where parts go in order
    /// ([`Limits::creates_hold_parts`]), one that went is replaced by the same bytes only, by others is
    /// [`Kind::Unsupported`].
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()>;

    /// Makes the object visible. All numbers from 1 to the highest were sent, else [`Kind::Invalid`].
    /// An ambiguous answer is asked for (`head`) before anything is repeated.
    async fn complete(&self) -> Result<ObjectMeta>;

    /// Forgets all parts. After `complete` it has no effect.
    async fn abort(&self) -> Result<()>;
}

impl GetResult {
    /// The whole body in one piece, checked to be as long as `range` says.
    pub async fn bytes(self) -> Result<Bytes> {
        use futures::TryStreamExt;

        let expected = self.range.end - self.range.start;
        let mut body = self.body;
        let first = body.try_next().await?.unwrap_or_default();
        let whole = if first.len() as u64 == expected {
            first
        } else {
            let mut whole = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
            whole.extend_from_slice(&first);
            while let Some(piece) = body.try_next().await? {
                whole.extend_from_slice(&piece);
            }
            Bytes::from(whole)
        };
        if whole.len() as u64 != expected {
            let detail = format!("expected {expected} bytes of body, found {}", whole.len());
            return Err(Error::new(Kind::Truncated, "get", format!("bytes {:?}", self.range), detail));
        }
        Ok(whole)
    }
}

/// Deletes one object; absent is no error.
pub async fn delete(store: &dyn Store, key: &Key) -> Result<()> {
    match store.delete_many(std::slice::from_ref(key)).await?.pop() {
        Some(outcome) => outcome,
        None => Ok(()),
    }
}
