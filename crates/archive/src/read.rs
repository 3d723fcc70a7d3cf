//! Reads an object that a manifest names, and holds all of it against what the manifest says.
//!
//! One pass from the first byte on, frame by frame: memory is one frame and what the store hands over at once.

use bytes::{Buf, Bytes, BytesMut};
use futures::TryStreamExt;
use varve_format::{DataKey, Decoder, Id};
use varve_store::GetRange;

use crate::archive::Archive;
use crate::canonical::Record;
use crate::error::{Error, Result};
use crate::head::{ObjectHead, Place};
use crate::record::gap::{GAP_SECTION, GapRecord};
use crate::record::object::ObjectEntry;

/// An object whose head was checked.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    archive: &'a Archive,
    name: String,
    head: ObjectHead,
}

impl<'a> ObjectReader<'a> {
    /// # Errors
    /// Of the store; [`Error::Missing`]; [`Error::Mistaken`] for another object than `entry` says.
    pub async fn open(
        archive: &'a Archive,
        topic_id: Id,
        partition: i32,
        name: &str,
        entry: &ObjectEntry,
    ) -> Result<Self> {
        let place = Place { topic_id, partition, first_offset: entry.first_offset };
        let head = archive.head(name, place).await?;
        let head = head.ok_or_else(|| Error::Missing { object: archive.shelf.place(name) })?;
        let found = head.entry(entry.version.clone());
        if found == *entry {
            return Ok(Self { archive, name: name.to_owned(), head });
        }
        Err(Error::mistaken(archive.shelf.place(name), format!("{entry:?}"), format!("{found:?}")))
    }

    pub fn head(&self) -> &ObjectHead {
        &self.head
    }

    /// Every frame's checksum, every extent's digest, and a gap's record. Of an encrypted object without a key
    /// the checksums alone: then the answer is `true`.
    ///
    /// # Errors
    /// Of the store; [`Error::Segment`] and [`Error::Corrupt`] for what does not hold.
    pub async fn check_contents(&mut self, key: Option<&DataKey>) -> Result<bool> {
        let place = self.archive.shelf.place(&self.name);
        let segment = |source| Error::Segment { object: place.clone(), source };
        let object_key = match (&self.head.footer.encryption, key) {
            (Some(info), Some(key)) => {
                Some(key.object_key(&info.salt, self.head.footer.object_id).map_err(segment)?)
            }
            _ => None,
        };
        if let Some(key) = &object_key {
            let tail = self.tail().await?;
            let bytes = tail.get(..self.head.trailer.footer_bytes as usize).unwrap_or_default();
            self.head.footer.unlock(bytes, key, self.head.trailer.footer_offset).map_err(segment)?;
        }
        let footer = &self.head.footer;
        let sealed = footer.encryption.is_some() && object_key.is_none();
        let mut decoder =
            if sealed { None } else { Some(Decoder::new(footer, object_key.as_ref()).map_err(segment)?) };
        let mut body = Body::open(self.archive, &self.name, self.head.trailer.footer_offset).await?;
        let (mut number, mut plain) = (0, Vec::new());
        for (index, extent) in footer.extents.iter().enumerate() {
            let mut hasher = footer.digest.hasher();
            let mut section = Vec::new();
            for _ in 0..extent.frame_count() {
                let frame = footer.frame(number).map_err(segment)?;
                number = number.saturating_add(1);
                let length = frame.stored.end.saturating_sub(frame.stored.start);
                let stored = body.take(usize::try_from(length).unwrap_or(usize::MAX)).await?;
                let Some(decoder) = &mut decoder else {
                    frame.check(&stored).map_err(segment)?;
                    continue;
                };
                plain.resize(frame.plain_bytes as usize, 0);
                decoder.decode(&frame, &stored, &mut plain).map_err(segment)?;
                if let Some(hasher) = &mut hasher {
                    hasher.update(&plain);
                }
                if extent.kind == GAP_SECTION && (section.len() as u64) < GapRecord::MAX_BYTES {
                    section.extend_from_slice(&plain);
                }
            }
            if sealed {
                continue;
            }
            let found = hasher.map(|h| h.finish());
            let expected = footer.digests.get(index).copied();
            if found != expected {
                let what = format!("digest {expected:?} of {}", extent.kind.name());
                return Err(Error::corrupt(&place, what, format!("{found:?}")));
            }
            if extent.kind == GAP_SECTION {
                GapRecord::decode(&section).map_err(self.archive.shelf.damaged(&self.name))?;
            }
        }
        Ok(sealed)
    }

    /// Footer and trailer.
    async fn tail(&self) -> Result<Bytes> {
        let key = self.archive.shelf.key(&self.name)?;
        let range = GetRange::From(self.head.trailer.footer_offset);
        Ok(self.archive.shelf.store().get(&key, range).await?.bytes().await?)
    }
}

/// An object's bytes before its footer, handed out in the lengths that are asked for.
struct Body {
    stream: Option<futures::stream::BoxStream<'static, varve_store::Result<Bytes>>>,
    held: BytesMut,
}

impl Body {
    async fn open(archive: &Archive, name: &str, end: u64) -> Result<Self> {
        if end == 0 {
            return Ok(Self { stream: None, held: BytesMut::new() });
        }
        let key = archive.shelf.key(name)?;
        let got = archive.shelf.store().get(&key, GetRange::Bounded { start: 0, end }).await?;
        Ok(Self { stream: Some(got.body), held: BytesMut::new() })
    }

    /// Fewer only where the object ends before.
    async fn take(&mut self, bytes: usize) -> Result<Bytes> {
        while self.held.len() < bytes {
            let Some(stream) = &mut self.stream else { break };
            match stream.try_next().await? {
                Some(piece) => self.held.extend_from_slice(&piece),
                None => self.stream = None,
            }
        }
        let n = bytes.min(self.held.len());
        let taken = Bytes::copy_from_slice(self.held.get(..n).unwrap_or_default());
        self.held.advance(n);
        Ok(taken)
    }
}
