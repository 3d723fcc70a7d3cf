//! How brokers reach us: by the listener by which they reach each other.

use std::collections::BTreeMap;

use varve_kafka::client::{Client, SecurityProtocol};
use varve_kafka::replica::{ListenerConfig, ListenerSecurity};

use super::document::{PlannedTarget, Refusal};
use crate::brokers::settings_of;
use crate::error::{Error, Result};

const MECHANISM: &str = "sasl.mechanism.inter.broker.protocol";
const HOST_CHECK: &str = "ssl.endpoint.identification.algorithm";
/// Where what to do is the same.
const GIVE: &str =
    "give --listener-config a file with what a broker has for that listener: docs/RESTORE.md has it to paste";

/// What brokers are told, and how they come in.
#[derive(Clone, Debug)]
pub struct Reach {
    pub advertised_host: String,
    pub listener: ListenerConfig,
}

impl Reach {
    /// Of the plan's listener.
    ///
    /// # Errors
    /// What is missing in the file, or does not hold.
    pub(crate) fn security(&self, target: &PlannedTarget) -> Result<ListenerSecurity> {
        let Some(protocol) = SecurityProtocol::parse(&target.listener_protocol) else {
            let found = &target.listener_protocol;
            return Err(Error::unexpected("the plan's listener_protocol", "one of Kafka's", found));
        };
        Ok(self.listener.security(protocol)?)
    }

    /// The same as for the plan, with the file that is given now.
    ///
    /// # Errors
    /// The first refusal; of the target.
    pub(crate) async fn check(&self, client: &Client, target: &PlannedTarget) -> Result<()> {
        let Some(broker) = target.brokers.first() else { return Ok(()) };
        let settings = settings_of(client, *broker).await?;
        match self.refusals(&settings, target).into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(Error::refused(refusal.what, refusal.todo)),
        }
    }

    /// Brokers connect to us as to each other.
    pub(super) fn refusals(
        &self,
        settings: &BTreeMap<String, String>,
        target: &PlannedTarget,
    ) -> Vec<Refusal> {
        let (name, protocol) = (&target.listener_name, &target.listener_protocol);
        let by = format!("brokers reach each other by {protocol} (listener {name})");
        let refusal = |what: String, todo: &str| vec![Refusal { what, todo: todo.to_owned() }];
        let Some(known) = SecurityProtocol::parse(protocol) else {
            return refusal(by, "that is not served");
        };
        let mechanism = settings.get(MECHANISM).map_or("GSSAPI", String::as_str);
        if known.has_sasl() && !["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&mechanism) {
            let todo = "give the brokers one by PLAIN, SCRAM or TLS, or a PLAINTEXT one on a closed network, for the time";
            return refusal(format!("{by}, and log in by {mechanism}, which is not served"), todo);
        }
        let missing = self.listener.missing(known);
        if !missing.is_empty() {
            return refusal(format!("{by}, which needs {}", missing.join(", ")), GIVE);
        }
        let security = match self.listener.security(known) {
            Ok(security) => security,
            Err(error) => return refusal(format!("{by}: {error}"), GIVE),
        };
        if known.has_sasl() && !security.mechanisms().contains(&mechanism) {
            let offered = security.mechanisms().join(", ");
            let what = format!("{by}, and log in by {mechanism}; --listener-config has {offered}");
            return refusal(
                what,
                &format!("set {MECHANISM}={mechanism} there, with their user and password"),
            );
        }
        let host = checks_names(settings, name).then_some(self.advertised_host.as_str());
        match security.certificate_flaw(host) {
            None => Vec::new(),
            Some(flaw) => {
                let what = format!("brokers would not accept the certificate of --listener-config: {flaw}");
                let todo = "give one that is valid and for the host of --advertise (its subjectAltName), or advertise a \
                            host that it is for; brokers look at the host unless their \
                            ssl.endpoint.identification.algorithm is empty";
                refusal(what, todo)
            }
        }
    }
}

/// Whether brokers hold the host of a certificate against the one that they connect to.
fn checks_names(settings: &BTreeMap<String, String>, listener: &str) -> bool {
    let own = format!("listener.name.{}.{HOST_CHECK}", listener.to_lowercase());
    let set = settings.get(&own).or_else(|| settings.get(HOST_CHECK));
    set.is_none_or(|algorithm| !algorithm.is_empty())
}

/// The brokers' `inter.broker.listener.name`.
pub(super) fn listener_name(settings: &BTreeMap<String, String>) -> String {
    let name =
        settings.get("inter.broker.listener.name").or_else(|| settings.get("security.inter.broker.protocol"));
    name.cloned().unwrap_or_else(|| "PLAINTEXT".to_owned())
}

/// Of that listener.
pub(super) fn listener_protocol(settings: &BTreeMap<String, String>) -> String {
    let name = listener_name(settings);
    let protocols = settings.get("listener.security.protocol.map").map_or("", String::as_str);
    let mut protocols = protocols.split(',').filter_map(|pair| pair.split_once(':'));
    let found = protocols.find(|(listener, _)| listener.trim() == name);
    found.map_or(name.clone(), |(_, protocol)| protocol.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let map = "CONTROLLER:PLAINTEXT,INTERNAL:SASL_PLAINTEXT,OPEN:PLAINTEXT,TLS:SSL";
        let all = [("inter.broker.listener.name", "INTERNAL"), ("listener.security.protocol.map", map)];
        all.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn refused(more: &[(&str, &str)], file: &[(&str, &str)]) -> Option<String> {
        let settings = settings(more);
        let target = PlannedTarget {
            bootstrap_servers: String::new(),
            controllers: String::new(),
            cluster_id: String::new(),
            brokers: vec![1],
            broker_id: 2,
            listener_name: listener_name(&settings),
            listener_protocol: listener_protocol(&settings),
        };
        let listener = ListenerConfig::from_pairs(file.iter().copied()).unwrap();
        let reach = Reach { advertised_host: "here".to_owned(), listener };
        let refusal = reach.refusals(&settings, &target).into_iter().next();
        refusal.map(|refusal| format!("{}: {}", refusal.what, refusal.todo))
    }

    #[test]
    fn what_brokers_need_is_held_against_what_is_given() {
        let says = |more: &[(&str, &str)], file: &[(&str, &str)], text: &str| {
            let found = refused(more, file).unwrap_or_default();
            assert!(found.contains(text), "{text:?} is not in {found:?}");
        };
        let file = |mechanism| {
            [
                ("sasl.mechanism.inter.broker.protocol", mechanism),
                ("sasl.username", "broker"),
                ("sasl.password", "hunter2"),
            ]
        };
        let plain = [(MECHANISM, "PLAIN")];
        assert_eq!(refused(&plain, &file("PLAIN")), None);
        assert_eq!(refused(&[("inter.broker.listener.name", "OPEN")], &[]), None);
        says(&[], &file("PLAIN"), "log in by GSSAPI, which is not served");
        says(&[(MECHANISM, "OAUTHBEARER")], &file("PLAIN"), "log in by OAUTHBEARER, which is not served");
        says(&plain, &[], "needs sasl.mechanism.inter.broker.protocol, sasl.username, sasl.password");
        says(&plain, &file("SCRAM-SHA-512"), "log in by PLAIN; --listener-config has SCRAM-SHA-512");
        says(
            &[("inter.broker.listener.name", "TLS")],
            &[],
            "by SSL (listener TLS), which needs ssl.keystore.location",
        );
        says(&[("inter.broker.listener.name", "OPEN")], &file("PLAIN"), "reach each other by PLAINTEXT");
    }

    #[test]
    fn names_are_checked_unless_the_algorithm_is_empty() {
        let checked = |more: &[(&str, &str)]| checks_names(&settings(more), "INTERNAL");
        assert!(checked(&[]) && checked(&[(HOST_CHECK, "https")]));
        assert!(!checked(&[(HOST_CHECK, "")]));
        assert!(!checked(&[
            (HOST_CHECK, "https"),
            ("listener.name.internal.ssl.endpoint.identification.algorithm", "")
        ]));
        assert!(checked(&[
            (HOST_CHECK, ""),
            ("listener.name.internal.ssl.endpoint.identification.algorithm", "https")
        ]));
    }
}
