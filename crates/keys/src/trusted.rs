//! Which keys may have wrapped what is opened. A key record names its key itself, and whoever can write to the store
//! can write one: followed blindly, it would send our requests, and their credentials' powers, to a key of a
//! stranger's choice.

use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Service};

/// See the module. `Default` trusts none.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    keys: Vec<KeyUrl>,
    ring: bool,
}

impl Trusted {
    /// The keys of a configuration and, with `ring`, all of the file key ring's.
    pub fn new(keys: impl IntoIterator<Item = KeyUrl>, ring: bool) -> Self {
        Self { keys: keys.into_iter().collect(), ring }
    }

    pub(crate) fn keys(&self) -> &[KeyUrl] {
        &self.keys
    }

    /// # Errors
    /// [`Kind::Denied`], saying what to configure.
    pub fn check(&self, used: &KeyUrl) -> Result<()> {
        if self.ring && used.service() == Service::Ring {
            return Ok(());
        }
        let said: Vec<_> = self.keys.iter().map(|key| key.covers(used)).collect();
        if said.contains(&Some(true)) {
            return Ok(());
        }
        let why = if said.contains(&None) {
            "no configured key is this one for certain: an alias says nothing of a key, so name the key itself"
        } else if used.service() == Service::Ring {
            "it is of a file key ring, and none is configured"
        } else {
            "it is not among the configured keys: name it there if it is yours"
        };
        Err(Error::new(Kind::Denied, "unwrap", used, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_configured_is_asked() {
        let url = |text: &str| KeyUrl::parse(text).unwrap();
        let trusted =
            Trusted::new([url("azure-kms://a.vault.azure.net/keys/k"), url("vault://v/transit/k")], false);
        for fine in ["azure-kms://a.vault.azure.net/keys/k/0a", "vault://v:8200/transit/k"] {
            trusted.check(&url(fine)).unwrap();
        }
        for (strange, says) in [
            ("azure-kms://b.vault.azure.net/keys/k/0a", "not among"),
            ("vault://v:8201/transit/k", "not among"),
            ("ring:2026", "key ring"),
        ] {
            let refused = trusted.check(&url(strange)).unwrap_err();
            assert!(refused.kind == Kind::Denied && refused.detail.contains(says), "{refused}");
        }
        let alias = Trusted::new([url("aws-kms://eu-west-1/alias/a")], true);
        let arn = url("aws-kms://arn:aws:kms:eu-west-1:111122223333:key/x");
        assert!(alias.check(&arn).unwrap_err().detail.contains("alias"));
        alias.check(&url("ring:any")).unwrap();
    }
}
