//! Against a server that gives what it is told to: failures, silence, too much.

use varve_script::{Answer, Authority, Front, Request, Server, next_look, replace};

use super::*;
use crate::document::Reason;
use crate::read_schemas::read_schemas;

fn settings(url: &str) -> RegistrySettings {
    RegistrySettings {
        request_timeout: Duration::from_millis(400),
        retry_for: Duration::from_secs(2),
        retry_backoff: Duration::from_millis(5),
        ..RegistrySettings::new(Url::parse(url).unwrap())
    }
}

async fn subjects(settings: RegistrySettings) -> Result<Vec<String>, RegistryError> {
    SchemaRegistry::new(settings).unwrap().get(&["subjects"], "").await
}

#[tokio::test]
async fn what_may_pass_is_asked_again() {
    let server = Server::start(|_, before| match before.len() {
        0 => Answer::json(503, "{}"),
        1 => Answer::new(429),
        2 => Answer::reset(),
        3 => Answer::json(200, r#"["cut short"]"#).break_after(5),
        4 => Answer::hang(),
        _ => Answer::json(200, r#"["a"]"#),
    })
    .await;
    let patient = RegistrySettings {
        request_timeout: Duration::from_secs(2),
        retry_for: Duration::from_secs(60),
        ..settings(&server.endpoint)
    };
    assert_eq!(subjects(patient).await.unwrap(), ["a"]);
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn what_lasts_is_not() {
    for status in [400, 401, 403, 404, 301] {
        let refusal = Answer::json(status, r#"{"error_code":40301,"message":"no"}"#);
        let server = Server::start(move |_, _| refusal.clone()).await;
        let error = subjects(settings(&server.endpoint)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("GET {}/subjects: {status} (40301): no", server.endpoint));
        assert_eq!(error.is_denied(), matches!(status, 401 | 403));
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::start(|_, _| Answer::new(200).body("<html>")).await;
    assert!(matches!(subjects(settings(&server.endpoint)).await, Err(RegistryError::Answer { .. })));
}

#[tokio::test]
async fn patience_ends() {
    let mut short = settings("http://127.0.0.1:1");
    short.retry_for = Duration::from_millis(100);
    let error = subjects(short).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn too_much_is_refused() {
    let server = Server::start(|_, _| Answer::new(200).body(vec![b' '; MAX_ANSWER_BYTES + 1])).await;
    let patient = RegistrySettings { request_timeout: Duration::from_secs(20), ..settings(&server.endpoint) };
    assert!(matches!(subjects(patient).await, Err(RegistryError::TooLarge { .. })));
}

#[tokio::test]
async fn logins_are_sent_and_never_shown() {
    let server = Server::start(|_, _| Answer::json(200, "[]")).await;
    let basic = RegistryLogin::Basic { user: "ann".to_owned(), password: Secret::new("hush") };
    let bearer = RegistryLogin::Bearer(Secret::new("hush-token"));
    for (login, sent) in [(basic, "Basic YW5uOmh1c2g="), (bearer, "Bearer hush-token")] {
        let settings = RegistrySettings { login: Some(login), ..settings(&server.endpoint) };
        let registry = SchemaRegistry::new(settings).unwrap();
        let shown = format!("{registry:?}");
        assert!(!shown.contains("hush") && !shown.contains("YW5uOmh1c2g"), "{shown}");
        let _: Vec<String> = registry.get(&["subjects"], "").await.unwrap();
        assert_eq!(server.seen().pop().unwrap().header("authorization"), Some(sent));
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
    let server = Server::start(|_, _| Answer::json(200, "[]")).await;
    let registry = SchemaRegistry::new(settings(&format!("{}/a/b/", server.endpoint))).unwrap();
    for (name, path) in [(":.ctx:a/b c?", "%3A.ctx%3Aa%2Fb%20c%3F"), ("..", "%2E%2E"), ("ö.x", "%C3%B6.x")] {
        let _: Vec<i32> = registry.get(&["subjects", name, "versions"], "deleted=true").await.unwrap();
        let request = server.seen().pop().unwrap();
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, format!("/a/b/subjects/{path}/versions?deleted=true"));
    }
}

/// As Confluent's answers: deleted subjects and versions, data contracts, settings of subjects.
fn whole(request: &Request) -> Answer {
    let body = match request.path.as_str() {
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
            return Answer::json(403, r#"{"error_code":40301,"message":"not yours"}"#);
        }
        "/subjects/gone/versions?deleted=true" => "[1,3]",
        "/subjects/gone/versions/1?deleted=true" => r#"{"id":8,"schema":"\"long\""}"#,
        _ => return Answer::json(404, r#"{"error_code":40408,"message":"not configured"}"#),
    };
    Answer::json(200, body)
}

#[tokio::test]
async fn all_of_a_registry_is_read() {
    let server = Server::start(|request, _| whole(request)).await;
    let registry = SchemaRegistry::new(settings(&server.endpoint)).unwrap();
    let (state, missing) = read_schemas(&registry).await;
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
    let server = Server::start(|request, _| match request.path.contains("/versions/2") {
        true => Answer::new(500),
        false => whole(request),
    })
    .await;
    let mut short = settings(&server.endpoint);
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
    let server = Server::start(|_, _| Answer::json(200, "[]")).await;
    let front = Front::start(server.address(), &old, None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    replace(&file, &old.file("ca.pem"));
    let mut settings = settings(&format!("https://{}", front.address));
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
