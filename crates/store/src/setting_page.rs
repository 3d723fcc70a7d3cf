//! Tables of settings as a reference page shows them, in Markdown.

use std::fmt::Write as _;

use crate::setting::{Setting, SettingKind};

/// Columns of [`row`].
pub const HEAD: &[&str] = &["key", "default", "allowed", "what it does"];

/// One setting, its name with `prefix` before it.
pub fn row(prefix: &str, setting: &Setting) -> Vec<String> {
    let secret = if setting.secret { "**Secret.** " } else { "" };
    vec![
        code(&format!("{prefix}{}", setting.name)),
        default_cell(setting),
        allowed_cell(setting),
        format!("{secret}{}", setting.doc),
    ]
}

fn default_cell(setting: &Setting) -> String {
    match setting.default {
        _ if setting.required => "**must be set**".to_owned(),
        None => "–".to_owned(),
        Some(text) => match (text.parse(), spoken(setting.name, text.parse().unwrap_or_default())) {
            (Ok::<u64, _>(_), Some(said)) => format!("`{text}` ({said})"),
            _ => code(text),
        },
    }
}

fn allowed_cell(setting: &Setting) -> String {
    let key = setting.name;
    match setting.kind {
        SettingKind::Text(what) => what.to_owned(),
        SettingKind::Url => "URL".to_owned(),
        SettingKind::Boolean => either(&["true", "false"]),
        SettingKind::Choice(words) => either(words),
        SettingKind::Name { .. } => setting.kind.to_string().replace("_ and -", "`_` and `-`"),
        SettingKind::Integer { min, max: u64::MAX } => format!("{} or more", amount(key, min)),
        SettingKind::Integer { min, max } => between(key, min, max),
        SettingKind::MultipleOf { step, max } => {
            format!("a multiple of {}, up to {}", amount(key, step), amount(key, max))
        }
        SettingKind::PowerOfTwo { min, max } => format!("a power of two, {}", between(key, min, max)),
        SettingKind::Bytes { .. } | SettingKind::Duration { .. } => setting.kind.written_range(),
        SettingKind::List(what) => format!("list of {what}"),
        SettingKind::Choices(words) => format!("list out of {}", either(words)),
    }
}

fn between(key: &str, min: u64, max: u64) -> String {
    if min == max { amount(key, min) } else { format!("{} to {}", amount(key, min), amount(key, max)) }
}

/// A number as it is written, and as it is said.
fn amount(key: &str, number: u64) -> String {
    match spoken(key, number) {
        Some(said) => format!("{number} ({said})"),
        None => number.to_string(),
    }
}

/// Bytes and times in the largest unit that is whole; by the key's name, which tells the unit.
fn spoken(key: &str, number: u64) -> Option<String> {
    let units: &[(u64, &str)] = if key.contains(".bytes") {
        &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
    } else if key.ends_with(".ms") {
        &[(3_600_000, "h"), (60_000, "min"), (1_000, "s")]
    } else {
        &[]
    };
    let whole = units.iter().find(|(unit, _)| number >= *unit && number.is_multiple_of(*unit));
    whole.map(|(unit, name)| format!("{} {name}", number / unit))
}

fn either(words: &[&str]) -> String {
    words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", ")
}

pub fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A heading with a table below.
pub fn section(page: &mut String, title: &str, head: &[&str], rows: &[Vec<String>]) {
    let _ = write!(page, "\n## {title}\n\n");
    table(page, head, rows);
}

pub fn table(page: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let _ = writeln!(page, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_all_of_a_setting() {
        let kind = SettingKind::Integer { min: 1, max: 4096 };
        let setting = Setting::new("a.bytes", kind, Some("2048"), "Does a|b.").secret();
        let mut page = String::new();
        section(&mut page, "T", HEAD, &[row("x.", &setting)]);
        let expected = "| `x.a.bytes` | `2048` (2 KiB) | 1 to 4096 (4 KiB) | **Secret.** Does a\\|b. |\n";
        assert!(page.starts_with("\n## T\n\n| key |") && page.ends_with(expected), "{page}");
    }
}
