//! Restart intensity: how many restarts in how much time are too many.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A sliding window over the restarts of one supervisor, with OTP's inclusive bound.
#[derive(Debug, Clone)]
pub(crate) struct Intensity {
    max: u32,
    period: Duration,
    log: VecDeque<Instant>,
}

impl Intensity {
    pub(crate) fn new(max: u32, period: Duration) -> Self {
        Self { max, period, log: VecDeque::new() }
    }

    /// Counts a restart at `now`; false when it is one too many.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        while self.log.front().is_some_and(|&then| now.saturating_duration_since(then) > self.period) {
            self.log.pop_front();
        }
        self.log.push_back(now);
        self.log.len() <= self.max as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn zero_allows_nothing() {
        assert!(!Intensity::new(0, S).allow(Instant::now()));
    }

    #[test]
    fn the_bound_is_inclusive_and_the_window_slides() {
        let start = Instant::now();
        let mut intensity = Intensity::new(2, 5 * S);
        assert!(intensity.allow(start));
        assert!(intensity.allow(start + 4 * S));
        // Exactly `period` old still counts.
        assert!(!intensity.allow(start + 5 * S));
        // A window that were reset by quiet time would allow the third of these.
        let mut intensity = Intensity::new(2, 5 * S);
        assert!(intensity.allow(start));
        assert!(intensity.allow(start + 4 * S));
        assert!(intensity.allow(start + 6 * S));
        assert!(!intensity.allow(start + 8 * S));
    }

    #[test]
    fn spaced_restarts_never_exhaust_it() {
        let start = Instant::now();
        let mut intensity = Intensity::new(1, S);
        for i in 0..100u32 {
            assert!(intensity.allow(start + i * Duration::from_millis(1001)));
        }
    }
}
