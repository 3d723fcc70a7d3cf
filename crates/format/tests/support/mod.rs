//! Writes and reads whole objects in memory, as a broker's plug-in would do with files and a store.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // Each test takes what it needs.

pub mod decode_all;
pub mod forge;
pub mod golden;
pub mod kafka;

use varve_format::*;

pub const KEK_RING: &str = r#"{"active": "2026", "keys": {
    "2025": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "2026": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;

pub fn data_key() -> DataKey {
    DataKey::new(Id([7; 16]), [9; 32])
}

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
        leader_epochs: vec![
            EpochStart { epoch: 0, start_offset: 100 },
            EpochStart { epoch: 4, start_offset: 150 },
        ],
        observed: vec![Observed { time_ms: 1, high_watermark: 200, last_stable_offset: 200 }],
    }
}

pub fn encryption() -> Encryption {
    Encryption { key: data_key(), period: "2026-11".into(), salt: [5; 32] }
}

/// Small frames and chunks, so that small logs have several.
pub fn options(compression: Compression, encrypted: bool, digest: DigestAlgorithm) -> WriteOptions {
    WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 8192,
        compression,
        digest,
        encryption: encrypted.then(encryption),
        object_id: Id([4; 16]),
    }
}

pub type Sections<'a> = &'a [(ExtentKind, &'a [u8])];

pub fn write_as(
    info: SegmentInfo,
    options: &WriteOptions,
    log: &[u8],
    sections: Sections,
) -> (Vec<u8>, Finished) {
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
    let finished = encoder.finish(info, &mut out).unwrap();
    (out, finished)
}

/// The same as one whose length is known at its end alone.
pub fn write_streamed(
    info: SegmentInfo,
    options: &WriteOptions,
    log: &[u8],
    sections: Sections,
) -> (Vec<u8>, Finished) {
    let sizes: Vec<_> = sections.iter().map(|(k, b)| (*k, b.len() as u64)).collect();
    let mut encoder = Encoder::new(options.clone(), Plan::open(options.chunk_bytes).unwrap()).unwrap();
    let frame = options.frame_bytes as usize;
    let (mut out, frames) = (Vec::new(), log.chunks_exact(frame));
    let rest = frames.remainder();
    frames.for_each(|bytes| encoder.frame(bytes, &mut out).unwrap());
    encoder.end_log(rest.len() as u64, &sizes).unwrap();
    for bytes in std::iter::once(rest).chain(sections.iter().flat_map(|(_, b)| b.chunks(frame))) {
        if !bytes.is_empty() {
            encoder.frame(bytes, &mut out).unwrap();
        }
    }
    let finished = encoder.finish(info, &mut out).unwrap();
    (out, finished)
}

pub fn write(options: &WriteOptions, log: &[u8], sections: Sections) -> (Vec<u8>, Finished) {
    write_as(info(), options, log, sections)
}

pub fn trailer(object: &[u8]) -> Result<Trailer> {
    let n = object.len();
    let Some(tail) = object.last_chunk::<TRAILER_BYTES>() else {
        return Err(Error::TooShort { what: "object", offset: 0, needed: 64, available: n as u64 });
    };
    Trailer::decode(tail, n as u64)
}

pub fn footer_bytes<'a>(object: &'a [u8], trailer: &Trailer) -> &'a [u8] {
    &object[trailer.footer_offset as usize..object.len() - TRAILER_BYTES]
}

/// From the trailer inward, as docs/FORMAT.md says.
pub fn open(object: &[u8], key: Option<&DataKey>) -> Result<(Footer, Option<ObjectKey>)> {
    let trailer = trailer(object)?;
    let bytes = footer_bytes(object, &trailer);
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
        let stored = &object[frame.stored.start as usize..frame.stored.end as usize];
        decode_all::frame(&mut decoder, &frame, stored, &mut out[start..])?;
    }
    Ok(out)
}

/// Footer and plain bytes of all extents, each checked against its digest.
pub fn read_all(object: &[u8], key: Option<&DataKey>) -> Result<(Footer, Vec<Vec<u8>>)> {
    let (footer, object_key) = open(object, key)?;
    let mut out = Vec::new();
    for (n, extent) in footer.extents.iter().enumerate() {
        let plain = read(object, &footer, object_key.as_ref(), extent)?;
        if let Some(mut hasher) = footer.digest.hasher() {
            hasher.update(&plain);
            assert_eq!(Some(&hasher.finish()), footer.digests.get(n), "digest of extent {n}");
        }
        out.push(plain);
    }
    Ok((footer, out))
}

/// What an attacker without a key can do after changing bytes: make the checksums fit again.
pub fn repair_checksums(object: &mut [u8]) {
    let n = object.len();
    let footer_offset = u64::from_be_bytes(object[n - 56..n - 48].try_into().unwrap());
    if let Some(footer) = usize::try_from(footer_offset).ok().and_then(|at| object.get(at..n - TRAILER_BYTES))
    {
        let crc = crc32c::crc32c(footer).to_be_bytes();
        object[n - 16..n - 12].copy_from_slice(&crc);
    }
    let crc = crc32c::crc32c(&object[n - 64..n - 12]).to_be_bytes();
    object[n - 12..n - 8].copy_from_slice(&crc);
}

/// An object of the same extents whose footer was changed by `change`, all lengths and checksums fitting.
pub fn with_footer(object: &[u8], change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let old = trailer(object).unwrap();
    let footer = change(footer_bytes(object, &old).to_vec());
    let new = Trailer { footer_bytes: footer.len() as u32, footer_crc: crc32c::crc32c(&footer), ..old };
    [&object[..old.footer_offset as usize], &footer, &new.encode()].concat()
}

/// `tag | length | value`.
pub fn field(tag: u16, value: &[u8]) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &(value.len() as u32).to_be_bytes(), value].concat()
}

/// Where the field `tag` begins in the footer.
pub fn place_of(footer: &[u8], tag: u16) -> usize {
    let mut at = 0;
    while at < footer.len() && u16::from_be_bytes(footer[at..at + 2].try_into().unwrap()) < tag {
        at += 6 + u32::from_be_bytes(footer[at + 2..at + 6].try_into().unwrap()) as usize;
    }
    at
}

/// The object with one more field in its footer.
pub fn insert(object: &[u8], tag: u16, value: &[u8]) -> Vec<u8> {
    with_footer(object, |mut footer| {
        let at = place_of(&footer, tag);
        footer.splice(at..at, field(tag, value));
        footer
    })
}

/// The object without a field.
pub fn remove(object: &[u8], tag: u16) -> Vec<u8> {
    with_footer(object, |mut footer| {
        let (at, next) = (place_of(&footer, tag), place_of(&footer, tag + 1));
        footer.drain(at..next);
        footer
    })
}

/// Text that compresses, then bytes that do not.
pub fn mixed(compressible: usize, random: usize) -> Vec<u8> {
    let text = b"a kafka log of batches and batches ".iter().copied().cycle().take(compressible);
    text.chain(noise(1, random)).collect()
}

/// xorshift64*: the same bytes for the same seed, for ever.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    (0..bytes).map(|_| rng.next() as u8).collect()
}

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Every combination that changes how bytes are laid out, over one small segment.
pub fn variants() -> Vec<(String, Vec<u8>, Finished)> {
    let log = mixed(8192, 1500);
    let index = mixed(5000, 100);
    let sections: Sections = &[
        (ExtentKind::OffsetIndex, &index),
        (ExtentKind::TimeIndex, &[]),
        (ExtentKind::LeaderEpochs, b"0\n1\n0 100\n"),
    ];
    let mut out = Vec::new();
    for compression in [Compression::None, Compression::Zstd { level: 1 }, Compression::Auto { level: 1 }] {
        for encrypted in [false, true] {
            for digest in [DigestAlgorithm::None, DigestAlgorithm::Blake3, DigestAlgorithm::Sha256] {
                let (object, finished) = write(&options(compression, encrypted, digest), &log, sections);
                out.push((format!("{compression:?} encrypted={encrypted} {digest:?}"), object, finished));
            }
        }
    }
    out
}

/// One random change: bits, boundary values, cuts, copies, pieces of another.
pub fn mutate(bytes: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    // What matters most lies at the end of an object.
    let at = match rng.below(2) {
        0 => rng.below(bytes.len()),
        _ => bytes.len().saturating_sub(1 + rng.below(700)),
    };
    match rng.below(7) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << rng.below(8)),
        1 => {
            let value: u64 =
                [0, 1, 0x7f, 0x80, 0xff, 0xffff, u64::MAX, i64::MAX as u64, 1 << 31, 1 << 20][rng.below(10)];
            let width = [1, 2, 4, 8][rng.below(4)];
            bytes.iter_mut().skip(at).zip(&value.to_be_bytes()[8 - width..]).for_each(|(b, v)| *b = *v);
        }
        2 => bytes.truncate(at),
        3 => {
            let end = (at + rng.below(32)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + rng.below(64)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            let from = rng.below(donor.len());
            let piece = donor[from..(from + rng.below(256)).min(donor.len())].to_vec();
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        _ => bytes.iter_mut().skip(at).take(rng.below(16)).for_each(|b| *b = rng.next() as u8),
    }
}

/// A changed copy.
pub fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = bytes.to_vec();
    change(&mut out);
    out
}

/// A zstd frame with a checksum of its content.
pub fn checksummed(plain: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.compress(plain).unwrap()
}

/// The zstd frame, which is of a single segment, with this window descriptor instead.
pub fn with_window(frame: &[u8], descriptor: u8) -> Vec<u8> {
    assert_eq!(frame[4] & 0x20, 0x20);
    changed(frame, |b| {
        b[4] &= !0x20;
        b.insert(5, descriptor);
    })
}

/// The zstd frame, which is of a single segment, with this dictionary id.
pub fn with_dictionary_id(frame: &[u8], id: u8) -> Vec<u8> {
    assert_eq!(frame[4] & 0x23, 0x20);
    changed(frame, |b| {
        b[4] |= 1;
        b.insert(5, id);
    })
}
