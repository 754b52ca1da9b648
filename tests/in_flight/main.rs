//! The tests of `tests/pool` again, with eight calls per worker. Tests of starts and settings are left out: they end before the
//! first call.
//!
//! A test that fills the capacity of a worker uses
//! [`fill_worker`](support::fill_worker) and [`pending_calls`](support::pending_calls).

#[path = "../pool/calls/mod.rs"]
mod calls;
#[path = "../pool/conversation/mod.rs"]
mod conversation;
#[path = "../pool/start/early_calls.rs"]
mod early_calls;
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
// Each suite uses a part of the support module.
#[allow(dead_code, unused_imports)]
#[path = "../pool/support/mod.rs"]
mod support;

/// Whether the pools of the tests have a zygote.
const ZYGOTE: bool = false;

/// The `in_flight` of the pools, unless a test sets another value.
const IN_FLIGHT: usize = 8;
