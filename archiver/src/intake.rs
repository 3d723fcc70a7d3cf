//! What has arrived, looked over before anything is done with it. Pure.
//!
//! Each batch's checksum is compared here, at the source; and where each offset must have a record, what follows
//! must follow without a hole. What is good before something odd is taken, so that one bad batch hides nothing.

use bytes::Bytes;
use varve_kafka::protocol::{Batches, ProtocolError};

use crate::transactions::OpenTransactions;

/// The good part, and why it ends.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) bytes: usize,
    /// Behind the good part.
    pub(crate) next_offset: i64,
    pub(crate) odd: Option<Odd>,
}

#[derive(Debug)]
pub(crate) enum Odd {
    Corrupt(ProtocolError),
    /// No batch has the offsets from the good part's end up to this.
    Hole {
        end_offset: i64,
    },
}

/// Of whole batches that were asked for at `from_offset`; `dense` where nothing may be missing. `open` follows
/// what is good.
pub(crate) fn examine(
    records: &Bytes,
    from_offset: i64,
    dense: bool,
    mut open: Option<&mut OpenTransactions>,
) -> Intake {
    let mut intake = Intake { bytes: 0, next_offset: from_offset, odd: None };
    for batch in Batches::new(records.clone(), 0) {
        let checked = batch.and_then(|batch| batch.check_crc().map(|()| batch));
        let batch = match checked {
            Ok(batch) => batch,
            Err(error) => {
                intake.odd = Some(Odd::Corrupt(error));
                break;
            }
        };
        if dense && batch.header.base_offset > intake.next_offset {
            intake.odd = Some(Odd::Hole { end_offset: batch.header.base_offset });
            break;
        }
        if let Some(open) = &mut open {
            open.feed(&batch.header);
        }
        intake.bytes += batch.bytes.len();
        intake.next_offset = batch.header.next_offset();
    }
    intake
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty batch, as compaction leaves them: all that matters here is its header.
    fn batch(base_offset: i64, last_delta: i32) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&0_i16.to_be_bytes());
        body.extend_from_slice(&last_delta.to_be_bytes());
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&(-1_i64).to_be_bytes());
        body.extend_from_slice(&(-1_i16).to_be_bytes());
        body.extend_from_slice(&(-1_i32).to_be_bytes());
        body.extend_from_slice(&0_i32.to_be_bytes());
        let mut batch = base_offset.to_be_bytes().to_vec();
        batch.extend_from_slice(&i32::try_from(4 + 1 + 4 + body.len()).unwrap().to_be_bytes());
        batch.extend_from_slice(&0_i32.to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&varve_format::crc32c(&body).to_be_bytes());
        batch.extend_from_slice(&body);
        batch
    }

    #[test]
    fn the_good_part_is_taken() {
        let parts = [batch(10, 4), batch(15, 0), batch(20, 0)];
        let all = Bytes::from(parts.concat());
        let intake = examine(&all, 10, false, None);
        assert!((intake.bytes, intake.next_offset) == (all.len(), 21) && intake.odd.is_none(), "{intake:?}");
        let intake = examine(&all, 10, true, None);
        assert_eq!((intake.bytes, intake.next_offset), (parts[0].len() + parts[1].len(), 16));
        assert!(matches!(intake.odd, Some(Odd::Hole { end_offset: 20 })));
        // In the midst of a batch is no hole.
        assert!(matches!(examine(&all, 12, true, None).odd, Some(Odd::Hole { end_offset: 20 })));
        let mut flipped = parts.concat();
        flipped[parts[0].len() + 30] ^= 1;
        let intake = examine(&Bytes::from(flipped), 10, false, None);
        assert_eq!((intake.bytes, intake.next_offset), (parts[0].len(), 15));
        assert!(matches!(intake.odd, Some(Odd::Corrupt(ProtocolError::Corrupt { .. }))), "{intake:?}");
    }
}
