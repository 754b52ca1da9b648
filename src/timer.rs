//! Deadlines, and one timer that follows a deadline which changes often.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The longest wait there is: `Instant + Duration` panics where the sum cannot be told, and `Duration::MAX` is how many a
/// user says "no timeout".
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The deadline of a wait of `timeout` that begins at `now`; of any longer than a hundred years, a hundred years.
pub(crate) fn deadline(now: Instant, timeout: Duration) -> Instant {
    now + timeout.min(LONGEST)
}

/// A timer for an actor whose next deadline changes with every message: it is armed anew only for an
/// earlier deadline. A later one is noticed when the timer goes off too early, so that a thousand calls
/// with the same timeout cost one arming, not a thousand.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Timer {
    /// Needs a tokio runtime.
    pub(crate) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: None }
    }

    /// Ready once `deadline` has come; call it again with the next one.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(deadline) = deadline else { return Poll::Pending };
        loop {
            if self.armed.is_none_or(|armed| deadline < armed) {
                self.sleep.as_mut().reset(deadline.into());
                self.armed = Some(deadline);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
            let now = Instant::now();
            if now >= deadline {
                return Poll::Ready(now);
            }
        }
    }
}
