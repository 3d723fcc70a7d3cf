//! One finished segment: is its object what the brokers were told?

use indicatif::ProgressBar;
use varve_format::{CustomMetadata, Id};
use varve_kafka::protocol::{PartitionKey, RemoteSegment};
use varve_keys::DataKeys;
use varve_store::{Key, SharedStore};

use super::finding::FindingKind;
use crate::object::{ObjectError, SegmentObject};
use crate::verify::verify;

/// What came of it.
pub(crate) enum Checked {
    Findings(Vec<(FindingKind, String)>),
    /// It was listed a moment ago.
    Gone,
}

/// Looks at the footer, or with `whole` at every byte. An error is the store's.
pub(crate) async fn check_segment(
    store: &SharedStore,
    key: &str,
    partition: PartitionKey,
    segment: &RemoteSegment,
    keys: Option<&DataKeys>,
    whole: bool,
) -> Result<Checked, ObjectError> {
    let corrupt = |detail: String| Ok(Checked::Findings(vec![(FindingKind::Corruption, detail)]));
    let custom = match segment.custom_metadata.as_deref().map(CustomMetadata::decode) {
        Some(Ok(custom)) => custom,
        Some(Err(e)) => return corrupt(format!("the brokers' custom metadata of it: {e}")),
        None => return corrupt("the brokers have no custom metadata of it".to_owned()),
    };
    // A footer can be judged without its key: the brokers know its digest.
    let keys = keys.filter(|_| whole);
    let object = match SegmentObject::open(store, &Key::new(key)?, keys).await {
        Ok(object) => object,
        Err(e) if e.is_not_found() => return Ok(Checked::Gone),
        Err(e) if e.is_corruption() => return corrupt(e.to_string()),
        Err(e) if e.is_unreadable() => {
            return Ok(Checked::Findings(vec![(FindingKind::Unreadable, e.to_string())]));
        }
        Err(e) => return Err(e),
    };
    // The name is the cluster's, by its first part.
    let cluster_id = key.split('/').next().unwrap_or_default();
    let mut findings: Vec<_> = differences(&object, &custom, cluster_id, partition, segment)
        .into_iter()
        .map(|detail| (FindingKind::Corruption, detail))
        .collect();
    if whole && findings.is_empty() {
        match verify(&object, &ProgressBar::hidden()).await {
            Ok(report) => {
                findings.extend(report.findings.into_iter().map(|f| (FindingKind::Corruption, f)));
            }
            Err(e) if e.is_not_found() => return Ok(Checked::Gone),
            Err(e) if e.is_corruption() => return corrupt(e.to_string()),
            Err(e) if e.is_unreadable() => findings.push((FindingKind::Unreadable, e.to_string())),
            Err(e) => return Err(e),
        }
    }
    Ok(Checked::Findings(findings))
}

fn differences(
    object: &SegmentObject,
    custom: &CustomMetadata,
    cluster_id: &str,
    partition: PartitionKey,
    segment: &RemoteSegment,
) -> Vec<String> {
    let info = &object.footer.info;
    let id = |id: Option<Id>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let pairs = [
        ("size in bytes", custom.object_bytes().to_string(), object.size_bytes.to_string()),
        ("cluster id", cluster_id.to_owned(), info.cluster_id.clone()),
        ("topic id", partition.0.to_string(), info.topic_id.to_string()),
        ("partition", partition.1.to_string(), info.partition.to_string()),
        ("segment id", segment.segment_id.to_string(), id(info.segment_id)),
        ("base offset", segment.start_offset.to_string(), info.base_offset.to_string()),
        ("last offset", segment.end_offset.to_string(), info.last_offset.to_string()),
        ("bytes of log", segment.size_bytes.to_string(), object.footer.log_bytes.to_string()),
    ];
    let differing = pairs.into_iter().filter(|(_, expected, found)| expected != found);
    let mut out: Vec<_> = differing
        .map(|(what, expected, found)| format!("{what}: the brokers expect {expected}, found {found}"))
        .collect();
    let written_with = custom.check_object(&object.trailer, &object.footer, &object.footer_digest);
    out.extend(written_with.err().map(|e| format!("by the brokers' custom metadata {e}")));
    out
}
