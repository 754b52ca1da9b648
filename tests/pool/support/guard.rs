//! Counting live values, to prove that actors end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands out guards and counts those that live.
#[derive(Clone, Default)]
pub(crate) struct Guards(Arc<AtomicUsize>);

/// Counted while it lives: a field of the actor or handler that is to end.
pub(crate) struct Guard(Arc<AtomicUsize>);

impl Guards {
    /// One more live guard.
    pub(crate) fn guard(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(&self.0))
    }

    /// How many guards live.
    pub(crate) fn live(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
