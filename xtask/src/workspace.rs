//! Where things lie: the source tree, Cargo's target folder, and what is delivered.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the source tree.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Everything built goes here, `./varve` puts it into the user's cache folder.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => root().join("target"),
    }
}

/// What is delivered lies in the tree's own (ignored) target folder, wherever Cargo builds.
pub(crate) fn dist_dir() -> PathBuf {
    root().join("target/dist")
}

/// The Cargo that runs us, in the tree's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    cargo
}

/// `cargo build` of something of the whole workspace: Cargo compiles each dependency once for each set of features that
/// it is asked for, and so there is one, that of the tests.
pub(crate) fn building() -> Command {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--release", "--workspace"]);
    cargo
}

/// Gradle with its own state and all output outside of the tree.
pub(crate) fn gradle() -> Command {
    let mut gradle = Command::new("gradle");
    gradle.current_dir(root()).args(["-q", "--no-daemon", "--project-cache-dir"]);
    gradle.arg(target_dir().join("gradle-project")).env("VARVE_GRADLE_BUILD", gradle_build());
    gradle
}

pub(crate) fn gradle_build() -> PathBuf {
    target_dir().join("gradle")
}
