//! Who writes: one producer id for the whole restore, on disk before it is used, so that whoever goes on is the same.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use varve_kafka::client::Client;
use varve_kafka::protocol::Sequence;

use super::map::MapDir;
use crate::error::{Error, Result};

const FILE: &str = "producer.json";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    producer_id: i64,
    producer_epoch: i16,
}

impl Identity {
    /// Of a batch that begins at this offset of the target: sequences count as offsets do.
    pub(super) fn at(self, target: i64) -> Sequence {
        Sequence {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: (target & i64::from(i32::MAX)) as i32,
        }
    }
}

/// The one that an earlier apply had, or a new one.
///
/// # Errors
/// Of the target and of the file system.
pub(crate) async fn identity(dir: &MapDir, client: &Client) -> Result<Identity> {
    let path = dir.path().join(FILE);
    let fail = |source| Error::File { what: path.display().to_string(), source };
    match std::fs::read(&path) {
        Ok(text) => {
            return serde_json::from_slice(&text).map_err(|e| fail(e.into()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let (producer_id, producer_epoch) = client.new_producer_id().await?;
    let new = Identity { producer_id, producer_epoch };
    let draft = path.with_extension("new");
    let mut file = std::fs::File::create(&draft).map_err(fail)?;
    file.write_all(&serde_json::to_vec(&new).map_err(|e| fail(e.into()))?).map_err(fail)?;
    file.sync_all().and_then(|()| std::fs::rename(&draft, &path)).map_err(fail)?;
    std::fs::File::open(dir.path()).and_then(|dir| dir.sync_all()).map_err(fail)?;
    Ok(new)
}
