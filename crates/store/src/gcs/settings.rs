//! The settings of a store in a bucket of Google Cloud Storage.

use crate::setting::{Setting, SettingKind};
use crate::settings::{MINUTES_10_MS, TEXT};

use super::session::QUANTUM_BYTES;

pub(super) const PART_BYTES_MAX: u64 = 1 << 30;

pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new(
        "gs.auth",
        SettingKind::Choice(&["default", "anonymous"]),
        Some("default"),
        "Where credentials come from. `default`: `gs.credentials.file`, else Google's chain: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the one that gcloud left, the metadata server (GKE, Compute Engine). `anonymous`: none, for emulators.",
    ),
    Setting::new(
        "gs.connect.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("5000"),
        "Longest wait for a connection.",
    ),
    Setting::new(
        "gs.credentials.file",
        TEXT,
        None,
        "JSON file of a service account, an external account (workload identity federation), an impersonated service account or a user.",
    ),
    Setting::new(
        "gs.endpoint.url",
        SettingKind::Url,
        None,
        "Address of an emulator or of a private link, with its scheme. Default: `https://storage.googleapis.com`. Tokens go over https only, or to this machine.",
    ),
    Setting::new(
        "gs.kms.key.name",
        TEXT,
        None,
        "Key of the KMS that encrypts what is written: `projects/P/locations/L/keyRings/R/cryptoKeys/K`. Default: the bucket's.",
    ),
    Setting::new(
        "gs.max.attempts",
        SettingKind::Integer { min: 1, max: 100 },
        Some("6"),
        "How often a request is sent in all before its error is reported. Only what may pass by itself is sent again: throttling, 5xx, timeouts, broken connections.",
    ),
    Setting::new(
        "gs.part.size.bytes",
        SettingKind::MultipleOf { step: QUANTUM_BYTES, max: PART_BYTES_MAX },
        Some("16777216"),
        "Preferred size of a part of an upload.",
    ),
    Setting::new(
        "gs.proxy.url",
        SettingKind::Url,
        None,
        "HTTP proxy to the store, but never to one on this machine; may hold a user and a password. Default: that of the environment, by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, which alone count for requests of tokens.",
    )
    .secret(),
    Setting::new(
        "gs.storage.class",
        TEXT,
        None,
        "Storage class of what is written, where nothing else is said: `NEARLINE`, `COLDLINE`, `ARCHIVE` … Each can be read at once. Default: the bucket's.",
    ),
    Setting::new(
        "gs.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("30000"),
        "Longest silence of the store: until an answer begins, and between two pieces of a body. Sending a body gets a second more for every 128 KiB.",
    ),
    Setting::new(
        "gs.tls.ca.file",
        TEXT,
        None,
        "PEM file of certificate authorities to trust besides the system's, by the store's connections; those for tokens trust the system's alone. It is read again when it changes.",
    ),
    Setting::new(
        "gs.user.project",
        TEXT,
        None,
        "Project that is billed for requests, where the bucket has its requesters pay.",
    ),
];
