//! The floors of several calls in each worker.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::served::us;
use crate::floor::{Child, Parent};

/// Two bare event loops that make a task of each request.
pub(crate) fn asyncio_parents() -> [Parent; 2] {
    let one = || Parent::of(include_str!("async_loop.py"));
    [one(), one()]
}

/// A bare program that sleeps many times at once.
pub(crate) struct Sleepers {
    stream: UnixStream,
    _child: Child,
}

impl Sleepers {
    /// Starts one, and has it sleep once.
    pub(crate) fn start(sleeps: usize) -> Sleepers {
        let (child, stream) = Child::spawn_with(include_str!("sleepers.py"), &[&sleeps.to_string()]);
        let mut sleepers = Sleepers { stream, _child: child };
        sleepers.ms();
        sleepers
    }

    /// How long they take, in ms.
    pub(crate) fn ms(&mut self) -> f64 {
        let start = Instant::now();
        self.stream.write_all(b"?").expect("the child reads");
        self.stream.read_exact(&mut [0]).expect("the child writes");
        us(start) / 1e3
    }
}
