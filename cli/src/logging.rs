//! Log lines of a long-running command, on standard error.

use anyhow::anyhow;
use tracing_subscriber::filter::LevelFilter;
use varve_archiver::config::{LogConfig, LogFormat};

pub(crate) fn start(config: &LogConfig) {
    let level = LevelFilter::from_level(config.level);
    let lines =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    // Whoever has set up logging before keeps it.
    let _ = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
}

/// The level of what a command says while it works: error, warn, info, debug or trace.
const LEVEL: &str = "VARVE_LOG";

/// What people must know while a command works, and nothing else unless they ask for it.
///
/// # Errors
/// They ask for what is no level.
pub(crate) fn of_command() -> anyhow::Result<()> {
    let level = match std::env::var(LEVEL) {
        Ok(asked) => {
            asked.parse().map_err(|_| anyhow!("{LEVEL} is {asked:?}: error, warn, info, debug or trace"))?
        }
        Err(_) => LevelFilter::WARN,
    };
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    // Whoever has set up logging before keeps it.
    let _ = lines.with_target(false).with_ansi(false).try_init();
    Ok(())
}
