//! The archiver's part of docs/CONFIG.md, made from the table that files are checked by.

use std::fmt::Write as _;

use varve_store::Setting;
use varve_store::setting_page::{HEAD, row, table};

use super::settings::SECTIONS;

const INTRO: &str = "\
# The archiver

One YAML file. The smallest:

```yaml
";

/// Also one of the examples.
const SMALLEST: &str = include_str!("../../../examples/archive-minimal.yaml");

const RULES: &str = "\
```

- Sections hold keys; a key's name is written with dots, as Kafka's are, not as nested mappings. More examples: \
`examples/`.
- Everything is read and checked once, before anything starts. Wrong values, and keys that do nothing, are refused, all \
of them at once, each with what is allowed or the nearest known name. `varve config check FILE` does it, and shows what \
holds.
- Sizes are plain numbers of bytes, or have KiB, MiB, GiB or TiB behind them; times have ms, s, m, h or d. \
Keys of Kafka's clients and of the stores keep their own units, as their names say.
- A key without a value is as if it weren't there. A list of one may be written without brackets.
- Values are taken as they are written: `0123` and `on` are these texts, not numbers or truth values.
- \"–\" as default: not set, and the last column says what then holds.
- Values marked **secret** are never printed, neither in logs nor in errors.

**References.** In any value, also within lists, `${NAME}` is replaced by the environment variable, which must be set; \
`${NAME:-default}` by the default if it is unset or empty; `${file:/path}` by a file's content without the line break at \
its end. A literal `${` is written `$${`. What comes in is a value and nothing else: it is read neither as YAML nor for \
references again. What comes from a file isn't printed, whichever key it is for.

**`--set section.key=value`** counts more than the file. The value is taken as it is, or as YAML where it stands between \
quotes or brackets: `--set 'topics.include=[\"orders-*\", /pay-\\d+/]'`.

**Patterns** of topics are globs of `*` and `?`, or regular expressions between slashes; both for the whole name. \
Expressions are those of Rust's [regex](https://docs.rs/regex/latest/regex/#syntax): no look-around, no back references.
";

/// Markdown.
pub fn reference() -> String {
    let mut page = format!("{INTRO}{SMALLEST}{RULES}");
    for section in SECTIONS {
        let _ = write!(page, "\n## `{}`\n\n{}\n\n", section.name, section.doc);
        let all = section.settings();
        // The stores' and the key services' keys have their tables in the plug-in's part of the page.
        let shown: Vec<Setting> = match section.name {
            "archive" | "encryption" => section.own().to_vec(),
            _ => all,
        };
        table(&mut page, HEAD, &shown.iter().map(|setting| row("", setting)).collect::<Vec<_>>());
        if section.name == "archive" {
            page.push_str("\nAnd the keys of the store: those of [S3](#s3), without `rsm.config.`.\n");
        }
        if section.name == "encryption" {
            page.push_str(
                "\nAnd those of the [key services](#key-services), `kms.…`, without `rsm.config.`. \
                 What is to be done with keys: [SECURITY.md](SECURITY.md).\n",
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_row() {
        let page = reference();
        for section in SECTIONS {
            let begin = page.find(&format!("\n## `{}`\n", section.name)).unwrap();
            let part = page[begin + 1..].split("\n## ").next().unwrap();
            let elsewhere = |name: &str| varve_store::is_setting(name) || name.starts_with("kms.");
            for setting in section.settings().iter().filter(|setting| !elsewhere(setting.name)) {
                let count = part.matches(&format!("\n| `{}` |", setting.name)).count();
                assert_eq!(count, 1, "{} {}", section.name, setting.name);
            }
        }
        assert!(page.contains("| `bytes` | `256MiB` | 1MiB to 1GiB |"));
        assert!(page.contains("| `sasl.password` | – | text | **Secret.** "));
        assert!(page.contains("| `include` | **must be set** | list of patterns"));
    }
}
