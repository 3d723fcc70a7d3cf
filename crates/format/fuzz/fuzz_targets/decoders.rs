//! The same bytes, as they are, to every decoder.
#![no_main]

#[path = "../../tests/support/decode_all.rs"]
mod decode_all;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use varve_format::{DataKey, Id, KeyRing};

/// The keys of tests/golden/v1, so that its encrypted objects open.
static KEY: LazyLock<DataKey> = LazyLock::new(|| {
    DataKey::new(Id(std::array::from_fn(|n| 0x40 + n as u8)), std::array::from_fn(|n| 0x80 + n as u8))
});
static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    KeyRing::parse(include_str!("../../../../tests/golden/v1/key-ring.json")).expect("the golden key ring")
});

fuzz_target!(|bytes: &[u8]| decode_all::decode_all(bytes, &KEY, &RING));
