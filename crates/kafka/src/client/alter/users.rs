//! Giving SCRAM users a password.

use std::num::NonZeroU32;

use bytes::Bytes;
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;
use rand::Rng as _;

use super::super::admin::{AdminError, AdminResult, NeededAcl, ScramCredential};
use super::super::asking::Refused;
use super::super::cluster::Client;
use super::super::scram::ScramHash;
use super::super::secret::Secret;

const SALT_BYTES: usize = 24;

impl Client {
    /// The same password for each of these mechanisms, each with a salt of its own. The password itself stays here.
    pub async fn set_scram_user(
        &self,
        name: &str,
        credentials: &[ScramCredential],
        password: &Secret,
    ) -> AdminResult<()> {
        let what = format!("setting the password of SCRAM user {name}");
        let mut upsertions = Vec::with_capacity(credentials.len());
        for credential in credentials {
            let known = match credential.mechanism.as_str() {
                "SCRAM-SHA-256" => Some((1, ScramHash::Sha256)),
                "SCRAM-SHA-512" => Some((2, ScramHash::Sha512)),
                _ => None,
            };
            let iterations = u32::try_from(credential.iterations).ok().and_then(NonZeroU32::new);
            let (Some((mechanism, hash)), Some(iterations)) = (known, iterations) else {
                let detail = format!("{} with {} iterations", credential.mechanism, credential.iterations);
                return Err(AdminError::Unsupported { what, detail });
            };
            let salt: [u8; SALT_BYTES] = rand::rng().random();
            let salted = hash.salted_password(password.reveal(), &salt, iterations);
            upsertions.push(
                ScramCredentialUpsertion::default()
                    .with_name(StrBytes::from_string(name.to_owned()))
                    .with_mechanism(mechanism)
                    .with_iterations(credential.iterations)
                    .with_salt(Bytes::copy_from_slice(&salt))
                    .with_salted_password(Bytes::copy_from_slice(&salted)),
            );
        }
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(upsertions);
        let refused = |answer: &AlterUserScramCredentialsResponse| {
            let needs = || NeededAcl::on_cluster("Alter");
            Refused::worst(answer.results.iter().map(|r| Refused::by(r.error_code, needs())))
        };
        self.ask_any_broker(&what, &request, refused).await.map(drop)
    }
}
