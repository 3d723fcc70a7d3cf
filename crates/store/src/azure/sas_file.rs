//! A shared access signature in a file, which is replaced while it is in use.
//!
//! * The file is looked at when the signature is asked for, at most every minute.
//! * Content that is no good changes nothing: the former signature stays, a warning says what is wrong, and the file is
//!   looked at again soon. So is one that changed: what is being written may be a half that looks whole, and counts
//!   only when a second look sees the same.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::parse_sas;
use crate::settings::Secret;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a look at what is no good, and at what is new.
const FLAWED: Duration = Duration::from_secs(10);
const NEW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct SasFile {
    path: PathBuf,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    sas: Secret,
    look_at: Instant,
    /// Another, seen once.
    new: Option<Secret>,
    /// Why the file is not what is held.
    flaw: Option<String>,
}

impl SasFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: Mutex::default() }
    }

    /// # Errors
    /// What is wrong with the file, if it was never right.
    pub(super) async fn current(&self) -> Result<Secret, String> {
        let mut held = self.held.lock().await;
        let held = match &mut *held {
            Some(held) => held,
            None => {
                let look_at = Instant::now() + LOOK_EVERY;
                held.insert(Held { sas: self.read().await?, look_at, new: None, flaw: None })
            }
        };
        if Instant::now() >= held.look_at {
            held.saw(self.read().await);
        }
        Ok(held.sas.clone())
    }

    async fn read(&self) -> Result<Secret, String> {
        let fail = |flaw: &str| format!("az.sas.token.file: {:?} {flaw}", self.path);
        let text = tokio::fs::read_to_string(&self.path).await.map_err(|error| fail(&error.to_string()))?;
        parse_sas(&text).map_err(fail)
    }
}

impl Held {
    fn saw(&mut self, found: Result<Secret, String>) {
        let (new, pause) = match found {
            Ok(sas) => {
                self.flaw = None;
                let is = |other: &Secret| other.reveal() == sas.reveal();
                if is(&self.sas) || self.new.as_ref().is_some_and(is) {
                    self.sas = sas;
                    (None, LOOK_EVERY)
                } else {
                    (Some(sas), NEW)
                }
            }
            Err(flaw) => {
                if self.flaw.as_ref() != Some(&flaw) {
                    tracing::warn!(%flaw, "no shared access signature: the former one stays in use");
                    self.flaw = Some(flaw);
                }
                (None, FLAWED)
            }
        };
        self.new = new;
        self.look_at = Instant::now() + pause;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OLD: &str = "sp=rl&sig=b2xk%3D";
    const OTHER: &str = "sp=rl&sig=bmV3%3D";

    async fn pass(seconds: u64) {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    async fn held(file: &SasFile) -> String {
        file.current().await.unwrap().reveal().to_owned()
    }

    async fn with_old(path: &Path) -> SasFile {
        std::fs::write(path, OLD).unwrap();
        let file = SasFile::new(path);
        assert_eq!(held(&file).await, OLD);
        file
    }

    #[tokio::test]
    async fn what_is_no_good_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sas");
        let file = with_old(&path).await;
        for content in [Some(""), Some("sp=r"), Some("sp=rl&sig=b m"), None] {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            pass(61).await;
            assert_eq!(held(&file).await, OLD, "{content:?}");
        }
        // It is looked for soon again.
        std::fs::write(&path, OTHER).unwrap();
        pass(11).await;
        held(&file).await;
        pass(2).await;
        assert_eq!(held(&file).await, OTHER);
    }

    #[tokio::test]
    async fn what_is_being_written_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sas");
        let file = with_old(&path).await;
        for half in ["sp=rl&sig=", "sp=rl&sig=bm", "sp=rl&sig=bmV3"] {
            std::fs::write(&path, half).unwrap();
            pass(61).await;
            assert_eq!(held(&file).await, OLD, "{half}");
        }
        std::fs::write(&path, OTHER).unwrap();
        pass(2).await;
        assert_eq!(held(&file).await, OLD, "it may not be whole yet");
        pass(2).await;
        assert_eq!(held(&file).await, OTHER);
        // And stays without a look.
        std::fs::remove_file(&path).unwrap();
        pass(50).await;
        assert_eq!(held(&file).await, OTHER);
    }

    #[tokio::test]
    async fn without_one_of_before_the_flaw_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sas");
        let file = SasFile::new(&path);
        assert!(file.current().await.is_err_and(|flaw| flaw.contains("az.sas.token.file")));
        std::fs::write(&path, "hush").unwrap();
        assert!(file.current().await.is_err_and(|flaw| flaw.contains("no sig=") && !flaw.contains("hush")));
        std::fs::write(&path, OTHER).unwrap();
        assert_eq!(held(&file).await, OTHER);
    }
}
