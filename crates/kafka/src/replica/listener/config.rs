//! What the file of `--listener-config` says, in the keys of a broker's `server.properties`.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::login::Login;
use super::pem::Pem;
use super::tls::{self, ClientAuth};
use super::{ListenerSecurity, Tls};
use crate::client::{ClientError, Result, SaslMechanism, Secret, SecurityProtocol, jaas_option};

const KEYS: [&str; 15] = [
    "sasl.enabled.mechanisms",
    "sasl.jaas.config",
    "sasl.mechanism.inter.broker.protocol",
    "sasl.password",
    "sasl.username",
    "ssl.client.auth",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.type",
    // As a broker has them beside the others: they say nothing that is not known here.
    "security.inter.broker.protocol",
    "ssl.endpoint.identification.algorithm",
];

/// A broker's keys for what is given in another way here.
const ELSEWHERE: [(&str, &str); 6] = [
    ("listener.name.", "write it without listener.name.NAME. and the mechanism: the file is of one listener"),
    ("ssl.key.password", "give the key unencrypted: openssl pkey -in KEY -out PLAIN"),
    ("ssl.keystore.password", "a PEM file has none"),
    ("ssl.truststore.password", "a PEM file has none"),
    ("sasl.kerberos.", "only PLAIN and SCRAM are served"),
    ("sasl.oauthbearer.", "only PLAIN and SCRAM are served"),
];

const ADVICE: &str = "--listener-config";

/// As given: whether it is enough shows with the protocol of the brokers' listener. Values are never printed.
#[derive(Clone, Default)]
pub struct ListenerConfig(BTreeMap<&'static str, Zeroizing<String>>);

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ListenerConfig {
    /// The last of several values of one key counts.
    ///
    /// # Errors
    /// A key that means nothing here.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (key, value) in pairs {
            let key = key.as_ref();
            let Some(known) = KEYS.iter().find(|known| **known == key) else { return Err(unknown(key)) };
            values.insert(*known, Zeroizing::new(value.as_ref().to_owned()));
        }
        Ok(Self(values))
    }

    /// Keys without which brokers can't come in by this protocol.
    pub fn missing(&self, protocol: SecurityProtocol) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let mut needed = |is_there: bool, key: &'static str| {
            if !is_there {
                missing.push(key);
            }
        };
        let has = |key: &str| self.get(key).is_some();
        if protocol.has_tls() {
            let inline = has("ssl.keystore.certificate.chain") || has("ssl.keystore.key");
            if inline {
                needed(has("ssl.keystore.certificate.chain"), "ssl.keystore.certificate.chain");
                needed(has("ssl.keystore.key"), "ssl.keystore.key");
            } else {
                needed(has("ssl.keystore.location"), "ssl.keystore.location");
            }
            if self.get("ssl.client.auth").is_some_and(|auth| auth != "none") {
                let is_there = has("ssl.truststore.location") || has("ssl.truststore.certificates");
                needed(is_there, "ssl.truststore.location");
            }
        }
        if protocol.has_sasl() {
            let by = has("sasl.mechanism.inter.broker.protocol") || has("sasl.enabled.mechanisms");
            needed(by, "sasl.mechanism.inter.broker.protocol");
            needed(self.login_option("sasl.username", "username").is_some(), "sasl.username");
            needed(self.login_option("sasl.password", "password").is_some(), "sasl.password");
        }
        missing
    }

    /// Reads the files; what changes on disk afterwards needs a new start.
    ///
    /// # Errors
    /// What is missing, what is not used, what can't be read or does not fit together.
    pub fn security(&self, protocol: SecurityProtocol) -> Result<ListenerSecurity> {
        let missing = self.missing(protocol);
        if !missing.is_empty() {
            let problem = format!("needed where brokers reach each other by {} ({ADVICE})", protocol.name());
            return Err(ClientError::config(missing.join(", "), problem));
        }
        self.nothing_unused(protocol)?;
        let tls = protocol.has_tls().then(|| self.tls()).transpose()?;
        let login = protocol.has_sasl().then(|| self.login()).transpose()?;
        Ok(ListenerSecurity { protocol, tls, login })
    }

    /// A password that would not be used is a mistake worth stopping for.
    fn nothing_unused(&self, protocol: SecurityProtocol) -> Result<()> {
        let unused = |key: &&&str| {
            (key.starts_with("ssl.") && !protocol.has_tls())
                || (key.starts_with("sasl.") && !protocol.has_sasl())
        };
        match self.0.keys().find(unused) {
            None => Ok(()),
            Some(key) => {
                let problem = format!("is set, but brokers reach each other by {}", protocol.name());
                Err(ClientError::config(*key, problem))
            }
        }
    }

    fn tls(&self) -> Result<Tls> {
        for key in ["ssl.keystore.type", "ssl.truststore.type"] {
            if let Some(other) = self.get(key).filter(|kind| !kind.eq_ignore_ascii_case("PEM")) {
                let problem =
                    format!("only PEM is read, not {other}: openssl pkcs12 -in STORE -nodes makes PEM");
                return Err(ClientError::config(key, problem));
            }
        }
        let auth = self.get("ssl.client.auth").unwrap_or("none");
        let client_auth = ClientAuth::parse(auth).ok_or_else(|| {
            ClientError::config("ssl.client.auth", format!("{auth:?} is none of none, requested, required"))
        })?;
        let (chain, key) = match self.get("ssl.keystore.location") {
            Some(path) => {
                let store = Pem::file("ssl.keystore.location", path)?;
                (store.certificates()?, store.private_key()?)
            }
            None => (
                self.inline("ssl.keystore.certificate.chain").certificates()?,
                self.inline("ssl.keystore.key").private_key()?,
            ),
        };
        let trusted = match (client_auth, self.get("ssl.truststore.location")) {
            (ClientAuth::None, _) => Vec::new(),
            (_, Some(path)) => Pem::file("ssl.truststore.location", path)?.certificates()?,
            (_, None) => self.inline("ssl.truststore.certificates").certificates()?,
        };
        Ok(Tls { config: tls::server(chain.clone(), key, client_auth, trusted)?, chain })
    }

    fn login(&self) -> Result<Login> {
        let key = match self.get("sasl.enabled.mechanisms") {
            Some(_) => "sasl.enabled.mechanisms",
            None => "sasl.mechanism.inter.broker.protocol",
        };
        let named = self.get(key).unwrap_or_default();
        let mechanisms = named.split(',').filter_map(|name| SaslMechanism::parse(name.trim()));
        let served: Vec<_> =
            mechanisms.filter(|mechanism| *mechanism != SaslMechanism::OauthBearer).collect();
        let among = self.get("sasl.mechanism.inter.broker.protocol");
        let is_among = |name: &str| served.iter().any(|mechanism| mechanism.name() == name);
        if served.is_empty() || among.is_some_and(|name| !is_among(name)) {
            let found = among.unwrap_or(named);
            let problem = format!("{found:?}: only PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are served");
            return Err(ClientError::config(key, problem));
        }
        let username = self.login_option("sasl.username", "username").unwrap_or_default();
        let password = self.login_option("sasl.password", "password").unwrap_or_default();
        Login::new(served, username, Secret::new(password))
    }

    /// By a key of its own, or out of the login module's line.
    fn login_option(&self, key: &str, option: &str) -> Option<&str> {
        let jaas = || jaas_option(self.get("sasl.jaas.config")?, option);
        self.get(key).or_else(jaas).filter(|value| !value.is_empty())
    }

    fn inline(&self, key: &'static str) -> Pem<'static> {
        Pem::value(key, self.get(key).unwrap_or_default())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn unknown(key: &str) -> ClientError {
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(prefix, _)| key.starts_with(prefix)) {
        return ClientError::config(key, *advice);
    }
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    let nearest = KEYS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
    ClientError::config(key, format!("unknown key of {ADVICE}; the nearest known one is {nearest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<ListenerConfig> {
        ListenerConfig::from_pairs(pairs.iter().copied())
    }

    const SCRAM: [(&str, &str); 2] = [
        ("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512"),
        ("sasl.jaas.config", "org.x.ScramLoginModule required username=\"broker\" password=\"hunter2\";"),
    ];

    #[test]
    fn what_is_missing_is_named_at_once() {
        let missing = |pairs: &[(&str, &str)], protocol| config(pairs).unwrap().missing(protocol);
        assert_eq!(missing(&[], SecurityProtocol::Plaintext), [""; 0]);
        assert_eq!(missing(&[], SecurityProtocol::Ssl), ["ssl.keystore.location"]);
        assert_eq!(
            missing(&[("ssl.keystore.key", "x"), ("ssl.client.auth", "required")], SecurityProtocol::Ssl),
            ["ssl.keystore.certificate.chain", "ssl.truststore.location"]
        );
        assert_eq!(
            missing(&[], SecurityProtocol::SaslSsl),
            [
                "ssl.keystore.location",
                "sasl.mechanism.inter.broker.protocol",
                "sasl.username",
                "sasl.password"
            ]
        );
        assert_eq!(missing(&SCRAM, SecurityProtocol::SaslPlaintext), [""; 0]);
        let error =
            ListenerConfig::default().security(SecurityProtocol::SaslPlaintext).unwrap_err().to_string();
        assert!(
            error.contains("sasl.username, sasl.password") && error.contains("SASL_PLAINTEXT"),
            "{error}"
        );
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not_printed() {
        let says = |pairs: &[(&str, &str)], protocol: SecurityProtocol, text: &str| {
            let error = config(pairs).and_then(|config| config.security(protocol)).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        let (ssl, sasl) = (SecurityProtocol::Ssl, SecurityProtocol::SaslPlaintext);
        says(&[("ssl.keystore.locations", "x")], ssl, "ssl.keystore.location");
        says(&[("listener.name.internal.ssl.keystore.location", "x")], ssl, "without listener.name.");
        says(&[("ssl.key.password", "x")], ssl, "openssl pkey");
        says(&[("ssl.keystore.location", "x"), ("ssl.keystore.type", "JKS")], ssl, "openssl pkcs12");
        says(&[("ssl.keystore.location", "x"), ("ssl.client.auth", "maybe")], ssl, "ssl.truststore.location");
        says(&[("ssl.keystore.location", "/nowhere.pem")], ssl, "/nowhere.pem");
        says(&SCRAM, SecurityProtocol::Plaintext, "reach each other by PLAINTEXT");
        says(&[SCRAM[1], ("sasl.mechanism.inter.broker.protocol", "GSSAPI")], sasl, "only PLAIN");
        says(&[SCRAM[0], SCRAM[1], ("sasl.enabled.mechanisms", "PLAIN")], sasl, "SCRAM-SHA-512");
        let config = config(&SCRAM).unwrap();
        let security = config.security(sasl).unwrap();
        assert_eq!(security.mechanisms(), ["SCRAM-SHA-512"]);
        assert!(!format!("{config:?} {security:?}").contains("hunter2"));
    }

    #[test]
    fn all_that_a_broker_enables_and_we_know_is_served() {
        let pairs =
            [SCRAM[0], SCRAM[1], ("sasl.enabled.mechanisms", "GSSAPI, PLAIN,SCRAM-SHA-512,OAUTHBEARER")];
        let security = config(&pairs).unwrap().security(SecurityProtocol::SaslPlaintext).unwrap();
        assert_eq!(security.mechanisms(), ["PLAIN", "SCRAM-SHA-512"]);
    }
}
