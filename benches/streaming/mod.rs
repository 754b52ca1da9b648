//! The cases of the streams bench, and the floors that the calls bench does not have.
//!
//! ```text
//! stream        pool.stream() on one worker, read to its end     floor: floor.py and a blocking parent
//! first_item    pool.stream() until its first item               floor: pool.call() on the same pool
//! cancel        a drop until the worker has served another call  floor: pool.call() on the same pool
//! deadline      a deadline until its caller has the answer       floor: a tokio timer of the same length
//! ```

mod cancel;
mod deadline;
mod floor;
mod items;
mod served;

pub(crate) use cancel::Cancel;
pub(crate) use deadline::{Hang, answers_ms, timer_ms};
pub(crate) use floor::Source;
pub(crate) use served::Served;
