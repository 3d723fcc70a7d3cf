//! Log lines of a long-running command, on standard error.

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

/// What people must know while a command works, and nothing else.
pub(crate) fn warnings() {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::WARN);
    let _ = lines.with_target(false).with_ansi(false).try_init();
}
