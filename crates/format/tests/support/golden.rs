//! The folder of frozen objects: its keys, and what objects for it are made from.

use std::path::{Path, PathBuf};

use super::*;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1")
}

pub fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap_or_else(|e| panic!("tests/golden/v1/{file}: {e}"))
}

pub fn ring() -> KeyRing {
    KeyRing::parse(std::str::from_utf8(&bytes("key-ring.json")).unwrap()).unwrap()
}

/// The data key of the encrypted ones, from its record.
pub fn key() -> DataKey {
    KeyRecord::decode(&bytes("key-record.json")).unwrap().unwrap(&ring()).unwrap()
}

/// Never over one that exists.
pub fn new_file(name: &str, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(folder().join(name)).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

pub fn topic_id() -> Id {
    Id(std::array::from_fn(|n| 0x10 + n as u8))
}

/// The data key's secret, for seals that the encoder would not make.
pub const SECRET: [u8; 32] = {
    let (mut secret, mut n) = ([0; 32], 0);
    while n < 32 {
        secret[n] = 0x80 + n as u8;
        n += 1;
    }
    secret
};

pub fn new_key() -> DataKey {
    DataKey::new(Id(std::array::from_fn(|n| 0x40 + n as u8)), SECRET)
}

/// Of the sample with this number.
pub fn encryption(n: usize) -> Encryption {
    Encryption { key: new_key(), period: "2026-01".into(), salt: std::array::from_fn(|i| (i * 7 + n) as u8) }
}

pub fn options(n: usize) -> WriteOptions {
    WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 8192,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        encryption: None,
        object_id: Id([0xa0 + n as u8; 16]),
    }
}

pub fn info(n: usize, segment: &kafka::Segment) -> SegmentInfo {
    let epochs = [(3, 1_000), (5, 1_040)].map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
    SegmentInfo {
        writer: "varve 0.1.0".into(),
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(),
        topic_id: topic_id(),
        topic: "orders.paid".into(),
        partition: 2,
        segment_id: Some(Id([0x60 + n as u8; 16])),
        base_offset: segment.base_offset,
        last_offset: segment.last_offset,
        max_timestamp_ms: segment.max_timestamp_ms,
        created_ms: 1_767_225_700_000,
        broker_id: Some(1),
        leader_epochs: epochs.into_iter().filter(|e| e.start_offset <= segment.last_offset).collect(),
        observed: vec![Observed {
            time_ms: 1_767_225_690_000,
            high_watermark: 1_100,
            last_stable_offset: 1_097,
        }],
    }
}

/// As many whole batches as fit into `max_bytes`; the files beside the log stay those of the whole.
pub fn beginning(mut segment: kafka::Segment, max_bytes: usize) -> kafka::Segment {
    let (mut end, mut last_offset, mut max_timestamp_ms) = (0, 0, 0);
    loop {
        let batch = &segment.log[end..];
        let after = end + 12 + u32::from_be_bytes(batch[8..12].try_into().unwrap()) as usize;
        if after > max_bytes {
            break;
        }
        let base = i64::from_be_bytes(batch[..8].try_into().unwrap());
        last_offset = base + i64::from(i32::from_be_bytes(batch[23..27].try_into().unwrap()));
        max_timestamp_ms = i64::from_be_bytes(batch[35..43].try_into().unwrap());
        end = after;
    }
    segment.log.truncate(end);
    (segment.last_offset, segment.max_timestamp_ms) = (last_offset, max_timestamp_ms);
    segment
}

/// What Kafka would keep of the object.
pub fn metadata_of(object: &[u8], archive: Option<ArchiveReference>) -> CustomMetadata {
    let (trailer, (footer, _)) = (trailer(object).unwrap(), open(object, None).unwrap());
    CustomMetadata {
        store_id: "default".into(),
        identity: footer.is_identity(),
        frame_bytes: footer.frame_bytes,
        data_end: trailer.data_end,
        footer_offset: trailer.footer_offset,
        footer_bytes: trailer.footer_bytes,
        footer_digest: footer_digest(object),
        archive,
    }
}

/// BLAKE3 over footer and trailer.
pub fn footer_digest(object: &[u8]) -> Digest {
    let mut hasher = DigestAlgorithm::Blake3.hasher().unwrap();
    hasher.update(&object[trailer(object).unwrap().footer_offset as usize..]);
    hasher.finish()
}
