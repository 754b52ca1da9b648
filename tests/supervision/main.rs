//! Supervision on real actors.

#[path = "../support/built.rs"]
mod built;
mod support;

mod actix;
mod arbiters;
mod backoff;
mod children;
mod ends;
mod examples;
mod lifetimes;
mod mailboxes;
mod panics;
mod partitions;
mod random;
mod references;
mod reports;
mod unkillable;

/// How many random trees a run takes; `tests/random` takes more.
const TREES: u64 = 50;
