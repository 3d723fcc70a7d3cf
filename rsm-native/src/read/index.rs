//! Index fetches: one GET brings all of a segment's indexes, whoever asks and however many do.
//!
//! What is fetched and decoded is accounted for by the cache's budget, and stays in the cache where there is
//! room: the broker asks for all indexes in a row.

use bytes::BytesMut;
use varve_format::{Decoder, ExtentKind};

use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::read::cache::Lookup;
use crate::read::fetch::{Reader, frames, plain};
use crate::read::segment::{Opened, Segment, TAIL_BYTES, Tail};

impl Reader {
    /// All of an index, `None` if the segment has none. One GET brings all indexes, and the footer, however
    /// many ask.
    pub async fn index(&self, segment: &Segment, kind: ExtentKind) -> Result<Option<Vec<u8>>> {
        if let Some(found) = self.cached_index(segment, kind)? {
            return Ok(found);
        }
        let _turn = segment.indexes.lock().await;
        if let Some(found) = self.cached_index(segment, kind)? {
            return Ok(found);
        }
        // For what is stored, and what is made of it.
        let stored_bytes = segment.custom.as_ref().map_or(TAIL_BYTES, |c| c.object_bytes() - c.data_end);
        let mut permit = self.reserve(2 * stored_bytes).await;
        let running = self.metrics.store_get.begin();
        let tail = match &segment.custom {
            Some(c) => segment.get(&*self.store, c.data_end, c.object_bytes()).await,
            None => segment.tail(&*self.store).await,
        };
        running.end(&tail);
        let tail = tail?;
        self.metrics.store_get.add_bytes(tail.bytes.len() as u64);
        let opened = segment.open_from(tail.clone(), &self.keys).await?;
        let mut wanted = None;
        for section in opened
            .footer
            .extents
            .iter()
            .filter(|e| !matches!(e.kind, ExtentKind::Log | ExtentKind::Unknown(_)))
        {
            let bytes =
                self.keep_section(segment, &opened, section, &tail, &mut permit, section.kind == kind)?;
            wanted = wanted.or(bytes);
        }
        Ok(wanted)
    }

    /// `None`: not all in memory.
    fn cached_index(&self, segment: &Segment, kind: ExtentKind) -> Result<Option<Option<Vec<u8>>>> {
        let Some(opened) = segment.opened() else { return Ok(None) };
        let Some(extent) = opened.footer.section(kind) else { return Ok(Some(None)) };
        let mut out = Vec::with_capacity(extent.plain_bytes as usize);
        for number in extent.first_frame..extent.first_frame + extent.frame_count() {
            let Lookup::Ready(frame) = self.cache.lookup((segment.object(), number)) else { return Ok(None) };
            if !frame.is_intact() {
                self.cache.purge(segment.object());
                return Ok(None);
            }
            out.extend_from_slice(frame.bytes());
        }
        Ok(Some(Some(out)))
    }

    /// Decodes a section and keeps its frames where there is room: the broker asks for all indexes in a row.
    /// Returns its bytes if they are `wanted`.
    fn keep_section(
        &self,
        segment: &Segment,
        opened: &Opened,
        section: &varve_format::Extent,
        tail: &Tail,
        permit: &mut Permit,
        wanted: bool,
    ) -> Result<Option<Vec<u8>>> {
        let fail = |e| Error::format(&segment.place, e);
        let mut decoder = Decoder::new(&opened.footer, opened.key.as_ref()).map_err(fail)?;
        let mut out = wanted.then(|| Vec::with_capacity(section.plain_bytes as usize));
        for number in section.first_frame..section.first_frame + section.frame_count() {
            let frame = opened.footer.frame(number).map_err(fail)?;
            let short = || segment.corrupt(format!("bytes {:?} are missing at its end", frame.stored));
            let stored = tail.slice(frame.stored.start, frame.stored.end).ok_or_else(short)?;
            // A copy of its own: the frame must not keep the whole tail in memory.
            let plain = plain(&mut decoder, &frame, BytesMut::from(&stored[..])).map_err(fail)?;
            if let Some(out) = &mut out {
                out.extend_from_slice(&plain);
            }
            let bytes = plain.len() as u64;
            // What was compressed well takes more than was reserved.
            let room = if permit.bytes() >= bytes { Some(permit.split(bytes)) } else { self.room(bytes) };
            if let Some(mut room) = room
                && let Some(flight) = self.cache.claim(segment.object(), number..number + 1, false)
            {
                self.cache.land(&flight, number, frames(vec![(plain, frame)], opened, &mut room));
            }
        }
        Ok(out)
    }
}
