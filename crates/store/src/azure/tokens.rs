//! Tokens of Microsoft Entra, each used until shortly before it ends.
//!
//! * As long as a token lasts nobody waits for another: it is asked for beside the requests, which go by the token that
//!   there is. If none comes, or one that is about to end too, there is a pause.
//! * Without one, requests wait for the first that is had, or each for its own refusal. One that has but moments left is
//!   none: Azure's clock may be ahead of ours, and would refuse it.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::time::OffsetDateTime;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::failure;

const SCOPE: &str = "https://storage.azure.com/.default";
/// Another is asked for before a token ends.
const MARGIN: Duration = Duration::from_secs(300);
/// A token with less left is not used.
const RESERVE: Duration = Duration::from_secs(30);
/// How long another is waited for while a token lasts, and how long none is asked for when that was in vain.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Tokens {
    credential: Arc<dyn TokenCredential>,
    held: Arc<Mutex<Option<AccessToken>>>,
    /// Whose turn it is to ask.
    turn: Arc<Turn<Asked>>,
}

/// What came of asking last.
#[derive(Debug, Default)]
struct Asked {
    in_vain: Option<Instant>,
    /// That none comes is said once, until one does.
    told: bool,
}

impl Tokens {
    pub(super) fn new(credential: Arc<dyn TokenCredential>) -> Self {
        Self { credential, held: Arc::default(), turn: Arc::default() }
    }

    pub(super) async fn bearer(&self) -> azure_core::Result<String> {
        let token = match self.usable() {
            Some(token) => {
                if !lasts(&token, MARGIN) {
                    self.renew();
                }
                token
            }
            None => self.first().await?,
        };
        Ok(format!("Bearer {}", token.token.secret()))
    }

    fn usable(&self) -> Option<AccessToken> {
        self.held.lock().clone().filter(|token| lasts(token, RESERVE))
    }

    /// In a task of its own: what Entra gives is kept, however long a request waits.
    fn renew(&self) {
        let Ok(mut asked) = Arc::clone(&self.turn).try_lock_owned() else { return };
        let renewed = self.held.lock().as_ref().is_some_and(|token| lasts(token, MARGIN));
        if renewed || asked.in_vain.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let (credential, held) = (Arc::clone(&self.credential), Arc::clone(&self.held));
        tokio::spawn(async move {
            let flaw = match tokio::time::timeout(PATIENCE, credential.get_token(&[SCOPE], None)).await {
                Ok(Ok(new)) => {
                    *asked = asked_for(&new);
                    *held.lock() = Some(new);
                    return;
                }
                Ok(Err(error)) => flaw(error),
                Err(_) => format!("none within {} ms", PATIENCE.as_millis()),
            };
            if asked.told {
                tracing::debug!(%flaw, "still no new token of Microsoft Entra");
            } else {
                tracing::warn!(%flaw, "no new token of Microsoft Entra: the former one is used while it lasts");
            }
            *asked = Asked { in_vain: Some(Instant::now()), told: true };
        });
    }

    async fn first(&self) -> azure_core::Result<AccessToken> {
        let mut asked = self.turn.lock().await;
        if let Some(other) = self.usable() {
            return Ok(other);
        }
        let new = self.credential.get_token(&[SCOPE], None).await.map_err(as_credential)?;
        *asked = asked_for(&new);
        *self.held.lock() = Some(new.clone());
        Ok(new)
    }
}

fn lasts(token: &AccessToken, time: Duration) -> bool {
    token.expires_on > OffsetDateTime::now_utc() + time
}

/// Whoever keeps tokens gives the same one again for a while.
fn asked_for(new: &AccessToken) -> Asked {
    Asked { in_vain: (!lasts(new, MARGIN)).then(Instant::now), told: false }
}

/// As of a request that failed by it: cut, and without what is secret.
fn flaw(error: azure_core::Error) -> String {
    failure::of(as_credential(error)).detail
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

    /// Gives a token of a few seconds, and then does as it is told.
    #[derive(Debug)]
    struct Entra {
        seconds: u64,
        then: Then,
        asked: AtomicUsize,
    }

    #[derive(Clone, Copy, Debug)]
    enum Then {
        Fails,
        Hangs,
        Gives { after: u64, seconds: u64 },
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
                (0, _) => Ok(token("first", self.seconds)),
                (_, Then::Fails) => Err(azure_core::Error::with_message(ErrorKind::Io, "away")),
                (_, Then::Hangs) => std::future::pending().await,
                (_, Then::Gives { after, seconds }) => {
                    tokio::time::sleep(Duration::from_secs(after)).await;
                    Ok(token("second", seconds))
                }
            }
        }
    }

    /// By a token that has so long left, a pause ago.
    async fn tokens(seconds: u64, then: Then) -> (Arc<Entra>, Tokens) {
        let entra = Arc::new(Entra { seconds, then, asked: AtomicUsize::new(0) });
        let tokens = Tokens::new(entra.clone());
        assert_eq!(tokens.bearer().await.unwrap(), "Bearer first");
        tokio::time::advance(PAUSE).await;
        (entra, tokens)
    }

    /// What a request gets, without waiting, and what else is done by then.
    async fn at_once(tokens: &Tokens) -> String {
        let begun = Instant::now();
        let bearer = tokens.bearer().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::task::yield_now().await;
        bearer
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_lasts_is_used_while_no_other_can_be_had() {
        for then in [Then::Fails, Then::Hangs] {
            let (entra, tokens) = tokens(120, then).await;
            for times in [2, 3] {
                for _ in 0..100 {
                    assert_eq!(at_once(&tokens).await, "Bearer first");
                }
                assert_eq!(entra.asked.load(Ordering::Relaxed), times, "{then:?}");
                tokio::time::sleep(PATIENCE + PAUSE).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_takes_its_place() {
        let (entra, tokens) = tokens(120, Then::Gives { after: 0, seconds: 3600 }).await;
        at_once(&tokens).await;
        for _ in 0..3 {
            assert_eq!(at_once(&tokens).await, "Bearer second");
        }
        assert_eq!(entra.asked.load(Ordering::Relaxed), 2);
    }

    /// As `az` takes its time, or a proxy.
    #[tokio::test(start_paused = true)]
    async fn a_token_that_comes_late_is_kept() {
        let (entra, tokens) = tokens(120, Then::Gives { after: 5, seconds: 3600 }).await;
        for _ in 0..5 {
            assert_eq!(at_once(&tokens).await, "Bearer first");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::task::yield_now().await;
        assert_eq!(at_once(&tokens).await, "Bearer second");
        assert_eq!(entra.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_that_is_about_to_end_too_is_not_asked_for_with_each_request() {
        let (entra, tokens) = tokens(120, Then::Gives { after: 0, seconds: 200 }).await;
        at_once(&tokens).await;
        for times in [2, 3] {
            for _ in 0..10 {
                assert_eq!(at_once(&tokens).await, "Bearer second");
            }
            assert_eq!(entra.asked.load(Ordering::Relaxed), times);
            tokio::time::advance(PAUSE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_in_its_last_moments_is_not_used() {
        let (_, later) = tokens(25, Then::Gives { after: 5, seconds: 3600 }).await;
        assert_eq!(later.bearer().await.unwrap(), "Bearer second");
        let (_, away) = tokens(25, Then::Fails).await;
        assert_eq!(*away.bearer().await.unwrap_err().kind(), ErrorKind::Credential);
    }

    #[test]
    fn a_flaw_is_cut_and_hides_what_is_secret() {
        let body = format!("https://proxy/?sig=c2VjcmV0 {}", "x".repeat(64 << 10));
        let told = flaw(azure_core::Error::with_message(ErrorKind::Io, body));
        assert!(told.len() < 2000, "{}", told.len());
        assert!(told.contains("sig=[hidden]") && !told.contains("c2VjcmV0"), "{told}");
    }
}
