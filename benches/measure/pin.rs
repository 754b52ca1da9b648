//! Everything on one CPU, for the `_pinned` rows.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs `measure` with this thread, and the threads and processes started in it, on one CPU.
///
/// The first CPU that this process may use is taken; what was allowed before is restored.
pub(crate) fn on_one_cpu<R>(measure: impl FnOnce() -> R) -> R {
    let allowed = sched_getaffinity(None).expect("the affinity is readable");
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).expect("some CPU is allowed");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("an allowed CPU can be chosen");
    let result = measure();
    sched_setaffinity(None, &allowed).expect("the former affinity is allowed");
    result
}
