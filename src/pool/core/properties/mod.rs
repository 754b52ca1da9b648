//! Random histories of a pool, checked after every step.
//!
//! ```text
//!   Operation --> world: a fake supervisor and its workers, whose news come at once, late, twice or never
//!                   |  events
//!                   v
//!                 Core  -- commands --> model: what the core was told, and what that allows it to say
//! ```
//!
//! A failure names its seed and the shortest history found. `PROPTEST_RNG_SEED=<seed>` replays it, `PROPTEST_CASES`
//! changes the number of histories.

mod model;
mod run;
mod sessions;
mod world;
