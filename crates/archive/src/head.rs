//! The head of an object: its footer, fetched and held against where the object lies.

use bytes::Bytes;
use varve_format::{DigestAlgorithm, EpochStart, FOOTER_MAX_BYTES, Footer, Id, TRAILER_BYTES, Trailer};
use varve_store::GetRange;

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::hash::{Hash, HashAlgorithm};
use crate::record::gap::is_gap;
use crate::record::object::ObjectEntry;

/// Most footers fit into it.
const TAIL_BYTES: u64 = 64 << 10;

/// What is known of an object of a chain from its last bytes. Of an encrypted one the footer is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    pub name: String,
    pub footer: Footer,
    pub trailer: Trailer,
    pub footer_hash: Hash,
    pub gap: bool,
}

/// Where an object must lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic_id: Id,
    pub partition: i32,
    pub first_offset: i64,
}

impl ObjectHead {
    /// From the last bytes of an object of `object_bytes`: as many as there are, or more than footer and trailer.
    ///
    /// # Errors
    /// [`Error::Segment`], [`Error::Record`], [`Error::Mistaken`] for what is not an object of a chain in that place.
    pub fn read(
        hash: HashAlgorithm,
        place: Place,
        name: &str,
        tail: &[u8],
        object_bytes: u64,
    ) -> Result<Self> {
        let segment = |source| Error::Segment { object: name.to_owned(), source };
        let trailer = trailer(name, tail, object_bytes)?;
        let bytes = tail
            .len()
            .checked_sub(TRAILER_BYTES)
            .and_then(|end| Some((end.checked_sub(trailer.footer_bytes as usize)?, end)))
            .and_then(|(from, end)| tail.get(from..end))
            .ok_or_else(|| Error::corrupt(name, "the whole footer", format!("{} bytes", tail.len())))?;
        let footer = Footer::decode(bytes, &trailer).map_err(segment)?;
        let info = &footer.info;
        let found = (info.topic_id, info.partition, info.base_offset);
        if found != (place.topic_id, place.partition, place.first_offset) {
            return Err(Error::mistaken(name, format!("{place:?}"), format!("{found:?}")));
        }
        if info.last_offset < info.base_offset {
            return Err(Error::corrupt(name, "at least one offset", "none"));
        }
        if footer.digest == DigestAlgorithm::None {
            return Err(Error::corrupt(name, "a digest algorithm", "none"));
        }
        // The first may be the lineage's last before the object; the others begin in it.
        if let Some(odd) = info.leader_epochs.iter().skip(1).find(|e| e.start_offset < info.base_offset) {
            let expected = format!("epoch {} from {} on", odd.epoch, info.base_offset);
            return Err(Error::corrupt(name, expected, format!("from {}", odd.start_offset)));
        }
        let gap = is_gap(&footer).map_err(|source| Error::Record { object: name.to_owned(), source })?;
        let footer_hash = hash.of(&[bytes, &trailer.encode()]);
        Ok(Self { name: name.to_owned(), footer, trailer, footer_hash, gap })
    }

    pub fn first_offset(&self) -> i64 {
        self.footer.info.base_offset
    }

    /// Last offset + 1.
    pub fn end_offset(&self) -> i64 {
        self.footer.info.last_offset.saturating_add(1)
    }

    /// The epochs that it knows, the lineage's last one before it included.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.footer.info.leader_epochs
    }

    pub fn entry(&self, version: Option<String>) -> ObjectEntry {
        ObjectEntry {
            first_offset: self.first_offset(),
            end_offset: self.end_offset(),
            bytes: self.trailer.object_bytes(),
            log_bytes: self.footer.log_bytes,
            footer: self.footer_hash,
            version,
        }
    }
}

fn trailer(name: &str, tail: &[u8], object_bytes: u64) -> Result<Trailer> {
    let last = tail
        .last_chunk::<TRAILER_BYTES>()
        .ok_or_else(|| Error::corrupt(name, "a trailer", format!("{object_bytes} bytes")))?;
    Trailer::decode(last, object_bytes).map_err(|source| Error::Segment { object: name.to_owned(), source })
}

impl Archive {
    /// The head of the object of this name; `None` if there is none.
    pub(crate) async fn head(&self, name: &str, place: Place) -> Result<Option<ObjectHead>> {
        match self.head_once(name, place).await {
            Err(error) if self.shelf.again(name, &error).await? => self.head_once(name, place).await,
            found => found,
        }
    }

    async fn head_once(&self, name: &str, place: Place) -> Result<Option<ObjectHead>> {
        let Some((mut tail, object_bytes)) = self.tail(name, TAIL_BYTES).await? else { return Ok(None) };
        let needed = trailer(&self.shelf.place(name), &tail, object_bytes)?.footer_bytes;
        let needed = u64::from(needed.min(FOOTER_MAX_BYTES)).saturating_add(TRAILER_BYTES as u64);
        if needed > tail.len() as u64 {
            match self.tail(name, needed).await? {
                Some((longer, bytes)) if bytes == object_bytes => tail = longer,
                _ => return Err(Error::corrupt(self.shelf.place(name), "the same object", "another")),
            }
        }
        ObjectHead::read(self.hash(), place, name, &tail, object_bytes).map(Some)
    }

    async fn tail(&self, name: &str, bytes: u64) -> Result<Option<(Bytes, u64)>> {
        let key = self.shelf.key(name)?;
        match self.shelf.store().get(&key, GetRange::Suffix(bytes)).await {
            Ok(got) => {
                let size = got.range.end;
                Ok(Some((got.bytes().await?, size)))
            }
            Err(e) if e.kind == varve_store::Kind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}
