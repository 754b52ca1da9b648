//! Faults of Python and of the host, with real processes: each fault ends in its documented error and leaks nothing.
//!
//! `cargo test` leaves this suite out for its length. CI and `just test-all` run it.

#[path = "../pool/faults/mod.rs"]
mod faults;
#[path = "../pool/kills/mod.rs"]
mod kills;
// Each suite uses a part of the support module.
#[allow(dead_code, unused_imports)]
#[path = "../pool/support/mod.rs"]
mod support;

/// Whether the pools of the tests have a zygote.
const ZYGOTE: bool = false;

/// How many calls a worker of the tests' pools has at once, where a test does not say it.
const IN_FLIGHT: usize = 1;
