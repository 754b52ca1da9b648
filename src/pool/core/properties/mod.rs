//! Random histories of a pool, checked after every step.
//!
//! ```text
//!   Operation --> world: a fake supervisor and its workers, whose news come at once, late, twice or never
//!                   |  events
//!                   v
//!                 Core  -- commands --> judge: what the core may say, after what the
//!                                          model (its workers, its list of sessions) notes that it was told
//! ```
//!
//! A failure names its seed and the shortest history found. `PROPTEST_RNG_SEED=<seed>` replays it, `PROPTEST_CASES`
//! changes the number of histories.

mod judge;
mod model;
mod operation;
mod run;
mod sessions;
mod workers;
mod world;
