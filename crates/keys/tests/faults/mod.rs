//! What every service must bear: the same faults, each seen through the same door.

#![allow(dead_code, reason = "each test target uses a part of this module")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use varve_keys::{Error, KeyServices, KeyUrl, Kind, Service, Wrapped};

use varve_script::{Answer, Request, Server};

/// What is wrapped, and looked for in every text that is not to hold it.
pub(crate) const SECRET: [u8; 32] = *b"canary-key-0123456789-0123456789";
pub(crate) const AAD: &[u8] = b"topic/period";
/// A part of every credential that the tests give.
pub(crate) const CANARY: &str = "canary-token";

pub(crate) fn services(settings: &[(&str, &str)]) -> KeyServices {
    let timeouts =
        [("kms.timeout.ms", "2000"), ("kms.connect.timeout.ms", "1000"), ("kms.max.attempts", "3")];
    let all = timeouts.iter().chain(settings);
    let map: BTreeMap<_, _> = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KeyServices::new(&map, None).unwrap()
}

/// No text that a person may see holds a key or a credential, in any spelling.
pub(crate) fn assert_hides(texts: &[String]) {
    for text in texts {
        let spellings = [
            String::from_utf8_lossy(&SECRET).into_owned(),
            STANDARD.encode(SECRET),
            URL_SAFE_NO_PAD.encode(SECRET),
            format!("{SECRET:?}"),
            CANARY.to_owned(),
        ];
        for spelling in &spellings {
            assert!(!text.contains(spelling.as_str()), "{spelling} in {text}");
        }
    }
}

pub(crate) fn seen_by_people(error: &Error) -> String {
    let text = format!("{error} {error:?}");
    assert_hides(std::slice::from_ref(&text));
    text
}

/// A service as the tests see it.
pub(crate) struct Suite {
    pub(crate) key: fn(&Server) -> KeyUrl,
    /// Answers as the service does, to requests for tokens too.
    pub(crate) good: fn(&Request) -> Answer,
    /// Whether a request is one for a key, and none for a token.
    pub(crate) is_for_key: fn(&Request) -> bool,
    pub(crate) services: fn(&Server, &[(&str, &str)]) -> KeyServices,
}

/// A server, what asks it, and the key to ask for.
pub(crate) struct Asked {
    pub(crate) server: Server,
    pub(crate) services: KeyServices,
    pub(crate) key: KeyUrl,
    is_for_key: fn(&Request) -> bool,
}

impl Asked {
    /// How many requests for keys there were.
    pub(crate) fn times(&self) -> usize {
        self.server.seen().iter().filter(|request| (self.is_for_key)(request)).count()
    }
}

impl Suite {
    /// The first answers to requests for keys are these; then the server is good.
    pub(crate) async fn start(&self, first: &[Answer], settings: &[(&str, &str)]) -> Asked {
        let (good, is_for_key, first) = (self.good, self.is_for_key, first.to_vec());
        let server = Server::start(move |request, before| {
            if !is_for_key(request) {
                return good(request);
            }
            let at = before.iter().filter(|request| is_for_key(request)).count();
            first.get(at).cloned().unwrap_or_else(|| good(request))
        })
        .await;
        let services = (self.services)(&server, settings);
        let key = (self.key)(&server);
        services.trust(&key);
        Asked { server, services, key, is_for_key }
    }

    /// What a good server wrapped, to be unwrapped by the one that is `asked`.
    pub(crate) async fn wrapped_for(&self, asked: &Asked) -> Wrapped {
        let good = self.start(&[], &[]).await;
        let wrapped = good.services.wrap(&good.key, &SECRET, AAD).await.unwrap();
        // A Vault's name is its address; the others' are not.
        match asked.key.service() {
            Service::Vault => Wrapped { wrapped_by: asked.key.clone(), ..wrapped },
            _ => wrapped,
        }
    }

    /// What comes of it when the first answers are these, and how often it was asked: wrapping, and unwrapping.
    async fn try_both(&self, first: &[Answer], settings: &[(&str, &str)]) -> [(Result<(), Error>, usize); 2] {
        let asked = self.start(first, settings).await;
        let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.map(drop);
        let wrapping = (wrapped, asked.times());
        let asked = self.start(first, settings).await;
        let unwrapped = asked.services.unwrap(&self.wrapped_for(&asked).await, AAD).await;
        let unwrapped = unwrapped.map(|secret| assert_eq!(*secret, SECRET));
        [wrapping, (unwrapped, asked.times())]
    }

    pub(crate) async fn run(&self) {
        self.keys_come_back().await;
        self.what_may_pass_is_repeated().await;
        self.what_lasts_is_not_repeated().await;
        self.answers_are_checked().await;
        self.silence_ends().await;
        self.this_machine_is_reached_without_a_proxy().await;
    }

    async fn keys_come_back(&self) {
        for outcome in self.try_both(&[], &[]).await {
            assert_eq!(outcome, (Ok(()), 1));
        }
        let asked = self.start(&[], &[]).await;
        let wrapped = self.wrapped_for(&asked).await;
        let error = asked.services.unwrap(&wrapped, b"elsewhere").await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{}", seen_by_people(&error));
        assert_hides(&[format!("{:?} {wrapped:?}", asked.services)]);
        for aad in [b"".as_slice(), &[0; 513]] {
            let error = asked.services.wrap(&asked.key, &SECRET, aad).await.unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
        }
    }

    async fn what_may_pass_is_repeated(&self) {
        let broken = Answer::json(200, serde_json::json!({"x": "y".repeat(100)})).break_after(20);
        for fault in [Answer::new(429), Answer::new(500), Answer::new(503), Answer::reset(), broken] {
            for outcome in self.try_both(std::slice::from_ref(&fault), &[]).await {
                assert_eq!(outcome, (Ok(()), 2));
            }
        }
        for (outcome, times) in self.try_both(&vec![Answer::new(503); 3], &[]).await {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind, times), (Kind::Unavailable, 3));
            assert!(seen_by_people(&error).contains("after 3 attempts"), "{error}");
        }
    }

    async fn what_lasts_is_not_repeated(&self) {
        let key = STANDARD.encode(SECRET);
        let texts = [CANARY, &key];
        let echo = serde_json::json!({
            "error": {"message": texts.concat(), "code": texts.concat(), "status": texts.concat()},
            "errors": texts,
            "message": texts.concat(),
        });
        for (status, kinds) in [
            (400, [Kind::Invalid, Kind::Refused]),
            (401, [Kind::Denied; 2]),
            (403, [Kind::Denied; 2]),
            (404, [Kind::NotFound; 2]),
        ] {
            for (outcome, times) in self.try_both(&vec![Answer::json(status, &echo); 3], &[]).await {
                let error = outcome.unwrap_err();
                assert!(kinds.contains(&error.kind) && times <= 2, "{times} {}", seen_by_people(&error));
            }
        }
        let elsewhere = Answer::new(307).header("location", "http://127.0.0.1:9/");
        for (outcome, times) in self.try_both(&vec![elsewhere; 3], &[]).await {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind, times), (Kind::Invalid, 1), "{error}");
        }
    }

    async fn answers_are_checked(&self) {
        let key = STANDARD.encode(SECRET);
        let long = format!("{{\"x\": \"{}\"}}", "y".repeat(100_000));
        for body in [
            key.clone().into_bytes(),
            format!("{{\"plaintext\": {key}}}").into_bytes(),
            format!("{{\"plaintext\": [\"{key}\"], \"value\": [\"{key}\"]}}").into_bytes(),
            b"{}".to_vec(),
            b"[".repeat(10_000),
            b"\xff\x00\xfe".repeat(20),
            Vec::new(),
            long.into_bytes(),
        ] {
            let answer = Answer::new(200).header("content-type", "application/json").body(body);
            for (outcome, _) in self.try_both(&vec![answer; 3], &[]).await {
                let error = outcome.unwrap_err();
                let kinds = [Kind::Other, Kind::Unavailable, Kind::Refused];
                assert!(kinds.contains(&error.kind), "{}", seen_by_people(&error));
            }
        }
    }

    async fn silence_ends(&self) {
        let begun = Instant::now();
        let settings = [("kms.timeout.ms", "2000"), ("kms.max.attempts", "2")];
        for (outcome, times) in self.try_both(&vec![Answer::hang(); 2], &settings).await {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind, times), (Kind::Unavailable, 2));
            assert!(seen_by_people(&error).contains("2000 ms"), "{error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    /// In the clear, a proxy would read keys and tokens.
    async fn this_machine_is_reached_without_a_proxy(&self) {
        let proxy = Server::start(|_, _| Answer::new(502)).await;
        let asked = self.start(&[], &[("kms.proxy.url", &proxy.endpoint)]).await;
        let wrapped = asked.services.wrap(&asked.key, &SECRET, AAD).await.unwrap();
        assert_eq!(*asked.services.unwrap(&wrapped, AAD).await.unwrap(), SECRET);
        assert_eq!((asked.times(), proxy.seen().len()), (2, 0));
    }
}

/// What is elsewhere is asked by a tunnel of the proxy, which sees no more than its name.
pub(crate) async fn goes_by_a_tunnel(by_proxy: impl Fn(&str) -> KeyServices, key: &KeyUrl, to: &str) {
    let proxy = Server::start(|_, _| Answer::new(502)).await;
    let services = by_proxy(&format!("http://user:{CANARY}-pw@{}", proxy.address()));
    services.trust(key);
    let refused = services.wrap(key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable, "{}", seen_by_people(&refused));
    assert!(!proxy.seen().is_empty());
    for request in proxy.seen() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("CONNECT", to));
        assert!(request.header("proxy-authorization").is_some_and(|value| value.starts_with("Basic ")));
        let told = format!("{:?} {}", request.headers, String::from_utf8_lossy(&request.body));
        assert!(!told.contains(CANARY), "{told}");
    }
    drop(proxy);
    let gone = services.wrap(key, &SECRET, AAD).await.unwrap_err();
    assert_eq!(gone.kind, Kind::Unavailable, "{}", seen_by_people(&gone));
}

/// A cipher of a toy: reversible, and bound to its AAD, which stands in it.
pub(crate) fn toy_wrap(plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).unwrap().to_be_bytes();
    let hidden: Vec<u8> = plain.iter().map(|byte| byte ^ 0x5a).collect();
    [&length, hidden.as_slice(), aad].concat()
}

pub(crate) fn toy_unwrap(bytes: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (hidden, bound) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    (bound == aad).then(|| hidden.iter().map(|byte| byte ^ 0x5a).collect())
}
