//! Tests of the pool with real processes, a module per topic.
//!
//! Each test of real processes is written with [`alone_test!`](support::alone_test) and so runs alone in a process
//! of its own that is checked for leaks; `support` says how.

#[path = "../support/built.rs"]
mod built;
mod calls;
mod cold;
mod conversation;
mod examples;
mod harness;
mod leases;
mod lifetimes;
mod own_tree;
mod payloads;
mod python_half;
mod reload;
mod service;
mod several;
mod start;
// Each suite uses a part of the support module.
#[allow(dead_code, unused_imports)]
mod support;

/// Whether the pools of the tests have a zygote. `tests/zygote` runs the same tests with one.
const ZYGOTE: bool = false;

/// The `in_flight` of the pools, unless a test sets another value. `tests/in_flight` runs the same tests with 8.
const IN_FLIGHT: usize = 1;
