//! Supervision on real actors.

mod support;

mod actix;
mod children;
mod ends;
mod lifetimes;
mod panics;
mod partitions;
mod random;
mod restarts;
mod unkillable;
