//! The indexes that stand beside an object's log: all of them by one request, each checked like any byte.

use std::collections::BTreeMap;

use varve_format::{Decoder, ExtentKind};
use varve_store::GetRange;

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::head::ObjectHead;

impl Archive {
    /// The sections of an object that is not encrypted, by kind; none of one that is.
    ///
    /// # Errors
    /// Of the store; [`Error::Segment`] and [`Error::Corrupt`] for bytes that are not what the footer says.
    pub async fn sections(&self, head: &ObjectHead) -> Result<BTreeMap<ExtentKind, Vec<u8>>> {
        match self.sections_once(head).await {
            Err(error) if self.shelf.again(&head.name, &error).await? => self.sections_once(head).await,
            found => found,
        }
    }

    async fn sections_once(&self, head: &ObjectHead) -> Result<BTreeMap<ExtentKind, Vec<u8>>> {
        let footer = &head.footer;
        let mut found = BTreeMap::new();
        let logs = footer.chunks().len();
        let (Some(first), None) = (footer.extents.get(logs), &footer.encryption) else { return Ok(found) };
        let (start, end) = (first.stored_offset, head.trailer.footer_offset);
        let key = self.shelf.key(&head.name)?;
        let stored = match start < end {
            true => self.shelf.store().get(&key, GetRange::Bounded { start, end }).await?.bytes().await?,
            false => bytes::Bytes::new(),
        };
        let place = self.shelf.place(&head.name);
        let segment = |source| Error::Segment { object: place.clone(), source };
        let mut decoder = Decoder::new(footer, None).map_err(segment)?;
        for (extent, digest) in footer.extents.iter().zip(&footer.digests).skip(logs) {
            let mut section = Vec::new();
            for number in extent.first_frame..extent.first_frame.saturating_add(extent.frame_count()) {
                let frame = footer.frame(number).map_err(segment)?;
                let at =
                    |position: u64| usize::try_from(position.saturating_sub(start)).unwrap_or(usize::MAX);
                let bytes = stored.get(at(frame.stored.start)..at(frame.stored.end));
                let bytes = bytes.ok_or_else(|| Error::corrupt(&place, "all sections", stored.len()))?;
                let from = section.len();
                section.resize(from.saturating_add(frame.plain_bytes as usize), 0);
                decoder
                    .decode(&frame, bytes, section.get_mut(from..).unwrap_or_default())
                    .map_err(segment)?;
            }
            let mut hasher = footer.digest.hasher();
            let computed = hasher.take().map(|mut hasher| {
                hasher.update(&section);
                hasher.finish()
            });
            if computed.as_ref() != Some(digest) {
                let what = format!("digest {digest:?} of {}", extent.kind.name());
                return Err(Error::corrupt(&place, what, format!("{computed:?}")));
            }
            found.insert(extent.kind, section);
        }
        Ok(found)
    }
}
