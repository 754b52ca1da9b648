//! Frames on their way to a worker: small pieces are copied into one buffer, large ones stay where they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio::net::unix::OwnedWriteHalf;

use crate::port::wire::frame::{Frame, FrameError};

/// From here on a piece is not copied.
const LEAST_SHARED_BYTES: usize = 32 * 1024;

/// How many pieces are written at once.
const MOST_SLICES: usize = 16;

/// How much memory is kept when nothing is on its way.
const MOST_KEPT_BYTES: usize = 64 * 1024;

/// The purpose of a frame. Each purpose has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A call: as large as its caller's arguments.
    Call,
    /// The answer to a host call.
    Answer,
    /// Anything else.
    Other,
}

/// A frame that the socket has not taken whole.
struct Mark {
    from: u64,
    to: u64,
    purpose: Purpose,
}

#[derive(Default)]
pub(crate) struct WriteBuffer {
    /// Comes before `tail`.
    shared: VecDeque<Bytes>,
    tail: BytesMut,
    /// How much of `shared` has been written.
    spent: Vec<Bytes>,
    /// How much was there before the last frame: pieces in `shared`, bytes in `tail`, and `appended`.
    before_last: (usize, usize, u64),
    /// How many bytes there have been, from the beginning on.
    appended: u64,
    /// How many of them the socket has taken.
    written: u64,
    /// The frames that the socket has not taken whole.
    marks: VecDeque<Mark>,
}

impl WriteBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.shared.is_empty()
    }

    /// Where the last frame ends: how many bytes there have been.
    pub(crate) fn end(&self) -> u64 {
        self.appended
    }

    /// How many bytes the socket has taken. It has a frame when that is no less than its [`end`](Self::end).
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The pieces that are written, or were given up, to be let go by the caller.
    pub(crate) fn take_spent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.spent)
    }

    /// Sets the purpose of the frame that was appended last.
    pub(crate) fn mark_last(&mut self, purpose: Purpose) {
        self.marks.push_back(Mark { from: self.before_last.2, to: self.appended, purpose });
    }

    /// How many bytes of frames of this purpose the socket has not taken.
    pub(crate) fn unwritten(&self, purpose: Purpose) -> u64 {
        let marks = self.marks.iter().filter(|mark| mark.purpose == purpose);
        marks.map(|mark| mark.to.saturating_sub(mark.from.max(self.written))).sum()
    }

    pub(crate) fn clear(&mut self) {
        self.marks.clear();
        self.spent.extend(self.shared.drain(..));
        self.tail.clear();
    }

    /// # Errors
    /// [`FrameError::TooLarge`], and then nothing is appended.
    pub(crate) fn append(&mut self, frame: &Frame, max_frame_bytes: u32) -> Result<(), FrameError> {
        self.before_last = (self.shared.len(), self.tail.len(), self.appended);
        frame.encode_head(max_frame_bytes, &mut self.tail)?;
        self.appended += (self.tail.len() - self.before_last.1) as u64;
        for part in frame.parts() {
            self.appended += part.len() as u64;
            if part.len() < LEAST_SHARED_BYTES {
                self.tail.extend_from_slice(part);
            } else {
                if !self.tail.is_empty() {
                    self.shared.push_back(self.tail.split().freeze());
                }
                self.shared.push_back(part.clone());
            }
        }
        Ok(())
    }

    /// Takes the frame that was appended last out again, of which nothing has been written.
    pub(crate) fn take_back(&mut self) {
        let (pieces, bytes, appended) = self.before_last;
        self.appended = appended;
        if self.shared.len() > pieces {
            // The tail is the beginning of the next piece.
            self.tail = BytesMut::from(&self.shared[pieces][..bytes]);
            self.shared.truncate(pieces);
        } else {
            self.tail.truncate(bytes);
        }
    }

    pub(crate) fn append_raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.appended += bytes.len() as u64;
    }

    /// Writes as much as the socket takes at once.
    pub(crate) fn write_now(&mut self, socket: &OwnedWriteHalf) -> io::Result<()> {
        let written = if self.shared.is_empty() {
            socket.try_write(&self.tail)
        } else {
            let (slices, count) = self.slices();
            socket.try_write_vectored(&slices[..count])
        };
        match written {
            Ok(written) => self.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ready when everything is written.
    pub(crate) fn poll_write(
        &mut self,
        socket: &mut OwnedWriteHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let (slices, count) = self.slices();
            let written = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count]))?;
            self.advance(written);
        }
        if self.tail.capacity() > MOST_KEPT_BYTES {
            self.tail = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn slices(&self) -> ([IoSlice<'_>; MOST_SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        let pieces = self.shared.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        (slices, count)
    }

    fn advance(&mut self, mut written: usize) {
        self.written += written as u64;
        while self.marks.front().is_some_and(|mark| mark.to <= self.written) {
            self.marks.pop_front();
        }
        while let Some(piece) = self.shared.front_mut() {
            if written < piece.len() {
                return piece.advance(written);
            }
            written -= piece.len();
            self.spent.extend(self.shared.pop_front());
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
#[path = "write_buffer_tests.rs"]
mod tests;
