//! Versions of key records, where the store keeps them: which of them go once a key was wrapped anew.
//!
//! **None goes that may be all there is of another key.** A version goes if it opens to the very key that was wrapped
//! anew, or is damaged. What opens to another key, does not open, or is of a later Varve stays, and a person is told:
//! whoever can write to the store can put one over the true record, and a name of version 1 stands for a period, of
//! which a second key may have been made after the first one's record was deleted by mistake.
//!
//! A crash leaves versions that the next call looks at again, and at worst, of a name of version 1, one that is hidden.

use std::collections::BTreeMap;

use varve_format::{DataKey, KeyRecord};
use varve_store::{GetRange, Key, Version, Versions};

use super::records::{FETCH_BYTES, Records, of_store};
use crate::error::{Error, Kind, Result};

/// Of very many versions not all are told at once.
pub(super) const ROUNDS_MAX: usize = 1000;

/// Why versions stay, by their ids.
type Kept = BTreeMap<String, String>;

impl Records {
    /// All versions but the current one, which holds `data_key`.
    pub(super) async fn remove_older(&self, name: &str, data_key: &DataKey) -> Result<()> {
        let Some(versions) = self.versions().await? else { return Ok(()) };
        let kept = self.remove_before(versions, name, data_key).await?;
        let advice = "one of the two may be a stranger's: see which of them opens what was sealed, and delete the \
                      other version by hand";
        self.tell(name, &kept, advice)
    }

    /// The name that the record of `data_key` had in version 1, after it has one of its own. What stays is hidden.
    pub(super) async fn remove_version_1(&self, name: &str, data_key: &DataKey) -> Result<()> {
        let Some(versions) = self.versions().await? else { return self.remove(name).await };
        let key = self.key(name)?;
        let mut kept = self.remove_before(versions, name, data_key).await?;
        if let Some(current) = self.version_list(name).await?.pop() {
            if let Some(why) = self.stays(versions, &key, &current, data_key).await? {
                kept.insert(current.id, why);
            } else if kept.is_empty() {
                versions.delete(&key, &current.id).await.map_err(of_store("rewrap"))?;
            } else if !current.delete_marker {
                // Else one of those that stay could come up as the current one, and nobody has judged them yet.
                varve_store::delete(self.store.as_ref(), &key).await.map_err(of_store("rewrap"))?;
                versions.delete(&key, &current.id).await.map_err(of_store("rewrap"))?;
            }
            // On Azure what was current may have become one of the past by that.
            kept.extend(self.remove_before(versions, name, data_key).await?);
        }
        let advice = "if objects need its key, restore it and rewrap again, else delete it by hand";
        self.tell(name, &kept, advice)
    }

    /// All versions but the current one and those that stay.
    async fn remove_before(&self, versions: &dyn Versions, name: &str, data_key: &DataKey) -> Result<Kept> {
        let (key, mut kept) = (self.key(name)?, Kept::new());
        for _ in 0..ROUNDS_MAX {
            let mut older = self.version_list(name).await?;
            older.pop();
            older.retain(|version| !kept.contains_key(&version.id));
            if older.is_empty() {
                return Ok(kept);
            }
            for version in older {
                match self.stays(versions, &key, &version, data_key).await? {
                    Some(why) => _ = kept.insert(version.id, why),
                    None => versions.delete(&key, &version.id).await.map_err(of_store("rewrap"))?,
                }
            }
        }
        Err(self.endless("rewrap", name))
    }

    /// Why a version must stay, if it must.
    async fn stays(
        &self,
        versions: &dyn Versions,
        key: &Key,
        version: &Version,
        data_key: &DataKey,
    ) -> Result<Option<String>> {
        if version.delete_marker {
            return Ok(None);
        }
        let range = GetRange::Bounded { start: 0, end: FETCH_BYTES };
        let bytes = match versions.get(key, &version.id, range).await {
            Ok(got) => got.bytes().await.map_err(of_store("read"))?,
            // Empty, or gone meanwhile.
            Err(e) if matches!(e.kind, varve_store::Kind::InvalidRange | varve_store::Kind::NotFound) => {
                return Ok(None);
            }
            Err(e) => return Err(of_store("read")(e)),
        };
        let record = match KeyRecord::decode(&bytes) {
            Ok(record) => record,
            Err(varve_format::Error::Corrupt { .. }) => return Ok(None),
            Err(e) => return Ok(Some(format!("it can't be read ({e})"))),
        };
        if record.id != data_key.id {
            return Ok(Some(format!("it holds another data key, {}", record.id)));
        }
        match self.open(&record).await {
            Ok(opened) if opened.secret() == data_key.secret() => Ok(None),
            Ok(_) => Ok(Some("it holds another data key".to_owned())),
            Err(e) if e.kind == Kind::Unavailable => Err(e),
            Err(e) => Ok(Some(format!("it does not open ({e})"))),
        }
    }

    fn tell(&self, name: &str, kept: &Kept, advice: &str) -> Result<()> {
        let Some((version, why)) = kept.first_key_value() else { return Ok(()) };
        let others = match kept.len() - 1 {
            0 => String::new(),
            more => format!(" ({more} more stay too)"),
        };
        let detail = format!("its version {version} stays: {why}{others}; {advice}");
        Err(Error::new(Kind::Other, "rewrap", self.place(name), detail))
    }

    pub(super) fn endless(&self, operation: &'static str, name: &str) -> Error {
        let detail = "versions of it come up as fast as they are deleted";
        Error::new(Kind::Other, operation, self.place(name), detail)
    }

    /// The oldest first, the current one last.
    pub(super) async fn version_list(&self, name: &str) -> Result<Vec<Version>> {
        let (Some(versions), key) = (self.versions().await?, self.key(name)?) else { return Ok(Vec::new()) };
        let page = versions.list(name, None, 1).await.map_err(of_store("list"))?;
        let found = page.keys.into_iter().find(|found| found.key == key);
        Ok(found.map(|found| found.versions).unwrap_or_default())
    }
}
