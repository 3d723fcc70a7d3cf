//! What a snapshot says whose cluster could not be asked: that its state of the cluster is an earlier snapshot's.

use serde::{Deserialize, Serialize};
use varve_archive::{Archive, Record, RecordError, Snapshot, V1};

use crate::document::document_of;

/// A snapshot's cluster state is that of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierState {
    pub varve_earlier_state: V1,
    /// The number of the snapshot for which it was collected.
    pub snapshot: u64,
    /// When that was made.
    pub created_ms: i64,
}

impl EarlierState {
    /// Among a snapshot's documents.
    pub const DOCUMENT: &'static str = "cluster-state-of";
    pub const FORMAT: &'static str = "varve.earlier-state.v1";

    /// What a snapshot says; `None` if its state is its own.
    ///
    /// # Errors
    /// Of the archive, and for what is no such record.
    pub async fn of(archive: &Archive, snapshot: &Snapshot) -> varve_archive::Result<Option<Self>> {
        document_of(archive, snapshot, Self::DOCUMENT).await
    }
}

impl Record for EarlierState {
    const NAME: &'static str = "varve_earlier_state";
    const MAX_BYTES: u64 = 4096;

    fn check(&self) -> Result<(), RecordError> {
        let holds = self.snapshot > 0 && self.created_ms >= 0;
        let found = || format!("snapshot {} of {}", self.snapshot, self.created_ms);
        let expected = "a number above 0 and a time".to_owned();
        holds.then_some(()).ok_or_else(|| RecordError::Corrupt { what: "snapshot", expected, found: found() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let earlier = EarlierState { varve_earlier_state: V1, snapshot: 411, created_ms: 1_700_000_000_000 };
        let bytes = earlier.encode().unwrap();
        let text = r#"{"varve_earlier_state":1,"snapshot":411,"created_ms":1700000000000}"#;
        assert_eq!(String::from_utf8_lossy(&bytes), text);
        assert_eq!(EarlierState::decode(&bytes).unwrap(), earlier);
        for wrong in [text.replace("411", "0"), text.replace(":1,", ":2,"), text.replace("411", "411 ")] {
            assert!(EarlierState::decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
