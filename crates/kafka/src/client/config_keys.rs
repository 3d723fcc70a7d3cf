//! The client's keys as data: by this table they are known and have their defaults, and from it the reference is
//! made.

/// One key of [`ClientConfig`](super::ClientConfig).
#[derive(Clone, Copy, Debug)]
pub struct ClientKey {
    pub name: &'static str,
    pub default: Option<&'static str>,
    /// In words.
    pub allowed: &'static str,
    /// Never printed.
    pub secret: bool,
    pub doc: &'static str,
}

const fn key(
    name: &'static str,
    default: Option<&'static str>,
    allowed: &'static str,
    doc: &'static str,
) -> ClientKey {
    ClientKey { name, default, allowed, secret: false, doc }
}

const fn secret(name: &'static str, doc: &'static str) -> ClientKey {
    ClientKey { secret: true, ..key(name, None, TEXT, doc) }
}

const TEXT: &str = "text";
const FILE: &str = "path of a PEM file";
const COUNT: &str = "a whole number, 1 or more";
const URL: &str = "URL, https:// but on this host";

pub(super) const KEYS: [ClientKey; 29] = [
    key(
        "bootstrap.servers",
        None,
        "host:port, several with commas between",
        "Brokers to begin with; all others are learned from them.",
    ),
    key("client.id", Some("varve"), TEXT, "Name in the brokers' logs, metrics and quotas."),
    key(
        "default.api.timeout.ms",
        Some("60000"),
        COUNT,
        "Longest time for a call with all its retries, and for reading on without progress.",
    ),
    key("fetch.max.bytes", Some("16777216"), COUNT, "Most that one fetch from a broker asks for."),
    key(
        "fetch.max.wait.ms",
        Some("500"),
        "a whole number, less than `request.timeout.ms`",
        "How long a broker may wait for new batches before it answers a fetch.",
    ),
    key(
        "https.ca.location",
        None,
        FILE,
        "Authorities to trust at the token endpoint. It is read for each token. Default: the well-known public ones.",
    ),
    key(
        "max.partition.fetch.bytes",
        Some("1048576"),
        COUNT,
        "Most that one fetch asks for of a partition; a larger batch comes whole in any case.",
    ),
    key(
        "receive.message.max.bytes",
        Some("100000000"),
        "a whole number, 1000 or more",
        "Longest answer that is taken.",
    ),
    key("request.timeout.ms", Some("30000"), COUNT, "Longest time for one request and its answer."),
    key("retry.backoff.max.ms", Some("1000"), COUNT, "Longest pause between two tries."),
    key("retry.backoff.ms", Some("100"), COUNT, "First pause between two tries; doubles each time."),
    secret(
        "sasl.jaas.config",
        "Java's line for the login module; its options are taken where the keys of their own are not set.",
    ),
    key(
        "sasl.mechanism",
        None,
        "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`",
        "How to log in. Must be set where `security.protocol` has SASL.",
    ),
    key("sasl.mechanisms", None, "as `sasl.mechanism`", "librdkafka's name of the same."),
    key(
        "sasl.oauthbearer.client.credentials.client.id",
        None,
        TEXT,
        "Java's name of `sasl.oauthbearer.client.id`.",
    ),
    secret(
        "sasl.oauthbearer.client.credentials.client.secret",
        "Java's name of `sasl.oauthbearer.client.secret`.",
    ),
    key("sasl.oauthbearer.client.id", None, TEXT, "Client id for the token endpoint."),
    secret("sasl.oauthbearer.client.secret", "Client secret for the token endpoint."),
    key(
        "sasl.oauthbearer.extensions",
        None,
        "key=value, several with commas between",
        "Sent to the broker with the token.",
    ),
    key("sasl.oauthbearer.method", None, "`oidc`", "librdkafka's key; nothing else is possible."),
    key("sasl.oauthbearer.scope", None, TEXT, "Scope asked of the token endpoint."),
    key("sasl.oauthbearer.token.endpoint.url", None, URL, "Where tokens come from."),
    secret("sasl.password", "Password."),
    key("sasl.username", None, TEXT, "User."),
    key(
        "security.protocol",
        Some("PLAINTEXT"),
        "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT`, `SASL_SSL`",
        "How to talk to the brokers.",
    ),
    key(
        "socket.connection.setup.timeout.ms",
        Some("10000"),
        COUNT,
        "Longest time for one connection, its TLS and its login.",
    ),
    key(
        "ssl.ca.location",
        None,
        FILE,
        "Authorities to trust. It is read again when it changes. Default: the well-known public ones.",
    ),
    key(
        "ssl.certificate.location",
        None,
        FILE,
        "Our certificate, for mutual TLS. It is read again when it changes.",
    ),
    key(
        "ssl.key.location",
        None,
        FILE,
        "Our certificate's key, not encrypted. It is read again when it changes.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_secrets_are_marked() {
        assert!(KEYS.is_sorted_by_key(|key| key.name));
        let secret: Vec<_> = KEYS.iter().filter(|key| key.secret).map(|key| key.name).collect();
        let by_name = |name: &str| {
            name.ends_with("secret") || name.ends_with("password") || name.ends_with("jaas.config")
        };
        let named: Vec<_> = KEYS.iter().map(|key| key.name).filter(|name| by_name(name)).collect();
        assert_eq!(secret, named);
    }
}
