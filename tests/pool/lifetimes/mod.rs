//! Executors that can run a pool, and the end of a pool.

mod dropped;
mod executors;
mod shutdown;
mod stopped;
