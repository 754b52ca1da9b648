//! The cases: the same call through a pool.
//!
//! ```text
//! latency_same_arbiter     caller, pool, socket: this thread
//! latency_other_thread     caller: this thread -- pool, socket: a thread of its own, the default
//! throughput               64 callers: this thread -- pool, two sockets: a thread of its own
//! ```

mod callers;
mod cold_start;

pub(crate) use callers::{Callers, Home};
pub(crate) use cold_start::{FIRST_START, cold_start_ms, first_start_ms, print_first_start, worker_imports};

use hatchery::{Pool, PoolBuilder};

/// A pool of `workers` that serve `bare.py`.
fn bare(workers: usize) -> PoolBuilder {
    Pool::builder().module("bare").path(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/library")).size(workers)
}
