//! What arbitrary bytes from a worker must not do. One function per way in; a fuzzer (`fuzz/`) and the property tests
//! beside this file call the same ones. A function that returns has found nothing.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio_util::codec::Decoder;

use crate::port::memory::array::Array;
use crate::port::memory::buffer::Buffer;
use crate::port::process::stack_dump::Stack;
use crate::port::wire::attachment::Attachment;
use crate::port::wire::decode::decode_result;
use crate::port::wire::frame::{Codec, Frame, FrameDecoder, Kind};
use crate::port::wire::message::{Reply, WorkerError};

/// The stream of frames from a worker. The first byte chooses the limit, the second where the stream is cut into
/// pieces; the rest is the stream.
///
/// # Panics
///
/// When a frame is over the limit, when it would be written otherwise than it was read, when the pieces change
/// what is read, or when more room is made than the limit allows.
pub fn frames(bytes: &[u8]) {
    let [limit, cuts, stream @ ..] = bytes else { return };
    let max_frame_bytes = 16 << (limit % 12);
    let whole = Read::all(&[stream], max_frame_bytes);

    let mut written = BytesMut::new();
    for frame in &whole.frames {
        assert!(frame.payload_bytes() <= u64::from(max_frame_bytes));
        frame.encode(max_frame_bytes, &mut written).expect("it was within the limit");
        message(frame.clone());
    }
    assert!(stream.starts_with(&written), "what was read is not what would be written");
    if whole.refused.is_none() {
        assert_eq!(written.len() + whole.rest, stream.len());
    }
    assert_eq!(Read::all(&pieces(stream, *cuts), max_frame_bytes), whole);
}

/// The body of one frame; the first byte chooses its kind.
///
/// # Panics
///
/// When a body that was read is not read again from what would be written.
pub fn replies(bytes: &[u8]) {
    const KINDS: [Kind; 6] =
        [Kind::Error, Kind::Ready, Kind::Stack, Kind::Result, Kind::Chunk, Kind::Progress];
    let [kind, body @ ..] = bytes else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let frame = Frame::new(kind, 1, Codec::Json, Bytes::copy_from_slice(body));
    let attachments = [&b"raw"[..], &[0; 4]].map(Bytes::from_static).map(Attachment::Inline).to_vec();
    message(Frame { attachments, ..frame.clone() });
    message(frame);
}

/// The bytes of the pipe for stacks.
///
/// # Panics
///
/// When a stack has a line that begins like none.
pub fn stacks(bytes: &[u8]) {
    if let Some(stack) = Stack::parse(&String::from_utf8_lossy(bytes)) {
        assert!(stack.text.lines().all(|line| line.starts_with("  File \"")), "{stack:?}");
    }
}

/// What became of a stream.
#[derive(Debug, PartialEq)]
struct Read {
    frames: Vec<Frame>,
    /// The error that ended it.
    refused: Option<String>,
    /// Bytes at the end that are no whole frame yet.
    rest: usize,
}

impl Read {
    fn all(pieces: &[&[u8]], max_frame_bytes: u32) -> Read {
        let mut decoder = FrameDecoder { max_frame_bytes };
        let mut read = Read { frames: Vec::new(), refused: None, rest: 0 };
        let mut buffer = BytesMut::new();
        let came: usize = pieces.iter().map(|piece| piece.len()).sum();
        'stream: for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => read.frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        read.refused = Some(error.to_string());
                        break 'stream;
                    }
                }
            }
            // A buffer doubles at most.
            let most = 2 * (max_frame_bytes as usize + 4) + 2 * came + 64;
            assert!(buffer.capacity() <= most, "{} bytes of room, {most} at most", buffer.capacity());
        }
        // What follows an error has not come yet where the stream is cut.
        read.rest = if read.refused.is_none() { buffer.len() } else { 0 };
        read
    }
}

/// Reads a frame as a message, and its body as a caller does.
fn message(frame: Frame) {
    let Ok(reply) = Reply::from_frame(frame) else { return };
    match reply {
        Reply::Ready(ready) => assert_eq!(again(&ready), ready),
        Reply::Error { error, .. } => {
            assert_eq!(again::<WorkerError>(&error), error);
            let _ = error.clone().into_start_error(String::new()).to_string();
            let _ = error.into_call_error().to_string();
        }
        Reply::Result { body, .. } | Reply::Chunk { body, .. } | Reply::Progress { body, .. } => {
            let _ = decode_result::<Value>(&body);
            let _ = decode_result::<(u64, Option<String>)>(&body);
            let _ = decode_result::<(Buffer, Bytes)>(&body);
            let _ = decode_result::<(Array<f32>, Array<u8>)>(&body);
        }
        Reply::End { .. }
        | Reply::Stack { .. }
        | Reply::HostCall { .. }
        | Reply::HostCancel { .. }
        | Reply::Log { .. } => {}
    }
}

fn again<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("it came from JSON");
    serde_json::from_slice(&text).expect("it is of the same type")
}

/// Cuts a stream: into single bytes, or at places that depend on `cuts` only.
fn pieces(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    if cuts == 0 {
        return stream.chunks(1).collect();
    }
    let mut places = fastrand::Rng::with_seed(cuts.into());
    let mut pieces = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(places.usize(1..=rest.len().min(64)));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
