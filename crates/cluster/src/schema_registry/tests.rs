//! Against a server that gives what it is told to: failures, silence, too much.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use varve_script::{Authority, Front, next_look, replace};

use super::*;
use crate::document::Reason;
use crate::read_schemas::read_schemas;

type Asked = Arc<Mutex<Vec<String>>>;

/// Answers each request by what `answer` makes of its head; `None` is silence.
async fn serve(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> (Url, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let asked = Asked::default();
    let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let bytes = answer(&head);
                seen.lock().push(head);
                match bytes {
                    Some(bytes) => drop(stream.write_all(&bytes).await),
                    None => tokio::time::sleep(Duration::from_secs(30)).await,
                }
            });
        }
    });
    (url, asked)
}

fn http(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} said\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn settings(url: Url) -> RegistrySettings {
    RegistrySettings {
        request_timeout: Duration::from_millis(400),
        retry_for: Duration::from_secs(2),
        retry_backoff: Duration::from_millis(5),
        ..RegistrySettings::new(url)
    }
}

async fn subjects(settings: RegistrySettings) -> Result<Vec<String>, RegistryError> {
    SchemaRegistry::new(settings).unwrap().get(&["subjects"], "").await
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    let tries = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&tries);
    let (url, _) = serve(move |_| {
        *counted.lock() += 1;
        match *counted.lock() {
            1 => Some(http(503, "{}")),
            2 => Some(http(429, "")),
            3 => Some(Vec::new()),
            4 => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[\"cut".to_vec()),
            5 => None,
            _ => Some(http(200, "[\"a\"]")),
        }
    })
    .await;
    assert_eq!(subjects(settings(url)).await.unwrap(), ["a"]);
    assert_eq!(*tries.lock(), 6);
}

#[tokio::test]
async fn what_lasts_is_not() {
    for status in [400, 401, 403, 404, 301] {
        let (url, asked) = serve(move |_| Some(http(status, r#"{"error_code":40301,"message":"no"}"#))).await;
        let error = subjects(settings(url.clone())).await.unwrap_err();
        assert_eq!(error.to_string(), format!("GET {url}subjects: {status} (40301): no"));
        assert_eq!(error.is_denied(), matches!(status, 401 | 403));
        assert_eq!(asked.lock().len(), 1);
    }
    let (url, _) = serve(|_| Some(http(200, "<html>"))).await;
    assert!(matches!(subjects(settings(url)).await, Err(RegistryError::Answer { .. })));
}

#[tokio::test]
async fn patience_ends() {
    let mut short = settings(Url::parse("http://127.0.0.1:1").unwrap());
    short.retry_for = Duration::from_millis(100);
    let error = subjects(short).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn too_much_is_refused() {
    let (url, _) = serve(|_| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_ANSWER_BYTES + 1).into_bytes();
        answer.resize(answer.len() + MAX_ANSWER_BYTES + 1, b' ');
        Some(answer)
    })
    .await;
    let patient = RegistrySettings { request_timeout: Duration::from_secs(20), ..settings(url) };
    assert!(matches!(subjects(patient).await, Err(RegistryError::TooLarge { .. })));
}

#[tokio::test]
async fn logins_are_sent_and_never_shown() {
    let (url, asked) = serve(|_| Some(http(200, "[]"))).await;
    let basic = RegistryLogin::Basic { user: "ann".to_owned(), password: Secret::new("hush") };
    let bearer = RegistryLogin::Bearer(Secret::new("hush-token"));
    for (login, sent) in [(basic, "Basic YW5uOmh1c2g="), (bearer, "Bearer hush-token")] {
        let settings = RegistrySettings { login: Some(login), ..settings(url.clone()) };
        let registry = SchemaRegistry::new(settings).unwrap();
        let shown = format!("{registry:?}");
        assert!(!shown.contains("hush") && !shown.contains("YW5uOmh1c2g"), "{shown}");
        let _: Vec<String> = registry.get(&["subjects"], "").await.unwrap();
        let head = asked.lock().pop().unwrap();
        assert!(head.lines().any(|l| l.eq_ignore_ascii_case(&format!("authorization: {sent}"))), "{head}");
    }
}

#[test]
fn where_a_login_would_leak_is_refused() {
    let refused = |url: &str, login: bool| {
        let secret = Secret::new("hush");
        let settings = RegistrySettings {
            login: login.then_some(RegistryLogin::Bearer(secret)),
            ..RegistrySettings::new(Url::parse(url).unwrap())
        };
        let error = SchemaRegistry::new(settings).map(drop).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    };
    refused("http://registry.example", true);
    refused("https://ann:hush@registry.example", false);
    refused("https://registry.example/?key=hush", false);
    refused("ftp://registry.example", false);
    assert!(
        SchemaRegistry::new(RegistrySettings::new(Url::parse("http://registry.example").unwrap())).is_ok()
    );
}

#[tokio::test]
async fn names_stay_names_in_the_path() {
    let (url, asked) = serve(|_| Some(http(200, "[]"))).await;
    let base = url.join("/a/b/").unwrap();
    let registry = SchemaRegistry::new(settings(base)).unwrap();
    for (name, path) in [(":.ctx:a/b c?", "%3A.ctx%3Aa%2Fb%20c%3F"), ("..", "%2E%2E"), ("ö.x", "%C3%B6.x")] {
        let _: Vec<i32> = registry.get(&["subjects", name, "versions"], "deleted=true").await.unwrap();
        let head = asked.lock().pop().unwrap();
        let expected = format!("GET /a/b/subjects/{path}/versions?deleted=true HTTP/1.1");
        assert_eq!(head.lines().next(), Some(expected.as_str()));
    }
}

/// As Confluent's answers: deleted subjects and versions, data contracts, settings of subjects.
fn whole(head: &str) -> Option<Vec<u8>> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        "/subjects" => r#"["b","a"]"#,
        "/subjects?deleted=true" => r#"["b","a","gone"]"#,
        "/config" => r#"{"compatibilityLevel":"FULL","normalize":true,"alias":null}"#,
        "/mode" => r#"{"mode":"READWRITE"}"#,
        "/subjects/a/versions" => "[2]",
        "/subjects/a/versions?deleted=true" => "[1,2]",
        "/subjects/a/versions/1?deleted=true" => r#"{"subject":"a","version":1,"id":7,"schema":"\"int\""}"#,
        "/subjects/a/versions/2" => {
            r#"{"subject":"a","version":2,"id":9,"schemaType":"JSON","schema":"{}",
                "references":[{"name":"r","subject":"b","version":1}],
                "ruleSet":{"z":1,"a":[{"y":2,"x":1}]},"metadata":null}"#
        }
        "/config/a?defaultToGlobal=false" => r#"{"compatibilityLevel":"NONE"}"#,
        "/mode/a?defaultToGlobal=false" => r#"{"mode":"IMPORT"}"#,
        "/subjects/b/versions" | "/subjects/b/versions?deleted=true" => {
            return Some(http(403, r#"{"error_code":40301,"message":"not yours"}"#));
        }
        "/subjects/gone/versions?deleted=true" => "[1,3]",
        "/subjects/gone/versions/1?deleted=true" => r#"{"id":8,"schema":"\"long\""}"#,
        _ => return Some(http(404, r#"{"error_code":40408,"message":"not configured"}"#)),
    };
    Some(http(200, body))
}

#[tokio::test]
async fn all_of_a_registry_is_read() {
    let (url, _) = serve(whole).await;
    let (state, missing) = read_schemas(&SchemaRegistry::new(settings(url)).unwrap()).await;
    let state = state.unwrap();
    let config = state.config.unwrap();
    assert_eq!(
        (config.compatibility.as_deref(), config.more.as_deref()),
        (Some("FULL"), Some(r#"{"normalize":true}"#))
    );
    assert_eq!(state.mode.as_deref(), Some("READWRITE"));
    let names: Vec<(&str, bool)> = state.subjects.iter().map(|s| (s.subject.as_str(), s.deleted)).collect();
    assert_eq!(names, [("a", false), ("gone", true)]);
    let a = &state.subjects[0];
    assert_eq!(
        (a.versions[0].id, a.versions[0].deleted, a.versions[0].schema_type.as_str()),
        (7, true, "AVRO")
    );
    assert_eq!(
        (a.versions[1].id, a.versions[1].deleted, a.versions[1].schema_type.as_str()),
        (9, false, "JSON")
    );
    assert_eq!(a.versions[1].references[0].subject, "b");
    assert_eq!(a.versions[1].more.as_deref(), Some(r#"{"ruleSet":{"a":[{"x":1,"y":2}],"z":1}}"#));
    assert_eq!(
        (a.mode.as_deref(), a.config.as_ref().unwrap().compatibility.as_deref()),
        (Some("IMPORT"), Some("NONE"))
    );
    assert_eq!(state.subjects[1].versions.len(), 1);
    let missing = missing.into_entries();
    let told: Vec<(&str, Reason)> = missing.iter().map(|m| (m.what.as_str(), m.reason)).collect();
    assert_eq!(told, [("subject b", Reason::Denied), ("version 3 of subject gone", Reason::Unsupported)]);
}

#[tokio::test]
async fn half_of_a_registry_is_none() {
    let (url, _) =
        serve(|head| if head.contains("/versions/2") { Some(http(500, "")) } else { whole(head) }).await;
    let mut short = settings(url);
    short.retry_for = Duration::from_millis(20);
    let (state, missing) = read_schemas(&SchemaRegistry::new(short).unwrap()).await;
    assert!(state.is_none());
    let missing = missing.into_entries();
    assert_eq!(missing.len(), 1);
    assert_eq!((missing[0].what.as_str(), missing[0].reason), ("Schema Registry", Reason::Failed));
}

#[tokio::test]
async fn authorities_are_read_again_when_their_file_changes() {
    let (old, new) = (Authority::new(), Authority::new());
    let (url, _) = serve(|_| Some(http(200, "[]"))).await;
    let front = Front::start(url.as_str().split('/').nth(2).unwrap(), &old, None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    replace(&file, &old.file("ca.pem"));
    let mut settings = settings(Url::parse(&format!("https://{}", front.address)).unwrap());
    settings.tls.ca = Some(file.clone());
    let registry = SchemaRegistry::new(settings).unwrap();
    let ask = async || registry.get::<Vec<String>>(&["subjects"], "").await;
    ask().await.unwrap();
    front.show(&new, None);
    next_look().await;
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    replace(&file, &new.file("ca.pem"));
    next_look().await;
    ask().await.unwrap();
}
