//! The ids of requests, workers and leases.

/// The id of a request. It is unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// The id of a worker. Of two workers of a slot the later one is greater. A successor of a reload is greater than all workers
/// that the supervisor starts in the former one's place meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId {
    /// The place in the pool, `0..size`.
    pub(crate) slot: u32,
    /// How many reloads have replaced the slot's worker before.
    pub(crate) generation: u32,
    /// Which start of that generation this is; it grows with each start, a failed one included.
    pub(crate) incarnation: u64,
}

/// The id of a lease: that of the request that it was granted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseId(pub(crate) RequestId);
