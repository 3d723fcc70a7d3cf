//! Kinds of trouble, and what a person does about each.

use varve_archive::Kind as ArchiveKind;
use varve_kafka::client::ClientError;
use varve_store::Kind as StoreKind;

use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    Cluster,
    Store,
    Keys,
    Denied,
    Corrupt,
    State,
    Setting,
    Other,
}

impl FailureKind {
    /// In the order of their values.
    pub const ALL: [FailureKind; 8] = [
        Self::Cluster,
        Self::Store,
        Self::Keys,
        Self::Denied,
        Self::Corrupt,
        Self::State,
        Self::Setting,
        Self::Other,
    ];

    /// For labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Store => "store",
            Self::Keys => "keys",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::State => "state",
            Self::Setting => "setting",
            Self::Other => "other",
        }
    }

    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Other)
    }

    /// What it is.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Cluster => "A broker, or the way to it.",
            Self::Store => "The object store, or the way to it.",
            Self::Keys => "A key service, or a data key that seals or opens what is archived.",
            Self::Denied => "Credentials or permissions, of the cluster or the store.",
            Self::Corrupt => "Bytes that fail their checks, on a broker or in the archive.",
            Self::State => "The cluster's state or the Schema Registry, for a snapshot.",
            Self::Setting => "The configuration, or the version of this program.",
            Self::Other => "None of the others.",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Cluster => {
                "Look at the brokers and the network. It is tried again by itself; nothing is lost while the brokers keep the records."
            }
            Self::Store => {
                "Look at the store, its free space and the network (`varve store check` tries it). It is tried again by itself."
            }
            Self::Keys => {
                "Look at the key service and the way to it, whether the key is enabled, and what its credentials may do. It is tried again by itself; nothing is written unsealed instead, and nothing is lost while the brokers keep the records."
            }
            Self::Denied => {
                "Renew the credentials or grant what the error names, then restart: credentials are read at the start."
            }
            Self::Corrupt => {
                "Nothing wrong was archived. Check the named partition with kafka-dump-log on its broker, and the archive with `varve verify`."
            }
            Self::State => {
                "Grant the Describe permissions that the error names, or leave the part out of state.include. Records are archived meanwhile."
            }
            Self::Setting => {
                "Correct the configuration (`varve config check`), or use the version that the error names."
            }
            Self::Other => "See the archiver's log around the time of the error.",
        }
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Archive(error) => match error.kind() {
                ArchiveKind::Retry | ArchiveKind::NotFound => Self::Store,
                ArchiveKind::Corrupt => Self::Corrupt,
                ArchiveKind::Invalid => Self::Setting,
                ArchiveKind::Denied => Self::Denied,
            },
            Error::Store(error) => match error.kind {
                StoreKind::Denied => Self::Denied,
                StoreKind::Truncated => Self::Corrupt,
                StoreKind::Invalid | StoreKind::Unsupported | StoreKind::Frozen | StoreKind::InvalidRange => {
                    Self::Setting
                }
                _ => Self::Store,
            },
            Error::Keys(error) => match error.kind {
                varve_keys::Kind::Invalid => Self::Setting,
                varve_keys::Kind::Corrupt => Self::Corrupt,
                varve_keys::Kind::NoSpace => Self::Store,
                _ => Self::Keys,
            },
            Error::Client(error) => Self::of_client(error),
            Error::Admin(error) if error.is_not_authorized() => Self::Denied,
            Error::Admin(_) => Self::Cluster,
            Error::State(_) | Error::Registry(_) => Self::State,
            Error::Segment { .. } | Error::Batches { .. } => Self::Corrupt,
            Error::AnotherCluster { .. } => Self::Cluster,
            Error::Unexpected { .. } | Error::Ended(_) => Self::Other,
        }
    }

    pub(crate) fn of_client(error: &ClientError) -> Self {
        match error {
            ClientError::Config { .. } | ClientError::UnsupportedVersion { .. } => Self::Setting,
            ClientError::Authentication { .. } => Self::Denied,
            ClientError::Kafka { code, .. } => {
                let denied = format!("{code:?}").ends_with("AuthorizationFailed");
                if denied { Self::Denied } else { Self::Cluster }
            }
            ClientError::Protocol { .. } => Self::Corrupt,
            ClientError::GaveUp { last, .. } => Self::of_client(last),
            _ => Self::Cluster,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::from_name(kind.name()), kind);
            assert!(kind.meaning().ends_with('.') && kind.advice().ends_with('.'));
        }
    }

    #[test]
    fn what_a_client_gave_up_for_is_its_kind() {
        let last =
            ClientError::Authentication { broker: "b".into(), mechanism: "PLAIN", detail: "no".into() };
        let error = ClientError::GaveUp { what: "metadata".into(), waited_ms: 1, last: Box::new(last) };
        assert_eq!(FailureKind::of(&Error::Client(error)), FailureKind::Denied);
        let store = varve_store::Error::new(StoreKind::NoSpace, "put", "k", "full");
        assert_eq!(FailureKind::of(&Error::Store(store)), FailureKind::Store);
    }
}
