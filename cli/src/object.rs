//! One segment object in a store: opened from its end, read front to back.
//!
//! Every frame's checksum and every extent's digest are checked before the bytes count as read. Memory is
//! one piece of a body and one frame.

use bytes::{Buf, BytesMut};
use futures::TryStreamExt;
use varve_format::{Decoder, Digest, DigestAlgorithm, Extent, Footer, ObjectKey, TRAILER_BYTES, Trailer};
use varve_keys::DataKeys;
use varve_store::{GetRange, Key, Kind, SharedStore};

/// Most footers and indexes fit in it, so that one request opens an object.
const TAIL_BYTES: u64 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error(transparent)]
    Store(#[from] varve_store::Error),
    #[error("{object}: {source}")]
    Format { object: String, source: varve_format::Error },
    /// The object itself may be fine.
    #[error("{object}: its key can't be had: {detail}")]
    Key { object: String, detail: String },
    /// Writing what was read failed.
    #[error("{0}")]
    Sink(#[source] std::io::Error),
}

impl ObjectError {
    /// The object is damaged: neither the store's, the key's nor our own trouble.
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            ObjectError::Format { source, .. } => !matches!(
                source,
                varve_format::Error::KeyMissing { .. }
                    | varve_format::Error::FutureVersion { .. }
                    | varve_format::Error::UnknownFeatures(_)
            ),
            ObjectError::Store(error) => error.kind == Kind::Truncated,
            ObjectError::Key { .. } | ObjectError::Sink(_) => false,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ObjectError::Store(error) if error.kind == Kind::NotFound)
    }

    /// The object can't be judged with what we were given; others may still be.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, ObjectError::Key { .. } | ObjectError::Format { .. }) && !self.is_corruption()
    }
}

pub(crate) struct SegmentObject {
    store: SharedStore,
    key: Key,
    /// For messages.
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) trailer: Trailer,
    pub(crate) footer: Footer,
    /// BLAKE3 over footer and trailer, as Kafka keeps it.
    pub(crate) footer_digest: Digest,
    object_key: Option<ObjectKey>,
}

impl SegmentObject {
    /// Without keys an encrypted object opens as far as its footer, unauthenticated.
    pub(crate) async fn open(
        store: &SharedStore,
        key: &Key,
        keys: Option<&DataKeys>,
    ) -> Result<Self, ObjectError> {
        let name = format!("{}/{key}", store.url().trim_end_matches('/'));
        let fail = |source| ObjectError::Format { object: name.clone(), source };
        let got = store.get(key, GetRange::Suffix(TAIL_BYTES)).await?;
        let size_bytes = got.range.end;
        let tail = got.bytes().await?;
        let Some((_, last)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(fail(varve_format::Error::TooShort {
                what: "object",
                offset: 0,
                needed: TRAILER_BYTES as u64,
                available: size_bytes,
            }));
        };
        let trailer = Trailer::decode(last, size_bytes).map_err(fail)?;
        let wanted = u64::from(trailer.footer_bytes) + TRAILER_BYTES as u64;
        let tail = match usize::try_from(wanted).ok().filter(|n| *n <= tail.len()) {
            Some(n) => tail.slice(tail.len() - n..),
            None => store.get(key, GetRange::From(trailer.footer_offset)).await?.bytes().await?,
        };
        let footer_bytes = tail.get(..tail.len().saturating_sub(TRAILER_BYTES)).unwrap_or_default();
        let mut footer = Footer::decode(footer_bytes, &trailer).map_err(fail)?;
        let object_key = match (&footer.encryption, keys) {
            (Some(encryption), Some(keys)) => {
                let info = &footer.info;
                let data_key = keys.for_read(&info.cluster_id, info.topic_id, encryption).await;
                let data_key =
                    data_key.map_err(|e| ObjectError::Key { object: name.clone(), detail: e.to_string() })?;
                let object_key = data_key.object_key(&encryption.salt, footer.object_id).map_err(fail)?;
                footer.unlock(footer_bytes, &object_key, trailer.footer_offset).map_err(fail)?;
                Some(object_key)
            }
            _ => None,
        };
        let mut hasher = DigestAlgorithm::Blake3.hasher();
        if let Some(hasher) = &mut hasher {
            hasher.update(&tail);
        }
        let footer_digest = hasher.map_or(Digest([0; 32]), varve_format::Hasher::finish);
        Ok(Self {
            store: store.clone(),
            key: key.clone(),
            name,
            size_bytes,
            trailer,
            footer,
            footer_digest,
            object_key,
        })
    }

    /// All plain bytes of the extents of these numbers, which are neighbours, frame by frame. A failed
    /// `sink` ends it.
    pub(crate) async fn read(
        &self,
        extents: std::ops::Range<usize>,
        mut sink: impl FnMut(&Extent, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), ObjectError> {
        let fail = |source| ObjectError::Format { object: self.name.clone(), source };
        let numbered = self.footer.extents.iter().enumerate().take(extents.end).skip(extents.start);
        let (mut start, mut end) = (None, 0);
        for (_, extent) in numbered.clone() {
            start.get_or_insert(extent.stored_offset);
            end = extent.stored_offset.saturating_add(extent.stored_bytes);
        }
        let start = start.unwrap_or(0);
        let mut decoder = Decoder::new(&self.footer, self.object_key.as_ref()).map_err(fail)?;
        let mut body = if start < end {
            Some(self.store.get(&self.key, GetRange::Bounded { start, end }).await?.body)
        } else {
            None
        };
        let mut pending = BytesMut::new();
        let mut plain = Vec::new();
        for (number, extent) in numbered {
            let mut hasher = self.footer.digest.hasher();
            for frame in extent.first_frame..extent.first_frame.saturating_add(extent.frame_count()) {
                let frame = self.footer.frame(frame).map_err(fail)?;
                let stored = (frame.stored.end - frame.stored.start) as usize;
                while pending.len() < stored {
                    let next = match &mut body {
                        Some(body) => body.try_next().await?,
                        None => None,
                    };
                    match next {
                        Some(piece) => pending.extend_from_slice(&piece),
                        None => break,
                    }
                }
                plain.resize(frame.plain_bytes as usize, 0);
                let there = pending.get(..stored).unwrap_or(&pending);
                decoder.decode(&frame, there, &mut plain).map_err(fail)?;
                pending.advance(stored);
                if let Some(hasher) = &mut hasher {
                    hasher.update(&plain);
                }
                sink(extent, &plain).map_err(ObjectError::Sink)?;
            }
            self.check_digest(number, extent, hasher)?;
        }
        Ok(())
    }

    fn check_digest(
        &self,
        number: usize,
        extent: &Extent,
        hasher: Option<varve_format::Hasher>,
    ) -> Result<(), ObjectError> {
        let (Some(hasher), Some(expected)) = (hasher, self.footer.digests.get(number)) else { return Ok(()) };
        let found = hasher.finish();
        if found == *expected {
            return Ok(());
        }
        let source = varve_format::Error::Corrupt {
            what: extent.kind.name(),
            offset: extent.stored_offset,
            expected: format!("digest {expected}"),
            found: found.to_string(),
        };
        Err(ObjectError::Format { object: self.name.clone(), source })
    }

    /// One section whole: it is at most as long as the footer, which was checked, says.
    pub(crate) async fn section(&self, number: usize) -> Result<Vec<u8>, ObjectError> {
        let mut bytes = Vec::new();
        self.read(number..number + 1, |_, plain| {
            bytes.extend_from_slice(plain);
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// Numbers of the extents that are sections.
    pub(crate) fn sections(&self) -> std::ops::Range<usize> {
        self.footer.chunks().len()..self.footer.extents.len()
    }
}
