//! The blocking parent: one write and one read per call.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Child;
use super::child::LOOP;
use crate::measure::median;

/// What every small call sends and gets back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// Any number.
    pub(crate) x: u64,
}

/// Appends the frame of `value` to `out`.
pub(super) fn encode(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *out, value).expect("a payload is JSON");
    let length = u32::try_from(out.len() - start - 4).expect("a small payload");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// The first whole frame of `bytes`, decoded, and its length on the wire.
pub(crate) fn take_frame(bytes: &[u8]) -> Option<(Payload, usize)> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*head) as usize;
    let body = rest.get(..length)?;
    Some((serde_json::from_slice(body).expect("the loop answers JSON"), 4 + length))
}

/// A child and the blocking end of its socket.
pub(crate) struct Parent {
    pub(super) stream: UnixStream,
    _child: Child,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Parent {
    /// Starts a child and waits for its first answers.
    pub(crate) fn start() -> Parent {
        Self::of(LOOP)
    }

    /// The same with a loop of other code.
    pub(crate) fn of(code: &str) -> Parent {
        let (child, stream) = Child::spawn(code);
        let mut parent = Parent { stream, _child: child, out: Vec::new(), input: vec![0; 65536] };
        for x in 0..200 {
            parent.call(Payload { x });
        }
        parent
    }

    /// One round trip: encode, write, read, decode.
    pub(crate) fn call(&mut self, payload: Payload) -> Payload {
        self.out.clear();
        encode(&mut self.out, &payload);
        self.stream.write_all(&self.out).expect("the child reads");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.input[filled..]).expect("the child writes");
            assert!(read > 0, "the child has ended");
            filled += read;
            if let Some((answer, length)) = take_frame(&self.input[..filled]) {
                assert!(length == filled && answer == payload, "a wrong answer");
                return answer;
            }
        }
    }

    /// The median time of `calls` round trips, in us.
    pub(crate) fn latency_us(&mut self, calls: usize) -> f64 {
        let mut times = Vec::with_capacity(calls);
        for x in 0..calls as u64 {
            let start = Instant::now();
            self.call(Payload { x });
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        median(&mut times)
    }
}
