//! The golden frames of `tests/golden/`, which the Python tests read too.

use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;

use crate::port::wire::attachment::Attachment;
use crate::port::wire::frame::{Codec, Frame, Kind};

#[derive(Deserialize)]
pub(crate) struct Manifest {
    pub(crate) frames: Vec<Golden>,
    pub(crate) refused: Vec<Refused>,
}

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) name: String,
    kind: String,
    codec: String,
    number: u32,
    call_id: u64,
    pub(crate) body: Option<String>,
    attachments: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Refused {
    pub(crate) name: String,
    pub(crate) why: String,
}

impl Golden {
    /// The frame as the manifest describes it.
    pub(crate) fn frame(&self) -> Frame {
        Frame {
            kind: match &self.kind[..] {
                "hello" => Kind::Hello,
                "ready" => Kind::Ready,
                "call" => Kind::Call,
                "result" => Kind::Result,
                "error" => Kind::Error,
                "chunk" => Kind::Chunk,
                "end" => Kind::End,
                "cancel" => Kind::Cancel,
                "credit" => Kind::Credit,
                "host_call" => Kind::HostCall,
                "host_result" => Kind::HostResult,
                "host_cancel" => Kind::HostCancel,
                "log" => Kind::Log,
                "session_end" => Kind::SessionEnd,
                "shutdown" => Kind::Shutdown,
                "progress" => Kind::Progress,
                "stack" => Kind::Stack,
                other => panic!("the manifest names a kind {other}"),
            },
            codec: match &self.codec[..] {
                "none" => Codec::None,
                "json" => Codec::Json,
                other => panic!("the manifest names a codec {other}"),
            },
            number: self.number,
            call_id: self.call_id,
            body: self.body.clone().unwrap_or_default().into(),
            attachments: self.attachments.iter().map(|text| attachment(text)).collect(),
        }
    }
}

/// In hex; or `memfd:` and how many bytes are in it.
fn attachment(text: &str) -> Attachment {
    match text.strip_prefix("memfd:") {
        Some(len) => Attachment::Awaited(len.parse().unwrap()),
        None => Attachment::Inline(unhex(text)),
    }
}

pub(crate) fn manifest() -> Manifest {
    serde_json::from_str(&read("manifest.json")).unwrap()
}

/// The bytes of a golden frame, its length first.
pub(crate) fn bytes(name: &str) -> Bytes {
    unhex(&read(&format!("{name}.hex")))
}

/// The golden frame of that name.
pub(crate) fn frame(name: &str) -> Frame {
    manifest().frames.iter().find(|golden| golden.name == name).expect(name).frame()
}

fn read(file: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", file].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
