//! A Schema Registry: franz-go's, which keeps schemas in memory and speaks Confluent's REST API.
//!
//! It takes any schema as compatible.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::process::Process;
use crate::scratch::Scratch;
use crate::tls::Certificates;
use crate::{free_port, http, install};

/// What a registry does with ids that are given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// It has no such mode.
    Never,
    /// As Confluent's.
    Kept,
    /// It takes the mode, and gives ids of its own.
    Ignored,
}

#[derive(Debug)]
pub struct Registry {
    /// Open to all.
    pub port: u16,
    /// With TLS and a login, over the same schemas.
    pub secure_port: u16,
    _process: Process,
    scratch: Scratch,
}

impl Registry {
    pub const USER: &str = "ann";
    pub const PASSWORD: &str = "not-a-secret";
    pub const TOKEN: &str = "not-a-token";

    pub fn start() -> Result<Self> {
        Self::with(Import::Never, Duration::ZERO)
    }

    /// `delay` is that of each registration, of one with an import mode.
    pub fn with(import: Import, delay: Duration) -> Result<Self> {
        let (port, secure_port) = (free_port()?, free_port()?);
        let scratch = Scratch::new("registry")?;
        let dir = scratch.path();
        Certificates::make(dir)?;
        let basic = STANDARD.encode(format!("{}:{}", Self::USER, Self::PASSWORD));
        let mut command = Command::new(install::registry()?);
        command.current_dir(dir);
        command.args(["-open", &format!("127.0.0.1:{port}")]);
        command.args(["-secure", &format!("127.0.0.1:{secure_port}")]);
        command.args(["-certificate", "server.pem", "-key", "server.key"]);
        command.args(["-authorization", &format!("Basic {basic}")]);
        command.args(["-authorization", &format!("Bearer {}", Self::TOKEN)]);
        match import {
            Import::Never => &mut command,
            Import::Kept => command.args(["-import", "kept"]),
            Import::Ignored => command.args(["-import", "ignored"]),
        };
        command.args(["-delay", &format!("{}ms", delay.as_millis())]);
        let mut process = Process::start("registry", command, &dir.join("registry.log"))?;
        process
            .wait_ready(Duration::from_secs(60), || http::request("GET", port, "/subjects", "").is_ok())?;
        Ok(Self { port, secure_port, _process: process, scratch })
    }

    /// Of the open one.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whom to trust as the one with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }

    /// Returns the schema's id.
    pub fn register(&self, subject: &str, schema: &Value) -> Result<i64> {
        let path = format!("/subjects/{subject}/versions");
        let answer = http::request("POST", self.port, &path, &schema.to_string())?;
        let answer: Value = serde_json::from_str(&answer)?;
        answer["id"].as_i64().context("no id")
    }

    /// Without a subject, the global one.
    pub fn set_compatibility(&self, subject: &str, level: &str) -> Result<()> {
        let body = json!({"compatibility": level}).to_string();
        let path = format!("/config/{subject}");
        http::request("PUT", self.port, path.trim_end_matches('/'), &body).map(drop)
    }

    pub fn set_mode(&self, subject: &str, mode: &str) -> Result<()> {
        let body = json!({"mode": mode}).to_string();
        http::request("PUT", self.port, &format!("/mode/{subject}"), &body).map(drop)
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&http::request("GET", self.port, path, "")?)?)
    }

    /// Softly, unless the path ends otherwise.
    pub fn delete(&self, path: &str) -> Result<()> {
        http::request("DELETE", self.port, &format!("/subjects/{path}"), "").map(drop)
    }
}
