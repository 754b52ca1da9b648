//! Bytes there and back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use hatchery::Buffer;

use super::served::{Served, us};
use crate::floor::Child;
use crate::measure::median;

/// The loop of the floor.
const LOOP: &str = include_str!("raw.py");

/// As the library asks for.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Two contents, sent in turns, so that nothing old is taken for an answer.
fn contents(size: usize) -> [Vec<u8>; 2] {
    [251, 241].map(|period| (0..size).map(|at| (at % period) as u8).collect())
}

/// The floor: a bare Python process and a blocking parent, both with memory that is there already.
pub(crate) struct RawEcho {
    stream: UnixStream,
    _child: Child,
    contents: [Vec<u8>; 2],
    input: Vec<u8>,
}

impl RawEcho {
    /// Starts a child that echoes so many bytes.
    pub(crate) fn start(size: usize) -> RawEcho {
        let (child, stream) = Child::spawn_with(LOOP, &[&size.to_string()]);
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)
            .expect("it can be asked for");
        let mut raw = RawEcho { stream, _child: child, contents: contents(size), input: vec![0; size] };
        raw.echo_us(4);
        raw
    }

    /// The median time of so many echoes, each compared with what was sent, in us.
    pub(crate) fn echo_us(&mut self, echoes: usize) -> f64 {
        let mut times = Vec::with_capacity(echoes);
        for turn in 0..echoes {
            let content = &self.contents[turn % 2];
            let start = Instant::now();
            self.stream.write_all(content).expect("the child reads");
            self.stream.read_exact(&mut self.input).expect("the child writes");
            assert!(self.input == *content, "other bytes came back");
            times.push(us(start));
        }
        median(&mut times)
    }
}

impl Served {
    /// The median time of so many calls with ordinary bytes of this size to a function that returns them, or the same, each
    /// compared with what was sent, in us.
    pub(crate) fn echo_us(&mut self, function: &'static str, size: usize, echoes: usize) -> f64 {
        self.run(async move |pool| {
            let contents = contents(size).map(Bytes::from);
            let mut times = Vec::with_capacity(echoes);
            for turn in 0..echoes {
                let content = &contents[turn % 2];
                let start = Instant::now();
                let sent = Buffer::from(content.clone());
                let back: Buffer = pool.call(function, (&sent,)).await.expect("the call succeeds");
                assert!(back == sent, "other bytes came back");
                times.push(us(start));
            }
            median(&mut times)
        })
    }
}
