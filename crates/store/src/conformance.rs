//! One suite for all stores: each promise of the contract is a named check.
//!
//! Tests run it against every implementation, and `varve store check URL` runs it against a user's own bucket
//! before anything is trusted to it. It writes only under the scratch prefix that it is given, some tens of MiB,
//! and removes all of it at the end, also what failed checks left. Where the store keeps versions, those of what was
//! removed stay, as always there.

mod checks;
mod uploads;
mod versions;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::contract::{Create, GetRange, PendingUpload, PutOptions, Result, SharedStore};
use crate::error::{Error, Kind};
use crate::key::Key;

/// A check that hangs is a broken promise too.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// A server that a check brought down may be up again after one of these.
const RECOVERIES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
}

/// What one check found.
#[derive(Clone, Debug)]
pub struct CheckResult {
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    pub outcome: Outcome,
    /// Why it failed and what that means; empty if it passed.
    pub detail: String,
    pub duration: Duration,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
        };
        write!(f, "{word:6} {:24} {} ({} ms)", self.name, self.promise, self.duration.as_millis())?;
        if !self.detail.is_empty() {
            write!(f, "\n        {}", self.detail)?;
        }
        Ok(())
    }
}

/// Why a check failed.
pub(crate) struct Flaw(String);

impl From<Error> for Flaw {
    fn from(error: Error) -> Self {
        Flaw(error.to_string())
    }
}

pub(crate) type Checked = std::result::Result<(), Flaw>;

/// Fails the check unless `holds`.
pub(crate) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Flaw(otherwise())) }
}

/// Fails the check unless `outcome` is an error of `kind`.
pub(crate) fn expect_kind<T>(what: &str, kind: Kind, outcome: Result<T>) -> Checked {
    match outcome {
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => {
            Err(Flaw(format!("{what}: expected the error {kind:?}, found {:?}: {error}", error.kind)))
        }
        Ok(_) => Err(Flaw(format!("{what}: expected the error {kind:?}, found success"))),
    }
}

/// Where a check works: a folder of its own.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) store: SharedStore,
    pub(crate) folder: String,
}

impl Room {
    pub(crate) fn key(&self, name: &str) -> std::result::Result<Key, Flaw> {
        Ok(Key::new(format!("{}{name}", self.folder))?)
    }

    pub(crate) async fn put(&self, name: &str, body: &Bytes) -> std::result::Result<Key, Flaw> {
        let key = self.key(name)?;
        self.store.put(&key, body.clone(), &PutOptions::default()).await?;
        Ok(key)
    }

    /// What is pending here; a store that can't tell shows in the check `upload_listed`.
    pub(crate) async fn pending(&self) -> Result<Vec<PendingUpload>> {
        match self.store.list_uploads(&self.folder).await {
            Err(error) if error.kind == Kind::Unsupported => Ok(Vec::new()),
            uploads => uploads,
        }
    }

    pub(crate) async fn read(&self, key: &Key, range: GetRange) -> Result<Bytes> {
        self.store.get(key, range).await?.bytes().await
    }

    /// Fails unless the object holds exactly `body`.
    pub(crate) async fn expect_body(&self, key: &Key, body: &Bytes) -> Checked {
        let found = self.read(key, GetRange::Full).await?;
        expect(found == *body, || {
            let at = found.iter().zip(body.iter()).take_while(|(a, b)| a == b).count();
            format!(
                "{key} reads back differently: expected {} bytes, found {}; the first difference is at byte {at}",
                body.len(),
                found.len()
            )
        })
    }
}

pub(crate) fn if_absent() -> PutOptions {
    PutOptions { create: Create::IfAbsent, ..PutOptions::default() }
}

/// Bytes that differ everywhere and from seed to seed, without a generator to depend on.
pub(crate) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut body = Vec::with_capacity(len + 8);
    while body.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(len);
    Bytes::from(body)
}

type Check = fn(Room) -> BoxFuture<'static, Checked>;

macro_rules! checks {
    ($($check:path: $promise:literal,)*) => {
        &[$((stringify!($check), $promise, (|room| $check(room).boxed()) as Check),)*]
    };
}

/// Name (after its module), promise, and the check itself.
const CHECKS: &[(&str, &str, Check)] = checks! {
    checks::round_trip: "what was put is read back, with its size",
    checks::empty_object: "an object of no bytes is an object",
    checks::overwrite: "a put replaces the whole object",
    checks::read_after_write: "every read and listing sees a write at once",
    checks::absent: "what is not there is reported as such",
    checks::ranges: "a range delivers exactly its bytes",
    checks::large_body: "a long body arrives whole",
    checks::create_if_absent: "create-if-absent never replaces",
    checks::create_race: "of 64 racing writers exactly one creates",
    checks::delete_idempotent: "deleting may be repeated, and absent is no error",
    checks::delete_batch: "more than 1,000 keys are deleted in one call",
    checks::list_order: "listings come in byte order, page by page",
    checks::list_more: "a page that says more holds a key",
    checks::list_prefix: "a prefix is a plain string prefix",
    checks::copy: "copies within the store",
    checks::copy_if_absent: "a copy may be create-if-absent",
    checks::odd_keys: "every key of the contract names its own object",
    checks::concurrency: "many calls at once do not disturb each other",
    checks::stable_while_read: "a body being read is never a mix of two objects",
    checks::cancelled_put: "a put that is dropped has happened or has not",
    uploads::in_order: "parts make the object",
    uploads::out_of_order: "parts may be sent in any order and at once",
    uploads::replaced_part: "a part sent again replaces the first",
    uploads::single_short_part: "one short part is an upload too",
    uploads::missing_part: "an upload with a hole is refused",
    uploads::invisible: "nothing is visible before an upload is complete",
    uploads::abort: "an aborted upload leaves nothing",
    uploads::abort_after_complete: "abort after complete has no effect",
    uploads::listed: "pending uploads can be found and aborted by anyone",
    uploads::complete_if_absent: "completing may be create-if-absent",
    uploads::complete_race: "of racing uploads exactly one creates",
    versions::kept: "if versions are kept, what was replaced or deleted is read by its version",
    versions::under_a_marker: "a key under a delete marker is absent, and may be created",
    versions::pages: "versions are listed key by key, page by page",
    versions::removed: "a version that is deleted is gone, and the others stay",
    versions::many: "of a key with many versions the oldest is told",
};

/// What a store is to be used for: not every promise matters for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Brokers overwrite and delete what is theirs.
    Tier,
    /// Data keys are created, and must not replace one another.
    EncryptedTier,
    /// Everything is created once, by whoever comes first.
    Archive,
}

/// Promises that some purposes can do without: their names, what is needed for, and what it is like without.
const NOT_FOR_ALL: &[(&[&str], &[Purpose], &str)] = &[
    (
        &["create_if_absent"],
        &[Purpose::EncryptedTier, Purpose::Archive],
        "no archive, and no encryption: one writer would replace what another wrote",
    ),
    (
        &["create_race", "upload_if_absent", "upload_race"],
        &[Purpose::Archive],
        "no archive: of two archivers one would replace what the other wrote",
    ),
    (&["copy", "copy_if_absent"], &[], "objects are copied by nobody today"),
    (&["upload_listed"], &[], "uploads that a crash leaves behind are for a rule of the bucket alone"),
    (
        &["versions", "version_marker", "version_pages", "version_many"],
        &[Purpose::Archive],
        "what is hidden or overwritten in an archive would not be found",
    ),
    (&["version_removed"], &[], "under a lock this is as it should be; without one, keys can't be destroyed"),
];

impl CheckResult {
    /// Whether `purpose` can do without the promise that was broken, and what that means.
    pub fn remark(&self, purpose: Purpose) -> Option<&'static str> {
        let rule = NOT_FOR_ALL.iter().find(|(names, ..)| names.contains(&self.name));
        rule.filter(|(_, needed_for, _)| !needed_for.contains(&purpose)).map(|(.., without)| *without)
    }
}

/// Runs all checks under `scratch_prefix` (a key prefix that is nobody else's, ending with `/` or empty). Once the
/// store gives no answer to anything, the others are not tried.
pub async fn run(store: &SharedStore, scratch_prefix: &str) -> Vec<CheckResult> {
    let mut results: Vec<CheckResult> = Vec::with_capacity(CHECKS.len() + 1);
    let mut gone_since = None;
    for (path, promise, check) in CHECKS {
        let name = path.rsplit("::").next().unwrap_or(path);
        let room = path.replace("::", "-");
        let room = Room { store: store.clone(), folder: format!("{scratch_prefix}{room}/") };
        let check = match gone_since {
            Some(name) => not_tried(name, "").boxed(),
            None => check(room),
        };
        let result = run_one(path_name(path, name), promise, check).await;
        if result.outcome == Outcome::Failed && gone_since.is_none() && is_gone(store, scratch_prefix).await {
            gone_since = Some(result.name);
        }
        results.push(result);
    }
    let room = Room { store: store.clone(), folder: scratch_prefix.to_owned() };
    let clean_up = match gone_since {
        Some(name) => not_tried(name, &format!(": what was written stays under {scratch_prefix}")).boxed(),
        None => clean_up(room).boxed(),
    };
    results.push(run_one("cleanup", "all that the checks wrote is gone", clean_up).await);
    results
}

/// Whether nothing at all is answered: one call that fails is that call's promise.
async fn is_gone(store: &SharedStore, scratch_prefix: &str) -> bool {
    let Ok(key) = Key::new(format!("{scratch_prefix}none")) else { return false };
    for pause in RECOVERIES {
        tokio::time::sleep(pause).await;
        let asked = async { (store.head(&key).await.err(), store.list(scratch_prefix, None, 1).await.err()) };
        let silent = |error: Option<Error>| error.is_some_and(|error| error.kind == Kind::Unavailable);
        if let Ok((head, list)) = tokio::time::timeout(CHECK_TIMEOUT, asked).await
            && !(silent(head) && silent(list))
        {
            return false;
        }
    }
    true
}

fn not_tried(since: &str, more: &str) -> impl Future<Output = Checked> + Send + use<> {
    std::future::ready(Err(Flaw(format!("not tried: since {since} the store gives no answer{more}"))))
}

/// `uploads::abort` is reported as `upload_abort`, so that names are told apart.
fn path_name(path: &'static str, name: &'static str) -> &'static str {
    match path {
        "uploads::abort" => "upload_abort",
        "uploads::listed" => "upload_listed",
        "uploads::invisible" => "upload_invisible",
        "uploads::in_order" => "upload_in_order",
        "uploads::out_of_order" => "upload_out_of_order",
        "uploads::complete_race" => "upload_race",
        "uploads::complete_if_absent" => "upload_if_absent",
        "versions::kept" => "versions",
        "versions::under_a_marker" => "version_marker",
        "versions::pages" => "version_pages",
        "versions::removed" => "version_removed",
        "versions::many" => "version_many",
        _ => name,
    }
}

async fn run_one(
    name: &'static str,
    promise: &'static str,
    check: BoxFuture<'static, Checked>,
) -> CheckResult {
    let started = Instant::now();
    let (outcome, detail) = match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(())) => (Outcome::Passed, String::new()),
        Ok(Err(Flaw(detail))) => (Outcome::Failed, detail),
        Err(_) => (Outcome::Failed, format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    CheckResult { name, promise, outcome, detail, duration: started.elapsed() }
}

async fn clean_up(room: Room) -> Checked {
    let aborted = abort_pending(&room).await;
    remove_objects(&room).await?;
    aborted
}

async fn abort_pending(room: &Room) -> Checked {
    for upload in room.pending().await? {
        room.store.abort_upload(&upload).await?;
    }
    Ok(())
}

async fn remove_objects(room: &Room) -> Checked {
    // Each round deletes a page; a store that never empties must not keep us for ever.
    for _ in 0..100 {
        let page = room.store.list(&room.folder, None, 1000).await?;
        if page.objects.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = page.objects.into_iter().map(|object| object.key).collect();
        for outcome in room.store.delete_many(&keys).await? {
            outcome?;
        }
    }
    Err(Flaw(format!("objects under {} stay, although they were deleted", room.folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_name_checks_that_there_are() {
        let names: Vec<_> =
            CHECKS.iter().map(|(path, ..)| path_name(path, path.rsplit("::").next().unwrap())).collect();
        for name in NOT_FOR_ALL.iter().flat_map(|(named, ..)| *named) {
            assert!(names.contains(name), "{name}");
        }
        let broken = |name| CheckResult {
            name,
            promise: "",
            outcome: Outcome::Failed,
            detail: String::new(),
            duration: CHECK_TIMEOUT,
        };
        assert!(broken("ranges").remark(Purpose::Tier).is_none());
        assert!(broken("create_race").remark(Purpose::EncryptedTier).is_some());
        assert!(broken("create_race").remark(Purpose::Archive).is_none());
    }
}
