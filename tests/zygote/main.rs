//! The tests of `tests/pool` that concern processes again, with a zygote; and the tests of the zygote itself.

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
// Each suite uses a part of the support module.
#[allow(dead_code, unused_imports)]
#[path = "../pool/support/mod.rs"]
mod support;
mod template;

/// Whether the pools of the tests have a zygote.
const ZYGOTE: bool = true;

/// The `in_flight` of the pools, unless a test sets another value.
const IN_FLIGHT: usize = 1;
