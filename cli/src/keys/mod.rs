//! What the commands that look after data keys share.

mod claims;
mod confirm;
mod needs;
mod place;
mod proof;
pub(crate) mod ring_file;
mod usage;

pub(crate) use claims::Claims;
pub(crate) use confirm::{agreed, typed};
pub(crate) use needs::{Needs, Seen};
pub(crate) use place::{KeyPlace, Topics, Wanted, topic_name};
pub(crate) use proof::{Proof, prove};
pub(crate) use usage::{KeyOf, State, Usage};

use anyhow::{Context, Result};
use varve_format::KeyRecordName;
use varve_keys::DataKeys;
use zeroize::Zeroizing;

/// All key records and tombstones that are wanted. Their names are held, of which there are few beside objects.
pub(crate) async fn names(
    keys: &DataKeys,
    wanted: impl Fn(&KeyRecordName) -> bool,
) -> Result<Vec<KeyRecordName>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = keys.page(after.as_ref()).await?;
        all.extend(page.into_iter().filter(|name| wanted(name)));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// Of `many` one thing, of more several.
pub(crate) fn counted(many: u64, one: &str) -> String {
    let plural = if many == 1 { "" } else { "s" };
    format!("{} {one}{plural}", crate::output::grouped(many))
}

/// Of the system's generator.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).context("the system gives no random bytes")?;
    Ok(secret)
}
