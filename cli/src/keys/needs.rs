//! Which objects need which data key, by their footers. Those of encrypted objects are not opened for it: whoever can
//! write to the store can say in them what he likes, as he can delete the object.

use std::collections::VecDeque;
use std::ops::Range;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use varve_archive::record::bundle::BundleEntry;
use varve_archive::{Archive, BundleName};
use varve_format::{EncryptionInfo, Footer, Id, TRAILER_BYTES, Trailer, topic_prefix};
use varve_store::{GetRange, Key, Kind, ObjectMeta, SharedStore};

use super::place::{KeyPlace, Topics};

/// Footers that are read at once.
const PARALLEL: usize = 8;
const PAGE_KEYS: usize = 1000;
/// Most footers fit in it.
const TAIL_BYTES: u64 = 64 << 10;
/// Small entries of a bundle are fetched whole, so many bytes at once.
const RUN_BYTES: u64 = 4 << 20;
const SMALL_BYTES: u64 = 256 << 10;
/// Of bundles, whose indexes may be large.
const BUNDLES: usize = 64;

/// An object that was looked at.
pub(crate) struct Needs {
    /// Its name in the store; of an entry of the journal with its offsets.
    pub(crate) object: String,
    pub(crate) bytes: u64,
    pub(crate) cluster_id: String,
    pub(crate) topic_id: Id,
    pub(crate) topic: String,
    pub(crate) encryption: Option<EncryptionInfo>,
}

pub(crate) enum Seen {
    Object(Needs),
    /// What it needs can't be told.
    Unreadable {
        object: String,
        why: String,
    },
}

/// The footer of the object in `at`; what is no footer is told; `None` if the object is gone.
pub(super) async fn footer(
    store: &SharedStore,
    key: &Key,
    at: Range<u64>,
) -> Result<Result<Option<Footer>, String>> {
    match fetch(store, key, at).await {
        Ok(found) => Ok(found.map(Some)),
        Err(e) if e.kind == Kind::NotFound => Ok(Ok(None)),
        Err(e) if matches!(e.kind, Kind::Frozen | Kind::Truncated | Kind::InvalidRange) => {
            Ok(Err(e.to_string()))
        }
        Err(e) => Err(e.into()),
    }
}

async fn fetch(
    store: &SharedStore,
    key: &Key,
    at: Range<u64>,
) -> varve_store::Result<Result<Footer, String>> {
    let from = at.end.saturating_sub(TAIL_BYTES).max(at.start);
    let tail = store.get(key, GetRange::Bounded { start: from, end: at.end }).await?.bytes().await?;
    let object_bytes = at.end.saturating_sub(at.start);
    let trailer = match trailer(&tail, object_bytes) {
        Ok(trailer) => trailer,
        Err(why) => return Ok(Err(why)),
    };
    let wanted = u64::from(trailer.footer_bytes) + TRAILER_BYTES as u64;
    if wanted <= tail.len() as u64 {
        return Ok(decode(&tail, &trailer));
    }
    let range = GetRange::Bounded { start: at.end.saturating_sub(wanted).max(at.start), end: at.end };
    Ok(decode(&store.get(key, range).await?.bytes().await?, &trailer))
}

fn trailer(tail: &[u8], object_bytes: u64) -> Result<Trailer, String> {
    let last = tail.last_chunk::<TRAILER_BYTES>().ok_or("shorter than any segment object")?;
    Trailer::decode(last, object_bytes).map_err(|e| e.to_string())
}

fn decode(tail: &[u8], trailer: &Trailer) -> Result<Footer, String> {
    let end = tail.len().saturating_sub(TRAILER_BYTES);
    let bytes = end.checked_sub(trailer.footer_bytes as usize).and_then(|from| tail.get(from..end));
    Footer::decode(bytes.ok_or("its footer is cut off")?, trailer).map_err(|e| e.to_string())
}

fn seen(object: String, bytes: u64, footer: Footer) -> Seen {
    let info = footer.info;
    Seen::Object(Needs {
        object,
        bytes,
        cluster_id: info.cluster_id,
        topic_id: info.topic_id,
        topic: info.topic,
        encryption: footer.encryption,
    })
}

impl KeyPlace {
    /// Tells every object of these topics, in no order. What is written or deleted meanwhile may be told or not.
    pub(crate) async fn needs(
        &self,
        topics: &Topics,
        bar: &ProgressBar,
        tell: &mut (dyn FnMut(Seen) -> Result<()> + Send),
    ) -> Result<()> {
        let store = self.objects();
        for (cluster_id, topic_id) in topics.keys() {
            let prefix = match self.archive {
                Some(_) => format!("topics/{topic_id}/"),
                None => topic_prefix(cluster_id, *topic_id),
            };
            walk(&store, &prefix, bar, tell).await?;
        }
        match &self.archive {
            Some(archive) => journal(archive, &store, topics, bar, tell).await,
            None => Ok(()),
        }
    }
}

async fn walk(
    store: &SharedStore,
    prefix: &str,
    bar: &ProgressBar,
    tell: &mut (dyn FnMut(Seen) -> Result<()> + Send),
) -> Result<()> {
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE_KEYS).await?;
        after = page.objects.last().map(|object| object.key.clone());
        let segments = page.objects.into_iter().filter(|object| object.key.as_str().ends_with(".varve"));
        let mut read =
            stream::iter(segments).map(|object| of_object(store, object)).buffer_unordered(PARALLEL);
        while let Some(found) = read.try_next().await? {
            bar.inc(1);
            found.map_or(Ok(()), &mut *tell)?;
        }
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

async fn of_object(store: &SharedStore, object: ObjectMeta) -> Result<Option<Seen>> {
    let name = object.key.as_str().to_owned();
    Ok(match footer(store, &object.key, 0..object.size_bytes).await? {
        Ok(found) => found.map(|footer| seen(name, object.size_bytes, footer)),
        Err(why) => Some(Seen::Unreadable { object: name, why }),
    })
}

async fn journal(
    archive: &Archive,
    store: &SharedStore,
    topics: &Topics,
    bar: &ProgressBar,
    tell: &mut (dyn FnMut(Seen) -> Result<()> + Send),
) -> Result<()> {
    let mut last = None;
    loop {
        let mut bundles = Vec::new();
        while bundles.len() < BUNDLES
            && let Some(bundle) = archive.next_bundle(last.as_ref()).await?
        {
            last = Some(bundle.clone());
            bundles.push(bundle);
        }
        if bundles.is_empty() {
            return Ok(());
        }
        let read = stream::iter(bundles).map(|bundle| of_bundle(archive, store, topics, bundle));
        let mut read = read.buffer_unordered(PARALLEL);
        while let Some(found) = read.try_next().await? {
            for one in found {
                bar.inc(1);
                tell(one)?;
            }
        }
    }
}

async fn of_bundle(
    archive: &Archive,
    store: &SharedStore,
    topics: &Topics,
    bundle: BundleName,
) -> Result<Vec<Seen>> {
    let name = format!("journal/{}/{:020}.bundle", bundle.archiver, bundle.sequence);
    let index = match archive.bundle(&bundle).await {
        Ok(Some(index)) => index,
        Ok(None) => return Ok(Vec::new()),
        Err(e) if e.is_damage() => return Ok(vec![Seen::Unreadable { object: name, why: e.to_string() }]),
        Err(e) => return Err(e.into()),
    };
    let is_wanted = |entry: &BundleEntry| topics.keys().any(|(_, topic_id)| *topic_id == entry.topic_id);
    let mut entries: VecDeque<BundleEntry> = index.entries.into_iter().filter(is_wanted).collect();
    let key = Key::new(name.as_str())?;
    let mut all = Vec::new();
    while let Some(first) = entries.pop_front() {
        let mut run = vec![first];
        while let (Some(last), Some(next)) = (run.last(), entries.front())
            && next.bytes <= SMALL_BYTES
            && last.bytes <= SMALL_BYTES
            && let Some(begin) = run.first().map(|entry| entry.position)
            && next.position.saturating_add(next.bytes).saturating_sub(begin) <= RUN_BYTES
            && let Some(next) = entries.pop_front()
        {
            run.push(next);
        }
        all.extend(of_run(store, &key, &run).await?);
    }
    Ok(all)
}

/// Entries of a bundle by one request.
async fn of_run(store: &SharedStore, key: &Key, run: &[BundleEntry]) -> Result<Vec<Seen>> {
    let named = |entry: &BundleEntry| {
        let (first, last) = (entry.first_offset, entry.end_offset.saturating_sub(1));
        format!("{key} (partition {}, offsets {first} to {last})", entry.partition)
    };
    let told = |entry: &BundleEntry, found: Result<Footer, String>| match found {
        Ok(footer) => seen(named(entry), entry.bytes, footer),
        Err(why) => Seen::Unreadable { object: named(entry), why },
    };
    let end = |entry: &BundleEntry| entry.position.saturating_add(entry.bytes);
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    if run.len() == 1 {
        let found = footer(store, key, first.position..end(first)).await?;
        let found = found.transpose().map(|found| told(first, found));
        return Ok(found.into_iter().collect());
    }
    let range = GetRange::Bounded { start: first.position, end: end(last) };
    let bytes = match store.get(key, range).await {
        Ok(got) => got.bytes().await?,
        // Expired meanwhile.
        Err(e) if e.kind == Kind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let of_entry = |entry: &BundleEntry| {
        let at =
            |position: u64| usize::try_from(position.saturating_sub(first.position)).unwrap_or(usize::MAX);
        let object = bytes.get(at(entry.position)..at(end(entry))).unwrap_or_default();
        told(entry, trailer(object, entry.bytes).and_then(|trailer| decode(object, &trailer)))
    };
    Ok(run.iter().map(of_entry).collect())
}
