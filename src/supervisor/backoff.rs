//! Back-off: how long a child that keeps dying waits for its next start.

use std::time::{Duration, Instant};

use crate::timer::LONGEST;

/// When a child that keeps dying, or keeps failing to start, is started again.
///
/// Beyond OTP, whose supervisors restart at once and give up when the intensity is exceeded. A child with a
/// back-off never counts towards its supervisor's intensity: the first [`free`](Self::free) deaths or failed
/// starts are answered at once, later ones after [`first`](Self::first), twice, four times as long, and so
/// on up to [`max`](Self::max). A child that was up for [`within`](Self::within) starts afresh, and so does one that
/// [`restart_child`](super::SupervisorRef::restart_child) starts.
///
/// ```
/// use hatchery::supervisor::Backoff;
/// use std::time::Duration;
///
/// let patient = Backoff { max: Duration::from_secs(300), ..Backoff::default() };
/// assert_eq!(patient.first, Duration::from_millis(100));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// How many deaths or failed starts in a row are answered at once. Default: 3.
    pub free: u32,
    /// How long a child must be up for its earlier deaths to be forgotten. Default: 5 s.
    pub within: Duration,
    /// The first wait. Default: 100 ms.
    pub first: Duration,
    /// The longest wait. Default: 30 s.
    pub max: Duration,
    /// Which part of a wait is random, from 0 (none) to 1: a wait of `d` lasts between `d * (1 - jitter)` and
    /// `d`. Default: 0.2.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            free: 3,
            within: Duration::from_secs(5),
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// The wait after the given number of deaths in a row (from 1); `random` is in `0.0..1.0`.
    pub(crate) fn delay(&self, deaths: u32, random: f64) -> Duration {
        let Some(doublings) = deaths.checked_sub(self.free.saturating_add(1)) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let delay = self.first.checked_mul(factor).map_or(self.max, |delay| delay.min(self.max));
        // `Duration::MAX` times 1.0 is more than a `Duration` can be, and would panic.
        delay.min(LONGEST).mul_f64(1.0 - self.jitter * random)
    }

    /// The number of deaths in a row, now that a child which had been up since `up_since` has died.
    pub(crate) fn deaths(&self, before: u32, up_since: Option<Instant>, now: Instant) -> u32 {
        let settled = up_since.is_some_and(|then| now.saturating_duration_since(then) >= self.within);
        if settled { 1 } else { before.saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let waits: Vec<_> = (1..=6).map(|deaths| backoff.delay(deaths, 0.5)).collect();
        assert_eq!(waits, [ms(0), ms(0), ms(0), ms(100), ms(200), ms(400)]);
        assert_eq!(backoff.delay(12, 0.5), ms(25_600));
        assert_eq!(backoff.delay(13, 0.5), ms(30_000));
        assert_eq!(backoff.delay(u32::MAX, 0.5), ms(30_000));
    }

    #[test]
    fn jitter_only_shortens() {
        let backoff = Backoff { jitter: 0.5, free: 0, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0.0), ms(100));
        assert_eq!(backoff.delay(1, 0.5), ms(75));
    }

    #[test]
    fn the_longest_wait_is_no_panic() {
        let backoff =
            Backoff { free: 0, first: Duration::MAX, max: Duration::MAX, jitter: 0.0, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0.5), LONGEST);
        assert_eq!(Backoff { jitter: 1.0, ..backoff }.delay(2, 0.5), LONGEST / 2);
    }

    #[test]
    fn a_settled_child_starts_afresh() {
        let backoff = Backoff::default();
        let start = Instant::now();
        assert_eq!(backoff.deaths(7, Some(start), start + backoff.within), 1);
        assert_eq!(backoff.deaths(7, Some(start), start + backoff.within - ms(1)), 8);
        assert_eq!(backoff.deaths(7, None, start), 8);
    }
}
