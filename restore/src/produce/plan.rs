//! What a plan says of topics that are produced.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use varve_kafka::client::admin::AdminError;
use varve_kafka::client::alter::NewTopic;
use varve_kafka::client::{Client, ClientError, KafkaCode};
use varve_kafka::protocol::ProtocolError;

use super::survey::{Survey, survey};
use crate::apply::facts;
use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::log::Blocks;
use crate::plan::{Mode, Offsets, PlannedPartition, PlannedProduce, PlannedTopic, Refusal};
use crate::source::Source;

/// Logs that are read at once.
const PARALLEL: usize = 4;
/// Of Kafka, where a topic says nothing.
const MESSAGE_MAX_BYTES: u64 = 1_048_588;
/// Of brokers that say nothing: more than a whole request may have ends the connection.
const REQUEST_MAX_BYTES: u64 = 100 << 20;
/// What is around a batch in its request.
const REQUEST_ROOM_BYTES: u64 = 4 << 10;

/// Reads every log once, and fills in what is sent of it.
///
/// # Errors
/// Of archive and target. What stands against it is among the refusals.
pub(crate) async fn planned(
    source: &Source,
    keys: &Arc<KeyCache>,
    client: &Client,
    settings: &BTreeMap<String, String>,
    filler_max: u64,
    topics: &mut [PlannedTopic],
    (differences, refusals): (&mut Vec<String>, &mut Vec<Refusal>),
) -> Result<()> {
    let (reader, journal) = source.reader().await?;
    for topic in topics.iter_mut() {
        let known = source.topic(&topic.topic_id);
        let surveys = stream::iter(topic.partitions.iter().map(|planned| {
            let state = known.and_then(|known| known.partitions.get(&planned.partition));
            let (name, reader, journal) =
                (format!("{}-{}", topic.topic, planned.partition), &reader, &journal);
            async move {
                let Some(state) = state else { return Ok(Survey::default()) };
                let log = reader.at(state, None, journal)?;
                let start = planned.start_offset;
                let blocks = Blocks::new(log, Arc::clone(keys), facts(planned), start);
                Ok::<_, Error>(survey(&name, blocks, start).await?.0)
            }
        }));
        let surveys: Vec<Survey> = match surveys.buffered(PARALLEL).try_collect().await {
            Err(Error::Protocol { object, source: old @ ProtocolError::OldMagic { .. } }) => {
                refusals.push(Refusal {
                    what: format!("{object}: {old}"),
                    todo: "leave the topic out with --without: producers can't send that format".to_owned(),
                });
                continue;
            }
            surveys => surveys?,
        };
        for (planned, survey) in topic.partitions.iter_mut().zip(&surveys) {
            partition(&topic.topic, planned, survey, filler_max, differences);
        }
        let largest = surveys.iter().map(|s| s.largest_batch_bytes).max().unwrap_or(0);
        configured(topic, largest);
        refusals.extend(too_large(topic, largest, settings));
        refusals.extend(refused(client, topic).await?);
    }
    differences.push(
        "producers begin anew: sequences, leader epochs and the state of transactions are not restored"
            .to_owned(),
    );
    Ok(())
}

fn partition(
    topic: &str,
    planned: &mut PlannedPartition,
    survey: &Survey,
    filler_max: u64,
    differences: &mut Vec<String>,
) {
    planned.leader_epochs.clear();
    planned.open_transactions.clear();
    let produce = produce(planned.start_offset, planned.end_offset, survey, filler_max);
    let name = format!("{topic}-{}", planned.partition);
    if produce.offsets == Offsets::Mapped {
        let (first, end) = (planned.start_offset, planned.end_offset);
        differences.push(match produce.records.checked_sub(1) {
            Some(last) => format!("{name}: offsets {first} to {} become 0 to {last}", end.saturating_sub(1)),
            None => format!("{name}: it has no record that goes, and begins at 0 instead of {end}"),
        });
    }
    if survey.markers > 0 || survey.aborted_records > 0 {
        differences.push(format!(
            "{name}: {} markers and {} records that are not committed are left out",
            survey.markers, survey.aborted_records
        ));
    }
    if survey.append_time_batches > 0 {
        differences.push(format!(
            "{name}: the times that brokers gave (LogAppendTime) become the records' own (CreateTime)"
        ));
    }
    planned.produce = Some(produce);
}

/// Each offset has a record that goes: then they can stay as they are.
fn produce(start_offset: i64, end_offset: i64, survey: &Survey, filler_max: u64) -> PlannedProduce {
    let span = end_offset.saturating_sub(start_offset).max(0).unsigned_abs();
    let is_equal = survey.records == span && start_offset.unsigned_abs() <= filler_max;
    PlannedProduce {
        offsets: if is_equal { Offsets::Equal } else { Offsets::Mapped },
        filler: if is_equal { start_offset } else { 0 },
        records: survey.records,
        aborted_records: survey.aborted_records,
        markers: survey.markers,
        remade_batches: survey.remade_batches,
        largest_batch_bytes: survey.largest_batch_bytes,
        first_timestamp_ms: survey.first_timestamp_ms.unwrap_or(0),
    }
}

/// Until its release: any record that was ever written is taken as it is.
fn configured(topic: &mut PlannedTopic, largest: u64) {
    topic.mode = Mode::Produce;
    topic.why =
        "without the target's controllers: its committed records, by an idempotent producer".to_owned();
    // A batch that is made anew may become somewhat larger.
    let room = largest.saturating_add(largest / 4).saturating_add(REQUEST_ROOM_BYTES);
    let own = topic.final_configs.get("max.message.bytes").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let message_max = room.max(own).max(MESSAGE_MAX_BYTES).to_string();
    let any = i64::MAX.to_string();
    let configs = [
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.before.max.ms", any.as_str()),
        ("message.timestamp.after.max.ms", any.as_str()),
        ("compression.type", "producer"),
        ("max.message.bytes", message_max.as_str()),
    ];
    topic.configs.remove("message.timestamp.difference.max.ms");
    topic.configs.extend(configs.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn too_large(topic: &PlannedTopic, largest: u64, settings: &BTreeMap<String, String>) -> Option<Refusal> {
    let limit = settings.get("socket.request.max.bytes").and_then(|n| n.parse::<u64>().ok());
    let limit = limit.unwrap_or(REQUEST_MAX_BYTES);
    (largest.saturating_add(REQUEST_ROOM_BYTES) > limit).then(|| Refusal {
        what: format!(
            "topic {} has a batch of {largest} bytes, and the target's brokers take requests of up to {limit}",
            topic.topic
        ),
        todo: "raise socket.request.max.bytes there, or leave the topic out with --without".to_owned(),
    })
}

/// What the target itself says to it.
async fn refused(client: &Client, topic: &PlannedTopic) -> Result<Option<Refusal>> {
    match client.try_topic(&new_topic(topic)).await {
        Ok(()) => Ok(None),
        // It is told with what to do.
        Err(AdminError::Client(ClientError::Kafka { code: KafkaCode::TopicAlreadyExists, .. })) => Ok(None),
        Err(AdminError::Client(error @ ClientError::Kafka { .. })) if !error.is_retriable() => {
            Ok(Some(Refusal {
                what: format!("the target does not take topic {}: {error}", topic.target),
                todo: "ask who runs it for room for that, or leave the topic out with --without".to_owned(),
            }))
        }
        Err(error @ AdminError::NotAuthorized { .. }) => {
            Ok(Some(Refusal { what: error.to_string(), todo: "grant it to our principal".to_owned() }))
        }
        Err(error) => Err(error.into()),
    }
}

/// As it is made.
pub(crate) fn new_topic(topic: &PlannedTopic) -> NewTopic {
    let replicas = topic.partitions.first().map_or(1, |p| p.replicas.len());
    NewTopic {
        name: topic.target.clone(),
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        configs: topic.configs.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn topic() -> PlannedTopic {
        PlannedTopic {
            topic: "orders".to_owned(),
            topic_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
            target: "orders".to_owned(),
            mode: Mode::Produce,
            why: String::new(),
            partitions: Vec::new(),
            configs: BTreeMap::new(),
            final_configs: BTreeMap::new(),
            are_configs_known: true,
        }
    }

    pub(crate) fn produce() -> PlannedProduce {
        super::produce(5, 30, &Survey::default(), 0)
    }

    #[test]
    fn offsets_stay_where_each_has_a_record_and_the_start_is_near() {
        let of = |start, records, filler_max| {
            let survey = Survey { records, ..Survey::default() };
            let found = super::produce(start, start + 100, &survey, filler_max);
            (found.offsets, found.filler)
        };
        assert_eq!(of(0, 100, 0), (Offsets::Equal, 0));
        assert_eq!(of(0, 99, 1000), (Offsets::Mapped, 0));
        assert_eq!(of(50, 100, 50), (Offsets::Equal, 50));
        assert_eq!(of(51, 100, 50), (Offsets::Mapped, 0));
    }

    #[test]
    fn the_largest_batch_fits_and_times_are_free() {
        let mut one = topic();
        one.final_configs.insert("max.message.bytes".to_owned(), "2000000".to_owned());
        configured(&mut one, 100);
        assert_eq!(one.configs["max.message.bytes"], "2000000");
        configured(&mut one, 8_000_000);
        assert_eq!(one.configs["max.message.bytes"], "10004096");
        assert_eq!(one.configs["message.timestamp.after.max.ms"], i64::MAX.to_string());
        let settings = BTreeMap::from([("socket.request.max.bytes".to_owned(), "50000".to_owned())]);
        assert!(too_large(&one, 50_000, &settings).is_some());
        assert!(too_large(&one, 45_000, &settings).is_none());
    }
}
