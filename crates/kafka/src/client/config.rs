//! The client's configuration, in the words of the Java client and of librdkafka.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::config_keys::{ClientKey, KEYS};
use super::error::{ClientError, Result};
use super::oauth::Oauth;
use super::secret::Secret;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// `host:port`, `[v6]:port`, either with a listener name before it (`SASL_SSL://host:port`).
    pub fn parse(text: &str) -> Result<Self> {
        let fail = || ClientError::config("bootstrap.servers", format!("expected host:port, found {text:?}"));
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, port) = bare.rsplit_once(':').ok_or_else(fail)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| fail())?;
        if host.is_empty() || port == 0 {
            return Err(fail());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// As Kafka writes it, in letters of either case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(text))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// In registrations of brokers.
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }

    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    /// By the client credentials grant.
    OauthBearer,
}

impl SaslMechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    /// As Kafka writes it, in letters of either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(text))
    }

    pub fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    /// Empty with OAUTHBEARER.
    pub username: String,
    pub password: Secret,
    /// With OAUTHBEARER alone.
    pub oauth: Option<Oauth>,
}

/// PEM files. Without a CA the well-known public ones are trusted.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Of those that are given.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.ca, &self.certificate, &self.key].into_iter().flatten().cloned().collect()
    }
}

/// Valid as a whole: what [`ClientConfig::from_pairs`] returns can be used.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub bootstrap_servers: Vec<HostPort>,
    pub client_id: String,
    pub security_protocol: SecurityProtocol,
    pub sasl: Option<Sasl>,
    pub tls: TlsFiles,
    /// For one request and its answer.
    pub request_timeout: Duration,
    /// For one TCP connection, its TLS and its login.
    pub connect_timeout: Duration,
    /// For a call with all its retries, and for reading on without progress.
    pub api_timeout: Duration,
    pub retry_backoff: Duration,
    pub retry_backoff_max: Duration,
    pub receive_message_max_bytes: usize,
    pub fetch_max_bytes: i32,
    pub max_partition_fetch_bytes: i32,
    pub fetch_max_wait_ms: i32,
}

/// Java's keys for what is given in another way here.
const ELSEWHERE: [(&str, &str); 3] = [
    ("ssl.truststore.", "give the CA's certificates as a PEM file by ssl.ca.location"),
    ("ssl.keystore.", "give PEM files by ssl.certificate.location and ssl.key.location"),
    ("ssl.key.password", "give the key as an unencrypted PEM file by ssl.key.location"),
];

impl ClientConfig {
    /// Keys that are read here. Anything else is refused.
    pub fn keys() -> &'static [ClientKey] {
        &KEYS
    }

    /// The last of several values of one key counts.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self> {
        let mut values = Values::default();
        for (key, value) in pairs {
            values.add(key.as_ref(), value.as_ref())?;
        }
        let security_protocol = values.security_protocol()?;
        let config = Self {
            bootstrap_servers: values.bootstrap_servers()?,
            client_id: values.word("client.id").to_owned(),
            security_protocol,
            sasl: values.sasl(security_protocol)?,
            tls: values.tls(security_protocol)?,
            request_timeout: values.duration("request.timeout.ms")?,
            connect_timeout: values.duration("socket.connection.setup.timeout.ms")?,
            api_timeout: values.duration("default.api.timeout.ms")?,
            retry_backoff: values.duration("retry.backoff.ms")?,
            retry_backoff_max: values.duration("retry.backoff.max.ms")?,
            receive_message_max_bytes: values.number("receive.message.max.bytes", 1_000)? as usize,
            fetch_max_bytes: values.number("fetch.max.bytes", 1)?,
            max_partition_fetch_bytes: values.number("max.partition.fetch.bytes", 1)?,
            fetch_max_wait_ms: values.number("fetch.max.wait.ms", 0)?,
        };
        let wait = Duration::from_millis(u64::from(config.fetch_max_wait_ms.unsigned_abs()));
        if wait >= config.request_timeout {
            let problem = "must be less than request.timeout.ms";
            return Err(ClientError::config("fetch.max.wait.ms", problem));
        }
        Ok(config)
    }
}

#[derive(Default)]
struct Values(std::collections::HashMap<&'static str, zeroize::Zeroizing<String>>);

impl Values {
    fn add(&mut self, key: &str, value: &str) -> Result<()> {
        if let Some(known) = KEYS.iter().find(|known| known.name == key) {
            self.0.insert(known.name, zeroize::Zeroizing::new(value.to_owned()));
            return Ok(());
        }
        if let Some((_, advice)) = ELSEWHERE.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            return Err(ClientError::config(key, *advice));
        }
        let likeness = |known: &str| strsim::jaro_winkler(key, known);
        let names = KEYS.iter().map(|known| known.name);
        let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
        Err(ClientError::config(key, format!("unknown key; the nearest known one is {nearest}")))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.as_str())
    }

    /// Of a key that has a default.
    fn word(&self, key: &str) -> &str {
        let default = || KEYS.iter().find(|known| known.name == key)?.default;
        self.get(key).or_else(default).unwrap_or_default()
    }

    fn bootstrap_servers(&self) -> Result<Vec<HostPort>> {
        let text = self.get("bootstrap.servers").unwrap_or_default();
        let list = text.split(',').map(str::trim).filter(|s| !s.is_empty());
        let servers: Vec<HostPort> = list.map(HostPort::parse).collect::<Result<_>>()?;
        if servers.is_empty() {
            return Err(ClientError::config("bootstrap.servers", "at least one host:port is needed"));
        }
        Ok(servers)
    }

    fn security_protocol(&self) -> Result<SecurityProtocol> {
        let text = self.word("security.protocol");
        SecurityProtocol::parse(text).ok_or_else(|| {
            let problem = format!("{text:?} is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL");
            ClientError::config("security.protocol", problem)
        })
    }

    fn sasl(&self, protocol: SecurityProtocol) -> Result<Option<Sasl>> {
        let given = self.0.keys().find(|k| k.starts_with("sasl."));
        if !protocol.has_sasl() {
            return match given {
                // A password that would not be used is a mistake worth stopping for.
                Some(key) => Err(ClientError::config(*key, "is set, but security.protocol has no SASL")),
                None => Ok(None),
            };
        }
        let mechanism = self.get("sasl.mechanism").or(self.get("sasl.mechanisms")).unwrap_or_default();
        let mechanism = SaslMechanism::parse(mechanism).ok_or_else(|| {
            let problem =
                format!("{mechanism:?} is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER");
            ClientError::config("sasl.mechanism", problem)
        })?;
        if mechanism == SaslMechanism::OauthBearer {
            let oauth = Some(self.oauth()?);
            return Ok(Some(Sasl { mechanism, username: String::new(), password: Secret::new(""), oauth }));
        }
        if let Some(key) = self.0.keys().find(|k| k.starts_with("sasl.oauthbearer.")) {
            return Err(ClientError::config(*key, "is set, but sasl.mechanism is not OAUTHBEARER"));
        }
        let jaas = self.get("sasl.jaas.config");
        let username = self.get("sasl.username").or_else(|| jaas_option(jaas?, "username"));
        let password = self.get("sasl.password").or_else(|| jaas_option(jaas?, "password"));
        let username = username.filter(|s| !s.is_empty());
        let username = username.ok_or_else(|| ClientError::config("sasl.username", "is needed"))?;
        let password = password.ok_or_else(|| ClientError::config("sasl.password", "is needed"))?;
        let (username, password) = (username.to_owned(), Secret::new(password));
        Ok(Some(Sasl { mechanism, username, password, oauth: None }))
    }

    /// By librdkafka's keys, by those of the Java client since 4.1, or by the login module's options before.
    fn oauth(&self) -> Result<Oauth> {
        const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
        if let Some(method) = self.get("sasl.oauthbearer.method")
            && method != "oidc"
        {
            let problem = format!("{method:?} is not oidc");
            return Err(ClientError::config("sasl.oauthbearer.method", problem));
        }
        let jaas = self.get("sasl.jaas.config").unwrap_or_default();
        let of = |key: &'static str, java: &'static str, option: &str| {
            let found = self.get(key).or_else(|| self.get(java)).or_else(|| jaas_option(jaas, option));
            found.filter(|v| !v.is_empty()).ok_or_else(|| ClientError::config(key, "is needed"))
        };
        let endpoint = self.get(ENDPOINT).ok_or_else(|| ClientError::config(ENDPOINT, "is needed"))?;
        let client_id =
            of("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id", "clientId")?;
        let secret = of(
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "clientSecret",
        )?;
        let mut oauth = Oauth::new(endpoint, client_id, secret)?;
        let scope = self.get("sasl.oauthbearer.scope").or_else(|| jaas_option(jaas, "scope"));
        oauth.scope = scope.map(str::to_owned);
        oauth.ca = self.get("https.ca.location").map(PathBuf::from);
        for pair in self.get("sasl.oauthbearer.extensions").unwrap_or_default().split(',') {
            let pair = pair.trim();
            if let Some((key, value)) = pair.split_once('=') {
                oauth.extensions.push((key.trim().to_owned(), value.trim().to_owned()));
            } else if !pair.is_empty() {
                let problem = format!("expected key=value, found {pair:?}");
                return Err(ClientError::config("sasl.oauthbearer.extensions", problem));
            }
        }
        Ok(oauth)
    }

    fn tls(&self, protocol: SecurityProtocol) -> Result<TlsFiles> {
        let given = self.0.keys().find(|k| k.starts_with("ssl."));
        if let Some(key) = given
            && !protocol.has_tls()
        {
            return Err(ClientError::config(*key, "is set, but security.protocol has no TLS"));
        }
        let path = |key| self.get(key).map(PathBuf::from);
        let files = TlsFiles {
            ca: path("ssl.ca.location"),
            certificate: path("ssl.certificate.location"),
            key: path("ssl.key.location"),
        };
        if files.certificate.is_some() != files.key.is_some() {
            let problem = "a client certificate needs both ssl.certificate.location and ssl.key.location";
            return Err(ClientError::config("ssl.key.location", problem));
        }
        Ok(files)
    }

    fn number(&self, key: &'static str, min: i32) -> Result<i32> {
        let text = self.word(key);
        match text.parse() {
            Ok(n) if n >= min => Ok(n),
            _ => Err(ClientError::config(
                key,
                format!("{text:?} is not a whole number from {min} to {}", i32::MAX),
            )),
        }
    }

    fn duration(&self, key: &'static str) -> Result<Duration> {
        Ok(Duration::from_millis(u64::from(self.number(key, 1)?.unsigned_abs())))
    }
}

/// `name="value"` out of a Java login module's line.
pub(crate) fn jaas_option<'a>(jaas: &'a str, name: &str) -> Option<&'a str> {
    jaas.split_whitespace().find_map(|word| {
        let value = word.strip_prefix(name)?.strip_prefix('=')?;
        let value = value.trim_end_matches(';');
        Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<ClientConfig> {
        let all = [("bootstrap.servers", "a:9092, [::1]:9093")].into_iter();
        ClientConfig::from_pairs(all.chain(pairs.iter().copied()))
    }

    #[test]
    fn defaults_and_servers() {
        let c = config(&[]).unwrap();
        assert_eq!((c.client_id.as_str(), c.fetch_max_bytes, c.fetch_max_wait_ms), ("varve", 16 << 20, 500));
        assert_eq!(
            (c.request_timeout, c.retry_backoff),
            (Duration::from_secs(30), Duration::from_millis(100))
        );
        assert_eq!(c.bootstrap_servers[1].to_string(), "[::1]:9093");
        assert_eq!(c.security_protocol, SecurityProtocol::Plaintext);
        assert!(ClientConfig::from_pairs([("client.id", "x")]).is_err());
        assert!(config(&[("bootstrap.servers", "nohost")]).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let pairs = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.jaas.config", "org.x.ScramLoginModule required username=\"me\" password=\"hunter2\";"),
        ];
        let c = config(&pairs).unwrap();
        let sasl = c.sasl.as_ref().unwrap();
        assert_eq!((sasl.username.as_str(), sasl.password.reveal()), ("me", "hunter2"));
        assert!(!format!("{c:?}").contains("hunter2"));
    }

    #[test]
    fn mistakes_are_named() {
        let says = |pairs: &[(&str, &str)], text: &str| {
            let error = config(pairs).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(&[("sasl.user", "x")], "sasl.username");
        says(&[("request.timeout", "5")], "request.timeout.ms");
        says(&[("request.timeout.ms", "soon")], "whole number");
        says(&[("ssl.truststore.location", "x.jks")], "ssl.ca.location");
        says(&[("sasl.password", "x")], "no SASL");
        says(&[("security.protocol", "TLS")], "SASL_SSL");
        says(&[("security.protocol", "SSL"), ("ssl.key.location", "k")], "ssl.certificate.location");
        says(&[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "GSSAPI")], "SCRAM-SHA-256");
        let bearer = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "OAUTHBEARER")];
        says(&bearer, "token.endpoint.url");
        let endpoint = |url| {
            let url = ("sasl.oauthbearer.token.endpoint.url", url);
            let (id, secret) =
                (("sasl.oauthbearer.client.id", "a"), ("sasl.oauthbearer.client.secret", "hunter2"));
            config(&[bearer[0], bearer[1], url, id, secret])
        };
        let open = endpoint("http://id.example.org/token").unwrap_err().to_string();
        assert!(open.contains("https://"), "{open}");
        let config = endpoint("https://id.example.org/token").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
