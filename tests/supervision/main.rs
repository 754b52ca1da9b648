//! Supervision on real actors.

mod support;

mod actix;
mod children;
mod ends;
mod lifetimes;
mod random;
mod restarts;
