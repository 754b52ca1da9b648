//! Counts live values, to prove that actors are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Creates guards and counts the live ones.
#[derive(Clone, Default)]
pub(crate) struct Guards(Arc<AtomicUsize>);

/// A live guard is counted. A test puts one into the actor that must be dropped.
pub(crate) struct Guard(Arc<AtomicUsize>);

impl Guards {
    /// Creates a guard.
    pub(crate) fn guard(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(&self.0))
    }

    /// The number of live guards.
    pub(crate) fn live(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
