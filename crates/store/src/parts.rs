//! The rules of an upload's parts, the same for every store: pure, no IO.

use std::collections::BTreeMap;

use crate::contract::Limits;

/// What an upload declared when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartPlan {
    pub(crate) part_bytes: u64,
    pub(crate) size_bytes: Option<u64>,
    max_parts: u32,
}

impl PartPlan {
    /// Errors are texts for a [`Kind::Invalid`](crate::Kind::Invalid).
    pub(crate) fn new(limits: &Limits, part_bytes: u64, size_bytes: Option<u64>) -> Result<Self, String> {
        if part_bytes < limits.min_part_bytes || part_bytes > limits.max_part_bytes {
            return Err(format!(
                "a part has {} to {} bytes here, {part_bytes} were asked for",
                limits.min_part_bytes, limits.max_part_bytes
            ));
        }
        if let Some(size) = size_bytes {
            let most = part_bytes.saturating_mul(u64::from(limits.max_parts)).min(limits.max_object_bytes);
            if size > most {
                return Err(format!(
                    "an object of {size} bytes does not fit {} parts of {part_bytes} bytes (at most {most} bytes)",
                    limits.max_parts
                ));
            }
        }
        Ok(Self { part_bytes, size_bytes, max_parts: limits.max_parts })
    }

    pub(crate) fn check_part(&self, number: u32, len: usize) -> Result<(), String> {
        if number == 0 || number > self.max_parts {
            return Err(format!("part numbers go from 1 to {}, found {number}", self.max_parts));
        }
        if len == 0 {
            return Err(format!("part {number} is empty"));
        }
        if len as u64 > self.part_bytes {
            return Err(format!("part {number} has {len} bytes, declared were {}", self.part_bytes));
        }
        Ok(())
    }

    /// The object's size, if the parts that were sent make one.
    pub(crate) fn check_complete(&self, sent: &BTreeMap<u32, u64>) -> Result<u64, String> {
        let Some(&highest) = sent.keys().next_back() else {
            return Err("no part was sent".to_owned());
        };
        let mut total = 0;
        for number in 1..=highest {
            match sent.get(&number) {
                None => return Err(format!("part {number} of {highest} was not sent")),
                Some(&len) if number < highest && len != self.part_bytes => {
                    return Err(format!(
                        "part {number} of {highest} has {len} bytes, all but the last have {}",
                        self.part_bytes
                    ));
                }
                Some(&len) => total += len,
            }
        }
        match self.size_bytes {
            Some(size) if size != total => Err(format!("declared were {size} bytes, sent were {total}")),
            _ => Ok(total),
        }
    }
}
