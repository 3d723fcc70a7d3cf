//! Listings of what is live.

use reqwest::Method;

use super::Inner;
use super::resource::{FIELDS, Object, Page};
use crate::contract::{ListPage, Result};
use crate::error::Kind;
use crate::key::Key;

pub(super) const PAGE_MAX: usize = 1000;

/// Where a page begins.
#[derive(Clone, Debug, Default)]
pub(super) struct From {
    /// This name or one after it.
    pub(super) offset: Option<String>,
    pub(super) token: Option<String>,
}

/// The first name that follows `after` under `prefix`: names are printable ASCII, of which `!` is the first.
pub(super) fn behind(prefix: &str, after: Option<&Key>) -> Option<String> {
    after.map(|after| match prefix.len() + after.as_str().len() < Key::MAX_BYTES {
        true => format!("{prefix}{after}!"),
        // It is told once more, and passed over.
        false => format!("{prefix}{after}"),
    })
}

impl Inner {
    /// The key of what is listed, if it is one and comes after `after`.
    pub(super) fn listed(&self, object: &Object, after: Option<&Key>) -> Option<Key> {
        let key = Key::new(object.name.strip_prefix(&self.config.prefix)?).ok()?;
        after.is_none_or(|after| key > *after).then_some(key)
    }

    pub(super) async fn page(
        &self,
        what: &str,
        prefix: &str,
        versions: bool,
        from: &From,
        entries: usize,
    ) -> Result<Page> {
        let at = self.at(what, prefix);
        let full_prefix = format!("{}{prefix}", self.config.prefix);
        let entries = entries.clamp(1, PAGE_MAX).to_string();
        let query = [
            ("prefix", Some(full_prefix.as_str()).filter(|prefix| !prefix.is_empty())),
            ("startOffset", from.offset.as_deref()),
            ("pageToken", from.token.as_deref()),
            ("maxResults", Some(entries.as_str())),
            ("versions", versions.then_some("true")),
            ("fields", Some(FIELDS)),
        ];
        let url = self.url(&format!("{}/o", self.bucket_path()), &query, &at)?;
        let request = || async { self.client.ask(self.client.request(Method::GET, url.clone())).await };
        let mut page: Page = self.retry.run(&at, 0, request).await?;
        page.next_page_token = page.next_page_token.filter(|token| !token.is_empty());
        if page.next_page_token.is_some() && page.next_page_token == from.token {
            return Err(at.error(Kind::Other, "the listing goes round in a circle"));
        }
        Ok(page)
    }

    pub(super) async fn list(&self, prefix: &str, after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let max_keys = max_keys.clamp(1, PAGE_MAX);
        let mut from = From { offset: behind(&self.config.prefix, after), token: None };
        loop {
            let page = self.page("list", prefix, false, &from, max_keys).await?;
            let objects: Vec<_> = page
                .items
                .iter()
                .filter_map(|object| Some(object.meta(self.listed(object, after)?, self.keeps_versions())))
                .collect();
            // A page of nothing, or of nothing but foreign names, gives the caller no key to go on from.
            if !objects.is_empty() || page.next_page_token.is_none() {
                return Ok(ListPage { objects, more: page.next_page_token.is_some() });
            }
            from.token = page.next_page_token;
        }
    }
}
