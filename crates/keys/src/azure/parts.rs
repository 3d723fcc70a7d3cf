//! The bytes that Azure's algorithms leave in records: frozen.

use crate::error::Kind;
use crate::retry::Failure;
use crate::sealed::{NONCE_BYTES, SEALED_BYTES};

/// Of an RSA key of 8192 bits; Azure has none above 4096.
const RSA_MAX_BYTES: usize = 1024;
/// Of an IV or a tag.
const SHORT_MAX_BYTES: usize = 64;

fn misshaped() -> Failure {
    Failure::last(Kind::Refused, "the wrapped bytes don't have the shape of this algorithm")
}

fn unfit(what: &str, bytes: usize) -> Failure {
    Failure::last(Kind::Other, format!("the answer's {what} has {bytes} bytes"))
}

/// Length of the RSA part (2 bytes, big-endian), RSA part, nonce and sealed key.
pub(super) fn join_rsa(by_rsa: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u16::try_from(by_rsa.len()).ok().filter(|_| (1..=RSA_MAX_BYTES).contains(&by_rsa.len()));
    let length = length.ok_or_else(|| unfit("RSA part", by_rsa.len()))?;
    Ok([&length.to_be_bytes(), by_rsa, sealed].concat())
}

pub(super) fn split_rsa(bytes: &[u8]) -> Result<(&[u8], &[u8]), Failure> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(misshaped)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (by_rsa, sealed) = rest.split_at_checked(length).ok_or_else(misshaped)?;
    if !(1..=RSA_MAX_BYTES).contains(&length) || sealed.len() != NONCE_BYTES + SEALED_BYTES {
        return Err(misshaped());
    }
    Ok((by_rsa, sealed))
}

/// Length of the IV (1 byte), IV, length of the tag (1 byte), tag, sealed key.
pub(super) fn join_aes(iv: &[u8], tag: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    let short = |what: &str, part: &[u8]| {
        let length = u8::try_from(part.len()).ok().filter(|_| (1..=SHORT_MAX_BYTES).contains(&part.len()));
        length.ok_or_else(|| unfit(what, part.len()))
    };
    if sealed.len() != 32 {
        return Err(unfit("ciphertext", sealed.len()));
    }
    Ok([&[short("IV", iv)?], iv, &[short("tag", tag)?], tag, sealed].concat())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct AesParts<'a> {
    pub(super) iv: &'a [u8],
    pub(super) tag: &'a [u8],
    pub(super) sealed: &'a [u8],
}

/// What the first byte counts, and the rest.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    (1..=SHORT_MAX_BYTES).contains(&length).then(|| rest.split_at_checked(length))?
}

pub(super) fn split_aes(bytes: &[u8]) -> Result<AesParts<'_>, Failure> {
    let (iv, rest) = cut(bytes).ok_or_else(misshaped)?;
    let (tag, sealed) = cut(rest).ok_or_else(misshaped)?;
    if sealed.len() != 32 {
        return Err(misshaped());
    }
    Ok(AesParts { iv, tag, sealed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_and_nothing_else_does() {
        let joined = join_rsa(&[1; 256], &[2; 60]).unwrap();
        assert_eq!(joined[..3], [1, 0, 1]);
        assert_eq!(split_rsa(&joined).unwrap(), ([1; 256].as_slice(), [2; 60].as_slice()));
        let short = join_aes(&[1; 12], &[2; 16], &[3; 32]).unwrap();
        assert_eq!(short.len(), 1 + 12 + 1 + 16 + 32);
        let parts = split_aes(&short).unwrap();
        assert_eq!(parts, AesParts { iv: &[1; 12], tag: &[2; 16], sealed: &[3; 32] });
        for at in 0..joined.len() {
            assert!(split_rsa(&joined[..at]).is_err(), "{at}");
        }
        for at in 0..short.len() {
            assert!(split_aes(&short[..at]).is_err(), "{at}");
        }
        assert!(split_rsa(&[joined.as_slice(), &[0]].concat()).is_err());
        assert!(split_aes(&[short.as_slice(), &[0]].concat()).is_err());
        assert!(join_rsa(&[], &[2; 60]).is_err() && join_rsa(&[1; 1025], &[2; 60]).is_err());
        assert!(
            join_aes(&[], &[2; 16], &[3; 32]).is_err() && join_aes(&[1; 12], &[2; 16], &[3; 31]).is_err()
        );
    }
}
