//! An HTTP proxy in front of an S3 server that throttles as S3 does: `503 SlowDown`, with an XML body.
//!
//! It also counts requests by kind, so that a test can say what a segment costs. One request a connection:
//! slow and simple.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rand::Rng;

/// What the proxy does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Weather {
    #[default]
    Fair,
    /// Answers 503 to this share of the requests, before they reach the server.
    SlowDown { percent: u32 },
    /// The same to whatever is asked for the first time since it began.
    EachOnce,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    passed: BTreeMap<String, u64>,
    throttled: u64,
    /// What was asked for: method, target and range.
    seen: HashSet<String>,
}

#[derive(Debug)]
pub struct Throttle {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Throttle {
    /// Listens until the program ends.
    pub fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                let state = Arc::clone(&shared);
                // A connection that breaks is its client's to notice.
                thread::spawn(move || drop(serve(client, upstream, &state)));
            }
        });
        Ok(Self { port, state })
    }

    pub fn set(&self, weather: Weather) {
        let mut state = self.lock();
        state.weather = weather;
        state.seen.clear();
    }

    /// Requests that were let through, by method and kind, e.g. `PUT object` or `GET range`.
    pub fn passed(&self) -> BTreeMap<String, u64> {
        self.lock().passed.clone()
    }

    pub fn throttled(&self) -> u64 {
        self.lock().throttled
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(client: TcpStream, upstream: u16, state: &Mutex<State>) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut answers = client.try_clone()?;
    let mut requests = BufReader::new(client);
    let head = Head::read(&mut requests)?;
    if head.expects_continue {
        answers.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let throttled = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let throttled = match state.weather {
            Weather::Fair => false,
            Weather::SlowDown { percent } => rand::rng().random_range(0..100) < percent,
            Weather::EachOnce => state.seen.insert(head.what()),
        };
        if throttled {
            state.throttled += 1;
        } else {
            *state.passed.entry(head.kind()).or_default() += 1;
        }
        throttled
    };
    let mut body = requests.take(head.content_length);
    if throttled {
        io::copy(&mut body, &mut io::sink())?;
        return refuse(&mut answers);
    }
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.write_all(head.forwarded().as_bytes())?;
    io::copy(&mut body, &mut server)?;
    io::copy(&mut server, &mut answers)?;
    answers.shutdown(Shutdown::Both)
}

fn refuse(answers: &mut TcpStream) -> io::Result<()> {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                <Message>Please reduce your request rate.</Message></Error>";
    let length = body.len();
    write!(
        answers,
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    answers.shutdown(Shutdown::Both)
}

/// A request's first line and headers.
struct Head {
    lines: Vec<String>,
    content_length: u64,
    expects_continue: bool,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut head = Self { lines: Vec::new(), content_length: 0, expects_continue: false };
        loop {
            let mut line = String::new();
            from.take(64 << 10).read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.content_length = value.trim().parse().map_err(io::Error::other)?,
                "expect" => head.expects_continue = true,
                "connection" => {}
                _ => head.lines.push(line.to_owned()),
            }
        }
        if head.lines.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(head) }
    }

    fn kind(&self) -> String {
        let mut words = self.lines[0].split(' ');
        let method = words.next().unwrap_or_default();
        let query = words.next().and_then(|target| target.split_once('?')).map_or("", |(_, query)| query);
        let ranged = self.lines.iter().any(|line| line.to_ascii_lowercase().starts_with("range:"));
        let what = if query.contains("partNumber=") {
            "part"
        } else if query.contains("uploadId=") || query.contains("uploads") {
            "upload"
        } else if query.contains("list-type=") {
            "list"
        } else if ranged {
            "range"
        } else {
            "object"
        };
        format!("{method} {what}")
    }

    /// What is asked for: the same again has the same.
    fn what(&self) -> String {
        let is_range = |line: &&String| line.to_ascii_lowercase().starts_with("range:");
        let range = self.lines.iter().find(is_range).map_or("", String::as_str);
        format!("{} {range}", self.lines[0])
    }

    fn forwarded(&self) -> String {
        let mut text = self.lines.join("\r\n");
        text.push_str(&format!("\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", self.content_length));
        text
    }
}
