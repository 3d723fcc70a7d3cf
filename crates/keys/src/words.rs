//! What services say about their refusals, fit to be shown.

/// In characters.
const MESSAGE_MAX: usize = 300;

/// On one line, of a bounded length, without any of `secrets`.
pub(crate) fn words(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[hidden]");
    }
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.take(MESSAGE_MAX).collect();
    if text.chars().count() > MESSAGE_MAX {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_and_hold_no_secret() {
        assert_eq!(words("bad token hush\r\nx", &["hush", ""]), "bad token [hidden]  x");
        assert_eq!(words(&"é".repeat(400), &[]).chars().count(), MESSAGE_MAX + 1);
    }
}
