//! Where data keys and the objects that need them lie: a tier's store, or an archive.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use varve_archive::Archive;
use varve_format::{Id, KeyRecordName, SegmentName};
use varve_restore::select::Patterns;
use varve_store::{Key, SharedStore};

use super::needs::footer;
use crate::archive::topics;
use crate::args::keys::KeysUrl;
use crate::location;

const PAGE_KEYS: usize = 1000;

pub(crate) struct KeyPlace {
    /// Plain, with all versions: key records come and go.
    pub(crate) store: SharedStore,
    pub(crate) archive: Option<Archive>,
}

/// Topics that have objects, by cluster and id, with their names.
pub(crate) type Topics = BTreeMap<(String, Id), Option<String>>;

/// Which topics a person wants: by patterns of names and ids.
pub(crate) struct Wanted(Patterns);

impl Wanted {
    pub(crate) fn new(patterns: &[String]) -> Result<Self> {
        Ok(Self(Patterns::new(patterns)?))
    }

    pub(crate) fn has(&self, topic_id: Id, name: Option<&str>) -> bool {
        self.0.is_empty() || self.0.has(&topic_id.to_string()) || name.is_some_and(|name| self.0.has(name))
    }

    /// As [`has`](Self::has), of a record.
    pub(crate) fn has_record(&self, name: &KeyRecordName, topics: &Topics) -> bool {
        self.has(name.topic_id, topic_name(topics, &name.cluster_id, name.topic_id))
    }
}

pub(crate) fn topic_name<'a>(topics: &'a Topics, cluster_id: &str, topic_id: Id) -> Option<&'a str> {
    topics.get(&(cluster_id.to_owned(), topic_id))?.as_deref()
}

impl KeyPlace {
    pub(crate) async fn open(at: &KeysUrl) -> Result<Self> {
        let store = location::open_store(&at.url, &at.store.settings()?).await?;
        let archive = match Archive::open(store.clone(), "").await {
            Ok(archive) => Some(archive),
            Err(varve_archive::Error::Missing { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        Ok(Self { store, archive })
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.archive.is_some() { "archive" } else { "tier" }
    }

    /// Where objects are read: in an archive, as it means them.
    pub(super) fn objects(&self) -> SharedStore {
        self.archive.as_ref().map_or_else(|| self.store.clone(), |archive| archive.shelf().shared())
    }

    pub(crate) async fn topics(&self) -> Result<Topics> {
        match &self.archive {
            Some(archive) => of_archive(archive).await,
            None => of_tier(&self.store).await,
        }
    }

    /// The one topic that a person names, by id or by name, and its cluster: among those that have objects or keys.
    pub(crate) fn one_topic(
        topics: &Topics,
        records: &[KeyRecordName],
        topic_id: Option<Id>,
        name: Option<&str>,
        cluster: Option<&str>,
    ) -> Result<(String, Id)> {
        let of_objects = topics.iter().map(|((cluster_id, id), called)| (cluster_id, *id, called.as_deref()));
        let of_records = records.iter().map(|r| (&r.cluster_id, r.topic_id, None));
        let mut found: Vec<(String, Id)> = of_objects
            .chain(of_records)
            .filter(|(cluster_id, id, called)| {
                topic_id.is_none_or(|wanted| wanted == *id)
                    && name.is_none_or(|wanted| *called == Some(wanted))
                    // An archive's topic whose record was lost has no cluster.
                    && !cluster_id.is_empty()
                    && cluster.is_none_or(|wanted| wanted == cluster_id.as_str())
            })
            .map(|(cluster_id, id, _)| (cluster_id.clone(), id))
            .collect();
        found.sort_unstable();
        found.dedup();
        let asked = name.map_or_else(|| topic_id.map(|id| id.to_string()).unwrap_or_default(), str::to_owned);
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] if name.is_some() => bail!(
                "no object is of a topic {asked}: give --topic-id if its objects are gone (varve keys audit lists ids)"
            ),
            [] => {
                bail!("neither an object nor a key is of topic {asked}: varve keys audit lists what there is")
            }
            several => {
                let shown: Vec<_> =
                    several.iter().map(|(cluster, id)| format!("{id} of {cluster}")).collect();
                bail!(
                    "{asked} is several topics: give --topic-id and --cluster of one of {}",
                    shown.join(", ")
                )
            }
        }
    }
}

async fn of_archive(archive: &Archive) -> Result<Topics> {
    let named = |topic: crate::archive::Topic| {
        let (cluster_id, name) = topic.record.map(|r| (r.cluster_id, r.topic)).unzip();
        ((cluster_id.unwrap_or_default(), topic.id), name)
    };
    Ok(topics(archive).await?.into_iter().map(named).collect())
}

/// As the first object says that can be read; whether the others agree, who reads them all is to ask
/// ([`Claims`](super::Claims)).
async fn of_tier(store: &SharedStore) -> Result<Topics> {
    let (mut found, mut after) = (Topics::new(), None);
    loop {
        let page = store.list("", after.as_ref(), PAGE_KEYS).await?;
        let Some(last) = page.objects.last().map(|object| object.key.clone()) else { return Ok(found) };
        // Behind all objects of a topic that was found.
        let mut skip: Option<Key> = None;
        for object in &page.objects {
            if skip.as_ref().is_some_and(|skip| object.key < *skip) {
                continue;
            }
            let Ok(name) = SegmentName::parse(object.key.as_str()) else { continue };
            let topic = (name.cluster_id, name.topic_id);
            let footer = footer(store, &object.key, 0..object.size_bytes).await?;
            let called = footer.ok().flatten().map(|footer| footer.info.topic);
            if called.is_some() {
                // `0` is the character behind `/`.
                skip = Some(Key::new(format!("{}/{}0", topic.0, topic.1))?);
            }
            found.insert(topic, called);
        }
        if !page.more {
            return Ok(found);
        }
        after = Some(skip.filter(|skip| *skip > last).unwrap_or(last));
    }
}
