//! A decorator that breaks things on purpose: for tests and simulations.
//!
//! Deterministic: whether a rule fires depends on the seed, the rule, the operation, the key and how often that
//! operation was done to that key, and on nothing else; not on time, nor on what other tasks do meanwhile. So
//! the same calls meet the same faults, however they interleave. What fired is kept in a log (of bounded length).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, SharedStore, Store,
    Upload,
};
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::operation::Operation;
use crate::versions::{VersionPage, Versions};

const LOG_MAX: usize = 10_000;

/// What happens when a rule fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The call takes so much longer, between the two.
    Latency { from: Duration, to: Duration },
    /// The call fails and had no effect.
    ErrorBefore(Kind),
    /// The call fails and had its effect.
    ErrorAfter(Kind),
    /// A body, read or written, breaks with [`Kind::Unavailable`] after some of its bytes. A written one then
    /// has no effect.
    Reset,
    /// A body ends early without an error, read or written: what a store must never do.
    Truncate,
    /// A byte of a body, read or written, is another one: what a store must never do.
    FlipByte,
    /// The call never returns.
    Hang,
}

/// How often a rule fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Always,
    /// The first `n` times that an operation is done to a key.
    First(u64),
    /// The `n`th time, from 1, that an operation is done to a key.
    Nth(u64),
    /// With this probability, by the seed.
    Probability(f64),
}

/// One rule. Of several that fire, the first decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `None` is all.
    pub operation: Option<Operation>,
    /// A part of the key; empty is all. Listings have their prefix for a key.
    pub key_contains: String,
    pub when: When,
    pub fault: Fault,
}

/// A fault that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub operation: Operation,
    pub key: String,
    /// How often, from 1, the operation had been done to the key.
    pub time: u64,
    pub fault: Fault,
}

/// What a [`FaultyStore`] does, to be changed and read while it is in use.
pub struct Faults {
    seed: u64,
    rules: Mutex<Vec<Rule>>,
    enabled: AtomicBool,
    times: Mutex<HashMap<(Operation, String), u64>>,
    log: Mutex<Vec<Event>>,
}

impl Faults {
    pub fn new(seed: u64, rules: Vec<Rule>) -> Arc<Self> {
        let (rules, enabled) = (Mutex::new(rules), AtomicBool::new(true));
        Arc::new(Self { seed, rules, enabled, times: Mutex::default(), log: Mutex::default() })
    }

    pub fn set_rules(&self, rules: Vec<Rule>) {
        *self.rules.lock() = rules;
    }

    /// The fault ends, or begins again. Calls that hang already go on hanging.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    pub fn log(&self) -> Vec<Event> {
        self.log.lock().clone()
    }

    fn draw(&self, operation: Operation, key: &str) -> Option<Drawn> {
        if !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        let time = {
            let mut times = self.times.lock();
            let time = times.entry((operation, key.to_owned())).or_default();
            *time += 1;
            *time
        };
        let (fault, random) = self.rules.lock().iter().enumerate().find_map(|(index, rule)| {
            let random = mix(self.seed, index, operation, key, time);
            let named = rule.operation.is_none_or(|of| of == operation) && key.contains(&rule.key_contains);
            let fires = match rule.when {
                When::Always => true,
                When::First(n) => time <= n,
                When::Nth(n) => time == n,
                When::Probability(p) => ((random >> 11) as f64) / ((1_u64 << 53) as f64) < p,
            };
            (named && fires).then_some((rule.fault, random))
        })?;
        let mut log = self.log.lock();
        if log.len() < LOG_MAX {
            log.push(Event { operation, key: key.to_owned(), time, fault });
        }
        // A second draw, lest a rare rule hits but certain positions.
        Some(Drawn { fault, random: splitmix(random), operation, key: key.to_owned() })
    }

    /// Runs `call` under the rules. Faults of bodies are left to the caller.
    async fn run<T>(&self, drawn: Option<&Drawn>, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(drawn) = drawn else { return call.await };
        match drawn.fault {
            Fault::Latency { from, to } => {
                let spread = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
                tokio::time::sleep(
                    from + Duration::from_nanos(drawn.random % spread.saturating_add(1).max(1)),
                )
                .await;
                call.await
            }
            Fault::ErrorBefore(kind) => Err(drawn.error(kind, "injected before the effect")),
            Fault::ErrorAfter(kind) => {
                call.await?;
                Err(drawn.error(kind, "injected after the effect"))
            }
            Fault::Hang => std::future::pending().await,
            Fault::Reset | Fault::Truncate | Fault::FlipByte => call.await,
        }
    }

    /// Runs a call that sends `body`.
    async fn send<T, F>(&self, drawn: Option<&Drawn>, body: Bytes, call: impl FnOnce(Bytes) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let position = drawn.map_or(0, |drawn| drawn.position(body.len() as u64) as usize);
        match drawn.map(|drawn| (drawn.fault, drawn)) {
            Some((Fault::Reset, drawn)) => {
                let detail = format!("injected reset after {position} of {} bytes", body.len());
                Err(drawn.error(Kind::Unavailable, &detail))
            }
            Some((Fault::Truncate, _)) => call(body.slice(..position)).await,
            Some((Fault::FlipByte, _)) if !body.is_empty() => call(flip(&body, position)).await,
            _ => self.run(drawn, call(body)).await,
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("seed", &self.seed)
            .field("rules", &*self.rules.lock())
            .finish_non_exhaustive()
    }
}

struct Drawn {
    fault: Fault,
    random: u64,
    operation: Operation,
    key: String,
}

impl Drawn {
    fn error(&self, kind: Kind, detail: &str) -> Error {
        Error::new(kind, self.operation.name(), &self.key, detail)
    }

    /// A byte of a body; 0 of an empty one.
    fn position(&self, len: u64) -> u64 {
        self.random % len.max(1)
    }
}

fn flip(body: &Bytes, position: usize) -> Bytes {
    let mut flipped = body.to_vec();
    flipped[position] ^= 0x20;
    Bytes::from(flipped)
}

fn splitmix(mut state: u64) -> u64 {
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn mix(seed: u64, rule: usize, operation: Operation, key: &str, time: u64) -> u64 {
    let named = key.bytes().fold(splitmix(seed), |state, byte| splitmix(state ^ u64::from(byte)));
    splitmix(splitmix(named ^ rule as u64) ^ ((operation as u64) << 32) ^ time)
}

/// See the module.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: SharedStore,
    faults: Arc<Faults>,
}

impl FaultyStore {
    pub fn new(inner: SharedStore, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

/// A body that is broken at a drawn position.
fn broken(
    body: BoxStream<'static, Result<Bytes>>,
    len: u64,
    drawn: Drawn,
) -> BoxStream<'static, Result<Bytes>> {
    let at = drawn.position(len);
    let pieces = stream::unfold((Some(body), 0_u64), move |(body, position)| {
        let (fault, error) =
            (drawn.fault, drawn.error(Kind::Unavailable, &format!("injected reset at byte {at} of {len}")));
        async move {
            let mut body = body?;
            let piece = match body.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (None, position))),
            };
            let end = position + piece.len() as u64;
            if !(position..end).contains(&at) {
                return Some((Ok(piece), (Some(body), end)));
            }
            let offset = (at - position) as usize;
            match fault {
                Fault::FlipByte => Some((Ok(flip(&piece, offset)), (Some(body), end))),
                Fault::Truncate => Some((Ok(piece.slice(..offset)), (None, at))),
                _ if offset == 0 => Some((Err(error), (None, at))),
                // The bytes before the break first; then the piece that breaks.
                _ => {
                    let rest: BoxStream<'static, Result<Bytes>> =
                        stream::once(async move { Err(error) }).boxed();
                    Some((Ok(piece.slice(..offset)), (Some(rest), u64::MAX)))
                }
            }
        }
    });
    pieces.boxed()
}

#[async_trait]
impl Store for FaultyStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let drawn = self.faults.draw(Operation::Put, key.as_str());
        self.faults.send(drawn.as_ref(), body, |body| self.inner.put(key, body, options)).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let drawn = self.faults.draw(Operation::Upload, key.as_str());
        let begun = self.inner.upload(key, part_bytes, size_bytes, options);
        let inner = self.faults.run(drawn.as_ref(), begun).await?;
        Ok(Arc::new(FaultyUpload { inner, faults: Arc::clone(&self.faults), key: key.clone() }))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        self.faults.get(key, self.inner.get(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let drawn = self.faults.draw(Operation::Head, key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let drawn = self.faults.draw(Operation::List, prefix);
        self.faults.run(drawn.as_ref(), self.inner.list(prefix, start_after, max_keys)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let drawn = self.faults.draw(Operation::DeleteMany, keys.first().map_or("", Key::as_str));
        self.faults.run(drawn.as_ref(), self.inner.delete_many(keys)).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        let drawn = self.faults.draw(Operation::Copy, to.as_str());
        self.faults.run(drawn.as_ref(), self.inner.copy(from, to, options)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let drawn = self.faults.draw(Operation::ListUploads, prefix);
        self.faults.run(drawn.as_ref(), self.inner.list_uploads(prefix)).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        let drawn = self.faults.draw(Operation::AbortUpload, upload.key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.abort_upload(upload)).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        let drawn = self.faults.draw(Operation::Versions, "");
        let inner = self.faults.run(drawn.as_ref(), self.inner.versions()).await?;
        let faults = Arc::clone(&self.faults);
        Ok(inner.map(|inner| Arc::new(FaultyVersions { inner, faults }) as Arc<dyn Versions>))
    }
}

impl Faults {
    async fn get(&self, key: &Key, got: impl Future<Output = Result<GetResult>>) -> Result<GetResult> {
        let drawn = self.draw(Operation::Get, key.as_str());
        let got = self.run(drawn.as_ref(), got).await?;
        match drawn {
            Some(drawn) if matches!(drawn.fault, Fault::Reset | Fault::Truncate | Fault::FlipByte) => {
                let len = got.range.end - got.range.start;
                Ok(GetResult { body: broken(got.body, len, drawn), ..got })
            }
            _ => Ok(got),
        }
    }
}

#[derive(Debug)]
struct FaultyVersions {
    inner: Arc<dyn Versions>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Versions for FaultyVersions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let drawn = self.faults.draw(Operation::List, prefix);
        self.faults.run(drawn.as_ref(), self.inner.list(prefix, start_after, max_keys)).await
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        self.faults.get(key, self.inner.get(key, version, range)).await
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        let drawn = self.faults.draw(Operation::Head, key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.head(key, version)).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        let drawn = self.faults.draw(Operation::DeleteMany, key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.delete(key, version)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Arc<dyn Upload>,
    faults: Arc<Faults>,
    key: Key,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        // Parts run in parallel: each is counted by itself, so that their order decides nothing.
        let drawn = self.faults.draw(Operation::PutPart, &format!("{}#{number}", self.key));
        self.faults.send(drawn.as_ref(), body, |body| self.inner.put_part(number, body)).await
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        let drawn = self.faults.draw(Operation::Complete, self.key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.complete()).await
    }

    async fn abort(&self) -> Result<()> {
        let drawn = self.faults.draw(Operation::Abort, self.key.as_str());
        self.faults.run(drawn.as_ref(), self.inner.abort()).await
    }
}
