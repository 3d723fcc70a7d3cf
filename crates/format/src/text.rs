//! Text that may become a part of an object's name or a line on a terminal: checked where it enters, so that
//! no footer can lead a reader elsewhere (`../`) or write control characters to a screen.

use crate::error::Flaw;

/// 1 to `max_bytes` of `A–Z a–z 0–9 . _ -`, and neither `.` nor `..`. The rule Kafka has for topic names.
pub(crate) fn check_safe(what: &'static str, text: &str, max_bytes: usize) -> Result<(), Flaw> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !text.is_empty() && text.len() <= max_bytes && text.bytes().all(legal) && !matches!(text, "." | "..") {
        return Ok(());
    }
    let allowed = format!("1 to {max_bytes} of A-Z a-z 0-9 . _ - and neither \".\" nor \"..\"");
    Err(Flaw::new(what, shown(text), allowed))
}

/// 1 to `max_bytes` without control characters.
pub(crate) fn check_printable(what: &'static str, text: &str, max_bytes: usize) -> Result<(), Flaw> {
    if !text.is_empty() && text.len() <= max_bytes && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Flaw::new(what, shown(text), format!("1 to {max_bytes} bytes without control characters")))
}

/// Escaped, and short enough for a log line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", text.get(..end).unwrap_or_default(), text.len()),
    }
}
