//! Random histories of a pool, checked after every step.
//!
//! ```text
//!   Operation --> simulator: a fake supervisor and its workers, whose events come at once, late, twice or never
//!                   |  events
//!                   v
//!                 Core  -- commands --> checker: which commands are allowed, after the events that the
//!                                       model (its workers, its list of sessions) has recorded
//! ```
//!
//! A failure names its seed and the shortest history found. `PROPTEST_RNG_SEED=<seed>` replays it, `PROPTEST_CASES`
//! changes the number of histories.

mod checker;
mod model;
mod operation;
mod run;
mod sessions;
mod simulator;
mod workers;
