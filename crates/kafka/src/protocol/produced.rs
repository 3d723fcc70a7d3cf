//! Batches as a producer sends them: archived ones with another header, and new ones made of records.
//!
//! What a producer may not say is left out: offsets (the broker gives them), the leader's epoch, LogAppendTime, marks
//! of transactions and of compaction. The CRC is made anew, over what was held against the old one before.

use bytes::{Bytes, BytesMut};

use super::batch::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, CRC_COVERS_FROM, Codec, LOG_OVERHEAD_BYTES, TimestampType,
};
use super::batches::Batch;
use super::compress::compress;
use super::error::{ProtocolError, Result};
use super::record::Record;

const CODEC_BITS: i16 = 0x07;
/// Whoever appends it writes its own.
const NO_LEADER_EPOCH: i32 = -1;

/// Who sends a batch, and the first of its sequences: one for each record, and 0 comes after `i32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Batch {
    /// Whether its records can be sent in the bytes that they are in: one for each offset, with times of their own.
    /// A batch that a cleaner marked counts them from the mark.
    pub fn can_be_sent_as_it_is(&self) -> bool {
        let h = &self.header;
        let is_dense =
            h.records_count > 0 && i64::from(h.records_count) == i64::from(h.last_offset_delta) + 1;
        is_dense
            && h.attributes.timestamp_type() == TimestampType::CreateTime
            && !h.attributes.has_delete_horizon()
            && !h.attributes.is_control()
    }

    /// The same records under another header.
    pub fn to_send(&self, by: Sequence) -> Bytes {
        let mut bytes = BytesMut::from(self.bytes.as_ref());
        let header =
            BatchHeader { attributes: Attributes(self.header.attributes.0 & CODEC_BITS), ..self.header };
        seal(&mut bytes, &header, by);
        bytes.freeze()
    }
}

/// A batch of these records, in their order. Offsets don't count.
///
/// # Errors
/// No record, or more bytes than a batch can have.
pub fn batch_of(codec: Codec, records: &[Record], by: Sequence) -> Result<Bytes> {
    let Some(first) = records.first() else {
        return Err(ProtocolError::corrupt("records to be sent", 0, "one at least", 0));
    };
    let base_timestamp_ms = first.timestamp_ms;
    let mut plain = Vec::new();
    for (delta, record) in (0_i32..).zip(records) {
        put_record(&mut plain, record, delta, base_timestamp_ms);
    }
    let packed = compress(codec, plain)?;
    let length_bytes = i32::try_from(BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES + packed.len())
        .map_err(|_| ProtocolError::corrupt("records to be sent", 0, "at most 2 GiB", packed.len()))?;
    let records_count = i32::try_from(records.len())
        .map_err(|_| ProtocolError::corrupt("records to be sent", 0, i32::MAX, records.len()))?;
    let header = BatchHeader {
        base_offset: 0,
        length_bytes,
        partition_leader_epoch: NO_LEADER_EPOCH,
        crc: 0,
        attributes: Attributes(codec_bits(codec)),
        last_offset_delta: records_count - 1,
        base_timestamp_ms,
        max_timestamp_ms: records.iter().map(|r| r.timestamp_ms).max().unwrap_or(base_timestamp_ms),
        producer_id: by.producer_id,
        producer_epoch: by.producer_epoch,
        base_sequence: by.base_sequence,
        records_count,
    };
    let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + packed.len());
    bytes.resize(BATCH_HEADER_BYTES, 0);
    bytes.extend_from_slice(&packed);
    seal(&mut bytes, &header, by);
    Ok(bytes.freeze())
}

fn codec_bits(codec: Codec) -> i16 {
    match codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
        Codec::Unknown(n) => i16::from(n),
    }
}

/// Writes the header over the first bytes, and the CRC of what is there then.
fn seal(bytes: &mut BytesMut, header: &BatchHeader, by: Sequence) {
    let mut head = Vec::with_capacity(BATCH_HEADER_BYTES);
    head.extend(0_i64.to_be_bytes());
    head.extend(header.length_bytes.to_be_bytes());
    head.extend(NO_LEADER_EPOCH.to_be_bytes());
    head.push(2);
    head.extend([0; 4]);
    head.extend(header.attributes.0.to_be_bytes());
    head.extend(header.last_offset_delta.to_be_bytes());
    head.extend(header.base_timestamp_ms.to_be_bytes());
    head.extend(header.max_timestamp_ms.to_be_bytes());
    head.extend(by.producer_id.to_be_bytes());
    head.extend(by.producer_epoch.to_be_bytes());
    head.extend(by.base_sequence.to_be_bytes());
    head.extend(header.records_count.to_be_bytes());
    if let Some(room) = bytes.get_mut(..BATCH_HEADER_BYTES) {
        room.copy_from_slice(&head);
    }
    let crc = varve_format::crc32c(bytes.get(CRC_COVERS_FROM..).unwrap_or_default());
    if let Some(room) = bytes.get_mut(CRC_COVERS_FROM - 4..CRC_COVERS_FROM) {
        room.copy_from_slice(&crc.to_be_bytes());
    }
}

fn put_record(out: &mut Vec<u8>, record: &Record, offset_delta: i32, base_timestamp_ms: i64) {
    let mut body = vec![0];
    put_varlong(&mut body, record.timestamp_ms.wrapping_sub(base_timestamp_ms));
    put_varlong(&mut body, i64::from(offset_delta));
    put_nullable(&mut body, record.key.as_deref());
    put_nullable(&mut body, record.value.as_deref());
    put_varlong(&mut body, record.headers.len() as i64);
    for header in &record.headers {
        put_nullable(&mut body, Some(&header.key));
        put_nullable(&mut body, header.value.as_deref());
    }
    put_varlong(out, body.len() as i64);
    out.extend(body);
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varlong(out, bytes.map_or(-1, |b| b.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

/// Zigzag, in groups of 7 bits. What fits into 32 bits has the same form as an int.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.wrapping_shl(1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::record::Header;
    use super::*;

    const BY: Sequence = Sequence { producer_id: 77, producer_epoch: 3, base_sequence: i32::MAX };

    fn parsed(bytes: &Bytes) -> Batch {
        let header = BatchHeader::parse(bytes, 0).unwrap();
        assert_eq!(header.size_bytes(), bytes.len() as u64);
        let batch = Batch { header, position: 0, bytes: bytes.clone() };
        batch.check_crc().unwrap();
        batch
    }

    fn content() -> impl Strategy<Value = Option<Bytes>> {
        option::of(vec(any::<u8>(), 0..300).prop_map(Bytes::from))
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let header = (vec(any::<u8>(), 0..9), content())
            .prop_map(|(key, value)| Header { key: Bytes::from(key), value });
        let record = (-1_i64..1 << 50, content(), content(), vec(header, 0..3)).prop_map(
            |(timestamp_ms, key, value, headers)| Record { offset: 0, timestamp_ms, key, value, headers },
        );
        vec(record, 1..40).prop_map(|mut records| {
            (0..).zip(&mut records).for_each(|(offset, record)| record.offset = offset);
            records
        })
    }

    proptest! {
        #[test]
        fn records_come_back_with_each_codec(records in records(), codec in 0_usize..5) {
            let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][codec];
            let batch = parsed(&batch_of(codec, &records, BY).unwrap());
            let h = &batch.header;
            prop_assert_eq!((h.producer_id, h.producer_epoch, h.base_sequence), (77, 3, i32::MAX));
            prop_assert_eq!(h.attributes.codec(), codec);
            prop_assert!(batch.can_be_sent_as_it_is());
            let found: Vec<Record> = batch.records(1 << 20).unwrap().collect::<Result<_>>().unwrap();
            prop_assert_eq!(&found, &records);
            let max = records.iter().map(|r| r.timestamp_ms).max();
            prop_assert_eq!(Some(h.max_timestamp_ms), max);
        }

        #[test]
        fn another_header_leaves_the_records_alone(records in records(), offset in 0_i64..1 << 60, epoch in 0..i32::MAX) {
            let of_old = Sequence { producer_id: 5, producer_epoch: 9, base_sequence: 4 };
            let mut old = batch_of(Codec::Lz4, &records, of_old).unwrap().to_vec();
            old[..8].copy_from_slice(&offset.to_be_bytes());
            old[12..16].copy_from_slice(&epoch.to_be_bytes());
            // Transactional.
            old[22] |= 0x10;
            let crc = varve_format::crc32c(&old[21..]);
            old[17..21].copy_from_slice(&crc.to_be_bytes());
            let old = parsed(&Bytes::from(old));
            prop_assert!(old.header.attributes.is_transactional());
            let new = parsed(&old.to_send(BY));
            prop_assert_eq!(new.header.base_offset, 0);
            prop_assert_eq!(new.header.attributes, Attributes(3));
            prop_assert_eq!((new.header.producer_id, new.header.base_sequence), (77, i32::MAX));
            prop_assert_eq!(&new.bytes[BATCH_HEADER_BYTES..], &old.bytes[BATCH_HEADER_BYTES..]);
            let found: Vec<Record> = new.records(1 << 20).unwrap().collect::<Result<_>>().unwrap();
            prop_assert_eq!(found, records);
        }
    }

    #[test]
    fn no_record_is_no_batch_and_marks_need_another_form() {
        assert!(batch_of(Codec::None, &[], BY).is_err());
        let record = Record { offset: 0, timestamp_ms: 5, key: None, value: None, headers: Vec::new() };
        let batch = parsed(&batch_of(Codec::None, &[record.clone(), record], BY).unwrap());
        let with = |change: fn(&mut BatchHeader)| {
            let mut changed = batch.clone();
            change(&mut changed.header);
            changed.can_be_sent_as_it_is()
        };
        assert!(with(|_| ()));
        assert!(!with(|h| h.attributes.0 |= 0x08), "LogAppendTime");
        assert!(!with(|h| h.attributes.0 |= 0x20), "control");
        assert!(!with(|h| h.attributes.0 |= 0x40), "delete horizon");
        assert!(!with(|h| h.last_offset_delta = 2), "compacted");
    }
}
