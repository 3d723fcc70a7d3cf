//! Logging in: SaslHandshake and SaslAuthenticate, as a broker answers them.

use std::io;

use aws_lc_rs::{constant_time, digest};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, RequestHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::super::frames::{self, Head, decode, encode};
use super::super::versions;
use super::scram::{ScramChallenge, ScramCredential};
use crate::client::{ClientError, Result as ClientResult, SaslMechanism, ScramHash, Secret};

/// Of one request before the login.
const REQUEST_MAX_BYTES: usize = 64 << 10;
/// What others may show of themselves in our log.
const SHOWN_CHARS: usize = 40;

/// Why a connection came to nothing.
#[derive(Debug)]
pub(in super::super) enum NotLetIn {
    /// In words for an administrator.
    Refused(String),
    /// It ended by itself.
    Gone(io::Error),
}

impl From<io::Error> for NotLetIn {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// The user that brokers are, and how they may say so.
#[derive(Clone)]
pub(in super::super) struct Login {
    mechanisms: Vec<SaslMechanism>,
    username: String,
    password: Secret,
    scram: Vec<ScramCredential>,
}

impl Login {
    pub(super) fn new(
        mechanisms: Vec<SaslMechanism>,
        username: &str,
        password: Secret,
    ) -> ClientResult<Self> {
        let hashes = mechanisms.iter().filter_map(|mechanism| scram_hash(*mechanism));
        let scram = hashes.map(|hash| ScramCredential::new(hash, &password)).collect();
        match mechanisms.is_empty() {
            true => Err(ClientError::config("sasl.enabled.mechanisms", "none is served")),
            false => Ok(Self { mechanisms, username: username.to_owned(), password, scram }),
        }
    }

    pub(in super::super) fn mechanisms(&self) -> Vec<&'static str> {
        self.mechanisms.iter().map(|mechanism| mechanism.name()).collect()
    }

    /// What its tokens are asked by.
    fn begin(&self, name: &str) -> Option<Exchange<'_>> {
        let mechanism = self.mechanisms.iter().find(|mechanism| mechanism.name() == name)?;
        match scram_hash(*mechanism) {
            None => Some(Exchange::Plain(self)),
            Some(hash) => {
                let credential = self.scram.iter().find(|credential| credential.hash == hash)?;
                Some(Exchange::ScramFirst(self, credential))
            }
        }
    }

    fn is_user(&self, name: &str) -> bool {
        same(name, &self.username)
    }
}

fn scram_hash(mechanism: SaslMechanism) -> Option<ScramHash> {
    match mechanism {
        SaslMechanism::ScramSha256 => Some(ScramHash::Sha256),
        SaslMechanism::ScramSha512 => Some(ScramHash::Sha512),
        SaslMechanism::Plain | SaslMechanism::OauthBearer => None,
    }
}

/// In the same time whatever they are, and however long.
fn same(found: &str, expected: &str) -> bool {
    let of = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    constant_time::verify_slices_are_equal(of(found).as_ref(), of(expected).as_ref()).is_ok()
}

/// Where a login stands.
enum Exchange<'a> {
    Plain(&'a Login),
    ScramFirst(&'a Login, &'a ScramCredential),
    ScramFinal(&'a ScramCredential, ScramChallenge),
}

/// What comes of a token.
enum Step<'a> {
    More(String, Exchange<'a>),
    In(String),
}

impl<'a> Exchange<'a> {
    fn take(self, token: &[u8]) -> Result<Step<'a>, String> {
        match self {
            Self::Plain(login) => {
                let text = std::str::from_utf8(token).map_err(|_| "its login is not UTF-8".to_owned())?;
                let mut parts = text.split('\0');
                let (Some(other), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err("its login is not one of PLAIN".to_owned());
                };
                // Both are looked at in any case.
                let (is_user, is_password) = (login.is_user(user), same(password, login.password.reveal()));
                if !is_user || !is_password || !(other.is_empty() || other == user) {
                    return Err("its user or its password is another than the one given".to_owned());
                }
                Ok(Step::In(String::new()))
            }
            Self::ScramFirst(login, credential) => {
                let begun = ScramChallenge::new(credential, |name| login.is_user(name), token);
                let (challenge, answer) = begun?;
                Ok(Step::More(answer, Self::ScramFinal(credential, challenge)))
            }
            Self::ScramFinal(credential, challenge) => challenge.finish(credential, token).map(Step::In),
        }
    }
}

/// Until whoever is there has logged in. The bound on its time is the caller's.
pub(in super::super) async fn log_in<S>(stream: &mut S, login: &Login) -> Result<(), NotLetIn>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut exchange = None;
    loop {
        let Some(frame) = frames::read(stream, REQUEST_MAX_BYTES).await? else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        let answered = answer(frame, login, &mut exchange).map_err(NotLetIn::Refused)?;
        stream.write_all(&answered.frame).await?;
        stream.flush().await?;
        match answered.outcome {
            Outcome::GoesOn => {}
            Outcome::In => return Ok(()),
            Outcome::Refused(why) => {
                // It has heard so; how the connection ends does not matter any more.
                let _ = stream.shutdown().await;
                return Err(NotLetIn::Refused(why));
            }
        }
    }
}

struct Answered {
    frame: Bytes,
    outcome: Outcome,
}

enum Outcome {
    GoesOn,
    In,
    Refused(String),
}

/// An error is what can't be answered.
fn answer<'a>(
    frame: Bytes,
    login: &'a Login,
    exchange: &mut Option<Exchange<'a>>,
) -> Result<Answered, String> {
    let head = Head::take(&mut frame.clone())?;
    let api = ApiKey::try_from(head.key).map_err(|()| not_first(&format!("request {}", head.key)))?;
    if api == ApiKey::ApiVersions {
        return Ok(Answered { frame: versions::told(head, true)?, outcome: Outcome::GoesOn });
    }
    let known = versions::login().into_iter().find(|(known, _)| *known == api);
    let (_, versions) = known.ok_or_else(|| not_first(&format!("{api:?}")))?;
    if head.version < versions.min || head.version > versions.max {
        return Err(format!("{api:?} version {}, of {} to {}", head.version, versions.min, versions.max));
    }
    if api == ApiKey::SaslHandshake {
        let request: SaslHandshakeRequest = body(api, head, frame)?;
        *exchange = login.begin(&request.mechanism);
        let (code, outcome) = match exchange {
            Some(_) => (0, Outcome::GoesOn),
            None => {
                let asked: String = request.mechanism.chars().take(SHOWN_CHARS).collect();
                let offered = login.mechanisms().join(", ");
                let why = format!(
                    "it wants to log in by {asked:?}, offered are {offered} (sasl.enabled.mechanisms)"
                );
                (ResponseError::UnsupportedSaslMechanism.code(), Outcome::Refused(why))
            }
        };
        let offered = login.mechanisms().into_iter().map(StrBytes::from_static_str).collect();
        let answer = SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(offered);
        return answered(api, head, &answer, outcome);
    }
    let request: SaslAuthenticateRequest = body(api, head, frame)?;
    let Some(begun) = exchange.take() else {
        return Err("it sent SaslAuthenticate without SaslHandshake".to_owned());
    };
    let (answer, outcome) = match begun.take(&request.auth_bytes) {
        Ok(Step::More(token, next)) => {
            *exchange = Some(next);
            (SaslAuthenticateResponse::default().with_auth_bytes(token.into()), Outcome::GoesOn)
        }
        Ok(Step::In(token)) => {
            (SaslAuthenticateResponse::default().with_auth_bytes(token.into()), Outcome::In)
        }
        Err(why) => {
            let said = StrBytes::from_static_str("Authentication failed: Invalid user credentials");
            let answer = SaslAuthenticateResponse::default()
                .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                .with_error_message(Some(said));
            let why = format!(
                "its login failed: {why}. sasl.username and sasl.password have to be those that the brokers log in \
                 with among each other"
            );
            (answer, Outcome::Refused(why))
        }
    };
    answered(api, head, &answer, outcome)
}

fn body<T: Decodable>(api: ApiKey, head: Head, mut frame: Bytes) -> Result<T, String> {
    let _: RequestHeader = decode(&mut frame, api.request_header_version(head.version))?;
    decode(&mut frame, head.version)
}

fn answered(
    api: ApiKey,
    head: Head,
    answer: &impl kafka_protocol::protocol::Encodable,
    outcome: Outcome,
) -> Result<Answered, String> {
    let header_version = api.response_header_version(head.version);
    Ok(Answered { frame: encode(answer, head.version, header_version, head.correlation_id)?, outcome })
}

fn not_first(what: &str) -> String {
    format!("it sent {what} before it logged in")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanisms: &[SaslMechanism]) -> Login {
        Login::new(mechanisms.to_vec(), "broker", Secret::new("hunter2")).unwrap()
    }

    fn plain(token: &[u8]) -> Result<(), String> {
        let login = login(&[SaslMechanism::Plain]);
        match login.begin("PLAIN").unwrap().take(token)? {
            Step::In(_) => Ok(()),
            Step::More(..) => Err("more".to_owned()),
        }
    }

    #[test]
    fn plain_takes_the_one_user() {
        plain(b"\0broker\0hunter2").unwrap();
        plain(b"broker\0broker\0hunter2").unwrap();
        let wrong: [&[u8]; 8] = [
            b"",
            b"\0broker\0hunter",
            b"\0broker\0hunter22",
            b"\0admin\0hunter2",
            b"admin\0broker\0hunter2",
            b"\0broker\0hunter2\0",
            b"\0broker",
            b"\xff\0broker\0hunter2",
        ];
        for token in wrong {
            let error = plain(token).unwrap_err();
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    /// A frame as a broker's client sends it before it has a name.
    fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
        let mut frame = Vec::new();
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(7_i32.to_be_bytes());
        frame.extend((-1_i16).to_be_bytes());
        frame.extend(body);
        frame.into()
    }

    #[test]
    fn nothing_but_versions_and_the_login_is_answered() {
        let login = login(&[SaslMechanism::Plain]);
        let mut exchange = None;
        let mut ask = |frame| answer(frame, &login, &mut exchange);
        assert!(matches!(ask(frame(18, 0, b"")).unwrap().outcome, Outcome::GoesOn));
        for (key, version) in [(1, 12), (2, 7), (36, 0), (17, 0), (99, 0)] {
            assert!(ask(frame(key, version, b"\0\0\0\0")).is_err(), "request {key}");
        }
        let unknown = ask(frame(17, 1, b"\0\x06GSSAPI")).unwrap();
        assert!(matches!(unknown.outcome, Outcome::Refused(why) if why.contains("GSSAPI")));
        assert!(matches!(ask(frame(17, 1, b"\0\x05PLAIN")).unwrap().outcome, Outcome::GoesOn));
        let wrong = ask(frame(36, 0, b"\0\0\0\x0a\0broker\0no")).unwrap();
        assert!(matches!(&wrong.outcome, Outcome::Refused(why) if why.contains("sasl.password")));
        assert_eq!(wrong.frame[8..10], 58_i16.to_be_bytes(), "SASL_AUTHENTICATION_FAILED");
        assert!(ask(frame(36, 0, b"\0\0\0\x0f\0broker\0hunter2")).is_err(), "no second try");
        ask(frame(17, 1, b"\0\x05PLAIN")).unwrap();
        let right = ask(frame(36, 0, b"\0\0\0\x0f\0broker\0hunter2")).unwrap();
        assert!(matches!(right.outcome, Outcome::In));
        assert_eq!(right.frame[8..10], [0, 0]);
    }
}
