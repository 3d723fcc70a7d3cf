//! Uploads in parts, over one resumable session each: see [`turns`](super::turns) and [`session`](super::session).
//!
//! A part is sent by the call that brings it, after the parts before it; one that comes early is held, and goes with
//! a later call. So nothing works in the background, and a future that is dropped stops what it did.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::LOCATION;
use tokio::sync::Notify;
use url::Url;

use super::session::{End, Session, forget};
use super::turns::{Offer, Turns};
use super::write::precondition;
use super::{Inner, resource::Object};
use crate::contract::{Create, ObjectMeta, PutOptions, Result, Upload};
use crate::create::new_id;
use crate::error::{Error, Kind};
use crate::failure::{At, Failure, Passing};
use crate::key::Key;
use crate::parts::PartPlan;

enum State {
    Open,
    Completed(ObjectMeta),
    Aborted,
}

pub(super) struct GcsUpload {
    inner: Arc<Inner>,
    key: Key,
    /// In the object's metadata.
    write_id: String,
    plan: PartPlan,
    create: Create,
    /// `None` of an upload that was refused when it began, because the object exists: it is told at the end.
    url: Option<Url>,
    turns: Mutex<Turns>,
    /// Whoever holds it sends.
    session: tokio::sync::Mutex<Option<Session>>,
    /// A part was taken or sent, or the upload has ended.
    moved: Notify,
    state: Mutex<State>,
}

impl GcsUpload {
    pub(super) async fn begin(
        inner: &Arc<Inner>,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Self> {
        let at = inner.at("upload", key.as_str());
        let plan = PartPlan::new(&inner.limits(), part_bytes, size_bytes)
            .map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let (full, write_id) = (inner.full(key, &at)?, new_id());
        let url = match start(inner, &full, &write_id, options, &at).await {
            Ok(url) => Some(url),
            Err(error) if error.kind == Kind::AlreadyExists && options.create == Create::IfAbsent => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            write_id,
            plan,
            create: options.create,
            turns: Mutex::new(Turns::new(part_bytes, size_bytes)),
            session: tokio::sync::Mutex::new(url.clone().map(Session::new)),
            url,
            moved: Notify::new(),
            state: Mutex::new(State::Open),
        })
    }

    fn at(&self, operation: impl Into<String>) -> At {
        self.inner.at(operation, self.key.as_str())
    }

    fn check_open(&self, at: &At) -> Result<()> {
        match &*self.state.lock() {
            State::Open => Ok(()),
            _ => Err(at.error(Kind::NotFound, "no such upload: it was completed or aborted")),
        }
    }

    /// Takes the part in, waiting for room; `false` where the store has it already.
    async fn take(&self, number: u32, body: &Bytes, at: &At) -> Result<bool> {
        loop {
            let moved = self.moved.notified();
            self.check_open(at)?;
            // In a statement of its own: the lock is not held on.
            let offer = self.turns.lock().offer(number, body);
            match offer {
                Offer::Taken => return Ok(true),
                Offer::Same => return Ok(false),
                Offer::Other => return Err(at.error(Kind::Unsupported, "the store has this part already")),
                Offer::Full => moved.await,
                Offer::Held => {
                    if self.replace(number, body, at).await? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Puts other bytes in a held part's place; `false` where it was sent meanwhile.
    async fn replace(&self, number: u32, body: &Bytes, at: &At) -> Result<bool> {
        let session = self.session.lock().await;
        let mut turns = self.turns.lock();
        let Some(held) = turns.held(number) else { return Ok(false) };
        let under_way = number == turns.next() && session.as_ref().is_some_and(Session::is_within_a_part);
        if under_way && held != body {
            return Err(at.error(Kind::Unsupported, "the store has a piece of this part already"));
        }
        turns.replace(number, body.clone());
        Ok(true)
    }

    /// Sends parts in order, up to this one.
    async fn drive(&self, up_to: u32, session: &mut Option<Session>, at: &At) -> Result<()> {
        let Some(session) = session else { return Ok(()) };
        loop {
            let front = {
                let turns = self.turns.lock();
                if turns.next() > up_to { None } else { turns.front() }
            };
            let Some(body) = front else { return Ok(()) };
            session.append(&self.inner, &body, at).await?;
            self.turns.lock().advance();
            self.moved.notify_waiters();
        }
    }

    async fn finish(&self) -> Result<ObjectMeta> {
        let at = self.at("complete");
        let mut session = self.session.lock().await;
        let sizes = self.turns.lock().sizes();
        let size_bytes = self.plan.check_complete(&sizes).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        self.drive(u32::MAX, &mut session, &at).await?;
        let Some(session) = &mut *session else {
            return Err(at.error(Kind::AlreadyExists, "the object exists"));
        };
        let (rest, crc32c) = {
            let turns = self.turns.lock();
            let rest = turns.rest();
            let (_, crc32c) = turns.whole(&rest);
            (rest, crc32c)
        };
        let end = End { size_bytes, crc32c };
        let object = match session.finish(&self.inner, &rest, end, &at).await {
            Ok(object) => object,
            Err(error) => self.settle(error, &at).await?,
        };
        self.check(&object, end, &at).await?;
        Ok(object.meta(self.key.clone(), self.inner.keeps_versions()))
    }

    /// A session that is gone, or that may not create what is there, may have ended by our own success.
    async fn settle(&self, error: Error, at: &At) -> Result<Object> {
        if !matches!(error.kind, Kind::NotFound | Kind::AlreadyExists | Kind::Unavailable) {
            return Err(error);
        }
        match self.inner.examine(&self.key, None, at).await {
            Ok(object) if object.written_by() == Some(&self.write_id) => Ok(object),
            Ok(_) if self.create == Create::IfAbsent => {
                Err(at.error(Kind::AlreadyExists, "the object exists"))
            }
            // What can't be told now was an error before.
            _ => Err(error),
        }
    }

    /// What the store made of the bytes; what is not right does not stay.
    async fn check(&self, object: &Object, end: End, at: &At) -> Result<()> {
        let crc32c = object.crc32c().unwrap_or(end.crc32c);
        if object.size_bytes() == end.size_bytes && crc32c == end.crc32c {
            return Ok(());
        }
        let detail = format!(
            "sent were {} bytes with the CRC32C {:08x}, the store made {} bytes with {crc32c:08x} of them",
            end.size_bytes,
            end.crc32c,
            object.size_bytes()
        );
        let removed = self.inner.delete_generation(&self.key, object.generation(), at).await;
        let removed =
            removed.map_or_else(|error| format!("it stays: {}", error.detail), |()| "removed".into());
        Err(at.error(Kind::Truncated, format!("{detail} ({removed})")))
    }
}

/// Begins a session.
async fn start(inner: &Inner, full: &str, write_id: &str, options: &PutOptions, at: &At) -> Result<Url> {
    let about = inner.description(full, write_id, options).to_string();
    let query = [
        ("uploadType", Some("resumable")),
        ("ifGenerationMatch", precondition(options.create)),
        ("kmsKeyName", inner.config.kms_key.as_deref()),
    ];
    let url = inner.url(&format!("/upload{}/o", inner.bucket_path()), &query, at)?;
    let request = || async {
        let call = inner.client.request(Method::POST, url.clone()).body(about.clone());
        let call = call.header(reqwest::header::CONTENT_TYPE, "application/json; charset=utf-8");
        let answer = inner.client.send(call).await?;
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let session = location.and_then(|location| inner.config.endpoint.own(location).ok());
        session.ok_or_else(|| {
            Failure::new(Kind::Other, Passing::Never, false, "the answer holds no address of an upload")
        })
    };
    inner.retry.run(at, 0, request).await
}

impl fmt::Debug for GcsUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsUpload").field("key", &self.key).finish_non_exhaustive()
    }
}

#[async_trait]
impl Upload for GcsUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        let at = self.at(format!("put part {number}"));
        self.check_open(&at)?;
        self.plan.check_part(number, body.len()).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        if self.url.is_none() {
            self.turns.lock().discard(number, &body);
            return Ok(());
        }
        if !self.take(number, &body, &at).await? {
            return Ok(());
        }
        drop(body);
        // Where it filled a hole, others may come in.
        self.moved.notify_waiters();
        if !self.turns.lock().has_all_up_to(number) {
            return Ok(());
        }
        let mut session = self.session.lock().await;
        self.check_open(&at)?;
        self.drive(number, &mut session, &at).await
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
        self.moved.notify_waiters();
        Ok(meta)
    }

    async fn abort(&self) -> Result<()> {
        if matches!(*self.state.lock(), State::Completed(_)) {
            return Ok(());
        }
        *self.state.lock() = State::Aborted;
        self.moved.notify_waiters();
        match &self.url {
            Some(url) => forget(&self.inner, url, &self.at("abort upload")).await,
            None => Ok(()),
        }
    }
}
