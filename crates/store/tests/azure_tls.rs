//! Azure over TLS: whom the store trusts, and the tokens that it asks for, from a server that does as it is told.

#![cfg(feature = "azure")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use bytes::Bytes;
use varve_script::{Answer, Authority, Front, Request, Server};
use varve_store::{Create, Key, Kind, PutOptions, SharedStore, open};

/// A plain server, TLS before it, and who has certified that.
struct Secured {
    server: Server,
    front: Front,
    authority: Authority,
}

impl Secured {
    async fn start(script: impl Fn(&Request, &[Request]) -> Answer + Send + Sync + 'static) -> Self {
        let (server, authority) = (Server::start(script).await, Authority::new());
        let front = Front::start(server.address(), &authority, None).await;
        Self { server, front, authority }
    }

    /// A store that trusts it.
    async fn store(&self, more: &[(&str, &str)]) -> SharedStore {
        let ca = self.authority.file("ca.pem").display().to_string();
        store_at(&self.front.address, &[&[("az.tls.ca.file", ca.as_str())], more].concat()).await
    }

    /// The same, and it gives the tokens.
    async fn store_by_tokens(&self, more: &[(&str, &str)]) -> SharedStore {
        let host = format!("https://{}", self.front.address);
        self.store(&[&[("az.authority.host", host.as_str())], more].concat()).await
    }
}

async fn store_at(address: &str, more: &[(&str, &str)]) -> SharedStore {
    let endpoint = format!("https://{address}/account1");
    let common = [("az.endpoint.url", endpoint.as_str()), ("az.max.attempts", "3")];
    let settings = common.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    open("az://account1/box", &settings.collect()).await.unwrap()
}

async fn put(store: &SharedStore) -> varve_store::Result<()> {
    let options = PutOptions { create: Create::Overwrite, ..PutOptions::default() };
    store.put(&Key::new("k").unwrap(), Bytes::from_static(b"x"), &options).await.map(drop)
}

#[tokio::test]
async fn only_known_authorities_are_trusted() {
    let mut secured = Secured::start(|_, _| Answer::new(201)).await;
    let key = ("az.account.key", "aHVzaA==");
    put(&secured.store(&[key]).await).await.unwrap();
    assert_eq!(secured.server.seen().len(), 1);
    let error = put(&store_at(&secured.front.address, &[key]).await).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert!(
        error.to_string().contains("certificate") && error.to_string().contains("az.tls.ca.file"),
        "{error}"
    );
    // The certificate is for an address, and not for a name that leads there.
    secured.front.address = secured.front.address.replace("127.0.0.1", "localhost");
    assert_eq!(put(&secured.store(&[key]).await).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(secured.server.seen().len(), 1);
}

fn is_token_request(request: &Request) -> bool {
    request.path.ends_with("/some-tenant/oauth2/v2.0/token")
}

fn token(value: &str) -> Answer {
    Answer::json(
        200,
        format!("{{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"{value}\"}}"),
    )
}

const SECRET: [(&str, &str); 3] =
    [("az.tenant.id", "some-tenant"), ("az.client.id", "some-client"), ("az.client.secret", "hush-hush")];

#[tokio::test]
async fn a_token_is_asked_for_once_and_sent_with_each_request() {
    let secured = Secured::start(|request, before| match is_token_request(request) {
        // Whoever gives tokens may be away for a moment too.
        true if before.is_empty() => Answer::new(503).body("{\"error\":\"x\",\"error_description\":\"later\"}"),
        true => token("hush-token"),
        false if request.method == "POST" => Answer::new(202)
            .header("content-type", "multipart/mixed; boundary=b")
            .body("--b\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 A\r\n\r\n--b\r\nContent-ID: 1\r\n\r\nHTTP/1.1 202 A\r\n\r\n--b--"),
        false if request.method == "HEAD" => Answer::new(200).header("content-length", "5"),
        false if request.header("x-ms-copy-source").is_some() => Answer::new(202),
        false => Answer::new(201),
    })
    .await;
    let store = secured.store_by_tokens(&SECRET).await;
    put(&store).await.unwrap();
    put(&store).await.unwrap();
    let keys = ["a", "b"].map(|name| Key::new(name).unwrap());
    assert!(store.delete_many(&keys).await.unwrap().iter().all(Result::is_ok));
    store.copy(&keys[0], &keys[1], &PutOptions::default()).await.unwrap();
    let seen = secured.server.seen();
    let asked: Vec<_> = seen.iter().filter(|request| is_token_request(request)).collect();
    assert_eq!((asked.len(), seen.len()), (2, 7));
    let form = String::from_utf8(asked[1].body.clone()).unwrap();
    assert!(form.contains("client_secret=hush-hush") && form.contains("storage.azure.com"), "{form}");
    let bearer = Some("Bearer hush-token");
    assert!(seen[2..].iter().all(|request| request.header("authorization") == bearer));
    assert_eq!(String::from_utf8_lossy(&seen[4].body).matches("authorization: Bearer hush-token").count(), 2);
    assert_eq!(seen[6].header("x-ms-copy-source-authorization"), bearer);
    assert!(seen[6].header("x-ms-copy-source").is_some_and(|source| source.ends_with("/box/a")));
}

#[tokio::test]
async fn a_refused_secret_is_told_at_once_and_not_shown() {
    let secured = Secured::start(|_, _| {
        Answer::new(401).body("{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: wrong\",\"error_codes\":[7000215]}")
    })
    .await;
    let store = secured.store_by_tokens(&SECRET).await;
    let error = put(&store).await.unwrap_err();
    let text = format!("{error} {error:?} {store:?}");
    assert_eq!(error.kind, Kind::Denied, "{text}");
    assert!(text.contains("AADSTS7000215") && !text.contains("hush"), "{text}");
    assert_eq!(secured.server.seen().len(), 1);
}

/// Also for longer than it is tried again: whoever asked may go on with what it has.
#[tokio::test]
async fn a_token_server_that_is_away_denies_nothing() {
    for resets in [false, true] {
        let later = || Answer::json(503, "{\"error\":\"x\",\"error_description\":\"later\"}");
        let secured = Secured::start(move |_, _| if resets { Answer::reset() } else { later() }).await;
        let error = put(&secured.store_by_tokens(&SECRET).await).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.to_string().contains("no credentials"), "{error}");
        let seen = secured.server.seen();
        assert!(seen.iter().all(is_token_request) && seen.len() >= 3);
    }
}

#[tokio::test]
async fn a_workload_identity_shows_its_file() {
    let secured =
        Secured::start(
            |request, _| {
                if is_token_request(request) { token("hush-token") } else { Answer::new(201) }
            },
        )
        .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "an-assertion").unwrap();
    let path = file.path().display().to_string();
    let store = secured
        .store_by_tokens(&[
            ("az.auth", "workload-identity"),
            ("az.tenant.id", "some-tenant"),
            ("az.client.id", "some-client"),
            ("az.federated.token.file", &path),
        ])
        .await;
    put(&store).await.unwrap();
    let seen = secured.server.seen();
    assert!(String::from_utf8_lossy(&seen[0].body).contains("client_assertion=an-assertion"));
    assert_eq!(seen[1].header("authorization"), Some("Bearer hush-token"));
}
