//! The object of a piece, opened: its footer, its gap's record, its log from anywhere on.

use varve_format::{DataKey, EncryptionInfo, ExtentKind, Footer};

use super::index;
use super::object::{At, OpenObject};
use super::stream::LogStream;
use crate::archive::Archive;
use crate::canonical::Record;
use crate::error::{Error, Result};
use crate::head::ObjectHead;
use crate::record::gap::{GAP_SECTION, GapRecord};

/// See the module. All errors are [`Error::Offsets`], which name the object too.
#[derive(Clone, Debug)]
pub struct ArchivedObject {
    object: OpenObject,
    /// Of the piece.
    offsets: (i64, i64),
}

impl Archive {
    /// An object of its own, whose head was read already.
    ///
    /// # Errors
    /// [`Error::Store`] for a name that no store can have.
    pub fn object(&self, head: &ObjectHead) -> Result<ArchivedObject> {
        let at = At {
            key: self.shelf().key(&head.name)?,
            name: self.shelf().place(&head.name),
            origin: 0,
            bytes: head.trailer.object_bytes(),
            whole: true,
            version: None,
        };
        let offsets = (head.first_offset(), head.end_offset());
        Ok(ArchivedObject::new(OpenObject::of(self.shelf().oldest().clone(), at, head.clone()), offsets))
    }
}

impl ArchivedObject {
    pub(super) fn new(object: OpenObject, offsets: (i64, i64)) -> Self {
        Self { object, offsets }
    }

    fn at<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|e| e.at_offsets(self.offsets.0, self.offsets.1))
    }

    pub fn head(&self) -> &ObjectHead {
        self.object.head()
    }

    pub fn footer(&self) -> &Footer {
        &self.object.head().footer
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.object.at().name
    }

    /// Which key opens it; `None` if it needs none.
    pub fn encryption(&self) -> Option<&EncryptionInfo> {
        self.object.encryption()
    }

    /// Opens an encrypted object; of any other the key counts for nothing.
    ///
    /// # Errors
    /// Of the store; a key that is another's, or altered bytes.
    pub async fn unlock(&mut self, key: &DataKey) -> Result<()> {
        let unlocked = self.object.unlocked(key).await;
        self.object = self.at(unlocked)?;
        Ok(())
    }

    /// Why the offsets are not archived; `None` of a segment.
    ///
    /// # Errors
    /// Of the store; whatever does not hold.
    pub async fn gap(&self) -> Result<Option<GapRecord>> {
        if !self.head().gap {
            return Ok(None);
        }
        let section = self.at(self.object.section(GAP_SECTION).await)?.unwrap_or_default();
        let record = GapRecord::decode(&section);
        self.at(record.map_err(|source| Error::Record { object: self.name().to_owned(), source })).map(Some)
    }

    /// A section of Kafka's, if the object has it.
    ///
    /// # Errors
    /// Of the store; whatever does not hold.
    pub async fn section(&self, kind: ExtentKind) -> Result<Option<Vec<u8>>> {
        self.at(self.object.section(kind).await)
    }

    /// Where in the log to begin for `offset`: a batch begins there, and none before it has the offset. By the
    /// offset index where there is one that can be gone by; else it is the log's beginning.
    ///
    /// # Errors
    /// Of the store; a section that does not hold.
    pub async fn position(&self, offset: i64) -> Result<u64> {
        let (base, log_bytes) = (self.footer().info.base_offset, self.footer().log_bytes);
        if offset <= base {
            return Ok(0);
        }
        let index = self.section(ExtentKind::OffsetIndex).await?;
        Ok(index.and_then(|index| index::position(&index, base, offset, log_bytes)).unwrap_or(0))
    }

    /// The first place at or behind byte `from` of the log at which a batch is known to begin; `None` if the offset
    /// index tells of none.
    ///
    /// # Errors
    /// Of the store; a section that does not hold.
    pub async fn position_behind(&self, from: u64) -> Result<Option<u64>> {
        let index = self.section(ExtentKind::OffsetIndex).await?;
        Ok(index.and_then(|index| index::behind(&index, from, self.footer().log_bytes)))
    }

    /// An offset before which no record has `time_ms` or later, by the time index: the base offset without one.
    /// `None` if the footer says that there is no such record at all.
    ///
    /// # Errors
    /// Of the store; a section that does not hold.
    pub async fn offset_at(&self, time_ms: i64) -> Result<Option<i64>> {
        let info = &self.footer().info;
        // -1 is none, and a writer may not have known.
        if (0..time_ms).contains(&info.max_timestamp_ms) {
            return Ok(None);
        }
        let index = self.section(ExtentKind::TimeIndex).await?;
        let found = index.and_then(|index| index::offset_at(&index, info.base_offset, time_ms));
        Ok(Some(found.unwrap_or(info.base_offset)))
    }

    /// The plain log from byte `position` on, `read_ahead` times 4 MiB of it fetched, checked and decoded ahead,
    /// at least one. Every frame's checksum is compared; and the digest of every chunk that is read whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a position behind the log's end; an encrypted object that was not unlocked.
    pub fn read(&self, position: u64, read_ahead: usize) -> Result<LogStream> {
        self.check_position(position)?;
        Ok(LogStream::new(self.object.clone(), position, read_ahead, self.offsets))
    }

    /// The same frame by frame, each fetched and checked alone: slow, but everything comes that lies before the first
    /// frame that does not hold, and there the stream then stands.
    ///
    /// # Errors
    /// As [`ArchivedObject::read`].
    pub fn read_frames(&self, position: u64) -> Result<LogStream> {
        self.check_position(position)?;
        Ok(LogStream::by_frames(self.object.clone(), position, self.offsets))
    }

    fn check_position(&self, position: u64) -> Result<()> {
        self.at(self.object.check_open())?;
        if position > self.footer().log_bytes {
            let allowed = format!("at most {}", self.footer().log_bytes);
            return self.at(Err(Error::invalid("position in the log", position, allowed)));
        }
        Ok(())
    }
}
