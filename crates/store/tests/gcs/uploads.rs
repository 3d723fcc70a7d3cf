//! Uploads over a session that loses answers, takes less than it is sent, or is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use parking_lot::Mutex;
use varve_store::{Kind, PutOptions, Upload};

use super::{
    SECRET, bytes_of, crc32c, error_json, id_of, if_absent, key, methods, object, object_json, store_at,
};
use varve_script::{Answer, Request, Server};

const QUANTUM: usize = 256 << 10;

/// What a resumable upload is to the store.
#[derive(Default)]
struct Session {
    bytes: Vec<u8>,
    id: String,
    chunks: usize,
    done: bool,
}

impl Session {
    fn state(&self) -> Answer {
        match (self.done, self.bytes.len()) {
            (true, _) => Answer::new(200).body(object_json(&self.bytes, &self.id)),
            (false, 0) => Answer::new(308),
            (false, len) => Answer::new(308).header("range", &format!("bytes=0-{}", len - 1)),
        }
    }

    /// Takes up to `most` bytes of a chunk.
    fn take(&mut self, request: &Request, most: usize) -> Answer {
        let (range, total) =
            request.header("content-range").unwrap().strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        if let Some((first, _)) = range.split_once('-') {
            assert_eq!(first.parse::<usize>().unwrap(), self.bytes.len(), "a chunk that does not follow");
            assert!(total != "*" || request.body.len().is_multiple_of(QUANTUM), "{}", request.body.len());
            self.chunks += 1;
            self.bytes.extend_from_slice(&request.body[..request.body.len().min(most)]);
        }
        self.done |= total.parse() == Ok(self.bytes.len());
        self.state()
    }

    /// All of a session as the store does it.
    fn serve(&mut self, request: &Request) -> Answer {
        match request.method.as_str() {
            "POST" => self.begin(request),
            "PUT" => self.take(request, usize::MAX),
            "DELETE" => Answer::new(499),
            _ if self.done => Answer::new(200).body(object_json(&self.bytes, &self.id)),
            _ => error_json(404, "notFound"),
        }
    }

    fn begin(&mut self, request: &Request) -> Answer {
        self.id = id_of(request).unwrap();
        let host = request.header("host").unwrap();
        Answer::new(200).header("location", &format!("http://{host}/upload/s?upload_id={SECRET}"))
    }
}

/// A server of one session; `first` sees each request before the session does, and what the session answered.
async fn session_server(
    first: impl Fn(&Request, &mut Session) -> Option<Answer> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Session>>) {
    let session = Arc::new(Mutex::new(Session::default()));
    let shared = Arc::clone(&session);
    let server = Server::start(move |request, _| {
        let mut session = shared.lock();
        first(request, &mut session).unwrap_or_else(|| session.serve(request))
    })
    .await;
    (server, session)
}

async fn begin(server: &Server, options: &PutOptions) -> Arc<dyn Upload> {
    store_at(&server.endpoint, &[]).await.upload(&key(), QUANTUM as u64, None, options).await.unwrap()
}

fn part(number: u32) -> Bytes {
    Bytes::from(vec![number as u8; QUANTUM])
}

fn parts(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|number| part(number).to_vec()).collect()
}

#[tokio::test]
async fn a_lost_answer_to_a_chunk_is_asked_for() {
    for arrived in [true, false] {
        let (server, session) = session_server(move |request, session| {
            (request.method == "PUT" && session.chunks == 1 && !request.body.is_empty()).then(|| {
                match arrived {
                    true => _ = session.take(request, usize::MAX),
                    false => session.chunks += 1,
                }
                Answer::reset()
            })
        })
        .await;
        let upload = begin(&server, &PutOptions::default()).await;
        for number in 1..=3 {
            upload.put_part(number, part(number)).await.unwrap();
        }
        assert_eq!(upload.complete().await.unwrap().size_bytes, 3 * QUANTUM as u64);
        assert_eq!(session.lock().bytes, parts(3));
        let ranges: Vec<_> =
            server.seen().iter().filter_map(|r| r.header("content-range").map(str::to_owned)).collect();
        let again = (!arrived).then_some("bytes 262144-524287/*");
        let head = ["bytes 0-262143/*", "bytes 262144-524287/*", "bytes */*"];
        let expected: Vec<_> =
            head.into_iter().chain(again).chain(["bytes 524288-786431/*", "bytes */786432"]).collect();
        assert_eq!(ranges, expected);
    }
}

#[tokio::test]
async fn a_chunk_taken_in_pieces_goes_on_where_the_store_says() {
    let (server, session) =
        session_server(|request, session| (request.method == "PUT").then(|| session.take(request, QUANTUM)))
            .await;
    let store = store_at(&server.endpoint, &[]).await;
    let upload = store.upload(&key(), 8 * QUANTUM as u64, None, &PutOptions::default()).await.unwrap();
    upload.put_part(1, parts(8).into()).await.unwrap();
    upload.complete().await.unwrap();
    let session = session.lock();
    assert_eq!((session.bytes.len(), session.chunks), (8 * QUANTUM, 8));
}

#[tokio::test]
async fn parts_of_any_size_go_in_whole_quanta() {
    let (server, session) = session_server(|_, _| None).await;
    let store = store_at(&server.endpoint, &[]).await;
    let body = bytes_of(4 * 300_000 + 1000);
    let upload = store.upload(&key(), 300_000, None, &PutOptions::default()).await.unwrap();
    for (number, part) in (1..).zip(body.chunks(300_000)) {
        upload.put_part(number, Bytes::copy_from_slice(part)).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert!(session.lock().bytes == body);
    let end = server.seen().pop().unwrap();
    assert_eq!(end.header("x-goog-hash"), Some(format!("crc32c={}", crc32c(&body)).as_str()));
    assert_eq!(end.header("authorization"), None);
}

#[tokio::test]
async fn a_lost_answer_to_the_end_is_asked_for() {
    for (number, lost) in [Answer::reset, || error_json(503, "backendError")].into_iter().enumerate() {
        let lost_once = AtomicUsize::new(0);
        let (server, _) = session_server(move |request, session| {
            let ends = request.header("content-range").is_some_and(|range| !range.ends_with("/*"));
            (ends && lost_once.fetch_add(1, Ordering::Relaxed) == 0).then(|| {
                session.take(request, usize::MAX);
                lost()
            })
        })
        .await;
        let upload = begin(&server, &if_absent()).await;
        upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(upload.complete().await.unwrap().size_bytes, 5, "{number}");
        assert_eq!(upload.complete().await.unwrap().size_bytes, 5);
        assert_eq!(methods(&server), ["POST", "PUT", "PUT"]);
    }
}

#[tokio::test]
async fn a_session_that_is_gone_may_have_ended_by_our_success() {
    for (found, expected) in
        [("ours", Ok(5)), ("another", Err(Kind::AlreadyExists)), ("nothing", Err(Kind::NotFound))]
    {
        let (server, _) = session_server(move |request, session| match request.method.as_str() {
            "PUT" => Some(error_json(410, "gone")),
            "GET" if found == "nothing" => Some(error_json(404, "notFound")),
            "GET" => {
                let id = if found == "ours" { session.id.clone() } else { found.to_owned() };
                Some(Answer::new(200).body(object_json(b"hello", &id)))
            }
            _ => None,
        })
        .await;
        let upload = begin(&server, &if_absent()).await;
        upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
        let outcome = upload.complete().await.map(|meta| meta.size_bytes).map_err(|error| error.kind);
        assert_eq!(outcome, expected, "{found}");
        assert_eq!(methods(&server), ["POST", "PUT", "GET"]);
    }
}

#[tokio::test]
async fn an_upload_refused_when_it_begins_is_told_at_its_end() {
    let server = Server::start(|_, _| error_json(412, "conditionNotMet")).await;
    let upload = begin(&server, &if_absent()).await;
    for number in [2, 1] {
        upload.put_part(number, part(number)).await.unwrap();
    }
    assert_eq!(upload.complete().await.unwrap_err().kind, Kind::AlreadyExists);
    upload.abort().await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_object_made_wrongly_does_not_stay() {
    let (server, _) = session_server(|request, session| {
        if request.method == "DELETE" {
            return Some(Answer::new(204));
        }
        let ends = request.header("content-range").is_some_and(|range| !range.ends_with("/*"));
        ends.then(|| Answer::new(200).body(object_json(b"jello", &session.id)))
    })
    .await;
    let upload = begin(&server, &PutOptions::default()).await;
    upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
    let error = upload.complete().await.unwrap_err();
    assert!(error.kind == Kind::Truncated && error.to_string().contains("removed"), "{error}");
    let last = server.seen().pop().unwrap();
    assert_eq!(last.method, "DELETE");
    assert!(last.path.ends_with("/o/some%2Fprefix%2Fthe%2Fobject?generation=7"), "{}", last.path);
}

/// More parts than are held, the last ones first: those that find no room wait for those before them.
#[tokio::test]
async fn parts_in_any_order_wait_and_arrive() {
    let (server, session) = session_server(|_, _| None).await;
    let upload = begin(&server, &PutOptions::default()).await;
    let backwards = (1..=40).rev().map(|number| upload.put_part(number, part(number)));
    let sent = try_join_all(backwards);
    tokio::time::timeout(Duration::from_secs(60), sent).await.expect("parts wait for ever").unwrap();
    upload.complete().await.unwrap();
    assert!(session.lock().bytes == parts(40));
}

#[tokio::test]
async fn parts_before_their_turn_are_held_and_no_more_than_said() {
    let (server, session) = session_server(|_, _| None).await;
    let store = store_at(&server.endpoint, &[]).await;
    let held = store.limits().creates_hold_parts.unwrap() as u32;
    let upload = store.upload(&key(), QUANTUM as u64, None, &PutOptions::default()).await.unwrap();
    for number in 2..2 + held {
        upload.put_part(number, part(number)).await.unwrap();
    }
    let last = held + 2;
    let beyond = upload.put_part(last, part(last));
    assert!(tokio::time::timeout(Duration::from_millis(200), beyond).await.is_err(), "it waits");
    assert_eq!(session.lock().bytes.len(), 0);
    upload.put_part(1, part(1)).await.unwrap();
    upload.put_part(last, part(last)).await.unwrap();
    upload.complete().await.unwrap();
    assert!(session.lock().bytes == parts(last));
}

#[tokio::test]
async fn an_abort_ends_the_waiting_of_parts() {
    let (server, _) = session_server(|_, _| None).await;
    let upload = begin(&server, &PutOptions::default()).await;
    let early = join_all((2..30).map(|number| upload.put_part(number, part(number))));
    let abort = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        upload.abort().await.unwrap();
    };
    let (outcomes, ()) = tokio::time::timeout(Duration::from_secs(10), futures::future::join(early, abort))
        .await
        .expect("parts wait for ever");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 16);
    assert_eq!(upload.complete().await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(methods(&server), ["POST", "DELETE"]);
}

/// A part whose future is dropped while it is on its way goes on from where the store is.
#[tokio::test]
async fn a_part_that_is_dropped_leaves_nothing_twice() {
    let slow = AtomicUsize::new(0);
    let (server, session) = session_server(move |request, session| {
        (request.method == "PUT" && slow.fetch_add(1, Ordering::Relaxed) == 0).then(|| {
            session.take(request, usize::MAX);
            Answer::hang()
        })
    })
    .await;
    let upload = begin(&server, &PutOptions::default()).await;
    let dropped = tokio::time::timeout(Duration::from_millis(200), upload.put_part(1, part(1))).await;
    assert!(dropped.is_err());
    let other = upload.put_part(1, part(9)).await.unwrap_err();
    assert_eq!(other.kind, Kind::Unsupported, "{other}");
    upload.put_part(1, part(1)).await.unwrap();
    upload.put_part(2, part(2)).await.unwrap();
    upload.complete().await.unwrap();
    assert!(session.lock().bytes == parts(2));
}

/// The address of an upload is used on the store's endpoint, whatever host it names.
#[tokio::test]
async fn an_upload_stays_on_the_endpoint() {
    let elsewhere = Server::start(|_, _| object(b"hello")).await;
    let target = format!("{}/upload/s?upload_id=1", elsewhere.endpoint);
    let server = Server::start(move |request, _| match request.method.as_str() {
        "POST" => Answer::new(200).header("location", &target),
        _ => object(b"hello"),
    })
    .await;
    let upload = begin(&server, &PutOptions::default()).await;
    upload.put_part(1, Bytes::from_static(b"hello")).await.unwrap();
    upload.complete().await.unwrap();
    assert!(elsewhere.seen().is_empty());
    assert_eq!(server.seen()[1].path, "/upload/s?upload_id=1");
}

#[tokio::test]
async fn the_id_of_an_upload_is_in_no_message() {
    for answer in [Answer::reset, || error_json(500, "internalError"), || error_json(403, "forbidden")] {
        let (server, _) = session_server(move |request, _| (request.method == "PUT").then(answer)).await;
        let upload = begin(&server, &PutOptions::default()).await;
        let error = upload.put_part(1, part(1)).await.unwrap_err();
        let text = format!("{error} {error:?} {upload:?}");
        assert!(!text.contains(SECRET), "{text}");
    }
}
