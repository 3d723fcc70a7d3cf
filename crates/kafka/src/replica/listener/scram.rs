//! SCRAM (RFC 5802, RFC 7677) as the server, without IO, for the one user that brokers log in as. The client's side is
//! the client's.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use rand::distr::Alphanumeric;

use crate::client::{ScramHash, Secret, scram_attribute};

/// Kafka's clients take no fewer than 4096.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(8192).expect("it is not 0");
const NONCE_CHARS: usize = 32;
/// Base64 of `n,,`, of a client without channel binding, and what it may have instead.
const GS2_HEADERS: [&str; 2] = ["n,,", "y,,"];

/// What a server keeps of a password.
#[derive(Clone)]
pub(super) struct ScramCredential {
    pub(super) hash: ScramHash,
    salt: [u8; 20],
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ScramCredential {
    pub(super) fn new(hash: ScramHash, password: &Secret) -> Self {
        Self::salted(hash, password, rand::rng().random())
    }

    fn salted(hash: ScramHash, password: &Secret, salt: [u8; 20]) -> Self {
        let salted = hash.salted_password(password.reveal(), &salt, ITERATIONS);
        let stored_key = hash.digest(hash.sign(&salted, b"Client Key").as_ref());
        let server_key = hash.sign(&salted, b"Server Key");
        Self {
            hash,
            salt,
            stored_key: stored_key.as_ref().to_vec(),
            server_key: server_key.as_ref().to_vec(),
        }
    }
}

/// Between the client's first message and its proof.
pub(super) struct ScramChallenge {
    gs2_header: &'static str,
    /// `client-first-message-bare,server-first-message`.
    so_far: String,
    nonce: String,
    /// A wrong one is challenged like the right one, and refused at the end.
    is_user: bool,
}

impl ScramChallenge {
    /// Of the client's first message; and what the server says to it.
    pub(super) fn new(
        credential: &ScramCredential,
        is_user: impl Fn(&str) -> bool,
        client_first: &[u8],
    ) -> Result<(Self, String), String> {
        let own: String = rand::rng().sample_iter(Alphanumeric).take(NONCE_CHARS).map(char::from).collect();
        Self::with_nonce(credential, is_user, client_first, &own)
    }

    fn with_nonce(
        credential: &ScramCredential,
        is_user: impl Fn(&str) -> bool,
        client_first: &[u8],
        own: &str,
    ) -> Result<(Self, String), String> {
        let text =
            std::str::from_utf8(client_first).map_err(|_| "its first message is not UTF-8".to_owned())?;
        let header = GS2_HEADERS.into_iter().find(|header| text.starts_with(header));
        let gs2_header = header.ok_or("it wants channel binding, or to be somebody else")?;
        let bare = text.get(gs2_header.len()..).unwrap_or_default();
        if bare.starts_with("m=") || bare.split(',').any(|part| part == "tokenauth=true") {
            return Err("it logs in by a delegation token, or by an extension that is not known".to_owned());
        }
        let name = scram_attribute(bare, "n=")?.replace("=2C", ",").replace("=3D", "=");
        let nonce = scram_attribute(bare, "r=")?;
        if nonce.is_empty() {
            return Err("its nonce is empty".to_owned());
        }
        let nonce = format!("{nonce}{own}");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(credential.salt));
        let so_far = format!("{bare},{answer}");
        Ok((Self { gs2_header, so_far, nonce, is_user: is_user(&name) }, answer))
    }

    /// The signature that shows the client that we know the password too; an error is for the log.
    pub(super) fn finish(&self, credential: &ScramCredential, client_final: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(client_final).map_err(|_| "its proof is not UTF-8".to_owned())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or("it sent no proof")?;
        let proof = STANDARD.decode(proof).map_err(|_| "its proof is not base64".to_owned())?;
        if scram_attribute(without_proof, "c=")? != STANDARD.encode(self.gs2_header) {
            return Err("its two messages don't have the same header".to_owned());
        }
        if scram_attribute(without_proof, "r=")? != self.nonce {
            return Err("its nonce is not ours".to_owned());
        }
        let hash = credential.hash;
        let message = format!("{},{without_proof}", self.so_far);
        let signature = hash.sign(&credential.stored_key, message.as_bytes());
        let signature = signature.as_ref();
        // Of another length it can't be the key's.
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(p, s)| p ^ s).collect();
        let stored_key = hash.digest(&client_key);
        let is_proof = proof.len() == signature.len()
            && constant_time::verify_slices_are_equal(stored_key.as_ref(), &credential.stored_key).is_ok();
        if !is_proof || !self.is_user {
            return Err("its user or its password is another than the one given".to_owned());
        }
        let signature = hash.sign(&credential.server_key, message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Scram;

    fn is_user(name: &str) -> bool {
        name == "a,b=c"
    }

    fn credential(hash: ScramHash) -> ScramCredential {
        ScramCredential::new(hash, &Secret::new("pencil"))
    }

    /// As the client of this crate does it, which is held against the RFC's example and against Kafka.
    fn login(hash: ScramHash, user: &str, password: &str) -> Result<(), String> {
        let credential = credential(hash);
        let mut client = Scram::new(hash, user, Secret::new(password), "abc".to_owned());
        let (challenge, first) = ScramChallenge::new(&credential, is_user, client.first().as_bytes())?;
        let proof = client.prove(first.as_bytes())?;
        let last = challenge.finish(&credential, proof.as_bytes())?;
        client.verify(last.as_bytes())
    }

    #[test]
    fn only_the_user_with_the_password_comes_in_and_both_sides_know() {
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            login(hash, "a,b=c", "pencil").unwrap();
            let wrong = [login(hash, "a,b=c", "pencils"), login(hash, "a", "pencil"), login(hash, "", "")];
            for outcome in wrong {
                assert!(outcome.unwrap_err().contains("user or its password"));
            }
        }
    }

    #[test]
    fn what_is_no_login_is_refused() {
        let credential = credential(ScramHash::Sha256);
        let firsts: [&[u8]; 8] = [
            b"",
            b"\xff",
            b"p=tls-unique,,n=u,r=abc",
            b"n,a=root,n=u,r=abc",
            b"n,,m=x,n=u,r=abc",
            b"n,,n=u,r=",
            b"n,,n=u",
            b"n,,n=u,r=abc,tokenauth=true",
        ];
        for first in firsts {
            let outcome = ScramChallenge::new(&credential, is_user, first);
            assert!(outcome.is_err(), "{}", String::from_utf8_lossy(first));
        }
        let (challenge, _) =
            ScramChallenge::with_nonce(&credential, is_user, b"n,,n=a=2Cb=3Dc,r=abc", "xyz").unwrap();
        for last in [
            "",
            "c=biws,r=abcxyz",
            "c=biws,r=abcxyz,p=",
            "c=biws,r=abcxyz,p=*",
            "c=biws,r=abc,p=AAAA",
            "c=eSws,r=abcxyz,p=AAAA",
        ] {
            assert!(challenge.finish(&credential, last.as_bytes()).is_err(), "{last}");
        }
    }
}
