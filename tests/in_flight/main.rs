//! The pool with several calls a worker: the tests of `tests/pool` in which workers are called, once more. What is left out
//! is about starts and settings, before the first call.
//!
//! Whoever waits there for a worker's only place waits for all of them here: see
//! [`fill_worker`](support::fill_worker) and [`pending_calls`](support::pending_calls).

#[path = "../pool/start/ancestor.rs"]
mod ancestor;
#[path = "../pool/calls/mod.rs"]
mod calls;
#[path = "../pool/conversation/mod.rs"]
mod conversation;
#[path = "../pool/faults"]
mod faults {
    mod arguments;
    mod budgets;
    mod children;
    mod deaths;
    mod descriptors;
    mod exceptions;
    mod output;
    #[allow(dead_code)]
    pub(crate) mod pools;
    mod protocol;
    mod shutdown;
    mod values;
}
#[path = "../pool/kills/mod.rs"]
mod kills;
#[path = "../pool/leases.rs"]
mod leases;
#[path = "../pool/lifetimes/mod.rs"]
mod lifetimes;
#[path = "../pool/payloads/mod.rs"]
mod payloads;
#[path = "../pool/python_half.rs"]
mod python_half;
#[path = "../pool/reload.rs"]
mod reload;
#[path = "../pool/several/mod.rs"]
mod several;
#[path = "../pool/cold/status.rs"]
mod status;
// Each suite uses a part of it.
#[allow(dead_code, unused_imports)]
#[path = "../pool/support/mod.rs"]
mod support;

/// Whether the tests' pools have a zygote.
const ZYGOTE: bool = false;

/// How many calls a worker of the tests' pools has at once, where a test does not say it.
const IN_FLIGHT: usize = 8;
