//! What the encoder writes, the decoder reads: for all combinations of compression, encryption and digest.

#![allow(clippy::unwrap_used)]

use varve_format::*;

pub fn info() -> SegmentInfo {
    SegmentInfo {
        writer: "varve test".into(),
        cluster_id: "cluster".into(),
        topic_id: Id([1; 16]),
        topic: "orders".into(),
        partition: 3,
        segment_id: Some(Id([2; 16])),
        base_offset: 100,
        last_offset: 199,
        max_timestamp_ms: 1_700_000_000_000,
        created_ms: 1_700_000_000_001,
        broker_id: Some(1),
        leader_epochs: vec![EpochStart { epoch: 0, start_offset: 100 }],
        observed: vec![Observed { time_ms: 1, high_watermark: 200, last_stable_offset: 200 }],
    }
}

pub fn write(options: &WriteOptions, log: &[u8], sections: &[(ExtentKind, &[u8])]) -> (Vec<u8>, Finished) {
    let sizes: Vec<_> = sections.iter().map(|(k, b)| (*k, b.len() as u64)).collect();
    let plan = Plan::new(log.len() as u64, options.chunk_bytes, &sizes).unwrap();
    let mut encoder = Encoder::new(options.clone(), plan).unwrap();
    let mut out = Vec::new();
    for mut bytes in std::iter::once(log).chain(sections.iter().map(|(_, b)| *b)) {
        while !bytes.is_empty() {
            let n = encoder.next_frame_bytes().unwrap();
            encoder.frame(&bytes[..n], &mut out).unwrap();
            bytes = &bytes[n..];
        }
    }
    let finished = encoder.finish(info(), &mut out).unwrap();
    (out, finished)
}

pub fn open(object: &[u8], key: Option<&DataKey>) -> Result<(Footer, Option<ObjectKey>)> {
    let n = object.len();
    let tail: &[u8; TRAILER_BYTES] = object[n - TRAILER_BYTES..].try_into().unwrap();
    let trailer = Trailer::decode(tail, n as u64)?;
    let start = trailer.footer_offset as usize;
    let bytes = &object[start..n - TRAILER_BYTES];
    let mut footer = Footer::decode(bytes, &trailer)?;
    let object_key = match (&footer.encryption, key) {
        (Some(e), Some(key)) => Some(key.object_key(&e.salt, footer.object_id)?),
        _ => None,
    };
    if let Some(key) = &object_key {
        footer.unlock(bytes, key, trailer.footer_offset)?;
    }
    Ok((footer, object_key))
}

pub fn read(object: &[u8], footer: &Footer, key: Option<&ObjectKey>, extent: &Extent) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new(footer, key)?;
    let mut out = Vec::new();
    for number in extent.first_frame..extent.first_frame + extent.frame_count() {
        let frame = footer.frame(number)?;
        let start = out.len();
        out.resize(start + frame.plain_bytes as usize, 0);
        decoder.decode(
            &frame,
            &object[frame.stored.start as usize..frame.stored.end as usize],
            &mut out[start..],
        )?;
    }
    Ok(out)
}

fn text(n: usize) -> Vec<u8> {
    (0..n).map(|i| b"a kafka log of batches and batches"[i % 33] ^ (i / 4099) as u8).collect()
}

#[test]
fn all_combinations() {
    let key = DataKey::new(Id([7; 16]), [9; 32]);
    for compression in [Compression::None, Compression::Zstd { level: 1 }, Compression::Auto { level: 1 }] {
        for encrypted in [false, true] {
            for digest in [DigestAlgorithm::None, DigestAlgorithm::Blake3, DigestAlgorithm::Sha256] {
                for log_bytes in [0, 1, 4095, 4096, 4097, 16384, 16385, 50_000] {
                    let options = WriteOptions {
                        frame_bytes: 4096,
                        chunk_bytes: 16384,
                        compression,
                        digest,
                        encryption: encrypted.then(|| Encryption {
                            key: key.clone(),
                            period: "2026-11".into(),
                            salt: [5; 32],
                        }),
                        object_id: Id([4; 16]),
                    };
                    let (log, index) = (text(log_bytes), text(5000));
                    let sections = [
                        (ExtentKind::OffsetIndex, &index[..]),
                        (ExtentKind::TimeIndex, &[][..]),
                        (ExtentKind::LeaderEpochs, &b"0\n1\n0 100\n"[..]),
                    ];
                    let (object, finished) = write(&options, &log, &sections);
                    let (footer, object_key) = open(&object, Some(&key)).unwrap();
                    assert_eq!(footer, finished.footer);
                    assert_eq!(footer.info, info());
                    let mut back = Vec::new();
                    for chunk in footer.chunks() {
                        back.extend(read(&object, &footer, object_key.as_ref(), chunk).unwrap());
                    }
                    assert_eq!(back, log);
                    for (kind, bytes) in sections {
                        let extent = footer.section(kind).unwrap();
                        assert_eq!(read(&object, &footer, object_key.as_ref(), extent).unwrap(), bytes);
                    }
                    if !encrypted && compression == Compression::None {
                        assert!(object.starts_with(&log));
                    }
                    let metadata = finished.custom_metadata("default", None);
                    assert_eq!(CustomMetadata::decode(&metadata.encode().unwrap()).unwrap(), metadata);
                    assert_eq!(metadata.object_bytes(), object.len() as u64);
                }
            }
        }
    }
}
