//! The configuration: one YAML file, parsed once into a typed struct, validated before anything starts.
//!
//! A file becomes scalars as they are written (`document`), references to variables and files are filled in
//! (`substitute`), known keys are checked by one table (`settings`, `values`), and what holds between them when the
//! types are made (`build`). Nothing is sent anywhere. What is wrong is told all at once; secrets are never printed.

mod build;
mod document;
mod effective;
mod error;
mod model;
mod reference;
mod settings;
mod substitute;
#[cfg(test)]
mod tests;
mod topics;
mod values;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

pub use effective::{Effective, EffectiveValue, Origin, Shown};
pub use error::{ConfigError, Flaw};
pub use model::{
    ArchiveConfig, Config, EncryptionConfig, GroupConfig, JournalConfig, LimitsConfig, LogConfig, LogFormat,
    MetricsConfig, SchemaRegistryConfig, SegmentsConfig, SnapshotsConfig, StateConfig,
};
pub use reference::reference;
pub use topics::{TopicPattern, TopicPatterns};

use document::Text;
use values::Values;

const FILE_MAX_BYTES: u64 = 1 << 20;
/// The address of no broker, which nothing is ever sent to.
const NO_BROKER: &str = "no-broker.invalid:9092";

/// A configuration that can be used, and how it came to be.
#[derive(Clone, Debug)]
pub struct Checked {
    pub config: Config,
    pub effective: Effective,
}

impl Config {
    /// Reads `path`; `sets` are `section.key` and value, and count more than the file. `env` tells the environment's
    /// variables.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(
        path: &Path,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::check(path, sets, env).map(|checked| checked.config)
    }

    /// As [`load`](Self::load), for those who connect to no broker: `source` may be left out, and is not looked at.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load_without_source(
        path: &Path,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let nobody = ("source.bootstrap.servers".to_owned(), NO_BROKER.to_owned());
        let sets: Vec<_> = sets.iter().cloned().chain([nobody]).collect();
        Self::load(path, &sets, env)
    }

    /// As [`load`](Self::load), for those who want to see what holds.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn check(
        path: &Path,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Checked, ConfigError> {
        let refuse = |flaws| ConfigError { file: path.to_owned(), flaws };
        let text = read(path).map_err(|problem| refuse(vec![Flaw::new("", None, problem)]))?;
        let uname = rustix::system::uname();
        check_text(&text, sets, env, &uname.nodename().to_string_lossy()).map_err(refuse)
    }
}

fn check_text(
    text: &str,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    host: &str,
) -> Result<Checked, Vec<Flaw>> {
    let document = document::parse(text);
    let unreadable = !document.flaws.is_empty() && document.sections.is_empty();
    if unreadable {
        return Err(document.flaws);
    }
    let mut values = Values::new(document, sets, env);
    match build::build(&mut values, host) {
        Some(config) => {
            let effective = Effective::of(&values, &config.journal.name);
            Ok(Checked { config, effective })
        }
        None => Err(values.into_flaws()),
    }
}

fn read(path: &Path) -> Result<Text, String> {
    let failed = |error: std::io::Error| format!("can't be read: {error}");
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("is longer than {FILE_MAX_BYTES} bytes"));
    }
    Ok(text)
}
