//! Passwords of SCRAM users. No cluster tells them: they come from a file, or are made, and written into it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use varve_kafka::client::Secret;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

const PASSWORD_BYTES: usize = 24;

/// Of these users. The file has lines of NAME=PASSWORD, and is made, for its owner alone, if it is not there; whoever
/// has no line gets a new password, which is on disk before this returns.
///
/// # Errors
/// A file that can't be read or written.
pub fn passwords<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Secret>> {
    let fail = |source| Error::File { what: path.display().to_string(), source };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Zeroizing::default(),
        Err(error) => return Err(fail(error)),
    };
    let names: Vec<&str> = names.collect();
    let mut known = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // A name may have the sign in it: the longest that fits is meant.
        let fits = names.iter().filter_map(|name| Some((*name, line.strip_prefix(name)?.strip_prefix('=')?)));
        if let Some((name, password)) = fits.max_by_key(|(name, _)| name.len()) {
            known.insert(name, password);
        }
    }
    let (mut all, mut new) = (BTreeMap::new(), Zeroizing::new(String::new()));
    if !text.is_empty() && !text.ends_with('\n') {
        new.push('\n');
    }
    for name in names {
        let password = match known.get(name) {
            Some(password) => Zeroizing::new((*password).to_owned()),
            None => {
                let random: Zeroizing<[u8; PASSWORD_BYTES]> = Zeroizing::new(rand::rng().random());
                let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
                new.push_str(&format!("{name}={}\n", password.as_str()));
                password
            }
        };
        all.insert(name.to_owned(), Secret::new(password.as_str()));
    }
    if new.len() > 1 {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(fail)?;
        file.write_all(new.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_ones_are_taken_and_others_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        std::fs::write(&path, "ann=secret").unwrap();
        let first = passwords(&path, ["ann", "ben", "ann=odd name"].into_iter()).unwrap();
        assert_eq!(first["ann"].reveal(), "secret");
        assert!(first["ben"].reveal().len() >= 32 && first["ben"] != first["ann=odd name"]);
        let again = passwords(&path, ["ann", "ben", "ann=odd name"].into_iter()).unwrap();
        assert_eq!(first, again);
        let new = dir.path().join("new");
        passwords(&new, ["carl"].into_iter()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
