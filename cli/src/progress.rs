//! Progress with ETA on a terminal; nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}";
const COUNT: &str = "{msg} {wide_bar} {human_pos}/{human_len} ETA {eta}";
const UNKNOWN: &str = "{spinner} {msg} {human_pos} {elapsed}";

pub(crate) fn bytes(what: &str, total: u64) -> ProgressBar {
    bar(what, BYTES, Some(total))
}

pub(crate) fn count(what: &str, total: u64) -> ProgressBar {
    bar(what, COUNT, Some(total))
}

/// The end is not known.
pub(crate) fn unknown(what: &str) -> ProgressBar {
    let bar = bar(what, UNKNOWN, None);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn bar(what: &str, template: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}
