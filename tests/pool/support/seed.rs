//! Random tests that can be replayed.

/// The variable that replays a run.
const SEED: &str = "HATCHERY_SEED";

/// A random test's seed: of the variable HATCHERY_SEED, else random. A test that panics while it
/// holds one prints how to replay it.
pub(crate) struct Seed {
    value: u64,
}

impl Seed {
    /// # Panics
    ///
    /// When HATCHERY_SEED is no number.
    pub(crate) fn new() -> Seed {
        let value = match std::env::var(SEED) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text} is no number")),
            Err(_) => fastrand::u64(..),
        };
        Seed { value }
    }

    /// A generator that gives the same numbers for the same seed.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.value)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with {SEED}={}", self.value);
        }
    }
}
