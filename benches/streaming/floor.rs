//! The floor of a stream: a bare Python loop that writes items, and a blocking parent that reads them.

use std::io::{Read, Write};
use std::time::Instant;

use crate::floor::{Child, take_frame};

/// The loop of a worker that streams.
const LOOP: &str = include_str!("floor.py");

/// A child that writes items, and the blocking end of its socket.
pub(crate) struct Source {
    stream: std::os::unix::net::UnixStream,
    _child: Child,
    input: Vec<u8>,
}

impl Source {
    /// Each item is written at once, as a stream must deliver it.
    pub(crate) fn at_once() -> Source {
        Self::start(&[])
    }

    /// Items gather until there are 16 KiB of them: what a stream of items that nobody waits for could be.
    pub(crate) fn gathering() -> Source {
        Self::start(&["16384"])
    }

    fn start(arguments: &[&str]) -> Source {
        let (child, stream) = Child::spawn_with(LOOP, arguments);
        let mut source = Source { stream, _child: child, input: vec![0; 65536] };
        source.items(2_000);
        source
    }

    /// Items per second of one stream of so many, from asking for it until the last is decoded.
    pub(crate) fn rate(&mut self, count: u32) -> f64 {
        let start = Instant::now();
        self.items(count);
        f64::from(count) / start.elapsed().as_secs_f64()
    }

    fn items(&mut self, count: u32) {
        self.stream.write_all(&count.to_be_bytes()).expect("the child reads");
        let (mut next, mut filled) = (0, 0);
        while next < u64::from(count) {
            let read = self.stream.read(&mut self.input[filled..]).expect("the child writes");
            assert!(read > 0, "the child has ended");
            filled += read;
            let mut taken = 0;
            while let Some((item, length)) = take_frame(&self.input[taken..filled]) {
                assert_eq!(item.x, next, "a wrong item");
                next += 1;
                taken += length;
            }
            self.input.copy_within(taken..filled, 0);
            filled -= taken;
        }
        assert_eq!(filled, 0, "more items than asked for");
    }
}
