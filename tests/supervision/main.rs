//! Supervision on real actors.

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
mod reports;
mod unkillable;
