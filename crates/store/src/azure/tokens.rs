//! Tokens of Microsoft Entra, each used until shortly before it ends.
//!
//! * As long as a token lasts nobody waits for another for more than a moment: one request asks for it, the others go by
//!   the token that there is, and after a failure there is a pause.
//! * Without one, requests wait for the first that is had, or each for its own refusal.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::failure::chain;

const SCOPE: &str = "https://storage.azure.com/.default";
/// Another is asked for before a token ends.
const MARGIN: Duration = Duration::from_secs(300);
/// How long another is waited for while a token lasts, and how long none is asked for when that failed.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Tokens {
    credential: Arc<dyn TokenCredential>,
    held: Mutex<Option<AccessToken>>,
    /// Whose turn it is to ask; when that failed last.
    turn: Turn<Option<Instant>>,
}

impl Tokens {
    pub(super) fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self { credential, held: Mutex::default(), turn: Turn::default() }
    }

    pub(super) async fn bearer(&self) -> azure_core::Result<String> {
        let token = match (self.lasting(MARGIN), self.lasting(Duration::ZERO)) {
            (Some(token), _) => token,
            (None, Some(token)) => self.renewed(token).await,
            (None, None) => self.first().await?,
        };
        Ok(format!("Bearer {}", token.token.secret()))
    }

    fn lasting(&self, margin: Duration) -> Option<AccessToken> {
        self.held.lock().clone().filter(|token| token.expires_on > OffsetDateTime::now_utc() + margin)
    }

    /// In place of `token`, which lasts still.
    async fn renewed(&self, token: AccessToken) -> AccessToken {
        let Ok(mut failed) = self.turn.try_lock() else { return token };
        if let Some(other) = self.lasting(MARGIN) {
            return other;
        }
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return token;
        }
        let flaw = match tokio::time::timeout(PATIENCE, self.credential.get_token(&[SCOPE], None)).await {
            Ok(Ok(new)) => {
                *failed = None;
                return self.hold(new);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("none within {} ms", PATIENCE.as_millis()),
        };
        tracing::warn!(%flaw, "no new token of Microsoft Entra: the former one is used while it lasts");
        *failed = Some(Instant::now());
        token
    }

    async fn first(&self) -> azure_core::Result<AccessToken> {
        let _turn = self.turn.lock().await;
        if let Some(other) = self.lasting(Duration::ZERO) {
            return Ok(other);
        }
        let new = self.credential.get_token(&[SCOPE], None).await.map_err(as_credential)?;
        Ok(self.hold(new))
    }

    fn hold(&self, token: AccessToken) -> AccessToken {
        *self.held.lock() = Some(token.clone());
        token
    }
}

/// So that it is told from a failure of the store itself.
fn as_credential(error: azure_core::Error) -> azure_core::Error {
    match error.kind() {
        ErrorKind::Credential => error,
        _ => azure_core::Error::with_error(ErrorKind::Credential, error, "no token"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use azure_core::credentials::{Secret, TokenRequestOptions};

    use super::*;

    /// Gives a token of two minutes, and then does as it is told.
    #[derive(Debug)]
    struct Entra {
        then: Then,
        asked: AtomicUsize,
    }

    #[derive(Clone, Copy, Debug)]
    enum Then {
        Fails,
        Hangs,
        Gives,
    }

    #[async_trait]
    impl TokenCredential for Entra {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            let token = |secret: &str, seconds| {
                let expires_on = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
                AccessToken { token: Secret::new(secret.to_owned()), expires_on }
            };
            match (self.asked.fetch_add(1, Ordering::Relaxed), self.then) {
                (0, _) => Ok(token("first", 120)),
                (_, Then::Fails) => Err(azure_core::Error::with_message(ErrorKind::Io, "away")),
                (_, Then::Hangs) => std::future::pending().await,
                (_, Then::Gives) => Ok(token("second", 3600)),
            }
        }
    }

    /// By a token that is about to end.
    async fn tokens(then: Then) -> (Arc<Entra>, Tokens) {
        let entra = Arc::new(Entra { then, asked: AtomicUsize::new(0) });
        let tokens = Tokens::new(entra.clone());
        assert_eq!(tokens.bearer().await.unwrap(), "Bearer first");
        (entra, tokens)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_lasts_is_used_while_no_other_can_be_had() {
        for then in [Then::Fails, Then::Hangs] {
            let (entra, tokens) = tokens(then).await;
            let begun = Instant::now();
            for _ in 0..100 {
                let bearer = tokio::time::timeout(Duration::from_secs(60), tokens.bearer()).await;
                assert_eq!(bearer.expect("not waited for").unwrap(), "Bearer first");
            }
            assert_eq!(entra.asked.load(Ordering::Relaxed), 2, "{then:?}");
            assert!(begun.elapsed() <= Duration::from_secs(5), "{then:?}: {:?}", begun.elapsed());
            // Later it is asked again.
            tokio::time::advance(Duration::from_secs(31)).await;
            assert_eq!(tokens.bearer().await.unwrap(), "Bearer first");
            assert_eq!(entra.asked.load(Ordering::Relaxed), 3, "{then:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_and_others_do_not_wait_while_a_token_lasts() {
        let (entra, tokens) = tokens(Then::Hangs).await;
        let begun = Instant::now();
        let asks = async {
            tokens.bearer().await.unwrap();
            begun.elapsed()
        };
        let other = async {
            tokens.bearer().await.unwrap();
            begun.elapsed()
        };
        let both = async { tokio::join!(asks, other) };
        let (asks, other) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("an end");
        assert!(asks > Duration::ZERO && other == Duration::ZERO, "{asks:?} {other:?}");
        assert_eq!(entra.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_takes_its_place() {
        let (entra, tokens) = tokens(Then::Gives).await;
        for _ in 0..3 {
            assert_eq!(tokens.bearer().await.unwrap(), "Bearer second");
        }
        assert_eq!(entra.asked.load(Ordering::Relaxed), 2);
    }
}
