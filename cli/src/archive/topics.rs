//! Topics of an archive, by name and id.

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::Archive;
use varve_archive::record::topic::TopicRecord;
use varve_format::Id;

/// Records that are read at once.
const PARALLEL: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: Id,
    /// Left out where it was lost.
    pub(crate) record: Option<TopicRecord>,
}

impl Topic {
    pub(crate) fn name(&self) -> String {
        self.record.as_ref().map_or_else(|| format!("(no about.json) {}", self.id), |r| r.topic.clone())
    }
}

/// All of them, by name, then by the time they came.
pub(crate) async fn topics(archive: &Archive) -> Result<Vec<Topic>> {
    let mut ids = Vec::new();
    while let Some(id) = archive.next_topic(ids.last().copied()).await? {
        ids.push(id);
    }
    let read = stream::iter(ids)
        .map(|id| async move { Ok::<_, anyhow::Error>(Topic { id, record: archive.topic(id).await? }) });
    let mut topics: Vec<Topic> = read.buffer_unordered(PARALLEL).try_collect().await?;
    topics.sort_by_key(|t| (t.name(), t.record.as_ref().map(|r| r.created_ms), t.id));
    Ok(topics)
}

/// By name or id. A name that several topics had one after the other is refused: the ids tell them apart.
pub(crate) async fn find_topic(archive: &Archive, text: &str) -> Result<Topic> {
    if let Ok(id) = Id::parse(text) {
        let record = archive.topic(id).await?;
        if record.is_some() || archive.next_partition(id, None).await?.is_some() {
            return Ok(Topic { id, record });
        }
    }
    let mut found = topics(archive).await?;
    found.retain(|t| t.record.as_ref().is_some_and(|r| r.topic == text));
    if found.len() > 1 {
        let shown = |t: &Topic| {
            let since = t.record.as_ref().map_or(-1, |r| r.created_ms);
            format!("{} (archived since {})", t.id, crate::output::time(since))
        };
        let ids: Vec<String> = found.iter().map(shown).collect();
        bail!("{} topics are called {text}: name one by its id: {}", found.len(), ids.join(", "));
    }
    found.pop().with_context(|| format!("the archive has no topic {text}"))
}

/// `TOPIC` or `TOPIC:PARTITION`. No topic's name has a colon.
pub(crate) fn split_partition(text: &str) -> Result<(&str, Option<i32>)> {
    let Some((topic, partition)) = text.rsplit_once(':') else { return Ok((text, None)) };
    let number: i32 =
        partition.parse().with_context(|| format!("expected a partition, found {partition:?}"))?;
    if number < 0 {
        bail!("expected a partition of 0 or more, found {number}");
    }
    Ok((topic, Some(number)))
}
