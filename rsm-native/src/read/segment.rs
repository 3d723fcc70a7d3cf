//! Segments in use: where each lies, and its footer once it was fetched and checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use varve_format::{
    CustomMetadata, DataKey, Digest, Footer, Id, ObjectKey, SegmentName, TRAILER_BYTES, Trailer, segment_name,
};
use varve_store::{GetRange, Key, Store};

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::keys::Keys;
use crate::wire::SegmentMetadata;

/// Without custom metadata, what is fetched first to find the footer.
pub const TAIL_BYTES: u64 = 128 << 10;

/// One remote segment. Nothing is fetched before it is asked for.
#[derive(Debug)]
pub struct Segment {
    pub id: Id,
    pub key: Key,
    /// Store and key, for messages.
    pub place: String,
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
    pub start_offset: i64,
    pub end_offset: i64,
    /// Of the plain log, by the broker's metadata; `None` of a segment that read-ahead found.
    pub log_bytes: Option<u64>,
    pub custom: Option<CustomMetadata>,
    /// What is not encrypted is another's.
    only_encrypted: bool,
    /// One at a time fetches its indexes, and finds those that another brought.
    pub indexes: tokio::sync::Mutex<()>,
    /// The segment after this one was looked for.
    pub asked_next: AtomicBool,
    opened: Mutex<Option<Held>>,
    /// One at a time opens it.
    opening: tokio::sync::Mutex<()>,
}

/// What was opened, and until when without asking for its key again.
#[derive(Clone, Debug)]
struct Held {
    opened: Arc<Opened>,
    until: Option<Instant>,
}

impl Held {
    fn is_current(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// A segment's footer, checked and unlocked.
#[derive(Debug)]
pub struct Opened {
    pub footer: Footer,
    pub trailer: Trailer,
    pub key: Option<ObjectKey>,
    pub footer_digest: Digest,
}

impl Segment {
    pub fn new(config: &Config, metadata: &SegmentMetadata) -> Result<Self> {
        let key = object_key(config, metadata)?;
        let place = format!("{}/{key}", config.store_url);
        let custom = metadata.custom.as_deref().filter(|b| !b.is_empty());
        let custom = custom.map(CustomMetadata::decode).transpose().map_err(|e| Error::format(&place, e))?;
        if let Some(c) = &custom {
            check_store(config, c, &place)?;
        }
        Ok(Self {
            id: metadata.segment_id,
            key,
            place,
            topic_id: metadata.topic_id,
            topic: metadata.topic.clone(),
            partition: metadata.partition,
            start_offset: metadata.start_offset,
            end_offset: metadata.end_offset,
            log_bytes: Some(metadata.segment_bytes.into()),
            custom,
            only_encrypted: config.policy(&metadata.topic).only_encrypted,
            indexes: Default::default(),
            asked_next: AtomicBool::new(false),
            opened: Mutex::default(),
            opening: Default::default(),
        })
    }

    /// A segment that a listing found, which the broker has not named yet.
    pub fn found(config: &Config, name: &SegmentName, topic: &str, key: Key) -> Self {
        Self {
            id: name.segment_id,
            place: format!("{}/{key}", config.store_url),
            key,
            topic_id: name.topic_id,
            topic: topic.to_owned(),
            partition: name.partition,
            start_offset: name.base_offset,
            end_offset: i64::MAX,
            log_bytes: None,
            custom: None,
            only_encrypted: config.policy(topic).only_encrypted,
            indexes: Default::default(),
            asked_next: AtomicBool::new(false),
            opened: Mutex::default(),
            opening: Default::default(),
        }
    }

    /// Names the object in the cache: by what it holds, since one segment id may have had two, and what was
    /// fetched of one must never be taken for the other. Without custom metadata the footer tells, which whoever
    /// found the segment has opened; else there is but the id.
    pub fn object(&self) -> Id {
        let digest = match (&self.custom, self.log_bytes) {
            (Some(custom), _) => Some(custom.footer_digest),
            (None, Some(_)) => None,
            (None, None) => self.opened.lock().as_ref().map(|held| held.opened.footer_digest),
        };
        digest.and_then(|d| d.0.first_chunk().copied()).map_or(self.id, Id)
    }

    /// `None` too where its key must be asked for again.
    pub fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.lock().as_ref().filter(|held| held.is_current()).map(|held| held.opened.clone())
    }

    /// Fetches the footer, once however many ask. The key of an encrypted one is asked for again after its time: a key
    /// that was destroyed opens nothing then.
    pub async fn open(&self, store: &dyn Store, keys: &Keys) -> Result<Arc<Opened>> {
        self.open_by(keys, || async {
            match &self.custom {
                Some(c) => self.get(store, c.footer_offset, c.object_bytes()).await,
                None => self.tail(store).await,
            }
        })
        .await
    }

    /// Opens from bytes that end with the object's end, if it is not open yet.
    pub async fn open_from(&self, tail: Tail, keys: &Keys) -> Result<Arc<Opened>> {
        self.open_by(keys, || async { Ok(tail) }).await
    }

    async fn open_by<F>(&self, keys: &Keys, tail: impl FnOnce() -> F) -> Result<Arc<Opened>>
    where
        F: Future<Output = Result<Tail>>,
    {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let _turn = self.opening.lock().await;
        let held = self.opened.lock().clone();
        let held = match held {
            Some(held) if held.is_current() => return Ok(held.opened),
            Some(Held { opened, .. }) => {
                let (_, until) = self.data_key(&opened.footer, keys).await?.unzip();
                Held { opened, until }
            }
            None => self.parse(tail().await?, keys).await?,
        };
        *self.opened.lock() = Some(held.clone());
        Ok(held.opened)
    }

    async fn data_key(&self, footer: &Footer, keys: &Keys) -> Result<Option<(DataKey, Instant)>> {
        let Some(info) = &footer.encryption else { return Ok(None) };
        let key = keys.for_read(&footer.info.cluster_id, footer.info.topic_id, info).await;
        key.map(Some).map_err(|e| Error::new(e.kind, format!("{}: {e}", self.place)))
    }

    pub async fn get(&self, store: &dyn Store, start: u64, end: u64) -> Result<Tail> {
        let got = store.get(&self.key, GetRange::Bounded { start, end }).await?;
        let bytes = got.bytes().await.map_err(|e| self.of_store(e))?;
        if bytes.len() as u64 != end - start {
            return Err(self.corrupt(format!(
                "object of {end} bytes expected, it ends at {}",
                start + bytes.len() as u64
            )));
        }
        Ok(Tail { bytes, object_bytes: end })
    }

    /// The footer's bytes where only the object itself tells where they are.
    pub async fn tail(&self, store: &dyn Store) -> Result<Tail> {
        let got = store.get(&self.key, GetRange::Suffix(TAIL_BYTES)).await?;
        let object_bytes = got.object_size_bytes.unwrap_or(got.range.end);
        let tail = Tail { bytes: got.bytes().await.map_err(|e| self.of_store(e))?, object_bytes };
        let trailer = tail.trailer().map_err(|e| Error::format(&self.place, e))?;
        if trailer.data_end >= tail.start() {
            return Ok(tail);
        }
        self.get(store, trailer.data_end, object_bytes).await
    }

    async fn parse(&self, tail: Tail, keys: &Keys) -> Result<Held> {
        let fail = |e| Error::format(&self.place, e);
        let trailer = tail.trailer().map_err(fail)?;
        let (footer_bytes, footer_digest) = tail.footer(&trailer).map_err(fail)?;
        if let Some(c) = &self.custom
            && c.footer_digest != footer_digest
        {
            return Err(self.corrupt(format!("its footer's digest is {footer_digest}, the broker's metadata says {}: not the object that was written", c.footer_digest)));
        }
        let mut footer = Footer::decode(&footer_bytes, &trailer).map_err(fail)?;
        if let Some(c) = &self.custom {
            c.check_object(&trailer, &footer, &footer_digest).map_err(fail)?;
        }
        self.check_identity(&footer)?;
        if self.only_encrypted && footer.encryption.is_none() {
            return Err(self.corrupt(format!(
                "not encrypted, and for topic {} encryption.required=true: put there by somebody else, or before encryption was turned on",
                self.topic
            )));
        }
        let (data_key, until) = self.data_key(&footer, keys).await?.unzip();
        let key = match (&footer.encryption, data_key) {
            (Some(info), Some(data_key)) => {
                let key = data_key.object_key(&info.salt, footer.object_id).map_err(fail)?;
                footer.unlock(&footer_bytes, &key, trailer.footer_offset).map_err(fail)?;
                Some(key)
            }
            _ => None,
        };
        Ok(Held { opened: Arc::new(Opened { footer, trailer, key, footer_digest }), until })
    }

    /// The object must be the segment that was asked for, not another one under its key.
    fn check_identity(&self, footer: &Footer) -> Result<()> {
        let fail = |e| Error::format(&self.place, e);
        let sought = SegmentName::parse(self.key.as_str()).map_err(fail)?;
        footer.info.check_is(&sought).map_err(fail)?;
        match self.log_bytes {
            Some(expected) if expected != footer.log_bytes => {
                Err(self.corrupt(format!("{expected} log bytes expected, found {}", footer.log_bytes)))
            }
            _ => Ok(()),
        }
    }

    /// A body's error need not name the object.
    pub fn of_store(&self, e: varve_store::Error) -> Error {
        let e = Error::from(e);
        match e.message.contains(self.key.as_str()) {
            true => e,
            false => Error::new(e.kind, format!("{}: {}", self.place, e.message)),
        }
    }

    pub fn corrupt(&self, detail: String) -> Error {
        Error::new(Kind::Corrupt, format!("{}: {detail}", self.place))
    }
}

pub fn check_store(config: &Config, custom: &CustomMetadata, place: &str) -> Result<()> {
    if custom.archive.is_some() {
        return Err(Error::new(
            Kind::Invalid,
            format!("{place}: a reference to an archive, which this version does not read"),
        ));
    }
    if custom.store_id != config.store_id {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "{place}: was written to the store {:?}, but store.id={}: configure the store it is in",
                custom.store_id, config.store_id
            ),
        ));
    }
    Ok(())
}

pub fn object_key(config: &Config, metadata: &SegmentMetadata) -> Result<Key> {
    let name = SegmentName {
        cluster_id: config.cluster_id.clone(),
        topic_id: metadata.topic_id,
        partition: metadata.partition,
        base_offset: metadata.start_offset,
        segment_id: metadata.segment_id,
    };
    Ok(Key::new(segment_name(&name))?)
}

/// The last bytes of an object.
#[derive(Clone, Debug)]
pub struct Tail {
    pub bytes: Bytes,
    pub object_bytes: u64,
}

impl Tail {
    pub fn start(&self) -> u64 {
        self.object_bytes.saturating_sub(self.bytes.len() as u64)
    }

    pub fn trailer(&self) -> Result<Trailer, varve_format::Error> {
        let too_short = varve_format::Error::TooShort {
            what: "trailer",
            offset: self.start(),
            needed: TRAILER_BYTES as u64,
            available: self.bytes.len() as u64,
        };
        let bytes = self.bytes.last_chunk::<TRAILER_BYTES>().ok_or(too_short)?;
        Trailer::decode(bytes, self.object_bytes)
    }

    /// The bytes at `start..end` of the object, if they are here.
    pub fn slice(&self, start: u64, end: u64) -> Option<Bytes> {
        let from = usize::try_from(start.checked_sub(self.start())?).ok()?;
        let to = usize::try_from(end.checked_sub(self.start())?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }

    fn footer(&self, trailer: &Trailer) -> Result<(Bytes, Digest), varve_format::Error> {
        let with_trailer =
            self.slice(trailer.footer_offset, self.object_bytes).ok_or(varve_format::Error::TooShort {
                what: "footer",
                offset: trailer.footer_offset,
                needed: trailer.footer_bytes.into(),
                available: self.bytes.len() as u64,
            })?;
        let digest = Digest(*blake3::hash(&with_trailer).as_bytes());
        Ok((with_trailer.slice(..trailer.footer_bytes as usize), digest))
    }
}

/// Open segments by id; those unused longest are closed when their footers need more than `max_bytes`.
#[derive(Debug)]
pub struct Segments {
    max_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    segments: HashMap<Id, (Arc<Segment>, u64)>,
    stamp: u64,
}

impl Segments {
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes, inner: Mutex::default() }
    }

    /// The segment that the broker means. What read-ahead knew of it is taken over if it is the same object.
    pub fn get(&self, config: &Config, metadata: &SegmentMetadata) -> Result<Arc<Segment>> {
        let asked = Segment::new(config, metadata)?;
        let mut inner = self.inner.lock();
        inner.stamp += 1;
        let stamp = inner.stamp;
        if let Some((known, used)) = inner.segments.get_mut(&metadata.segment_id) {
            if known.custom == asked.custom && known.log_bytes == asked.log_bytes && known.key == asked.key {
                *used = stamp;
                return Ok(known.clone());
            }
            let held = known.opened.lock().clone();
            if let (Some(held), Some(custom)) = (held, &asked.custom)
                && held.opened.footer_digest == custom.footer_digest
                && Some(held.opened.footer.log_bytes) == asked.log_bytes
                && known.key == asked.key
            {
                *asked.opened.lock() = Some(held);
            }
        }
        let segment = Arc::new(asked);
        inner.segments.insert(metadata.segment_id, (segment.clone(), stamp));
        inner.shrink(self.max_bytes);
        Ok(segment)
    }

    /// Adds what read-ahead found, unless the broker named it meanwhile.
    pub fn add_found(&self, segment: Segment) -> Option<Arc<Segment>> {
        let mut inner = self.inner.lock();
        inner.stamp += 1;
        let stamp = inner.stamp;
        if inner.segments.contains_key(&segment.id) {
            return None;
        }
        let segment = Arc::new(segment);
        inner.segments.insert(segment.id, (segment.clone(), stamp));
        inner.shrink(self.max_bytes);
        Some(segment)
    }

    pub fn remove(&self, id: Id) -> Option<Arc<Segment>> {
        self.inner.lock().segments.remove(&id).map(|(segment, _)| segment)
    }
}

impl Inner {
    fn shrink(&mut self, max_bytes: u64) {
        let size = |s: &Segment| {
            2048 + s.opened().map_or(0, |o| 8 * o.footer.frame_count() + 256 * o.footer.extents.len() as u64)
        };
        let mut total: u64 = self.segments.values().map(|(s, _)| size(s)).sum();
        while total > max_bytes && self.segments.len() > 1 {
            let Some((id, bytes)) =
                self.segments.iter().min_by_key(|(_, (_, used))| *used).map(|(id, (s, _))| (*id, size(s)))
            else {
                return;
            };
            self.segments.remove(&id);
            total = total.saturating_sub(bytes);
        }
    }
}
