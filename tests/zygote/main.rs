//! The pool with a zygote: the tests of `tests/pool` that concern processes once more, and what only a zygote can do.

#[path = "../pool/calls/mod.rs"]
mod calls;
#[path = "../pool/conversation/mod.rs"]
mod conversation;
#[path = "../pool/faults/mod.rs"]
mod faults;
mod hangs;
#[path = "../pool/kills/mod.rs"]
mod kills;
#[path = "../pool/leases.rs"]
mod leases;
#[path = "../pool/lifetimes/mod.rs"]
mod lifetimes;
mod many;
mod namespace;
#[path = "../pool/payloads/mod.rs"]
mod payloads;
#[path = "../pool/reload.rs"]
mod reload;
mod safety;
#[path = "../pool/several/mod.rs"]
mod several;
#[path = "../pool/start/mod.rs"]
mod start;
// Each suite uses a part of it.
#[allow(dead_code, unused_imports)]
#[path = "../pool/support/mod.rs"]
mod support;
mod template;

/// Whether the tests' pools have a zygote.
const ZYGOTE: bool = true;

/// How many calls a worker of the tests' pools has at once, where a test does not say it.
const IN_FLIGHT: usize = 1;
