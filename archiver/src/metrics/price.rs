//! What the requests to a store may have cost: an estimate from a list price by class of operation.
//!
//! What is kept, what leaves the region, and retries within one operation are not in it.

use varve_store::{Operation, OperationCount};

/// Dollars for 1,000 requests of S3 Standard in us-east-1, by the public list.
const S3_WRITE: f64 = 0.005;
const S3_READ: f64 = 0.0004;

/// Dollars for 1,000 requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    pub write: f64,
    pub read: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Write,
    Read,
    Free,
}

impl Prices {
    /// What holds for the store at `url` if nothing is configured.
    pub(crate) fn of(url: &str) -> Self {
        match url.starts_with("s3://") {
            true => Self { write: S3_WRITE, read: S3_READ },
            false => Self::default(),
        }
    }

    pub(crate) fn dollars(&self, count: &OperationCount) -> f64 {
        let price = match class(count.operation) {
            Class::Write => self.write,
            Class::Read => self.read,
            Class::Free => 0.0,
        };
        count.calls as f64 * price / 1000.0
    }
}

/// As S3 bills: listings are as dear as writes.
pub(crate) fn class(operation: Operation) -> Class {
    match operation {
        Operation::Put
        | Operation::Upload
        | Operation::PutPart
        | Operation::Complete
        | Operation::Copy
        | Operation::List
        | Operation::ListUploads => Class::Write,
        Operation::Get | Operation::Head | Operation::Versions => Class::Read,
        Operation::Abort | Operation::AbortUpload | Operation::DeleteMany => Class::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_puts() {
        let count = varve_store::CountingStore::new(std::sync::Arc::new(varve_store::MemoryStore::new()))
            .counts()
            .of(Operation::Put);
        let dollars = |operation, url| {
            let mut million = count;
            (million.operation, million.calls) = (operation, 1_000_000);
            Prices::of(url).dollars(&million)
        };
        assert!((dollars(Operation::Put, "s3://b") - 5.0).abs() < 1e-9);
        assert!((dollars(Operation::Get, "s3://b") - 0.4).abs() < 1e-9);
        assert_eq!(
            (dollars(Operation::DeleteMany, "s3://b"), dollars(Operation::Put, "file:///x")),
            (0.0, 0.0)
        );
    }
}
