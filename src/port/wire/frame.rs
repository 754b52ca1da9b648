//! Frames over the socket to a worker, without I/O. `src/python/hatchery/_wire.py` is the other end; both read the
//! same golden frames in `tests/golden/`.
//!
//! ```text
//! length u32 | kind u8 | codec u8 | attachments u16 | number u32 | call id u64 | body length u32   (big-endian)
//!            | attachment length u64 ... | body | attachment ...
//! ```
//!
//! The length counts what follows it, the payload. The parts must fill the payload exactly. An attachment whose length has its
//! highest bit set is not among them: it comes in a memfd.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use crate::port::memory::buffer_pool;
use crate::port::wire::attachment::{Attachment, Body};

/// Version of the protocol, spoken by hello and ready.
pub(crate) const PROTOCOL: u32 = 1;

/// The limit of a frame's payload unless configured otherwise: 64 MiB.
pub(crate) const DEFAULT_MAX_FRAME_BYTES: u32 = 64 * 1024 * 1024;

/// Bytes of a payload before its attachments' lengths and its body.
pub(crate) const HEADER_BYTES: usize = 20;

pub(crate) const LENGTH_BYTES: usize = 4;
const ATTACHMENT_LENGTH_BYTES: usize = 8;

/// Marks the length of an attachment that is in a memfd.
const IN_MEMFD: u64 = 1 << 63;

/// The kind of a frame. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Host: what to import; the first frame.
    Hello = 1,
    /// Worker: its exports; the answer to hello.
    Ready = 2,
    /// Host: run a function.
    Call = 3,
    /// Worker: the result of the function.
    Result = 4,
    /// Worker: why there is no result, or no ready.
    Error = 5,
    /// Worker: one item of a stream.
    Chunk = 6,
    /// Worker: the end of a stream.
    End = 7,
    /// Host: give up a call.
    Cancel = 8,
    /// Host: how many more chunks may come.
    Credit = 9,
    /// Worker: it calls the host.
    HostCall = 10,
    /// Host: what that gave.
    HostResult = 11,
    /// Worker: a record of Python's `logging`.
    Log = 12,
    /// Reserved: is the worker there?
    Ping = 13,
    /// Reserved: it is.
    Pong = 14,
    /// Host: a session is over.
    SessionEnd = 15,
    /// Host: end in an orderly way.
    Shutdown = 16,
    /// Worker: how far a call has come.
    Progress = 17,
    /// Host: where is this call? Worker: there.
    Stack = 18,
    /// Worker: give up a host call.
    HostCancel = 19,
    /// Host to template: fork a worker. This and what follows is never said to a worker, or by one.
    Fork = 32,
    /// Template: here it is.
    Forked = 33,
    /// Host to template: take its exit status.
    Reap = 34,
    /// Template: that status.
    Exited = 35,
}

impl Kind {
    const ALL: [Kind; 23] = [
        Kind::Hello,
        Kind::Ready,
        Kind::Call,
        Kind::Result,
        Kind::Error,
        Kind::Chunk,
        Kind::End,
        Kind::Cancel,
        Kind::Credit,
        Kind::HostCall,
        Kind::HostResult,
        Kind::Log,
        Kind::Ping,
        Kind::Pong,
        Kind::SessionEnd,
        Kind::Shutdown,
        Kind::Progress,
        Kind::Stack,
        Kind::HostCancel,
        Kind::Fork,
        Kind::Forked,
        Kind::Reap,
        Kind::Exited,
    ];

    fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    fn is_supported(self) -> bool {
        !matches!(self, Kind::Ping | Kind::Pong)
    }
}

/// How a frame's body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// There is no body.
    None = 0,
    /// JSON, UTF-8.
    Json = 1,
}

/// One frame. Decoded ones share the buffer that they were read into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) codec: Codec,
    /// Of a call: how many milliseconds the caller still allows, 0 = no limit. Of a credit: how many more chunks. Of a
    /// host's result: 1 when it is an error. Of a log record: its level.
    pub(crate) number: u32,
    /// The call that the frame belongs to; 0 = none.
    pub(crate) call_id: u64,
    pub(crate) body: Bytes,
    pub(crate) attachments: Vec<Attachment>,
}

/// Why bytes are no frame, or a frame no message: the `detail` of a protocol error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Known from the length alone, before anything is allocated or written.
    #[error("a frame of {size} bytes is over the limit of {limit}")]
    TooLarge { size: u64, limit: u32 },
    #[error("a payload of {size} bytes is shorter than its header of {HEADER_BYTES}")]
    TooShort { size: usize },
    #[error("unknown kind of frame: {0}")]
    UnknownKind(u8),
    #[error("frames of kind {0:?} are not supported")]
    UnsupportedKind(Kind),
    #[error("a frame of kind {0:?} was not expected")]
    UnexpectedKind(Kind),
    #[error("unknown codec: {0}")]
    UnknownCodec(u8),
    #[error("a body of {size} bytes without a codec")]
    BodyWithoutCodec { size: u32 },
    #[error("the header describes a payload of {described} bytes, but it has {size}")]
    LengthMismatch { described: u128, size: usize },
    #[error("a frame of kind {0:?} has attachments")]
    UnexpectedAttachments(Kind),
    #[error("the attachments of a frame of kind {kind:?}: {message}")]
    Attachments { kind: Kind, message: String },
    #[error("the body of a frame of kind {kind:?} cannot be read: {message}")]
    Body { kind: Kind, message: String },
    #[error("descriptors came on the channel; only memfds may be passed, on the socket for them")]
    Descriptors,
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

impl Frame {
    /// A frame without attachments.
    pub(crate) fn new(kind: Kind, call_id: u64, codec: Codec, body: Bytes) -> Frame {
        Frame { kind, codec, number: 0, call_id, body, attachments: Vec::new() }
    }

    /// A frame with a body that may have attachments.
    pub(crate) fn with_body(kind: Kind, call_id: u64, body: Body) -> Frame {
        let Body { json, attachments } = body;
        Frame { attachments, ..Frame::new(kind, call_id, Codec::Json, json) }
    }

    /// Bytes of the payload. The limit applies to them.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let attachments: usize =
            self.attachments.iter().map(|part| ATTACHMENT_LENGTH_BYTES + part.inline_bytes()).sum();
        (HEADER_BYTES + self.body.len() + attachments) as u64
    }

    /// Appends the frame's length and header.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], and then nothing is appended.
    ///
    /// # Panics
    /// With more than `u16::MAX` attachments.
    pub(crate) fn encode_head(&self, max_frame_bytes: u32, into: &mut BytesMut) -> Result<(), FrameError> {
        let size = self.payload_bytes();
        let length = u32::try_from(size).ok().filter(|length| *length <= max_frame_bytes);
        let length = length.ok_or(FrameError::TooLarge { size, limit: max_frame_bytes })?;
        into.reserve(LENGTH_BYTES + HEADER_BYTES + ATTACHMENT_LENGTH_BYTES * self.attachments.len());
        into.put_u32(length);
        into.put_u8(self.kind as u8);
        into.put_u8(self.codec as u8);
        into.put_u16(u16::try_from(self.attachments.len()).expect("attachments are counted by a u16"));
        into.put_u32(self.number);
        into.put_u64(self.call_id);
        into.put_u32(self.body.len() as u32); // no more than `length`
        for attachment in &self.attachments {
            let mark = if matches!(attachment, Attachment::Inline(_)) { 0 } else { IN_MEMFD };
            into.put_u64(attachment.len() | mark);
        }
        Ok(())
    }

    /// The parts after the header: the body, and the attachments within the frame.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let inline = self.attachments.iter().filter_map(|attachment| match attachment {
            Attachment::Inline(bytes) => Some(bytes),
            Attachment::Memfd(_) | Attachment::Awaited(_) => None,
        });
        std::iter::once(&self.body).chain(inline)
    }

    /// Appends the whole frame, by a copy.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn encode(&self, max_frame_bytes: u32, into: &mut BytesMut) -> Result<(), FrameError> {
        self.encode_head(max_frame_bytes, into)?;
        self.parts().for_each(|part| into.extend_from_slice(part));
        Ok(())
    }

    /// Takes a payload apart; body and attachments are slices of it, not copies. Those in memfds are left to be received.
    ///
    /// # Errors
    /// A [`FrameError`] for a payload that is not well formed.
    pub(crate) fn decode(payload: Bytes) -> Result<Frame, FrameError> {
        let size = payload.len();
        if size < HEADER_BYTES {
            return Err(FrameError::TooShort { size });
        }
        let mut rest = payload;
        let kind = rest.get_u8();
        let kind = Kind::from_number(kind).ok_or(FrameError::UnknownKind(kind))?;
        let codec = match rest.get_u8() {
            0 => Codec::None,
            1 => Codec::Json,
            other => return Err(FrameError::UnknownCodec(other)),
        };
        let count = usize::from(rest.get_u16());
        let number = rest.get_u32();
        let call_id = rest.get_u64();
        let body_bytes = rest.get_u32();
        if !kind.is_supported() {
            return Err(FrameError::UnsupportedKind(kind));
        }
        if codec == Codec::None && body_bytes > 0 {
            return Err(FrameError::BodyWithoutCodec { size: body_bytes });
        }
        let table = count * ATTACHMENT_LENGTH_BYTES;
        let mut described = (HEADER_BYTES + table) as u128 + u128::from(body_bytes);
        if rest.len() < table {
            return Err(FrameError::LengthMismatch { described, size });
        }
        let mut lengths = rest.split_to(table);
        described += lengths
            .chunks_exact(ATTACHMENT_LENGTH_BYTES)
            .map(|mut length| length.get_u64())
            .filter(|length| length & IN_MEMFD == 0)
            .map(u128::from)
            .sum::<u128>();
        if described != size as u128 {
            return Err(FrameError::LengthMismatch { described, size });
        }
        let body = rest.split_to(body_bytes as usize);
        let attachment = |length: u64| match length & IN_MEMFD {
            // Their sum is at most `size`, so each fits a usize.
            0 => Attachment::Inline(rest.split_to(length as usize)),
            _ => Attachment::Awaited(length & !IN_MEMFD),
        };
        let attachments = (0..count).map(|_| lengths.get_u64()).map(attachment).collect();
        Ok(Frame { kind, codec, number, call_id, body, attachments })
    }
}

/// Cuts the stream of a worker into frames. An error ends the stream: what follows it cannot be understood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameDecoder {
    /// The limit of a payload, checked before room is made for it.
    pub(crate) max_frame_bytes: u32,
}

impl FrameDecoder {
    /// The length of the payload that comes next, when it is large and has begun, but is not whole.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`].
    pub(crate) fn large(&self, from: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = from.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if length > self.max_frame_bytes {
            return Err(FrameError::TooLarge { size: u64::from(length), limit: self.max_frame_bytes });
        }
        let size = length as usize;
        Ok((size >= buffer_pool::LEAST_BYTES && from.len() < LENGTH_BYTES + size).then_some(size))
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(prefix) = from.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        let size = length as usize;
        if length > self.max_frame_bytes {
            return Err(FrameError::TooLarge { size: u64::from(length), limit: self.max_frame_bytes });
        }
        if size < HEADER_BYTES {
            return Err(FrameError::TooShort { size });
        }
        let missing = (LENGTH_BYTES + size).saturating_sub(from.len());
        if missing > 0 {
            from.reserve(missing);
            return Ok(None);
        }
        from.advance(LENGTH_BYTES);
        Frame::decode(from.split_to(size).freeze()).map(Some)
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
