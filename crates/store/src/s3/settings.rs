//! The settings of a store in an S3 bucket.

use crate::setting::{Setting, SettingKind};
use crate::settings::{MINUTES_10_MS, TEXT};

pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new(
        "s3.access.key.id",
        TEXT,
        None,
        "Access key. Without it the AWS SDK's chain is asked: environment, profile, web identity, container, instance.",
    ),
    Setting::new(
        "s3.checksum",
        SettingKind::Choice(&["crc32c", "none"]),
        Some("crc32c"),
        "Checksum sent with every body for the store to check. Buckets with object lock need one; `none` is for servers that refuse it.",
    ),
    Setting::new(
        "s3.connect.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("5000"),
        "Longest wait for a connection.",
    ),
    Setting::new(
        "s3.endpoint.url",
        SettingKind::Url,
        None,
        "Address of a store that is not AWS, with its scheme: `https://minio.example:9000`. Without it, AWS in the region.",
    ),
    Setting::new(
        "s3.max.attempts",
        SettingKind::Integer { min: 1, max: 100 },
        Some("6"),
        "How often a request is sent in all before its error is reported. Only what may pass by itself is sent again: throttling, 5xx, timeouts, broken connections.",
    ),
    Setting::new(
        "s3.part.size.bytes",
        SettingKind::Integer { min: 5 << 20, max: 5 << 30 },
        Some("16777216"),
        "Preferred size of a part of an upload.",
    ),
    Setting::new(
        "s3.path.style",
        SettingKind::Boolean,
        None,
        "Whether the bucket stands in the path instead of the host name. Default: true with `s3.endpoint.url`, else false.",
    ),
    Setting::new(
        "s3.profile",
        TEXT,
        None,
        "Profile of the AWS configuration files. Default: `AWS_PROFILE`, else `default`.",
    ),
    Setting::new(
        "s3.proxy.url",
        SettingKind::Url,
        None,
        "HTTP proxy for all requests, those for credentials too (but not those to this machine, nor to the metadata services of a machine or container); may hold a user and a password. Default: none, whatever the environment says.",
    )
    .secret(),
    Setting::new(
        "s3.region",
        TEXT,
        None,
        "Region of the bucket. Default: the AWS SDK's chain; at a server of others (`s3.endpoint.url`) what environment or profile say, else `us-east-1`.",
    ),
    Setting::new("s3.secret.access.key", TEXT, None, "Secret key that belongs to `s3.access.key.id`.")
        .secret(),
    Setting::new("s3.session.token", TEXT, None, "Session token of temporary keys.").secret(),
    Setting::new(
        "s3.sse",
        SettingKind::Choice(&["AES256", "aws:kms", "aws:kms:dsse"]),
        None,
        "Server-side encryption asked for with every write. Default: the bucket's.",
    ),
    Setting::new("s3.sse.kms.key.id", TEXT, None, "Key of the KMS for `s3.sse`."),
    Setting::new(
        "s3.storage.class",
        TEXT,
        None,
        "Storage class of what is written, where nothing else is said: `STANDARD_IA`, `GLACIER_IR` … Default: the bucket's.",
    ),
    Setting::new(
        "s3.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("30000"),
        "Longest silence of the store: until an answer begins, and between two pieces of a body. Sending a body gets a second more for every 128 KiB.",
    ),
    Setting::new(
        "s3.tls.ca.file",
        TEXT,
        None,
        "PEM file of certificate authorities to trust besides the system's. It is read again when it changes.",
    ),
];
