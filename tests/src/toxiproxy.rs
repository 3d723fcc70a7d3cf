//! A TCP proxy that is slow, resets connections, or refuses them.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::process::Process;
use crate::scratch::Scratch;
use crate::{free_port, http, install};

#[derive(Debug)]
pub struct Toxiproxy {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl Toxiproxy {
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let scratch = Scratch::new("toxiproxy")?;
        let mut command = Command::new(install::toxiproxy()?);
        command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        let mut process = Process::start("toxiproxy", command, &scratch.path().join("toxiproxy.log"))?;
        process.wait_ready(Duration::from_secs(60), || http::request("GET", port, "/version", "").is_ok())?;
        Ok(Self { port, _process: process, _scratch: scratch })
    }

    /// A proxy in front of `upstream`, another loopback port.
    pub fn proxy(&self, name: &str, upstream: u16) -> Result<Proxy> {
        Proxy::create(self.port, name, upstream)
    }

    /// Where it is told what to do.
    pub(crate) fn api(&self) -> u16 {
        self.port
    }
}

#[derive(Debug)]
pub struct Proxy {
    api: u16,
    name: String,
    pub port: u16,
}

impl Proxy {
    pub(crate) fn create(api: u16, name: &str, upstream: u16) -> Result<Self> {
        let proxy = Self { api, name: name.to_owned(), port: free_port()? };
        let listen = format!("127.0.0.1:{}", proxy.port);
        let body = json!({"name": name, "listen": listen, "upstream": format!("127.0.0.1:{upstream}")});
        http::request("POST", api, "/proxies", &body.to_string())?;
        Ok(proxy)
    }

    /// Refuses connections, and ends those that there are.
    pub fn close(&self) -> Result<()> {
        self.enable(false)
    }

    pub fn open(&self) -> Result<()> {
        self.enable(true)
    }

    fn enable(&self, enabled: bool) -> Result<()> {
        let body = json!({"enabled": enabled}).to_string();
        http::request("POST", self.api, &format!("/proxies/{}", self.name), &body).map(drop)
    }

    /// Delays what flows back by `ms`.
    pub fn add_latency(&self, ms: u32) -> Result<()> {
        self.add_jitter(ms, 0)
    }

    /// Delays what flows back by `ms`, give or take `jitter_ms`.
    pub fn add_jitter(&self, ms: u32, jitter_ms: u32) -> Result<()> {
        self.add("latency", "downstream", &json!({"latency": ms, "jitter": jitter_ms}))
    }

    /// Hands on what flows back in pieces of some bytes.
    pub fn add_slices(&self, bytes: u32) -> Result<()> {
        let attributes = json!({"average_size": bytes, "size_variation": bytes / 2, "delay": 100});
        self.add("slicer", "downstream", &attributes)
    }

    /// Closes every connection with a TCP reset after `ms`, whatever it carries then.
    pub fn add_resets(&self, ms: u32) -> Result<()> {
        self.add("reset_peer", "downstream", &json!({"timeout": ms}))
    }

    /// Closes every connection after `bytes` of the answer: bodies end in the middle.
    pub fn add_cut(&self, bytes: u64) -> Result<()> {
        self.add("limit_data", "downstream", &json!({"bytes": bytes}))
    }

    /// Lets at most so many KiB a second back.
    pub fn add_bandwidth(&self, kib_per_second: u32) -> Result<()> {
        self.add("bandwidth", "downstream", &json!({"rate": kib_per_second}))
    }

    /// Takes what is sent and never answers.
    pub fn add_silence(&self) -> Result<()> {
        self.add_silence_to(1.0)
    }

    /// Of all connections, those that there are and those to come, this share falls silent.
    pub fn add_silence_to(&self, share: f64) -> Result<()> {
        self.add_to(share, "timeout", "downstream", &json!({"timeout": 0}))
    }

    fn add(&self, kind: &str, stream: &str, attributes: &Value) -> Result<()> {
        self.add_to(1.0, kind, stream, attributes)
    }

    fn add_to(&self, share: f64, kind: &str, stream: &str, attributes: &Value) -> Result<()> {
        let body = json!({
            "name": kind, "type": kind, "stream": stream, "toxicity": share, "attributes": attributes
        });
        let path = format!("/proxies/{}/toxics", self.name);
        http::request("POST", self.api, &path, &body.to_string()).map(drop)
    }

    /// Takes every toxic away. Connections that a toxic holds stay as they are; new ones are clean.
    pub fn heal(&self) -> Result<()> {
        let path = format!("/proxies/{}/toxics", self.name);
        let toxics: Vec<Value> = serde_json::from_str(&http::request("GET", self.api, &path, "")?)?;
        for name in toxics.iter().filter_map(|toxic| toxic["name"].as_str()) {
            http::request("DELETE", self.api, &format!("{path}/{name}"), "")?;
        }
        Ok(())
    }
}
