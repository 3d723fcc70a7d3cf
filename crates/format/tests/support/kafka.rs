//! Makes a small segment as a broker would have it: record batches (version 2) of a plain and a transactional
//! producer, an aborted transaction with its marker, and the files beside the log.

use super::noise;

pub struct Segment {
    pub log: Vec<u8>,
    pub offset_index: Vec<u8>,
    pub time_index: Vec<u8>,
    pub transaction_index: Vec<u8>,
    pub producer_snapshot: Vec<u8>,
    pub leader_epochs: Vec<u8>,
    pub base_offset: i64,
    pub last_offset: i64,
    pub max_timestamp_ms: i64,
}

const TIME_MS: i64 = 1_767_225_600_000;
const PRODUCER: i64 = 4_711;

pub fn segment() -> Segment {
    let base = 1_000;
    let (mut log, mut offset, mut index, mut time_index) = (Vec::new(), base, Vec::new(), Vec::new());
    let mut max_timestamp_ms = 0;
    for n in 0..24_i64 {
        let values: Vec<Vec<u8>> = (0..4)
            .map(|r| match n {
                // The middle does not compress: a whole frame of it begins the second chunk.
                6..18 => noise((n * 4 + r) as u64, 190),
                _ => format!("{{\"order\": {}, \"state\": \"paid\", \"items\": [\"book\", \"pen\", \"ink\", \"paper\"], \"note\": \"the same words again and again\"}}", n * 4 + r).into_bytes(),
            })
            .collect();
        let position = log.len() as u32;
        let transactional = n % 8 == 7;
        let batch = Batch {
            offset,
            time_ms: TIME_MS + n * 1_000,
            attributes: if transactional { 0x10 } else { 0 },
            sequence: transactional.then_some((n * 4) as i32),
        };
        log.extend(batch.encode(
            &values.iter().map(|v| (Some(format!("key-{n}").into_bytes()), v.clone())).collect::<Vec<_>>(),
        ));
        max_timestamp_ms = batch.time_ms + 3;
        if n % 6 == 5 {
            index.extend_from_slice(&((offset + 3 - base) as u32).to_be_bytes());
            index.extend_from_slice(&position.to_be_bytes());
            time_index.extend_from_slice(&max_timestamp_ms.to_be_bytes());
            time_index.extend_from_slice(&((offset + 3 - base) as i32).to_be_bytes());
        }
        offset += 4;
    }
    let marker = Batch { offset, time_ms: TIME_MS + 24_000, attributes: 0x30, sequence: Some(-1) };
    log.extend(marker.encode(&[(Some(vec![0, 0, 0, 0]), vec![0, 0, 0, 0, 0, 7])]));
    let aborted: [i64; 4] = [PRODUCER, base + 28, offset, base + 28];
    let transaction_index = [&0_i16.to_be_bytes()[..], &aborted.map(i64::to_be_bytes).concat()].concat();
    Segment {
        log,
        offset_index: index,
        time_index,
        transaction_index,
        producer_snapshot: producer_snapshot(offset),
        leader_epochs: b"0\n2\n3 1000\n5 1040\n".to_vec(),
        base_offset: base,
        last_offset: offset,
        max_timestamp_ms: max_timestamp_ms.max(marker.time_ms),
    }
}

struct Batch {
    offset: i64,
    time_ms: i64,
    attributes: i16,
    sequence: Option<i32>,
}

impl Batch {
    fn encode(&self, records: &[(Option<Vec<u8>>, Vec<u8>)]) -> Vec<u8> {
        let last = records.len() as i32 - 1;
        let producer = if self.sequence.is_some() { PRODUCER } else { -1 };
        let mut body = Vec::new();
        body.extend_from_slice(&self.attributes.to_be_bytes());
        body.extend_from_slice(&last.to_be_bytes());
        body.extend_from_slice(&self.time_ms.to_be_bytes());
        body.extend_from_slice(&(self.time_ms + i64::from(last)).to_be_bytes());
        body.extend_from_slice(&producer.to_be_bytes());
        body.extend_from_slice(&(if self.sequence.is_some() { 2_i16 } else { -1 }).to_be_bytes());
        body.extend_from_slice(&self.sequence.unwrap_or(-1).to_be_bytes());
        body.extend_from_slice(&(records.len() as i32).to_be_bytes());
        for (n, (key, value)) in records.iter().enumerate() {
            let mut record = vec![0];
            varint(n as i64, &mut record);
            varint(n as i64, &mut record);
            match key {
                Some(key) => {
                    varint(key.len() as i64, &mut record);
                    record.extend_from_slice(key);
                }
                None => varint(-1, &mut record),
            }
            varint(value.len() as i64, &mut record);
            record.extend_from_slice(value);
            varint(0, &mut record);
            varint(record.len() as i64, &mut body);
            body.extend_from_slice(&record);
        }
        let mut out = self.offset.to_be_bytes().to_vec();
        out.extend_from_slice(&(body.len() as i32 + 9).to_be_bytes());
        out.extend_from_slice(&(if self.offset < 1_040 { 3_i32 } else { 5 }).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }
}

/// Zigzag, seven bits a byte.
fn varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn producer_snapshot(last_offset: i64) -> Vec<u8> {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.extend_from_slice(&PRODUCER.to_be_bytes());
    body.extend_from_slice(&2_i16.to_be_bytes());
    body.extend_from_slice(&95_i32.to_be_bytes());
    body.extend_from_slice(&(last_offset - 1).to_be_bytes());
    body.extend_from_slice(&3_i32.to_be_bytes());
    body.extend_from_slice(&(TIME_MS + 23_000).to_be_bytes());
    body.extend_from_slice(&7_i32.to_be_bytes());
    body.extend_from_slice(&(-1_i64).to_be_bytes());
    let mut out = 1_i16.to_be_bytes().to_vec();
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}
