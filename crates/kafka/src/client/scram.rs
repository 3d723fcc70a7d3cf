//! SCRAM (RFC 5802, RFC 7677) as a client, without IO: it proves that both sides know the password, and
//! sends it to neither. Kafka prepares no strings: names and passwords are their UTF-8 bytes.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::Secret;

/// Kafka's own least, against a server that wants to learn a cheap hash.
const MIN_ITERATIONS: u32 = 4096;
/// Against a server that wants us to compute for ever.
const MAX_ITERATIONS: u32 = 10_000_000;
/// No channel binding.
const GS2_HEADER: &str = "n,,";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScramHash {
    Sha256,
    Sha512,
}

impl ScramHash {
    pub(crate) fn sign(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), message)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(crate) fn digest(self, bytes: &[u8]) -> digest::Digest {
        match self {
            ScramHash::Sha256 => digest::digest(&digest::SHA256, bytes),
            ScramHash::Sha512 => digest::digest(&digest::SHA512, bytes),
        }
    }

    pub(crate) fn salted_password(
        self,
        password: &str,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Zeroizing<Vec<u8>> {
        let (algorithm, bytes) = match self {
            ScramHash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            ScramHash::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut out = Zeroizing::new(vec![0; bytes]);
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut out);
        out
    }
}

/// One login. `nonce` is random printable ASCII without a comma.
pub(crate) struct Scram {
    hash: ScramHash,
    password: Secret,
    nonce: String,
    first_bare: String,
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    pub(crate) fn new(hash: ScramHash, username: &str, password: Secret, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        Self { hash, password, nonce, first_bare, server_signature: None }
    }

    pub(crate) fn first(&self) -> String {
        format!("{GS2_HEADER}{}", self.first_bare)
    }

    /// The proof that answers the server's first message.
    pub(crate) fn prove(&mut self, server_first: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(server_first).map_err(|_| "its challenge is not UTF-8".to_owned())?;
        let nonce = attribute(text, "r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its nonce does not go on from ours".to_owned());
        }
        let salt =
            STANDARD.decode(attribute(text, "s=")?).map_err(|_| "its salt is not base64".to_owned())?;
        let iterations = attribute(text, "i=")?;
        let iterations = iterations.parse().ok().filter(|n| (MIN_ITERATIONS..=MAX_ITERATIONS).contains(n));
        let iterations = iterations
            .and_then(NonZeroU32::new)
            .ok_or_else(|| format!("its iterations are not between {MIN_ITERATIONS} and {MAX_ITERATIONS}"))?;

        let salted = self.hash.salted_password(self.password.reveal(), &salt, iterations);
        let client_key = self.hash.sign(&salted, b"Client Key");
        let stored_key = self.hash.digest(client_key.as_ref());
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let auth_message = format!("{},{text},{without_proof}", self.first_bare);
        let signature = self.hash.sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(k, s)| k ^ s).collect();
        let server_key = self.hash.sign(&salted, b"Server Key");
        let signature = self.hash.sign(server_key.as_ref(), auth_message.as_bytes());
        self.server_signature = Some(signature.as_ref().to_vec());
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server knows the password too.
    pub(crate) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(server_final).map_err(|_| "its answer is not UTF-8".to_owned())?;
        if let Some(error) = text.strip_prefix("e=") {
            return Err(error.to_owned());
        }
        let found =
            STANDARD.decode(attribute(text, "v=")?).map_err(|_| "its signature is not base64".to_owned())?;
        let expected = self.server_signature.as_deref().unwrap_or_default();
        if expected.is_empty() || constant_time::verify_slices_are_equal(expected, &found).is_err() {
            return Err("it does not know the password: not the server we meant".to_owned());
        }
        Ok(())
    }
}

/// The value of the first attribute of this name (`r=`).
pub(crate) fn attribute<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    text.split(',').find_map(|part| part.strip_prefix(name)).ok_or_else(|| format!("{name} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn login() -> Scram {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        Scram::new(ScramHash::Sha256, "user", Secret::new("pencil"), nonce)
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let mut scram = login();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            scram.prove(SERVER_FIRST).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(scram.verify(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
        assert_eq!(scram.verify(b"e=invalid-proof"), Err("invalid-proof".to_owned()));
    }

    #[test]
    fn dishonest_servers_are_refused() {
        for bad in [
            &b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"[..],
            b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=*,i=4096",
            b"\xff",
            b"",
        ] {
            assert!(login().prove(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(login().verify(b"v=").is_err(), "an answer before any proof");
    }

    #[test]
    fn names_are_escaped() {
        let scram = Scram::new(ScramHash::Sha512, "a,b=c", Secret::new("x"), "N".to_owned());
        assert_eq!(scram.first(), "n,,n=a=2Cb=3Dc,r=N");
    }
}
