//! One object, opened from its end and read forward: nothing leaves before it was compared with what the footer has of
//! it. Of a whole extent that is the digest, and its frames' checksums are only looked at where that does not hold, for
//! which of them is damaged; of a part of one the checksums.
//!
//! An object lies under a key of its own or within a bundle of the journal: all positions count from `origin`.
//! It is fetched in *runs*: neighbouring extents of a few MiB together, or a part of a larger one. A run is
//! fetched, checked and decoded by one task; what is stored as it is passes through without being copied.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use varve_format::{
    DataKey, Decoder, EncryptionInfo, Extent, ExtentKind, FOOTER_MAX_BYTES, FrameRef, Hasher, ObjectKey,
    TRAILER_BYTES, Trailer,
};
use varve_store::{GetRange, Key, Store};

use crate::error::{Error, Kind, Result};
use crate::hash::{Hash, HashAlgorithm};
use crate::head::{ObjectHead, Place};
use crate::oldest::Oldest;

/// Most footers fit into it.
const TAIL_BYTES: u64 = 64 << 10;
/// Plain bytes of a run.
pub(crate) const RUN_BYTES: u64 = 4 << 20;

/// Where an object's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) key: Key,
    /// For messages.
    pub(crate) name: String,
    pub(crate) origin: u64,
    pub(crate) bytes: u64,
    /// Nothing else is under the key.
    pub(crate) whole: bool,
    /// The store's version, where it is known.
    pub(crate) version: Option<String>,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}+{}", self.name, self.origin, self.bytes)
    }
}

/// What an object must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) place: Place,
    pub(crate) end_offset: i64,
    pub(crate) footer: Hash,
}

/// An object whose head was checked. Cheap to clone; without its key, an encrypted one stays sealed.
#[derive(Clone)]
pub(crate) struct OpenObject(Arc<Inner>);

struct Inner {
    store: Oldest,
    at: At,
    head: ObjectHead,
    key: Option<ObjectKey>,
}

impl fmt::Debug for OpenObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenObject").field(&self.0.at).finish()
    }
}

/// What is fetched at once: frames of neighbouring extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) extents: Range<usize>,
    pub(crate) frames: Range<u64>,
}

impl OpenObject {
    /// # Errors
    /// [`Error::Missing`]; [`Error::Corrupt`] for another size, [`Error::Mistaken`] for another object.
    pub(crate) async fn open(
        store: Oldest,
        hash: HashAlgorithm,
        at: At,
        expected: &Expected,
    ) -> Result<Self> {
        match Self::open_once(store.clone(), hash, at.clone(), expected).await {
            Err(error) if again(&store, &at, &error).await? => {
                Self::open_once(store, hash, at, expected).await
            }
            opened => opened,
        }
    }

    async fn open_once(store: Oldest, hash: HashAlgorithm, at: At, expected: &Expected) -> Result<Self> {
        let mut tail = tail(&store, &at, TAIL_BYTES).await?;
        let segment = |source| Error::Segment { object: at.name.clone(), source };
        let last = tail.last_chunk::<TRAILER_BYTES>();
        let last =
            last.ok_or_else(|| Error::corrupt(&at.name, "a trailer", format!("{} bytes", at.bytes)))?;
        let footer_bytes = Trailer::decode(last, at.bytes).map_err(segment)?.footer_bytes;
        let needed = u64::from(footer_bytes.min(FOOTER_MAX_BYTES)).saturating_add(TRAILER_BYTES as u64);
        if needed > tail.len() as u64 {
            tail = self::tail(&store, &at, needed).await?;
        }
        let head = ObjectHead::read(hash, expected.place, &at.name, &tail, at.bytes)?;
        let found = (head.end_offset(), head.footer_hash);
        if found != (expected.end_offset, expected.footer) {
            let wanted = format!("end {}, footer {}", expected.end_offset, expected.footer);
            return Err(Error::mistaken(&at.name, wanted, format!("end {}, footer {}", found.0, found.1)));
        }
        Ok(Self(Arc::new(Inner { store, at, head, key: None })))
    }

    /// Of an object whose head was read already.
    pub(crate) fn of(store: Oldest, at: At, head: ObjectHead) -> Self {
        Self(Arc::new(Inner { store, at, head, key: None }))
    }

    pub(crate) fn head(&self) -> &ObjectHead {
        &self.0.head
    }

    pub(crate) fn at(&self) -> &At {
        &self.0.at
    }

    pub(crate) fn encryption(&self) -> Option<&EncryptionInfo> {
        self.0.head.footer.encryption.as_ref()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.encryption().is_some() && self.0.key.is_none()
    }

    /// # Errors
    /// [`varve_format::Error::KeyMissing`] of one that is encrypted and was not unlocked.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.encryption() {
            Some(info) if self.is_sealed() => {
                let key_id = info.data_key_id.to_string();
                let source = varve_format::Error::KeyMissing { what: "object", key_id };
                Err(Error::Segment { object: self.0.at.name.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// The same object, opened with its key. Of one that is not encrypted the key counts for nothing.
    pub(crate) async fn unlocked(&self, key: &DataKey) -> Result<Self> {
        let (at, head) = (&self.0.at, &self.0.head);
        let Some(info) = &head.footer.encryption else { return Ok(self.clone()) };
        let segment = |source| Error::Segment { object: at.name.clone(), source };
        let object_key = key.object_key(&info.salt, head.footer.object_id).map_err(segment)?;
        let end = head.trailer.footer_offset.saturating_add(u64::from(head.trailer.footer_bytes));
        let bytes = self.get(head.trailer.footer_offset..end).await?;
        let bytes = varve_store::GetResult::bytes(bytes).await?;
        let mut head = head.clone();
        head.footer.unlock(&bytes, &object_key, head.trailer.footer_offset).map_err(segment)?;
        Ok(Self(Arc::new(Inner { store: self.0.store.clone(), at: at.clone(), head, key: Some(object_key) })))
    }

    /// The extents of these numbers in runs, from frame `first` on.
    pub(crate) fn runs(&self, extents: Range<usize>, first: u64) -> Vec<Run> {
        let footer = &self.0.head.footer;
        let frames_of_run = RUN_BYTES.checked_div(footer.frame_bytes.into()).unwrap_or(1).max(1);
        let (mut runs, mut held) = (Vec::<Run>::new(), 0_u64);
        for (number, extent) in footer.extents.iter().enumerate().take(extents.end).skip(extents.start) {
            let end = extent.first_frame.saturating_add(extent.frame_count());
            let mut frame = extent.first_frame.max(first);
            if frame >= end {
                continue;
            }
            let whole = frame == extent.first_frame && extent.plain_bytes <= RUN_BYTES;
            match runs.last_mut() {
                Some(run) if whole && held.saturating_add(extent.plain_bytes) <= RUN_BYTES => {
                    run.extents.end = number.saturating_add(1);
                    run.frames.end = end;
                    held = held.saturating_add(extent.plain_bytes);
                    continue;
                }
                _ => {}
            }
            while frame < end {
                let upto = frame.saturating_add(frames_of_run).min(end);
                runs.push(Run { extents: number..number.saturating_add(1), frames: frame..upto });
                frame = upto;
            }
            // Only what is whole may share a run.
            held = if whole { extent.plain_bytes } else { u64::MAX };
        }
        runs
    }

    async fn get(&self, range: Range<u64>) -> Result<varve_store::GetResult> {
        let origin = self.0.at.origin;
        let range = GetRange::Bounded {
            start: origin.saturating_add(range.start),
            end: origin.saturating_add(range.end),
        };
        get(&self.0.store, &self.0.at, range).await
    }

    /// Fetches a run and checks it. Plain bytes in order, if they are to be kept; none of an object that stays
    /// sealed, of which the checksums alone are compared. Extents that are whole in it are held against their
    /// digests.
    pub(crate) async fn fetch(self, run: Run, keep: bool) -> Result<Vec<Bytes>> {
        match self.fetch_named(run.clone(), keep).await {
            Err(error) if again(&self.0.store, &self.0.at, &error).await? => {
                self.fetch_named(run, keep).await
            }
            fetched => fetched,
        }
    }

    /// What does not hold is named by its frame, where that does not hold either. Who keeps nothing has come to compare
    /// all that can be compared.
    async fn fetch_named(&self, run: Run, keep: bool) -> Result<Vec<Bytes>> {
        let frames = if keep { Frames::ByDigest } else { Frames::Each };
        match self.fetch_once(run.clone(), keep, frames).await {
            Err(error) if keep && error.kind() == Kind::Corrupt => {
                Err(self.fetch_once(run, keep, Frames::Each).await.err().unwrap_or(error))
            }
            fetched => fetched,
        }
    }

    async fn fetch_once(&self, run: Run, keep: bool, frames: Frames) -> Result<Vec<Bytes>> {
        let inner = Arc::clone(&self.0);
        let footer = &inner.head.footer;
        let segment = |source| Error::Segment { object: inner.at.name.clone(), source };
        let first = footer.frame(run.frames.start).map_err(segment)?;
        let last = footer.frame(run.frames.end.saturating_sub(1)).map_err(segment)?;
        let mut got = self.get(first.stored.start..last.stored.end).await?;
        let mut reading = Reading::new(&inner, run, keep, frames)?;
        while let Some(piece) = got.body.try_next().await? {
            reading.piece(piece)?;
        }
        reading.finish()
    }

    /// One section whole: it is at most as long as the footer, which was checked, says.
    pub(crate) async fn section(&self, kind: ExtentKind) -> Result<Option<Vec<u8>>> {
        let found = self.0.head.footer.extents.iter().position(|e| e.kind == kind);
        let Some(number) = found else { return Ok(None) };
        self.check_open()?;
        let mut plain = Vec::new();
        for run in self.runs(number..number.saturating_add(1), 0) {
            for piece in self.clone().fetch(run, true).await? {
                plain.extend_from_slice(&piece);
            }
        }
        self.check_digest(number, self.digest_of(&plain))?;
        Ok(Some(plain))
    }

    pub(crate) fn digest_of(&self, plain: &[u8]) -> Option<varve_format::Digest> {
        let mut hasher = self.0.head.footer.digest.hasher()?;
        hasher.update(plain);
        Some(hasher.finish())
    }

    pub(crate) fn check_digest(&self, number: usize, found: Option<varve_format::Digest>) -> Result<()> {
        let footer = &self.0.head.footer;
        if self.is_sealed() || found == footer.digests.get(number).copied() {
            return Ok(());
        }
        let kind = footer.extents.get(number).map_or("extent", |e| e.kind.name());
        let shown = |d: Option<varve_format::Digest>| d.map_or_else(|| "none".to_owned(), |d| d.to_string());
        let expected = format!("digest {} of {kind} {number}", shown(footer.digests.get(number).copied()));
        Err(Error::corrupt(&self.0.at.name, expected, shown(found)))
    }

    /// Whether the run has no part of this extent but the whole.
    pub(crate) fn is_whole(&self, run: &Run, extent: &Extent) -> bool {
        let end = extent.first_frame.saturating_add(extent.frame_count());
        run.frames.start <= extent.first_frame && end <= run.frames.end
    }
}

async fn tail(store: &Oldest, at: &At, bytes: u64) -> Result<Bytes> {
    let end = at.origin.saturating_add(at.bytes);
    let start = end.saturating_sub(bytes).max(at.origin);
    let got = get(store, at, GetRange::Bounded { start, end }).await?;
    let size = got.object_size_bytes.filter(|_| at.whole);
    if got.range.end != end || size.is_some_and(|size| size != at.bytes) {
        let found = size.unwrap_or(got.range.end.saturating_sub(at.origin));
        return Err(Error::corrupt(&at.name, format!("{} bytes", at.bytes), found));
    }
    Ok(got.bytes().await?)
}

/// Whether what does not hold was put on top of the object: read again, it is the object.
async fn again(store: &Oldest, at: &At, error: &Error) -> Result<bool> {
    let odd = matches!(error.kind(), Kind::Corrupt | Kind::Invalid);
    Ok(odd && store.look(&at.key, at.version.as_deref()).await?)
}

async fn get(store: &Oldest, at: &At, range: GetRange) -> Result<varve_store::GetResult> {
    let mut got = store.get(&at.key, range).await;
    // Another version than is known: of a copy of the archive all are others, else it was overwritten.
    let other = |got: &varve_store::GetResult| at.version.is_some() && got.version != at.version;
    if got.as_ref().is_ok_and(other) && store.look(&at.key, at.version.as_deref()).await? {
        got = store.get(&at.key, range).await;
    }
    got.map_err(|e| match e.kind {
        varve_store::Kind::NotFound => Error::Missing { object: at.name.clone() },
        varve_store::Kind::InvalidRange => {
            Error::corrupt(&at.name, format!("{} bytes from {}", at.bytes, at.origin), "fewer")
        }
        _ => e.into(),
    })
}

/// Which frames are held against their checksums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// Those that no digest covers.
    ByDigest,
    Each,
}

/// A run while its bytes arrive.
struct Reading<'a> {
    inner: &'a Inner,
    run: Run,
    frames: Frames,
    /// None of what stays sealed.
    decoder: Option<Decoder<'a>>,
    /// Stored bytes are the plain ones.
    identity: bool,
    /// Whether anybody wants the bytes. If not, memory is what arrives at once.
    keep: bool,
    extent: usize,
    frame: u64,
    hasher: Option<Hasher>,
    /// The beginning of a frame whose rest has not arrived.
    carry: BytesMut,
    /// Decoded, of the extents so far.
    plain: Vec<u8>,
    out: Vec<Bytes>,
}

impl<'a> Reading<'a> {
    fn new(inner: &'a Inner, run: Run, keep: bool, frames: Frames) -> Result<Self> {
        let footer = &inner.head.footer;
        let sealed = footer.encryption.is_some() && inner.key.is_none();
        let decoder = if sealed {
            None
        } else {
            let new = Decoder::new(footer, inner.key.as_ref());
            Some(new.map_err(|source| Error::Segment { object: inner.at.name.clone(), source })?)
        };
        let mut reading = Self {
            inner,
            identity: footer.is_identity(),
            keep,
            decoder,
            extent: run.extents.start,
            frame: run.frames.start,
            run,
            frames,
            hasher: None,
            carry: BytesMut::new(),
            plain: Vec::new(),
            out: Vec::new(),
        };
        reading.begin_extent()?;
        Ok(reading)
    }

    fn begin_extent(&mut self) -> Result<()> {
        let footer = &self.inner.head.footer;
        // Extents without a frame have a digest too.
        while let Some(extent) =
            footer.extents.get(self.extent).filter(|_| self.extent < self.run.extents.end)
        {
            let whole = self.run.frames.start <= extent.first_frame
                && extent.first_frame.saturating_add(extent.frame_count()) <= self.run.frames.end;
            self.hasher = footer.digest.hasher().filter(|_| whole && self.decoder.is_some());
            if extent.frame_count() > 0 {
                return Ok(());
            }
            self.end_extent()?;
        }
        Ok(())
    }

    fn end_extent(&mut self) -> Result<()> {
        if let Some(hasher) = self.hasher.take() {
            let (found, footer) = (hasher.finish(), &self.inner.head.footer);
            if footer.digests.get(self.extent) != Some(&found) {
                let kind = footer.extents.get(self.extent).map_or("extent", |e| e.kind.name());
                let expected = footer.digests.get(self.extent).map_or_else(String::new, ToString::to_string);
                let expected = format!("digest {expected} of {kind} {}", self.extent);
                return Err(Error::corrupt(&self.inner.at.name, expected, found));
            }
        }
        self.extent = self.extent.saturating_add(1);
        Ok(())
    }

    /// Takes bytes as they arrive, of any length.
    fn piece(&mut self, piece: Bytes) -> Result<()> {
        let (mut at, mut passed) = (0, 0);
        while at < piece.len() {
            let frame = self.inner.head.footer.frame(self.frame).map_err(|s| self.segment(s))?;
            let needed = usize::try_from(frame.stored.end.saturating_sub(frame.stored.start));
            let needed = needed.unwrap_or(usize::MAX).saturating_sub(self.carry.len());
            let upto = at.saturating_add(needed).min(piece.len());
            let here = piece.get(at..upto).unwrap_or_default();
            let complete = here.len() == needed;
            if self.carry.is_empty() && complete {
                self.stored(&frame, here)?;
                at = upto;
                continue;
            }
            self.pass(&piece, passed..at);
            self.carry.extend_from_slice(here);
            at = upto;
            passed = at;
            if complete {
                let stored = self.carry.split().freeze();
                self.stored(&frame, &stored)?;
                self.pass(&stored, 0..stored.len());
            }
        }
        self.pass(&piece, passed..at);
        Ok(())
    }

    /// Hands checked bytes on as they are.
    fn pass(&mut self, piece: &Bytes, range: Range<usize>) {
        if self.keep && self.identity && !range.is_empty() && range.end <= piece.len() {
            self.out.push(piece.slice(range));
        }
    }

    /// A whole frame, as it is stored.
    fn stored(&mut self, frame: &FrameRef, stored: &[u8]) -> Result<()> {
        let from = self.plain.len();
        match &mut self.decoder {
            Some(decoder) if !self.identity => {
                self.plain.resize(from.saturating_add(frame.plain_bytes as usize), 0);
                let plain = self.plain.get_mut(from..).unwrap_or_default();
                decoder.decode(frame, stored, plain).map_err(|s| segment(self.inner, s))?;
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(plain);
                }
                if !self.keep {
                    self.plain.clear();
                }
            }
            _ => {
                if self.frames == Frames::Each || self.hasher.is_none() {
                    frame.check(stored).map_err(|s| segment(self.inner, s))?;
                }
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(stored);
                }
            }
        }
        self.frame = self.frame.saturating_add(1);
        let extent = self.inner.head.footer.extents.get(self.extent);
        if extent.is_some_and(|e| self.frame >= e.first_frame.saturating_add(e.frame_count())) {
            self.end_extent()?;
            self.begin_extent()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Bytes>> {
        if self.frame != self.run.frames.end {
            let expected = format!("frames up to {}", self.run.frames.end);
            return Err(Error::corrupt(&self.inner.at.name, expected, format!("up to {}", self.frame)));
        }
        if !self.plain.is_empty() {
            self.out.push(Bytes::from(self.plain));
        }
        Ok(self.out)
    }

    fn segment(&self, source: varve_format::Error) -> Error {
        segment(self.inner, source)
    }
}

fn segment(inner: &Inner, source: varve_format::Error) -> Error {
    Error::Segment { object: inner.at.name.clone(), source }
}
