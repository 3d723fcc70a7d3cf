//! The platforms that a jar can hold. The shim looks for them by these names.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};

pub(crate) const LIBRARY: &str = "libvarve_rsm.so";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Platform {
    arch: &'static str,
    libc: &'static str,
}

impl Platform {
    const ALL: [Self; 4] = [
        Self { arch: "x86_64", libc: "gnu" },
        Self { arch: "x86_64", libc: "musl" },
        Self { arch: "aarch64", libc: "gnu" },
        Self { arch: "aarch64", libc: "musl" },
    ];

    /// What Cargo builds for without a target.
    pub(crate) const fn host() -> Self {
        let arch = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
        Self { arch, libc: if cfg!(target_env = "musl") { "musl" } else { "gnu" } }
    }

    pub(crate) fn is_gnu(self) -> bool {
        self.libc == "gnu"
    }

    pub(crate) fn rust_target(self) -> String {
        format!("{}-unknown-linux-{}", self.arch, self.libc)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux-{}-{}", self.arch, self.libc)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|platform| platform.to_string() == name);
        match known {
            Some(platform) => Ok(platform),
            None => {
                bail!("unknown platform {name}, known are {}", Self::ALL.map(|p| p.to_string()).join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for platform in Platform::ALL {
            assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        }
        let error = "linux-riscv64-gnu".parse::<Platform>().unwrap_err().to_string();
        assert!(error.contains("linux-riscv64-gnu") && error.contains("linux-aarch64-musl"), "{error}");
    }
}
