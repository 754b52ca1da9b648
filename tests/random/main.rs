//! Random supervision trees at length. `cargo test` runs a few of them in `tests/supervision`; CI and `just test-all` run these.

#[path = "../supervision/random.rs"]
mod random;
// Each suite uses a part of the support module.
#[allow(dead_code, unused_imports)]
#[path = "../supervision/support/mod.rs"]
mod support;

/// How many random trees a run takes.
const TREES: u64 = 2000;
