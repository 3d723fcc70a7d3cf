//! Signatures with the account's key: of requests (Shared Key) and of addresses (a service SAS). Pure.
//!
//! Both are an HMAC-SHA256 of a text that Microsoft's documentation lays down line by line; the SDK has neither.

use aws_lc_rs::hmac;
use azure_core::http::Request;
use azure_core::http::headers::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The account's key, ready to sign.
#[derive(Clone)]
pub(super) struct AccountKey {
    account: String,
    key: hmac::Key,
}

impl std::fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountKey({})", self.account)
    }
}

/// The headers whose values are signed by their place, each on a line of its own.
const PLACED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

impl AccountKey {
    pub(super) fn new(account: &str, key: &[u8]) -> Self {
        Self { account: account.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    fn sign(&self, text: &str) -> String {
        STANDARD.encode(hmac::sign(&self.key, text.as_bytes()))
    }

    /// The `Authorization` header of a request that has all its other headers.
    pub(super) fn authorization(&self, request: &Request) -> String {
        let signature = self.sign(&text_of_request(&self.account, request));
        format!("SharedKey {}:{signature}", self.account)
    }

    /// A signature that lets whoever has it read this one blob until `expiry` (`2026-01-02T03:04:05Z`).
    pub(super) fn read_blob(&self, container: &str, name: &str, expiry: &str) -> String {
        const VERSION: &str = "2022-11-02";
        let resource = format!("/blob/{}/{container}/{name}", self.account);
        // Permissions, start, expiry, resource, identifier, addresses, protocol, version, kind (b: a blob), snapshot,
        // encryption scope, and five headers of the answer.
        let text =
            ["r", "", expiry, &resource, "", "", "", VERSION, "b", "", "", "", "", "", "", ""].join("\n");
        let signature = encode(&self.sign(&text));
        format!("sv={VERSION}&sr=b&sp=r&se={}&sig={signature}", encode(expiry))
    }
}

fn text_of_request(account: &str, request: &Request) -> String {
    let mut text = request.method().as_str().to_owned();
    let headers = request.headers();
    for name in PLACED {
        let value = headers.get_optional_str(&HeaderName::from_static(name)).unwrap_or_default().to_owned();
        let value = match name {
            "content-length" => match request.body().len().unwrap_or_default() {
                0 => String::new(),
                length => length.to_string(),
            },
            _ => value,
        };
        text.push('\n');
        text.push_str(&value);
    }
    let own = headers.iter().map(|(name, value)| (name.as_str(), value.as_str().trim()));
    let mut own: Vec<_> = own.filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort_unstable();
    for (name, value) in own {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text.push_str(&format!("\n/{account}{}", request.url().path()));
    let pairs = request.url().query_pairs().map(|(name, value)| (name.to_lowercase(), value.into_owned()));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable();
    let mut last = None;
    for (name, value) in &pairs {
        // Values of one name stand behind each other.
        let separator = if last == Some(name) { ",".to_owned() } else { format!("\n{name}:") };
        text.push_str(&separator);
        text.push_str(value);
        last = Some(name);
    }
    text
}

/// Percent-encoded but for what no server takes for anything else.
pub(super) fn encode(text: &str) -> String {
    encode_but(text, b"")
}

/// As [`encode`], with slashes kept: a blob's name in a path.
pub(super) fn encode_path(name: &str) -> String {
    encode_but(name, b"/")
}

fn encode_but(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    /// The emulators' well-known account and key.
    fn key() -> AccountKey {
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        AccountKey::new("devstoreaccount1", &STANDARD.decode(key).unwrap())
    }

    fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(Url::parse(url).unwrap(), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request
    }

    #[test]
    fn the_signed_text_is_microsofts() {
        // The example of Microsoft's documentation of Shared Key: Get Container Metadata.
        let url =
            "http://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20";
        let headers = [("x-ms-version", "2014-02-14"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")];
        let text = text_of_request("myaccount", &request(Method::Get, url, &headers));
        let expected = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2014-02-14\n\
            /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20";
        assert_eq!(text, expected);
        let expected = "SharedKey devstoreaccount1:ptM+ecjw5YQ3tBxAoRzu6V8i45YUXsPZwjY+D5uqY1s=";
        assert_eq!(key().authorization(&request(Method::Get, url, &headers)), expected);
    }

    /// The signatures here and above were made by another implementation (Python's `hmac`).
    #[test]
    fn the_signature_of_an_address_is_for_one_blob() {
        let expected = "sv=2022-11-02&sr=b&sp=r&se=2026-01-02T03%3A04%3A05Z&\
            sig=FNaSnkLexuON3OAPW%2FLzp227nLFOptelr5zGtO2rtuw%3D";
        assert_eq!(key().read_blob("box", "a+b/c", "2026-01-02T03:04:05Z"), expected);
    }

    #[test]
    fn bodies_conditions_and_odd_names_are_signed() {
        let url = "http://127.0.0.1:10000/devstoreaccount1/box/a%2Bb/c%23?comp=block&blockid=AA%3D%3D";
        let headers = [
            ("content-type", "application/octet-stream"),
            ("if-none-match", "*"),
            ("range", "bytes=0-1"),
            ("x-ms-version", "2026-04-06"),
            ("x-ms-blob-type", "BlockBlob"),
        ];
        let mut request = request(Method::Put, url, &headers);
        request.set_body("hello");
        let text = text_of_request("devstoreaccount1", &request);
        let expected = "PUT\n\n\n5\n\napplication/octet-stream\n\n\n\n*\n\nbytes=0-1\n\
            x-ms-blob-type:BlockBlob\nx-ms-version:2026-04-06\n\
            /devstoreaccount1/devstoreaccount1/box/a%2Bb/c%23\nblockid:AA==\ncomp:block";
        assert_eq!(text, expected);
    }
}
