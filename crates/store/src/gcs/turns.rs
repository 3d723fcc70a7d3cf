//! The order of an upload's parts: Cloud Storage takes an object's bytes from the first to the last, callers send
//! parts as they please. Parts that arrive before their turn are held, a bounded number of them. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::resource::{crc32c, crc32c_of_both};

/// Parts in memory that wait for others.
pub(super) const HELD_MAX: usize = 16;

/// What becomes of a part that is offered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Taken,
    /// It is held already: this may replace it.
    Held,
    /// The store has it, with the same bytes.
    Same,
    /// The store has it, with other bytes.
    Other,
    /// To be offered again when something has moved.
    Full,
}

struct Sent {
    size_bytes: u64,
    crc32c: u32,
}

pub(super) struct Turns {
    part_bytes: u64,
    /// The number of the last part, where the object's size was declared.
    last: Option<u32>,
    /// All numbers below are with the store.
    next: u32,
    held: BTreeMap<u32, Bytes>,
    sent: BTreeMap<u32, Sent>,
    size_bytes: u64,
    crc32c: u32,
}

impl Turns {
    pub(super) fn new(part_bytes: u64, size_bytes: Option<u64>) -> Self {
        let last = size_bytes.and_then(|size| u32::try_from(size.div_ceil(part_bytes)).ok());
        let (held, sent) = (BTreeMap::new(), BTreeMap::new());
        Self { part_bytes, last, next: 1, held, sent, size_bytes: 0, crc32c: 0 }
    }

    /// A part is taken when it comes next, and else while there is room: so what others wait for always gets in.
    pub(super) fn offer(&mut self, number: u32, body: &Bytes) -> Offer {
        if let Some(sent) = self.sent.get(&number) {
            let same = sent.size_bytes == body.len() as u64 && sent.crc32c == crc32c(body);
            return if same { Offer::Same } else { Offer::Other };
        }
        if self.held.contains_key(&number) {
            return Offer::Held;
        }
        if number > self.first_missing() && self.held.len() >= HELD_MAX {
            return Offer::Full;
        }
        self.held.insert(number, body.clone());
        Offer::Taken
    }

    fn first_missing(&self) -> u32 {
        let held = self.held.keys().zip(self.next..);
        held.take_while(|(held, turn)| **held == *turn).last().map_or(self.next, |(_, turn)| turn + 1)
    }

    /// Whether all parts before this one, and itself, are here or with the store.
    pub(super) fn has_all_up_to(&self, number: u32) -> bool {
        number < self.first_missing()
    }

    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn held(&self, number: u32) -> Option<&Bytes> {
        self.held.get(&number)
    }

    pub(super) fn replace(&mut self, number: u32, body: Bytes) {
        if let Some(held) = self.held.get_mut(&number) {
            *held = body;
        }
    }

    /// The part whose turn it is. One that is short, or the last by the declared size, stays here until the upload is
    /// completed: with it goes the end of the object.
    pub(super) fn front(&self) -> Option<Bytes> {
        let body = self.held.get(&self.next)?;
        let last = (body.len() as u64) < self.part_bytes || self.last == Some(self.next);
        (!last).then(|| body.clone())
    }

    /// The last part, if it is all that is held.
    pub(super) fn rest(&self) -> Bytes {
        self.held.get(&self.next).cloned().unwrap_or_default()
    }

    /// The store has the next part.
    pub(super) fn advance(&mut self) {
        let Some(body) = self.held.remove(&self.next) else { return };
        let sent = Sent { size_bytes: body.len() as u64, crc32c: crc32c(&body) };
        self.size_bytes += sent.size_bytes;
        self.crc32c = crc32c_of_both(self.crc32c, sent.crc32c, sent.size_bytes);
        self.sent.insert(self.next, sent);
        self.next += 1;
    }

    /// Of an upload that is refused anyway: parts count, and are not kept.
    pub(super) fn discard(&mut self, number: u32, body: &Bytes) {
        self.sent.insert(number, Sent { size_bytes: body.len() as u64, crc32c: 0 });
    }

    /// Size and CRC32C of all that was sent, with `rest` behind.
    pub(super) fn whole(&self, rest: &Bytes) -> (u64, u32) {
        let len = rest.len() as u64;
        (self.size_bytes + len, crc32c_of_both(self.crc32c, crc32c(rest), len))
    }

    /// Sizes of all parts that came.
    pub(super) fn sizes(&self) -> BTreeMap<u32, u64> {
        let sent = self.sent.iter().map(|(&number, sent)| (number, sent.size_bytes));
        sent.chain(self.held.iter().map(|(&number, body)| (number, body.len() as u64))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32) -> Bytes {
        Bytes::from(vec![number as u8; 4])
    }

    fn drain(turns: &mut Turns) -> Vec<Bytes> {
        let mut sent = Vec::new();
        while let Some(body) = turns.front() {
            sent.push(body);
            turns.advance();
        }
        sent
    }

    #[test]
    fn parts_go_in_order_whatever_the_order_they_come_in() {
        let mut turns = Turns::new(4, None);
        for number in [3, 2, 5] {
            assert_eq!(turns.offer(number, &part(number)), Offer::Taken);
            assert!(!turns.has_all_up_to(number) && turns.front().is_none());
        }
        assert_eq!(turns.offer(1, &part(1)), Offer::Taken);
        assert!(turns.has_all_up_to(3) && !turns.has_all_up_to(5));
        assert_eq!(drain(&mut turns), [part(1), part(2), part(3)]);
        assert_eq!(turns.offer(4, &Bytes::from_static(b"xy")), Offer::Taken);
        assert!(turns.front().is_none(), "a short part waits for the end");
        assert_eq!(turns.offer(2, &part(2)), Offer::Same);
        assert_eq!(turns.offer(2, &part(9)), Offer::Other);
        assert_eq!(turns.offer(5, &part(9)), Offer::Held);
    }

    #[test]
    fn what_others_wait_for_gets_in() {
        let mut turns = Turns::new(4, None);
        for number in (2..).take(HELD_MAX) {
            assert_eq!(turns.offer(number, &part(number)), Offer::Taken);
        }
        let late = HELD_MAX as u32 + 3;
        assert_eq!(turns.offer(late, &part(late)), Offer::Full);
        assert_eq!(turns.offer(1, &part(1)), Offer::Taken);
        assert_eq!(drain(&mut turns).len(), HELD_MAX + 1);
        assert_eq!(turns.offer(late, &part(late)), Offer::Taken);
    }

    #[test]
    fn the_whole_has_one_checksum() {
        let mut turns = Turns::new(4, Some(9));
        for (number, body) in [(1, "1234"), (2, "5678"), (3, "9")] {
            assert_eq!(turns.offer(number, &Bytes::from_static(body.as_bytes())), Offer::Taken);
        }
        assert_eq!(drain(&mut turns).len(), 2);
        assert_eq!(turns.whole(&turns.rest()), (9, 0xe306_9283));
        assert_eq!(turns.sizes(), BTreeMap::from([(1, 4), (2, 4), (3, 1)]));
        let mut even = Turns::new(4, Some(8));
        even.offer(1, &part(1));
        even.offer(2, &part(2));
        assert_eq!((drain(&mut even).len(), even.rest()), (1, part(2)), "the last part by the declared size");
    }
}
