//! The floor: what a call of a Python process costs when nobody supervises it.
//!
//! ```text
//! Parent (blocking std I/O, serde_json) == socketpair == loop.py (os.read, json, os.write)
//! ```

mod child;
mod parent;
mod startup;
mod throughput;

pub(crate) use child::Child;
#[allow(unused_imports)] // of the payloads bench
pub(crate) use child::interpreter;
#[allow(unused_imports)] // of the streams bench
pub(crate) use parent::take_frame;
pub(crate) use parent::{Parent, Payload};
pub(crate) use startup::{importing, side_by_side};
pub(crate) use throughput::{depth_one, pipelined};
