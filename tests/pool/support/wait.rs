//! Waits for a condition with a deadline. Tests sleep only here.

use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Panics
///
/// With `what` when the condition does not hold within `deadline`.
#[track_caller]
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        while !condition() {
            assert!(Instant::now() < end, "not within {deadline:?}: {what} (waited for at {caller})");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// As [`wait_until`], without a runtime.
#[track_caller]
pub(crate) fn wait_until_blocking(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
