//! Files of public keys that are trusted to sign snapshots.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Ed25519 keys: PEM blocks (PUBLIC KEY), or base64 of 32 bytes, one a line; `#` begins a comment.
pub(crate) fn trusted_keys(path: Option<&Path>) -> Result<Vec<[u8; 32]>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("file {}", path.display()))?;
    parse(&text).with_context(|| format!("file {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<[u8; 32]>> {
    let (mut keys, mut block) = (Vec::new(), None::<String>);
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match (&mut block, line) {
            (None, "-----BEGIN PUBLIC KEY-----") => block = Some(String::new()),
            (Some(held), "-----END PUBLIC KEY-----") => {
                keys.push(key(held)?);
                block = None;
            }
            (Some(held), line) => held.push_str(line),
            (None, line) if line.starts_with("-----BEGIN") => bail!("{line}: expected a PUBLIC KEY"),
            (None, line) => keys.push(key(line)?),
        }
    }
    if block.is_some() || keys.is_empty() {
        bail!("expected Ed25519 public keys, in PEM or in base64, one a line");
    }
    Ok(keys)
}

fn key(text: &str) -> Result<[u8; 32]> {
    let bytes = STANDARD.decode(text).context("not in base64")?;
    let raw = bytes.strip_prefix(SPKI.as_slice()).unwrap_or(&bytes);
    raw.try_into().ok().with_context(|| format!("expected an Ed25519 key of 32 bytes, found {}", raw.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_both_ways() {
        let raw = STANDARD.encode([7; 32]);
        let pem = STANDARD.encode([SPKI.as_slice(), &[8; 32]].concat());
        let text = format!("# ours\n{raw}\n\n-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
        assert_eq!(parse(&text).unwrap(), [[7; 32], [8; 32]]);
        let cut = &pem[..pem.len() - 4];
        for bad in ["", "# none", cut, "-----BEGIN PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----\nAAAA"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
