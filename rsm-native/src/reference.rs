//! The plug-in's part of the reference, made from the tables that the code itself goes by: [`crate::settings`],
//! `varve_store::settings` and [`crate::metrics::beans`]. `cargo xtask docs` writes it, and a test fails where a
//! file differs.

use std::fmt::Write as _;

use varve_store::Setting;
use varve_store::setting_page::{self, code, section, table};

use crate::metrics::beans::{ALERTS, Attribute, CACHE, MEMORY, OPERATION, OPERATIONS, TOPIC};
use crate::settings::{BY_TOPIC, GROUPS};

const PREFIX: &str = "rsm.config.";

const CONFIG_INTRO: &str = "\
# The broker's plug-in

All keys of the broker's plug-in, as they are pasted into `server.properties`. The first part, `rsm.config.`, is \
Kafka's default of `remote.log.storage.manager.impl.prefix`.

- Everything is read and checked once, when the broker starts. A wrong value stops the start with an error that \
names key, value and what is allowed; so does a key that does nothing, with the nearest one that does.
- `store.url`, `store.id`, `cluster.id` and the key ring must be the same on all brokers of a cluster. A change takes effect when a broker is restarted; segments that are \
already stored stay as they are and remain readable.
- \"–\" as default: not set, and the last column says what then holds.
- \"By topic\": a rule may hold the key too, see [Rules by topic](#rules-by-topic).
- Sizes are plain numbers of bytes, times of milliseconds.
- Values marked **secret** are never printed by Varve, neither in logs nor in errors.
";

const RULES: &str = "\
## Rules by topic

`rsm.config.rules.<name>.topics` is a regular expression. For topics whose *whole* name it matches, the other keys of \
`rsm.config.rules.<name>.` hold instead of those without a rule; what the rule leaves out is as without it. Of several \
rules that match, **the first in the order of their names** alone counts, so give them numbers of the same length. \
`<name>` is anything without a dot. Expressions are those of Rust's [regex](https://docs.rs/regex/latest/regex/#syntax): \
no look-around, no back references. In a properties file a backslash is written twice.
";

/// Parsed by a test.
const RULES_EXAMPLE: &str = r"rsm.config.compression=auto
rsm.config.rules.10-media.topics=media-.*|.*\\.jpeg
rsm.config.rules.10-media.compression=none
rsm.config.rules.20-audit.topics=audit\\..*
rsm.config.rules.20-audit.encryption.enabled=true
rsm.config.rules.20-audit.digest=sha256
rsm.config.rules.90-rest.topics=.*
rsm.config.rules.90-rest.upload.rate.bytes.per.second=52428800
rsm.config.encryption.key.ring.file=/etc/kafka/varve-keys.json
";

const RULES_OUTCOME: &str = "\
`media-2026` is stored as it is, at full speed. `audit.logins` is encrypted, and compressed where that helps. All \
others are compressed where that helps, each copy at 50 MiB a second at most. A rule may hold: ";

/// Of docs/CONFIG.md.
pub fn config() -> String {
    let mut page = CONFIG_INTRO.to_owned();
    for group in GROUPS {
        let rows = group.settings.iter().map(setting_row).collect::<Vec<_>>();
        section(&mut page, group.title, &["key", "default", "allowed", "by topic", "what it does"], &rows);
    }
    let row = |s: &Setting| setting_page::row(PREFIX, s);
    let services = varve_keys::settings().iter().map(row).collect::<Vec<_>>();
    section(&mut page, "Key services", setting_page::HEAD, &services);
    for (scheme, title) in varve_store::STORES_WITH_SETTINGS {
        let theirs = varve_store::settings().iter().filter(|s| varve_store::store_of(s.name) == Some(scheme));
        section(&mut page, title, setting_page::HEAD, &theirs.map(row).collect::<Vec<_>>());
    }
    let keys = BY_TOPIC.iter().map(|key| code(key)).collect::<Vec<_>>().join(", ");
    let _ = write!(page, "\n{RULES}\n```properties\n{RULES_EXAMPLE}```\n{RULES_OUTCOME}{keys}.\n");
    page
}

const METRICS_INTRO: &str = "\
# The broker's plug-in

JMX beans of the broker's plug-in, all attributes of type `double`. \"Since start\" is since the broker started: \
nothing is kept beyond it, so take differences. Values are fresh to the second.

```
io.varve.kafka:type=RemoteStorageManager,broker=<broker id>,operation=<operation>
io.varve.kafka:type=RemoteStorageManager,broker=<broker id>,name=memory
io.varve.kafka:type=RemoteStorageManager,broker=<broker id>,name=cache
io.varve.kafka:type=RemoteStorageManager,broker=<broker id>,topic=<topic>
```
The bean of a topic appears within seconds of its first copy or read. From the thousandth topic on, further ones share \
`topic=(others)`. A second plug-in of the same broker id in one JVM has `,instance=2` after the broker.
";

const METRICS_KAFKA: &str = "\
Kafka's own `kafka.server:type=BrokerTopicMetrics,name=Remote*` count the same work from the broker's side: \
`RemoteCopyLagBytes` and `RemoteCopyLagSegments` (what waits to be copied) are the ones to watch beside these.
";

/// Of docs/METRICS.md.
pub fn metrics() -> String {
    let mut page = METRICS_INTRO.to_owned();
    let operations = OPERATIONS.iter().map(|o| vec![code(o.name), o.doc.to_owned()]).collect::<Vec<_>>();
    section(&mut page, "`operation=`", &["operation", "what is counted"], &operations);
    page.push_str("\nEach of them has:\n\n");
    table(&mut page, ATTRIBUTE_HEAD, &rows(OPERATION));
    section(&mut page, "`name=memory`", ATTRIBUTE_HEAD, &rows(MEMORY));
    section(&mut page, "`name=cache`", ATTRIBUTE_HEAD, &rows(CACHE));
    section(&mut page, "`topic=`", ATTRIBUTE_HEAD, &rows(TOPIC));
    let alerts =
        ALERTS.iter().map(|a| vec![code(a.bean), code(a.attribute), a.when.to_owned(), a.means.to_owned()]);
    section(
        &mut page,
        "What to alert on",
        &["bean", "attribute", "when it", "what it means"],
        &alerts.collect::<Vec<_>>(),
    );
    let _ = write!(page, "\n{METRICS_KAFKA}");
    page
}

const ATTRIBUTE_HEAD: &[&str] = &["attribute", "unit", "meaning"];

fn rows<T>(attributes: &[Attribute<T>]) -> Vec<Vec<String>> {
    let row = |a: &Attribute<T>| vec![code(a.name), a.unit.to_owned(), a.doc.to_owned()];
    attributes.iter().map(row).collect()
}

fn setting_row(setting: &Setting) -> Vec<String> {
    let by_topic = if BY_TOPIC.contains(&setting.name) { "yes" } else { "" };
    let mut row = setting_page::row(PREFIX, setting);
    row.insert(row.len() - 1, by_topic.to_owned());
    row
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use varve_format::{Compression, DigestAlgorithm};

    use super::*;
    use crate::config::Config;

    #[test]
    fn each_key_has_its_row() {
        let page = config();
        let keys = crate::settings::all()
            .chain(varve_store::settings())
            .chain(varve_keys::settings())
            .map(|s| s.name);
        for key in keys {
            assert_eq!(page.matches(&format!("\n| `rsm.config.{key}` |")).count(), 1, "{key}");
        }
        assert!(page.contains(
            "| `rsm.config.copy.memory.bytes` | `134217728` (128 MiB) | 16777216 (16 MiB) or more |"
        ));
        assert!(page.contains("| `rsm.config.s3.secret.access.key` | – | text | **Secret.** "));
        assert!(
            page.contains("| `rsm.config.sweep.upload.age.ms` | `86400000` (24 h) | 60000 (1 min) or more |")
        );
    }

    /// What the page says of the example is so.
    #[test]
    fn the_example_of_rules_does_what_is_said() {
        let mut given: BTreeMap<String, String> = RULES_EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix(PREFIX)?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("\\\\", "\\")))
            .collect();
        given.insert("store.url".into(), "file:///tier".into());
        given.insert("cluster.id".into(), "prod-1".into());
        let config = Config::parse(&given).unwrap();
        let [media, audit, rest] = ["media-2026", "audit.logins", "audits"].map(|topic| config.policy(topic));
        assert_eq!((media.compression, media.upload_rate, media.encrypt), (Compression::None, 0, false));
        assert_eq!(
            (audit.compression, audit.upload_rate, audit.encrypt),
            (Compression::Auto { level: 1 }, 0, true)
        );
        assert_eq!((audit.digest, rest.digest), (DigestAlgorithm::Sha256, DigestAlgorithm::Blake3));
        assert_eq!((rest.upload_rate, rest.encrypt), (50 << 20, false));
    }

    #[test]
    fn every_bean_has_its_rows() {
        let page = metrics();
        let all = crate::metrics::Metrics::default();
        all.topic("orders");
        for (bean, attributes) in all.beans(Default::default()) {
            let (kind, name) = bean.split_once('=').unwrap();
            let head = if kind == "name" { format!("## `{bean}`") } else { format!("## `{kind}=`") };
            assert!(page.contains(&head), "{bean}");
            assert!(kind != "operation" || page.contains(&format!("| `{name}` |")), "{bean}");
            for (attribute, _) in attributes {
                assert!(page.contains(&format!("| `{attribute}` |")), "{bean} {attribute}");
            }
        }
    }
}
