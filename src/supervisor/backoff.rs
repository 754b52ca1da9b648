//! Back-off: how long a child that keeps dying waits for its next start.

use std::time::{Duration, Instant};

use crate::timer::LONGEST;

/// When a child that keeps dying, or keeps failing to start, is started again.
///
/// Beyond OTP, whose supervisors restart at once and give up when the intensity is exceeded. A child with a
/// back-off never counts towards its supervisor's intensity. The first [`free`](Self::free) deaths or failed
/// starts are answered at once, later ones after [`first`](Self::first), twice, four times as long, and so
/// on up to [`max`](Self::max). The count starts afresh when the child was up for [`within`](Self::within), when it has
/// called [`ChildContext::mark_settled`](super::ChildContext::mark_settled), and by
/// [`restart_child`](super::SupervisorRef::restart_child).
///
/// The first start may fail, too, while the supervisor boots or by
/// [`start_child`](super::SupervisorRef::start_child): the child is then restarting, and the boot goes on. Set
/// [`must_start`](Self::must_start) to have such a failure fail the boot. The boot starts no sibling that shares the child's
/// fate ([`Strategy`](super::Strategy)) after it: these come up with the child.
///
/// ```
/// use hatchery::supervisor::Backoff;
/// use std::time::Duration;
///
/// let patient = Backoff { max: Duration::from_secs(300), ..Backoff::default() };
/// assert_eq!(patient.first, Duration::from_millis(100));
/// // Only failed starts wait; a child that was up is restarted at once, whenever it dies.
/// let starts_only = Backoff { max_once_up: Duration::ZERO, ..Backoff::default() };
/// # assert!(!starts_only.must_start);
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
    /// The longest wait after the death of a child that was up, where that is less than [`max`](Self::max). A death does
    /// not lengthen the waits beyond it; only failed starts do. Default: [`Duration::MAX`], no limit but `max`.
    pub max_once_up: Duration,
    /// Which part of a wait is random, from 0 (none) to 1: a wait of `d` lasts between `d * (1 - jitter)` and
    /// `d`. Default: 0.2.
    pub jitter: f64,
    /// Whether a failure of the first start is treated as without a back-off: it fails the supervisor's boot, and a
    /// child that [`start_child`](super::SupervisorRef::start_child) or
    /// [`restart_child`](super::SupervisorRef::restart_child) starts is not tried again. Default: false.
    pub must_start: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            free: 3,
            within: Duration::from_secs(5),
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            max_once_up: Duration::MAX,
            jitter: 0.2,
            must_start: false,
        }
    }
}

impl Backoff {
    /// What cannot be used: the field, its value, and what is allowed.
    pub(crate) fn refusal(&self) -> Option<(&'static str, String, &'static str)> {
        if !(0.0..=1.0).contains(&self.jitter) {
            return Some(("backoff.jitter", self.jitter.to_string(), "0 to 1"));
        }
        (self.first > self.max).then(|| ("backoff.first", format!("{:?}", self.first), "at most backoff.max"))
    }

    /// The wait after the given number of deaths in a row (from 1), the last one of a child that was up, or a failed start;
    /// `random` is in `0.0..1.0`.
    pub(crate) fn delay(&self, deaths: u32, was_up: bool, random: f64) -> Duration {
        let longest = if was_up { self.max_once_up } else { self.max };
        // `Duration::MAX` times 1.0 is more than a `Duration` can be, and would panic.
        self.wait(deaths).min(longest).min(LONGEST).mul_f64(1.0 - self.jitter * random)
    }

    /// The wait after this many failed starts in a row, without jitter.
    fn wait(&self, deaths: u32) -> Duration {
        let Some(doublings) = deaths.checked_sub(self.free.saturating_add(1)) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).map_or(self.max, |wait| wait.min(self.max))
    }

    /// The number of deaths in a row, now that a child which had been up since `up_since` has died.
    pub(crate) fn deaths(&self, before: u32, up_since: Option<Instant>, now: Instant) -> u32 {
        match up_since {
            Some(then) if now.saturating_duration_since(then) >= self.within => 1,
            Some(_) if self.wait(before) >= self.max_once_up => before,
            _ => before.saturating_add(1),
        }
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
        let waits: Vec<_> = (1..=6).map(|deaths| backoff.delay(deaths, false, 0.5)).collect();
        assert_eq!(waits, [ms(0), ms(0), ms(0), ms(100), ms(200), ms(400)]);
        assert_eq!(backoff.delay(12, false, 0.5), ms(25_600));
        assert_eq!(backoff.delay(13, false, 0.5), ms(30_000));
        assert_eq!(backoff.delay(u32::MAX, false, 0.5), ms(30_000));
    }

    #[test]
    fn jitter_only_shortens() {
        let backoff = Backoff { jitter: 0.5, free: 0, ..Backoff::default() };
        assert_eq!(backoff.delay(1, false, 0.0), ms(100));
        assert_eq!(backoff.delay(1, false, 0.5), ms(75));
    }

    #[test]
    fn the_longest_wait_is_no_panic() {
        let backoff =
            Backoff { free: 0, first: Duration::MAX, max: Duration::MAX, jitter: 0.0, ..Backoff::default() };
        assert_eq!(backoff.delay(1, false, 0.5), LONGEST);
        assert_eq!(Backoff { jitter: 1.0, ..backoff }.delay(2, false, 0.5), LONGEST / 2);
    }

    #[test]
    fn a_settled_child_starts_afresh() {
        let backoff = Backoff::default();
        let start = Instant::now();
        assert_eq!(backoff.deaths(7, Some(start), start + backoff.within), 1);
        assert_eq!(backoff.deaths(7, Some(start), start + backoff.within - ms(1)), 8);
        assert_eq!(backoff.deaths(7, None, start), 8);
    }

    #[test]
    fn deaths_of_a_child_that_was_up_wait_no_longer_than_told() {
        let backoff = Backoff { jitter: 0.0, max_once_up: ms(250), ..Backoff::default() };
        let start = Instant::now();
        let (mut deaths, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            deaths = backoff.deaths(deaths, Some(start), start);
            waits.push(backoff.delay(deaths, true, 0.0));
        }
        let expected = [0, 0, 0, 100, 200, 250, 250, 250];
        assert_eq!(waits, expected.map(ms));
        // Failed starts go on from there.
        deaths = backoff.deaths(deaths, None, start);
        assert_eq!(backoff.delay(deaths, false, 0.0), ms(800));
        let never = Backoff { max_once_up: Duration::ZERO, ..backoff };
        assert_eq!(never.deaths(7, Some(start), start), 7);
        assert_eq!(never.delay(7, true, 0.0), ms(0));
    }
}
