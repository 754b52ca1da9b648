//! Tests of the pool with real processes, a module per topic.

mod harness;
mod python_half;
mod support;
