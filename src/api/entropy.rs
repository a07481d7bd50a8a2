//! Unpredictable bytes for run ids, seeds and request ids.
//!
//! A key is read once from the operating system; each draw is sha-256 over key and a counter, which costs no system
//! call. One per core, never shared.

use std::io::Read as _;

use sha2::{Digest as _, Sha256};

/// A source of unpredictable bytes.
#[derive(Debug)]
pub struct Entropy {
    key: [u8; 32],
    counter: u64,
}

impl Entropy {
    /// Keyed by the operating system.
    ///
    /// # Errors
    /// `/dev/urandom` cannot be read.
    pub fn from_system() -> std::io::Result<Self> {
        let mut key = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self::from_key(key))
    }

    /// Keyed by `key`: the same draws every time.
    pub fn from_key(key: [u8; 32]) -> Self {
        Self { key, counter: 0 }
    }

    /// The next 32 bytes.
    pub fn draw(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        Sha256::new().chain_update(self.key).chain_update(self.counter.to_le_bytes()).finalize().into()
    }

    /// The next bytes for a run: those of its id and its seed.
    pub fn run(&mut self) -> ([u8; 10], u64) {
        let [a, b, c, d, e, f, g, h, i, j, s0, s1, s2, s3, s4, s5, s6, s7, ..] = self.draw();
        ([a, b, c, d, e, f, g, h, i, j], u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_from_each_other_and_between_keys() {
        let mut system = Entropy::from_system().unwrap();
        let mut other = Entropy::from_system().unwrap();
        let draws = [system.draw(), system.draw(), other.draw(), other.draw()];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws.iter().skip(i + 1).all(|b| a != b));
        }
        assert_eq!(Entropy::from_key([1; 32]).run(), Entropy::from_key([1; 32]).run());
    }
}
