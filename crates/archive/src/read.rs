//! Reads an object that a manifest names, and holds all of it against what the manifest says.

use varve_format::{DataKey, Id};

use crate::archive::Archive;
use crate::canonical::Record;
use crate::error::{Error, Result};
use crate::head::{ObjectHead, Place};
use crate::log::object::{At, Expected, OpenObject};
use crate::log::stream::check_all;
use crate::names;
use crate::record::gap::{GAP_SECTION, GapRecord};
use crate::record::object::ObjectEntry;
use crate::record::state::JournalEntry;

/// Runs of 4 MiB of one object that are under way at once: the next is fetched while one is checked.
const READ_AHEAD: usize = 2;

/// An object whose head was checked.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    archive: &'a Archive,
    name: String,
    object: OpenObject,
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
        let shelf = archive.shelf();
        let at = At {
            key: shelf.key(name)?,
            name: shelf.place(name),
            origin: 0,
            bytes: entry.bytes,
            whole: true,
            version: entry.version.clone(),
        };
        let expected = Expected { place, end_offset: entry.end_offset, footer: entry.footer };
        let object = OpenObject::open(shelf.oldest().clone(), archive.hash(), at, &expected).await?;
        let found = object.head().entry(entry.version.clone());
        if found == *entry {
            return Ok(Self { archive, name: name.to_owned(), object });
        }
        Err(Error::mistaken(archive.shelf.place(name), format!("{entry:?}"), format!("{found:?}")))
    }

    /// An entry of the journal.
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub async fn in_bundle(
        archive: &'a Archive,
        topic_id: Id,
        partition: i32,
        entry: &JournalEntry,
    ) -> Result<Self> {
        let place = Place { topic_id, partition, first_offset: entry.first_offset };
        let name = names::bundle(&entry.archiver, entry.sequence);
        let shelf = archive.shelf();
        let (key, place_of) = (shelf.key(&name)?, shelf.place(&name));
        let (origin, bytes) = (entry.position, entry.bytes);
        let at = At { key, name: place_of, origin, bytes, whole: false, version: None };
        let expected = Expected { place, end_offset: entry.end_offset, footer: entry.footer };
        let object = OpenObject::open(shelf.oldest().clone(), archive.hash(), at, &expected).await?;
        Ok(Self { archive, name, object })
    }

    pub fn head(&self) -> &ObjectHead {
        self.object.head()
    }

    /// Every frame's checksum, every extent's digest, and a gap's record. Of an encrypted object without a key
    /// the checksums alone: then the answer is `true`.
    ///
    /// # Errors
    /// Of the store; [`Error::Segment`] and [`Error::Corrupt`] for what does not hold.
    pub async fn check_contents(&mut self, key: Option<&DataKey>) -> Result<bool> {
        if let Some(key) = key {
            self.object = self.object.unlocked(key).await?;
        }
        check_all(&self.object, READ_AHEAD).await?;
        if self.head().gap && !self.object.is_sealed() {
            let section = self.object.section(GAP_SECTION).await?.unwrap_or_default();
            GapRecord::decode(&section).map_err(self.archive.shelf.damaged(&self.name))?;
        }
        Ok(self.object.is_sealed())
    }
}
