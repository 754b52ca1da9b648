//! 100 kB of JSON there and back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::served::{Served, us};
use crate::floor::Child;
use crate::measure::median;

/// The loop of the floor.
const LOOP: &str = include_str!("json_loop.py");

/// What is sent: records such as tables and interfaces have.
type Document = Vec<Record>;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    score: f64,
    active: bool,
    tags: Vec<String>,
}

/// 100 kB of it.
fn document() -> Document {
    let record = |id: u64| Record {
        id,
        name: format!("Überschrift {id}"),
        score: id as f64 / 16.0,
        active: id.is_multiple_of(3),
        tags: vec!["to be".into(), "or not".into()],
    };
    let mut document = Vec::new();
    while serde_json::to_vec(&document).expect("it is JSON").len() < 100_000 {
        let next = document.len() as u64;
        document.extend((next..next + 10).map(record));
    }
    document
}

/// The floor: a bare Python loop with the same codec, and a blocking parent.
pub(crate) struct Documents {
    stream: UnixStream,
    _child: Child,
    document: Document,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Documents {
    /// Starts a child of this interpreter with this codec.
    pub(crate) fn start(python: &Path, codec: &str) -> Documents {
        let (child, stream) = Child::spawn_by(python, LOOP, &[codec]);
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4 << 20).expect("it can be asked for");
        let (out, input) = (Vec::new(), Vec::new());
        let mut documents = Documents { stream, _child: child, document: document(), out, input };
        documents.echo_us(50);
        documents
    }

    /// The median time of so many round trips, encoding and decoding included, in us.
    pub(crate) fn echo_us(&mut self, echoes: usize) -> f64 {
        let mut times = Vec::with_capacity(echoes);
        for _ in 0..echoes {
            let start = Instant::now();
            let back = self.echo();
            times.push(us(start));
            assert!(back == self.document, "another document came back");
        }
        median(&mut times)
    }

    fn echo(&mut self) -> Document {
        self.out.clear();
        self.out.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.out, &self.document).expect("it is JSON");
        let length = (self.out.len() - 4) as u32;
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&self.out).expect("the child reads");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("the child writes");
        self.input.resize(u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut self.input).expect("the child writes");
        serde_json::from_slice(&self.input).expect("the child writes JSON")
    }
}

impl Served {
    /// The median time of so many calls with a document, in us.
    pub(crate) fn documents_us(&mut self, echoes: usize) -> f64 {
        self.run(async move |pool| {
            let document = document();
            let mut times = Vec::with_capacity(echoes);
            for turn in 0..echoes + 50 {
                let start = Instant::now();
                let back: Document = pool.call("echo", (&document,)).await.expect("the call succeeds");
                let took = us(start);
                assert!(back == document, "another document came back");
                if turn >= 50 {
                    times.push(took);
                }
            }
            median(&mut times)
        })
    }
}
