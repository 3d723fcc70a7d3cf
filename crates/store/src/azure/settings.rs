//! The settings of a store in an Azure Blob container.

use crate::setting::{Setting, SettingKind};
use crate::settings::{MINUTES_10_MS, TEXT};

pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new(
        "az.access.tier",
        SettingKind::Choice(&["Hot", "Cool", "Cold", "Archive"]),
        None,
        "Access tier of what is written, where nothing else is said. Default: the account's.",
    ),
    Setting::new(
        "az.account.key",
        TEXT,
        None,
        "Key of the storage account (base64). Requests are signed with it.",
    )
    .secret(),
    Setting::new(
        "az.auth",
        SettingKind::Choice(&["default", "cli", "client-secret", "managed-identity", "workload-identity"]),
        Some("default"),
        "Where tokens come from, if neither a key nor a SAS is given. `default` takes a workload identity, then a client secret, from settings or environment (`AZURE_CLIENT_SECRET`, `AZURE_FEDERATED_TOKEN_FILE` …), else the first that answers of managed identity and Azure CLI.",
    ),
    Setting::new(
        "az.authority.host",
        SettingKind::Url,
        None,
        "Where tokens are asked for. Default: `AZURE_AUTHORITY_HOST`, else the public cloud's, `https://login.microsoftonline.com`.",
    ),
    Setting::new(
        "az.client.id",
        TEXT,
        None,
        "Client id of the application or of the user-assigned identity. Default: `AZURE_CLIENT_ID`; of a managed identity the machine's own.",
    ),
    Setting::new(
        "az.client.secret",
        TEXT,
        None,
        "Secret of the application `az.client.id`. Default: `AZURE_CLIENT_SECRET`.",
    )
    .secret(),
    Setting::new(
        "az.connect.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("5000"),
        "Longest wait for a connection.",
    ),
    Setting::new(
        "az.endpoint.url",
        SettingKind::Url,
        None,
        "Address of the account's Blob service where it is not `https://ACCOUNT.blob.core.windows.net`: of another cloud, a private link, or an emulator (`http://127.0.0.1:10000/ACCOUNT`). Containers are looked for right below it. Tokens go over https only, a SAS also to this machine.",
    ),
    Setting::new(
        "az.federated.token.file",
        TEXT,
        None,
        "File with the token of a workload identity. Default: `AZURE_FEDERATED_TOKEN_FILE`.",
    ),
    Setting::new(
        "az.max.attempts",
        SettingKind::Integer { min: 1, max: 100 },
        Some("6"),
        "How often a request is sent in all before its error is reported. Only what may pass by itself is sent again: throttling, 5xx, timeouts, broken connections.",
    ),
    Setting::new(
        "az.part.size.bytes",
        SettingKind::Integer { min: 1 << 20, max: 4000 << 20 },
        Some("16777216"),
        "Preferred size of a block of an upload.",
    ),
    Setting::new(
        "az.proxy.url",
        SettingKind::Url,
        None,
        "HTTP proxy for all requests, those for tokens too (but not those to this machine, nor those of a managed identity); may hold a user and a password. Default: none, whatever the environment says.",
    )
    .secret(),
    Setting::new(
        "az.sas.token",
        TEXT,
        None,
        "Shared access signature, with or without its `?`. It must allow to read, write, create, list and delete in the container.",
    )
    .secret(),
    Setting::new(
        "az.sas.token.file",
        TEXT,
        None,
        "File with a shared access signature, read again every minute, so that it may be replaced while in use. While it is damaged or gone, the former one counts, and the log warns.",
    ),
    Setting::new(
        "az.tenant.id",
        TEXT,
        None,
        "Tenant of `az.client.id`, or for the Azure CLI. Default: `AZURE_TENANT_ID`.",
    ),
    Setting::new(
        "az.timeout.ms",
        SettingKind::Integer { min: 1, max: MINUTES_10_MS },
        Some("30000"),
        "Longest silence of the store: until an answer begins, and between two pieces of a body. Sending a body gets a second more for every 128 KiB.",
    ),
    Setting::new(
        "az.tls.ca.file",
        TEXT,
        None,
        "PEM file of certificate authorities to trust besides the system's. It is read again when it changes.",
    ),
];
