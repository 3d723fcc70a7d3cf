//! Logging in on a fresh connection.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;
use rand::distr::Alphanumeric;

use super::config::{Sasl, SaslMechanism};
use super::connection::Connection;
use super::error::{ClientError, Result};
use super::oauth::Oauth;
use super::scram::{Scram, ScramHash};

/// How long the broker lets this login live; `None` is for ever.
pub(crate) async fn login(connection: &Connection, sasl: &Sasl) -> Result<Option<Duration>> {
    let mechanism = sasl.mechanism.name();
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer = connection.call(request).await?;
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        let offered: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
        let detail = format!("{code}; the broker offers {}", offered.join(", "));
        return Err(failed(connection, mechanism, detail));
    }
    match sasl.mechanism {
        SaslMechanism::Plain => {
            let token = format!("\0{}\0{}", sasl.username, sasl.password.reveal());
            let (_, lifetime) = exchange(connection, mechanism, token).await?;
            Ok(lifetime)
        }
        SaslMechanism::ScramSha256 => scram(connection, mechanism, ScramHash::Sha256, sasl).await,
        SaslMechanism::OauthBearer => match &sasl.oauth {
            Some(oauth) => bearer(connection, mechanism, oauth).await,
            None => Err(failed(connection, mechanism, "no token endpoint is configured".to_owned())),
        },
        SaslMechanism::ScramSha512 => scram(connection, mechanism, ScramHash::Sha512, sasl).await,
    }
}

async fn bearer(connection: &Connection, mechanism: &'static str, oauth: &Oauth) -> Result<Option<Duration>> {
    let message = oauth.first_message().await?;
    let (refusal, lifetime) = exchange(connection, mechanism, message.to_string()).await?;
    // A broker that does not like the token says why, and awaits a word before it refuses.
    if !refusal.is_empty() {
        return Err(failed(connection, mechanism, String::from_utf8_lossy(&refusal).into_owned()));
    }
    Ok(lifetime)
}

async fn scram(
    connection: &Connection,
    mechanism: &'static str,
    hash: ScramHash,
    sasl: &Sasl,
) -> Result<Option<Duration>> {
    let nonce = rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect();
    let mut scram = Scram::new(hash, &sasl.username, sasl.password.clone(), nonce);
    let (challenge, _) = exchange(connection, mechanism, scram.first()).await?;
    let proof = scram.prove(&challenge).map_err(|e| failed(connection, mechanism, e))?;
    let (answer, lifetime) = exchange(connection, mechanism, proof).await?;
    scram.verify(&answer).map_err(|e| failed(connection, mechanism, e))?;
    Ok(lifetime)
}

async fn exchange(
    connection: &Connection,
    mechanism: &'static str,
    token: String,
) -> Result<(Bytes, Option<Duration>)> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
    let answer = connection.call(request).await?;
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        let said = answer.error_message.as_ref().map_or("", |m| m.as_str());
        return Err(failed(connection, mechanism, format!("{code}: {said}")));
    }
    let lifetime = u64::try_from(answer.session_lifetime_ms).ok().filter(|ms| *ms > 0);
    Ok((answer.auth_bytes, lifetime.map(Duration::from_millis)))
}

fn failed(connection: &Connection, mechanism: &'static str, detail: String) -> ClientError {
    ClientError::Authentication { broker: connection.broker().to_owned(), mechanism, detail }
}
