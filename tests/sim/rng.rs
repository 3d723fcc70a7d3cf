//! All chance of a simulation comes from here: the same seed gives the same run.

use std::sync::Arc;

use std::sync::Mutex;

/// Shared by all parts of one run.
#[derive(Clone, Debug)]
pub struct Rng(Arc<Mutex<u64>>);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("no panic holds it");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 if that is 0.
    pub fn below(&self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    pub fn percent(&self, p: u64) -> bool {
        self.next() % 100 < p
    }

    pub fn id(&self) -> varve_format::Id {
        let (a, b) = (self.next().to_be_bytes(), self.next().to_be_bytes());
        varve_format::Id([a, b].concat().try_into().expect("16 bytes"))
    }
}
