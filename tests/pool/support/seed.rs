//! Random tests that can be replayed.

/// The variable that replays a run.
const SEED: &str = "HATCHERY_SEED";

/// The seed of a random test: the variable HATCHERY_SEED, else a random number. A test that panics while it
/// holds a seed prints how to replay the run.
pub(crate) struct Seed {
    value: u64,
}

impl Seed {
    /// # Panics
    ///
    /// When HATCHERY_SEED is not a number.
    pub(crate) fn new() -> Seed {
        let value = match std::env::var(SEED) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text} is not a number")),
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
