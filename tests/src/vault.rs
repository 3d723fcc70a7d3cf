//! A Vault's transit engine in a few lines, which does as a test says. It hides keys from nobody; it does bind them to
//! their associated data, and believes one token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What it says to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultMood {
    Fair,
    /// 403, whatever the token.
    SaysNo,
    /// 503.
    Sealed,
    /// Takes what is asked, and never answers.
    Silent,
}

/// Keys of any name, under the mount `transit`.
#[derive(Debug)]
pub struct Vault {
    pub port: u16,
    pub token: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    token: String,
    mood: Mutex<VaultMood>,
    wrapped: AtomicU64,
    unwrapped: AtomicU64,
}

impl Vault {
    pub fn start(token: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = Arc::new(State {
            token: token.to_owned(),
            mood: Mutex::new(VaultMood::Fair),
            wrapped: AtomicU64::default(),
            unwrapped: AtomicU64::default(),
        });
        let vault =
            Self { port: listener.local_addr()?.port(), token: token.to_owned(), state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || while serve(&stream, &state).is_ok_and(|more| more) {});
            }
        });
        Ok(vault)
    }

    /// The URL of a key of its.
    pub fn key(&self, name: &str) -> String {
        format!("vault+http://127.0.0.1:{}/transit/{name}", self.port)
    }

    pub fn set(&self, mood: VaultMood) {
        *self.state.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// How many keys it wrapped and unwrapped.
    pub fn asked(&self) -> (u64, u64) {
        (self.state.wrapped.load(Ordering::Relaxed), self.state.unwrapped.load(Ordering::Relaxed))
    }
}

/// One request; whether more may come.
fn serve(stream: &TcpStream, state: &State) -> Result<bool> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(false);
    }
    let path = first.split(' ').nth(1).context("no path")?.to_owned();
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse()?,
            "x-vault-token" => token = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mood = *state.mood.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, answer) = match mood {
        VaultMood::Silent => {
            std::thread::sleep(Duration::from_secs(600));
            return Ok(false);
        }
        VaultMood::Sealed => (503, json!({"errors": ["Vault is sealed"]})),
        VaultMood::SaysNo => (403, json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]})),
        VaultMood::Fair if token != state.token => (403, json!({"errors": ["permission denied"]})),
        VaultMood::Fair => transit(&path, &serde_json::from_slice(&body)?, state),
    };
    let answer = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(true)
}

fn transit(path: &str, asked: &Value, state: &State) -> (u16, Value) {
    let refused = |what: &str| (400, json!({"errors": [what]}));
    let Some((action, key)) = path.strip_prefix("/v1/transit/").and_then(|rest| rest.split_once('/')) else {
        return (404, json!({"errors": []}));
    };
    let aad = asked["associated_data"].as_str().unwrap_or_default();
    match (action, asked["plaintext"].as_str(), asked["ciphertext"].as_str()) {
        ("encrypt", Some(plaintext), _) => {
            state.wrapped.fetch_add(1, Ordering::Relaxed);
            let sealed = STANDARD.encode(mask(format!("{key}|{aad}|{plaintext}").as_bytes()));
            (200, json!({"data": {"ciphertext": format!("vault:v1:{sealed}"), "key_version": 1}}))
        }
        ("decrypt", _, Some(ciphertext)) => {
            state.unwrapped.fetch_add(1, Ordering::Relaxed);
            let opened = ciphertext.strip_prefix("vault:v1:").and_then(|text| STANDARD.decode(text).ok());
            let opened = opened.and_then(|bytes| String::from_utf8(mask(&bytes)).ok()).unwrap_or_default();
            match opened.strip_prefix(&format!("{key}|{aad}|")) {
                Some(plaintext) => (200, json!({"data": {"plaintext": plaintext}})),
                None => refused("cipher: message authentication failed"),
            }
        }
        _ => refused("missing 'plaintext' or 'ciphertext'"),
    }
}

fn mask(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x5a).collect()
}
