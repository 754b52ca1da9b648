//! Waiting for an event with a deadline. Only here does a test sleep.

use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Panics
///
/// With `what` when it does not within `deadline`.
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
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// As [`wait_until`], without a runtime.
#[track_caller]
pub(crate) fn wait_until_blocking(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
}
