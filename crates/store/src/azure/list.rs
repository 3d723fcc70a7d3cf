//! Listings, and what entries of them say.
//!
//! Azure goes on by markers of its own; from a key it begins by `startFrom`. Whether that is meant below the prefix
//! or below the container is not said anywhere, so that it is sent without a prefix: what follows a key of the prefix
//! has the prefix too, up to where the listing is cut. A server that does not know `startFrom` begins before it:
//! then the whole prefix is gone through from its first key.

use azure_storage_blob::models::{
    BlobContainerClientListBlobsOptions, BlobItem, ListBlobsIncludeItem, ListBlobsResponse,
};
use futures::TryStreamExt;

use super::{Inner, failure};
use crate::contract::{ListPage, ObjectMeta, Result};
use crate::error::Kind;
use crate::failure::{At, Failure};
use crate::key::Key;

pub(super) const PAGE_MAX: usize = 1000;

/// Where a listing begins, or goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct From {
    /// Names of blobs, the store's prefix included.
    pub(super) prefix: String,
    /// Names before it, and this one, are passed over.
    pub(super) after: Option<String>,
    pub(super) marker: Option<String>,
    /// Whether the server does not know `startFrom`.
    pub(super) from_first: bool,
    pub(super) versions: bool,
    /// The last name seen, so that a listing in another order is seen.
    last: Option<String>,
}

/// Entries of one answer that are asked for, and whether the server has more.
pub(super) struct Answer {
    pub(super) items: Vec<BlobItem>,
    pub(super) more: bool,
}

impl From {
    /// `None` where nothing of the prefix follows `start_after`.
    pub(super) fn new(
        inner: &Inner,
        prefix: &str,
        start_after: Option<&Key>,
        versions: bool,
    ) -> Option<Self> {
        let own = &inner.config.prefix;
        let after = match start_after.map(Key::as_str) {
            Some(after) if after > prefix && !after.starts_with(prefix) => return None,
            // One before all keys of the prefix cuts nothing off.
            after => after.filter(|after| after.starts_with(prefix)).map(|after| format!("{own}{after}")),
        };
        Some(Self { prefix: format!("{own}{prefix}"), after, versions, ..Self::default() })
    }

    /// The next entries; then it stands behind them.
    pub(super) async fn next(&mut self, inner: &Inner, entries: usize, at: &At) -> Result<Answer> {
        let start_from = self.after.as_ref().filter(|_| !self.from_first);
        let answer = self.request(inner, entries, at).await?;
        let mut more = answer.next_marker.as_deref().is_some_and(|marker| !marker.is_empty());
        if let (Some(start), None, Some(first)) = (start_from, &self.marker, answer.blob_items.first())
            && first.name.as_ref().is_some_and(|name| name < start)
        {
            self.from_first = true;
            return Box::pin(self.next(inner, PAGE_MAX, at)).await;
        }
        let mut items = Vec::with_capacity(answer.blob_items.len());
        for item in answer.blob_items {
            let Some(name) = item.name.as_deref() else { continue };
            let in_order =
                self.last.as_deref().is_none_or(|last| last < name || (self.versions && last == name));
            if !in_order {
                let detail = format!("{name:?} is listed behind {:?}: not in the order of bytes", self.last);
                return Err(at.error(Kind::Unsupported, detail));
            }
            self.last = Some(name.to_owned());
            if self.after.as_deref().is_some_and(|after| name <= after) {
                continue;
            }
            if !name.starts_with(&self.prefix) {
                // Only without a prefix asked for, and then nothing of it follows.
                more = false;
                break;
            }
            items.push(item);
        }
        self.marker = answer.next_marker;
        Ok(Answer { items, more })
    }

    async fn request(&self, inner: &Inner, entries: usize, at: &At) -> Result<ListBlobsResponse> {
        let start_from = self.after.clone().filter(|_| !self.from_first);
        let prefix = (start_from.is_none() && !self.prefix.is_empty()).then(|| self.prefix.clone());
        let options = BlobContainerClientListBlobsOptions {
            include: self.versions.then(|| vec![ListBlobsIncludeItem::Versions]),
            marker: self.marker.clone(),
            maxresults: i32::try_from(entries).ok(),
            prefix,
            start_from,
            ..Default::default()
        };
        let request = || async {
            let pages = inner.client.container().list_blobs(Some(options.clone())).map_err(failure::of)?;
            let page = pages.into_pages().try_next().await.map_err(failure::of)?;
            let page = page.ok_or_else(|| unreadable("no page in the answer"))?;
            if holds_folders(page.body()) {
                let detail = "the account has a hierarchical namespace, which lists folders as blobs";
                let never = crate::failure::Passing::Never;
                return Err(Failure::new(Kind::Unsupported, never, false, detail));
            }
            page.into_model().map_err(failure::of)
        };
        inner.retry.run(at, 0, request).await
    }
}

fn unreadable(flaw: &str) -> Failure {
    Failure::new(Kind::Unavailable, crate::failure::Passing::Transient, true, flaw)
}

fn holds_folders(body: &[u8]) -> bool {
    const FOLDER: &[u8] = b"<ResourceType>directory<";
    body.windows(FOLDER.len()).any(|piece| piece == FOLDER)
}

pub(super) async fn page(
    inner: &Inner,
    prefix: &str,
    start_after: Option<&Key>,
    max_keys: usize,
) -> Result<ListPage> {
    let max_keys = max_keys.clamp(1, PAGE_MAX);
    let at = inner.at("list", prefix);
    let Some(mut from) = From::new(inner, prefix, start_after, false) else { return Ok(ListPage::default()) };
    // `startFrom` brings the key itself too.
    let entries = (max_keys + usize::from(from.after.is_some())).min(PAGE_MAX + 1);
    let mut page = ListPage::default();
    loop {
        let answer = from.next(inner, entries, &at).await?;
        page.more = answer.more;
        for item in &answer.items {
            if page.objects.len() == max_keys {
                page.more = true;
                break;
            }
            page.objects.extend(meta(inner, item));
        }
        // Azure may send pages of nothing, and a page of foreign names gives the caller no key to go on from.
        if !page.objects.is_empty() || !page.more {
            return Ok(page);
        }
    }
}

/// `None` of a name that is no key.
pub(super) fn key_of(inner: &Inner, item: &BlobItem) -> Option<Key> {
    let name = item.name.as_deref()?.strip_prefix(&inner.config.prefix)?;
    Key::new(name).ok()
}

pub(super) fn meta(inner: &Inner, item: &BlobItem) -> Option<ObjectMeta> {
    let properties = item.properties.as_ref()?;
    let modified = properties.last_modified.map(|time| time.unix_timestamp_nanos() / 1_000_000);
    Some(ObjectMeta {
        key: key_of(inner, item)?,
        size_bytes: properties.content_length.unwrap_or(0),
        etag: properties.etag.as_ref().map(|etag| quoted(etag.as_ref())),
        version: item.version_id.clone(),
        last_modified_ms: modified.and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
        storage_class: properties.access_tier.as_ref().map(ToString::to_string),
    })
}

/// Listings leave out the quotes that headers have.
fn quoted(etag: &str) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}
