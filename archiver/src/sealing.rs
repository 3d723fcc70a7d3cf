//! Which topics are sealed and by which keys; and the keys of what was sealed before.
//!
//! A key service may be slow or away. Those who write for many partitions at once never wait for it: they take the
//! key that is [at hand](Sealing::at_hand), which is asked for anew in time, and where none is, whoever needs it waits
//! in a task of its own. A key is used for as long as [`DataKeys`] says and no longer; within that time what comes
//! is sealed though the service is away, also by the key of a period that has just ended. Each object has a salt of
//! its own, whatever becomes of it.
//!
//! A crash leaves a data key that nothing uses, at most.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use varve_archive::ArchivedObject;
use varve_format::{DataKey, Encryption, Footer, Id, KEY_RING_MAX_BYTES, KeyRing};
use varve_keys::{DataKeys, KeyServices, KeyUrl, Kind, Trusted};
use varve_store::SharedStore;
use zeroize::Zeroizing;

use crate::clock;
use crate::config::EncryptionConfig;
use crate::error::{Error, Result};
use crate::segment::Topic;

/// Between two questions for a key that still may be used.
const AGAIN: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct Sealing {
    config: EncryptionConfig,
    /// `None` where no key is configured at all.
    keys: Option<DataKeys>,
    /// The key ring's active key.
    ring: Option<KeyUrl>,
    /// By topic.
    known: Mutex<HashMap<Id, Known>>,
}

/// What the next object of a topic is sealed with.
#[derive(Debug)]
pub(crate) enum AtHand {
    /// `None` where the topic isn't sealed.
    Now(Option<Encryption>),
    /// Its key is being asked for: see [`Sealing::seal`].
    Later,
}

#[derive(Default)]
struct Known {
    key: Option<(DataKey, String)>,
    /// Until when `key` may be used.
    until: Option<Instant>,
    /// Not before that it is asked for anew.
    again: Option<Instant>,
    is_asked: bool,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Sealing {
    /// Reads the key ring's file, and asks nothing of the network. The keys' records are in `store`.
    ///
    /// # Errors
    /// [`Error::Keys`] for what is wrong with a file, or with a setting.
    pub(crate) fn open(config: &EncryptionConfig, store: SharedStore) -> Result<Arc<Self>> {
        let ring = config.key_ring_file.as_deref().map(read_ring).transpose()?.map(Arc::new);
        let keys = match ring.is_some() || config.keys().next().is_some() {
            true => {
                let services = KeyServices::new(&config.key_settings, ring.clone())?;
                let trusted = Trusted::new(config.keys().cloned(), ring.is_some());
                Some(DataKeys::new(store, services, trusted, config.key_cache))
            }
            false => None,
        };
        let ring = ring.map(|ring| KeyUrl::parse(&format!("ring:{}", ring.active()))).transpose()?;
        Ok(Arc::new(Self { config: config.clone(), keys, ring, known: Mutex::default() }))
    }

    /// What wraps a topic's data keys; `None` if it isn't sealed.
    ///
    /// # Errors
    /// [`Error::Keys`] where it is to be sealed, and no key is there for it.
    fn for_topic(&self, topic: &str) -> Result<Option<(&DataKeys, &KeyUrl)>> {
        if !self.config.seals(topic) {
            return Ok(None);
        }
        match (&self.keys, self.config.key_of(topic).or(self.ring.as_ref())) {
            (Some(keys), Some(kek)) => Ok(Some((keys, kek))),
            _ => Err(failure(Kind::Invalid, topic, "to be sealed, and encryption.key is not set")),
        }
    }

    pub(crate) fn seals(&self, topic: &str) -> bool {
        self.config.seals(topic)
    }

    /// Whatever goes wrong elsewhere: nothing of a topic that is to be sealed is written plain.
    ///
    /// # Errors
    /// [`Error::Unexpected`].
    pub(crate) fn check(&self, topic: &str, seal: Option<&Encryption>) -> Result<()> {
        if self.seals(topic) && seal.is_none() {
            return Err(Error::unexpected(topic, "a key to seal it with", "none"));
        }
        Ok(())
    }

    /// What an object of the topic that is begun now is sealed with, without waiting.
    ///
    /// # Errors
    /// Of the configuration; of the random generator.
    pub(crate) fn at_hand(self: &Arc<Self>, topic: &Arc<Topic>) -> Result<AtHand> {
        if self.for_topic(&topic.name)?.is_none() {
            return Ok(AtHand::Now(None));
        }
        let (now, period) = (Instant::now(), self.config.key_period.at(clock::now_ms()));
        let mut all = self.known.lock();
        let known = all.entry(topic.topic_id).or_default();
        let usable = known.usable(now);
        let is_old = known.is_old(now, self.config.key_cache, &period);
        if is_old && !known.is_asked && known.again.is_none_or(|again| again <= now) {
            known.is_asked = true;
            let (sealing, topic) = (Arc::clone(self), Arc::clone(topic));
            tokio::spawn(async move {
                if let Err(error) = sealing.seal(&topic).await {
                    tracing::debug!(topic = topic.name, %error, "no new data key yet");
                }
            });
        }
        match usable {
            Some((key, period)) => Ok(AtHand::Now(Some(with_salt(key, period)?))),
            None => Ok(AtHand::Later),
        }
    }

    /// What an object of the topic that is begun now is sealed with, if it is.
    ///
    /// # Errors
    /// [`Error::Keys`]: it can't be written for now, or somebody must see to it.
    pub(crate) async fn seal(&self, topic: &Topic) -> Result<Option<Encryption>> {
        let Some((keys, kek)) = self.for_topic(&topic.name)? else { return Ok(None) };
        let (period, now_ms) = (self.config.key_period, clock::now_ms());
        let asked = keys.for_write_until(&topic.cluster_id, topic.topic_id, kek, period, now_ms).await;
        let now = Instant::now();
        let (key, period) = {
            let mut all = self.known.lock();
            // Of topics that are gone nothing stays.
            all.retain(|id, known| *id == topic.topic_id || known.is_asked || known.usable(now).is_some());
            let known = all.entry(topic.topic_id).or_default();
            known.is_asked = false;
            known.again = Some(now + AGAIN);
            match asked {
                Ok((key, period, until)) => {
                    (known.key, known.until) = (Some((key.clone(), period.clone())), Some(until));
                    (key, period)
                }
                Err(error) => match known.usable(now).filter(|_| error.kind == Kind::Unavailable) {
                    Some(usable) => usable,
                    None => {
                        // What doesn't pass by itself counts at once.
                        all.remove(&topic.topic_id);
                        return Err(error.into());
                    }
                },
            }
        };
        with_salt(key, period).map(Some)
    }

    /// The key of a sealed object that is in the archive; `None` of one that isn't sealed.
    ///
    /// # Errors
    /// [`Error::Keys`]: it can't be had, and why.
    pub(crate) async fn key_of(&self, object: &str, footer: &Footer) -> Result<Option<DataKey>> {
        let Some(info) = &footer.encryption else { return Ok(None) };
        let Some(keys) = &self.keys else {
            let why = "it is sealed, and the configuration's section encryption names no key";
            return Err(failure(Kind::Denied, object, why));
        };
        Ok(Some(keys.for_read(&footer.info.cluster_id, footer.info.topic_id, info).await?))
    }

    /// Opens an object if it is sealed. `false` where it is to stay so: its data key was destroyed on purpose, or no
    /// key is configured at all.
    ///
    /// # Errors
    /// [`Error::Keys`]: it can't be had, and why. Of the store; altered bytes.
    pub(crate) async fn unlock(&self, object: &mut ArchivedObject) -> Result<bool> {
        if object.encryption().is_some() && self.keys.is_none() {
            return Ok(false);
        }
        match self.key_of(object.name(), object.footer()).await {
            Ok(None) => Ok(true),
            Ok(Some(key)) => {
                object.unlock(&key).await?;
                Ok(true)
            }
            Err(Error::Keys(error)) if error.kind == Kind::Destroyed => {
                tracing::warn!(%error, object = object.name(), "nothing opens what was archived before");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Known {
    fn usable(&self, now: Instant) -> Option<(DataKey, String)> {
        self.key.clone().filter(|_| self.until.is_some_and(|until| now < until))
    }

    /// Whether it is time for a new one.
    fn is_old(&self, now: Instant, cache: Duration, period: &str) -> bool {
        let fresh = self.until.is_some_and(|until| now + cache / 2 < until);
        !fresh || self.key.as_ref().is_none_or(|(_, of)| of != period)
    }
}

fn with_salt(key: DataKey, period: String) -> Result<Encryption> {
    let mut salt = [0; 32];
    aws_lc_rs::rand::fill(&mut salt)
        .map_err(|_| failure(Kind::Other, "a salt", "the random generator failed"))?;
    Ok(Encryption { key, period, salt })
}

fn failure(kind: Kind, what: &str, why: &str) -> Error {
    let (key, detail) = (what.to_owned(), why.to_owned());
    Error::Keys(varve_keys::Error { kind, operation: "keys", key, detail })
}

fn read_ring(path: &Path) -> Result<KeyRing> {
    let refuse = |why: String| failure(Kind::Invalid, &format!("key ring {}", path.display()), &why);
    // All at once: a text that grows leaves copies of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_RING_MAX_BYTES + 1));
    let file = std::fs::File::open(path).map_err(|e| refuse(e.to_string()))?;
    file.take(KEY_RING_MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(|e| refuse(e.to_string()))?;
    KeyRing::parse(&text).map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests;
