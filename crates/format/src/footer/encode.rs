//! From the footer to its bytes.

use super::{EpochStart, Footer, sealed_aad, tag};
use crate::FORMAT_VERSION;
use crate::bytes::put_field;
use crate::crypt::{ObjectKey, footer_nonce};
use crate::error::Result;
use crate::extent;
use crate::features::Features;

/// Field 21: the trailer's words again, where they are authenticated.
pub(super) fn format_value(version: u16, features: Features) -> Vec<u8> {
    let mut out = version.to_be_bytes().to_vec();
    out.extend_from_slice(&features.required.to_be_bytes());
    out.extend_from_slice(&features.optional.to_be_bytes());
    out
}

impl Footer {
    pub(crate) fn encode(&self, key: Option<&ObjectKey>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        self.encode_public(&mut out);
        let mut private = Vec::new();
        if let Some(root) = &self.root {
            put_field(&mut private, tag::PRIVATE_ROOT, &root.0);
            put_field(
                &mut private,
                tag::PRIVATE_DIGESTS,
                &self.digests.iter().flat_map(|d| d.0).collect::<Vec<_>>(),
            );
        }
        match key {
            None => put_field(&mut out, tag::PRIVATE, &private),
            Some(key) => {
                let aad = sealed_aad(self.object_id, &out);
                let tag_bytes =
                    key.seal(footer_nonce(self.frame_count(), self.streamed), &aad, &mut private)?;
                private.extend_from_slice(&tag_bytes);
                put_field(&mut out, tag::SEALED, &private);
            }
        }
        Ok(out)
    }

    fn encode_public(&self, out: &mut Vec<u8>) {
        let i = &self.info;
        put_field(out, tag::WRITER, i.writer.as_bytes());
        put_field(out, tag::OBJECT_ID, &self.object_id.0);
        put_field(out, tag::CLUSTER_ID, i.cluster_id.as_bytes());
        put_field(out, tag::TOPIC_ID, &i.topic_id.0);
        put_field(out, tag::TOPIC, i.topic.as_bytes());
        put_field(out, tag::PARTITION, &i.partition.to_be_bytes());
        if let Some(id) = &i.segment_id {
            put_field(out, tag::SEGMENT_ID, &id.0);
        }
        put_field(out, tag::BASE_OFFSET, &i.base_offset.to_be_bytes());
        put_field(out, tag::LAST_OFFSET, &i.last_offset.to_be_bytes());
        put_field(out, tag::MAX_TIMESTAMP, &i.max_timestamp_ms.to_be_bytes());
        put_field(out, tag::CREATED, &i.created_ms.to_be_bytes());
        if let Some(broker) = i.broker_id {
            put_field(out, tag::BROKER, &broker.to_be_bytes());
        }
        if !i.leader_epochs.is_empty() {
            let entry = |e: &EpochStart| [&e.epoch.to_be_bytes()[..], &e.start_offset.to_be_bytes()].concat();
            let entries: Vec<_> = i.leader_epochs.iter().flat_map(entry).collect();
            put_field(out, tag::LEADER_EPOCHS, &entries);
        }
        put_field(out, tag::LOG_BYTES, &self.log_bytes.to_be_bytes());
        put_field(out, tag::FRAME_BYTES, &self.frame_bytes.to_be_bytes());
        put_field(out, tag::CHUNK_BYTES, &self.chunk_bytes.to_be_bytes());
        put_field(out, tag::DIGEST, &[self.digest.code()]);
        let mut table = Vec::new();
        extent::encode(&self.extents, &mut table);
        put_field(out, tag::EXTENTS, &table);
        if !i.observed.is_empty() {
            let samples = i.observed.iter().flat_map(|o| [o.time_ms, o.high_watermark, o.last_stable_offset]);
            put_field(out, tag::OBSERVED, &samples.flat_map(i64::to_be_bytes).collect::<Vec<_>>());
        }
        if let Some(e) = &self.encryption {
            let value = [&[1_u8][..], &e.data_key_id.0, &e.salt, e.period.as_bytes()].concat();
            put_field(out, tag::ENCRYPTION, &value);
        }
        put_field(out, tag::FORMAT, &format_value(FORMAT_VERSION, self.features()));
    }
}
