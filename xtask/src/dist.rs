//! `cargo xtask dist`: the shim and the native library as one jar, `target/dist/varve-rsm.jar`, and the command.
//!
//! The same native libraries and sources give the same bytes. The jar holds our classes, our libraries and
//! META-INF, nothing else: on a broker's class path a stranger's class would shadow or be shadowed.
//! The jar is moved into place whole; a crash leaves the one before.

mod library;
mod platform;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::step::quiet;
use crate::workspace::{building, cargo, dist_dir, gradle, gradle_build, target_dir};
use platform::{LIBRARY, Platform};

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Platforms that the jar must hold [default: this machine's], e.g. linux-aarch64-gnu
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Ready libraries, as <DIR>/<platform>/libvarve_rsm.so, for platforms that are not built here
    #[arg(long, value_name = "DIR")]
    native_dir: Option<PathBuf>,
    /// Build against this glibc (2.28 runs on every supported distribution) by cargo-zigbuild
    #[arg(long, value_name = "VERSION")]
    glibc: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<PathBuf> {
    let platforms = if args.platforms.is_empty() { vec![Platform::host()] } else { args.platforms.clone() };
    let staging = dist_dir().join("native");
    // What an earlier run left must not slip into this jar. Ready libraries may lie in this very folder.
    let found = platforms.iter().map(|p| Ok((*p, find(*p, args)?))).collect::<Result<Vec<_>>>()?;
    let fresh = dist_dir().join("native.partial");
    remove_dir(&fresh)?;
    for (platform, library) in &found {
        let into = fresh.join(platform.to_string());
        fs::create_dir_all(&into)?;
        fs::copy(library, into.join(LIBRARY)).with_context(|| format!("copy {}", library.display()))?;
        report(*platform, &into.join(LIBRARY))?;
    }
    remove_dir(&staging)?;
    fs::rename(&fresh, &staging)?;

    let built = build_jar(&staging)?;
    check_entries(&built)?;
    let jar = dist_dir().join("varve-rsm.jar");
    let partial = dist_dir().join("varve-rsm.jar.partial");
    fs::copy(&built, &partial)?;
    fs::rename(&partial, &jar)?;
    println!("{} ({} KiB)", jar.display(), fs::metadata(&jar)?.len() / 1024);
    Ok(jar)
}

/// The command `varve`, beside the jar.
pub(crate) fn command() -> Result<()> {
    quiet(building().args(["--bin", "varve"]))?;
    let to = dist_dir().join("varve");
    let partial = dist_dir().join("varve.partial");
    fs::copy(target_dir().join("release/varve"), &partial)?;
    fs::rename(&partial, &to)?;
    println!("{} ({} KiB)", to.display(), fs::metadata(&to)?.len() / 1024);
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// A ready library if one was given, else one built here if this machine can.
fn find(platform: Platform, args: &Args) -> Result<PathBuf> {
    let ready = args.native_dir.as_ref().map(|dir| dir.join(platform.to_string()).join(LIBRARY));
    if let Some(ready) = ready.filter(|file| file.is_file()) {
        return Ok(ready);
    }
    if let Some(glibc) = args.glibc.as_deref().filter(|_| platform.is_gnu()) {
        return build_with_zig(platform, glibc);
    }
    if platform != Platform::host() {
        bail!("{}", missing(platform, args.native_dir.as_deref()));
    }
    quiet(building().arg("--lib"))?;
    Ok(target_dir().join("release").join(LIBRARY))
}

fn missing(platform: Platform, native_dir: Option<&Path>) -> String {
    let looked = match native_dir {
        Some(dir) => format!("{} does not exist", dir.join(platform.to_string()).join(LIBRARY).display()),
        None => "no --native-dir was given".to_owned(),
    };
    format!(
        "no native library for {platform}: {looked}, and this machine ({}) does not build it. \
         Run `cargo xtask dist --platform {platform}` on such a machine, and give the target/dist/native \
         that it leaves as --native-dir{}",
        Platform::host(),
        if platform.is_gnu() {
            "; or cross-compile by `--glibc 2.28`, which needs cargo-zigbuild"
        } else {
            ""
        }
    )
}

fn build_with_zig(platform: Platform, glibc: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["zigbuild", "--quiet", "--release", "--package", "varve-rsm", "--lib"]);
    build.arg("--target").arg(format!("{}.{glibc}", platform.rust_target()));
    quiet(&mut build)
        .context("--glibc needs `cargo-zigbuild` and `ziglang` (both on PyPI) and the Rust target")?;
    Ok(target_dir().join(platform.rust_target()).join("release").join(LIBRARY))
}

/// Says what the library asks of a system, and refuses one that a JVM must not load.
fn report(platform: Platform, file: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    // Its threads and thread locals outlive a class loader: unmapping it would crash the broker.
    ensure!(library::is_nodelete(&bytes)?, "{} is not linked with -z nodelete", file.display());
    let needs = match library::newest_glibc(&bytes) {
        Some((major, minor)) => format!("needs glibc {major}.{minor} or newer"),
        None => "needs no glibc".to_owned(),
    };
    println!("{platform}: {} KiB, {needs}", bytes.len() / 1024);
    Ok(())
}

fn build_jar(native: &Path) -> Result<PathBuf> {
    let command = |offline: bool| {
        let mut gradle = gradle();
        gradle.args(offline.then_some("--offline")).arg(":rsm-java-shim:jar");
        gradle.arg(format!("-PnativeLibraries={}", native.display()));
        gradle.arg(format!("-PvarveVersion={}", env!("CARGO_PKG_VERSION")));
        gradle
    };
    // Offline first: with everything in Gradle's cache it neither waits for a network nor needs one.
    if quiet(&mut command(true)).is_err() {
        quiet(&mut command(false))?;
    }
    Ok(gradle_build().join("rsm-java-shim/libs/rsm-java-shim.jar"))
}

fn check_entries(jar: &Path) -> Result<()> {
    let listing = quiet(Command::new("jar").arg("tf").arg(jar))?;
    let listing = String::from_utf8_lossy(&listing.stdout);
    let foreign = foreign_entries(&listing);
    ensure!(foreign.is_empty(), "{} holds what is not ours: {}", jar.display(), foreign.join(", "));
    ensure!(
        listing.contains("io/varve/kafka/VarveRemoteStorageManager.class"),
        "{} lacks the shim",
        jar.display()
    );
    Ok(())
}

fn foreign_entries(listing: &str) -> Vec<&str> {
    let ours =
        |entry: &&str| entry.starts_with("io/varve/") || entry.starts_with("META-INF/") || *entry == "io/";
    listing.lines().filter(|entry| !ours(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_entries_pass() {
        let listing = "META-INF/\nMETA-INF/LICENSE\nio/\nio/varve/\nio/varve/kafka/Native.class\nio/varves/X\norg/slf4j/Logger.class";
        assert_eq!(foreign_entries(listing), ["io/varves/X", "org/slf4j/Logger.class"]);
    }

    #[test]
    fn a_missing_platform_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let other: Platform = if Platform::host().to_string() == "linux-aarch64-musl" {
            "linux-x86_64-musl".parse().unwrap()
        } else {
            "linux-aarch64-musl".parse().unwrap()
        };
        let args = Args { platforms: vec![other], native_dir: Some(dir.path().to_owned()), glibc: None };
        let error = find(other, &args).unwrap_err().to_string();
        assert!(error.contains(&format!("no native library for {other}: ")), "{error}");
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_ready_library_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let platform: Platform = "linux-aarch64-musl".parse().unwrap();
        fs::create_dir(dir.path().join("linux-aarch64-musl")).unwrap();
        let file = dir.path().join("linux-aarch64-musl").join(LIBRARY);
        fs::write(&file, b"ELF").unwrap();
        let args = Args { platforms: vec![platform], native_dir: Some(dir.path().to_owned()), glibc: None };
        assert_eq!(find(platform, &args).unwrap(), file);
    }
}
