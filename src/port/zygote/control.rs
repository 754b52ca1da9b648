//! The channel to a template: frames that carry descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio_util::codec::Decoder as _;

use crate::port::channel::{ChannelError, hold, set_passes_rights};
use crate::port::fd_passing::send_with;
use crate::port::received_fd::ReceivedFd;
use crate::port::wire::frame::{Frame, FrameDecoder};

/// More than any frame of a template has.
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// How many descriptors of frames that have not come whole are held at most. A template that sends more is broken.
const MOST_HELD_DESCRIPTORS: usize = 64;

/// Room for what the kernel puts into one message at most: what finds no room is closed on this thread, which may block.
const SPACE: usize = rustix::cmsg_space!(ScmRights(253));

/// The reading half. Frames are written at once, from any thread; see [`send`].
pub(super) struct Control {
    stream: Arc<UnixStream>,
    incoming: BytesMut,
    descriptors: VecDeque<ReceivedFd>,
    /// Dropped after `stream`.
    hold: Option<Arc<ReceivedFd>>,
}

impl Control {
    pub(super) fn new(stream: Arc<UnixStream>) -> Self {
        // Kernels that do not know the option always let pidfds pass.
        let _ = set_passes_rights(&stream, true);
        let hold = hold(&stream);
        Self { stream, incoming: BytesMut::new(), descriptors: VecDeque::new(), hold }
    }

    /// To be dropped after each reference to the stream.
    pub(super) fn hold(&self) -> Option<Arc<ReceivedFd>> {
        self.hold.clone()
    }

    pub(super) fn stream(&self) -> &Arc<UnixStream> {
        &self.stream
    }

    /// The oldest descriptor that came and was not taken: they belong to the frames in their order.
    pub(super) fn take_descriptor(&mut self) -> Option<ReceivedFd> {
        self.descriptors.pop_front()
    }

    /// The next frame. Its descriptors have come with it.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ChannelError>> {
        let mut decoder = FrameDecoder { max_frame_bytes: MAX_FRAME_BYTES };
        loop {
            if let Some(frame) = decoder.decode(&mut self.incoming)? {
                return Poll::Ready(Ok(frame));
            }
            // What comes next brings its own. Closing these, a template could pass descriptors without end.
            if self.incoming.is_empty() && !self.descriptors.is_empty() {
                let error = io::Error::other("a template passed a descriptor that belongs to no frame");
                return Poll::Ready(Err(error.into()));
            }
            ready!(self.stream.poll_read_ready(cx))?;
            let mut bytes = [0; 4096];
            match self
                .stream
                .try_io(Interest::READABLE, || receive(&self.stream, &mut bytes, &mut self.descriptors))
            {
                Ok(0) => return Poll::Ready(Err(ChannelError::Closed)),
                Ok(_) if self.descriptors.len() > MOST_HELD_DESCRIPTORS => {
                    let error = io::Error::other("a template passed descriptors without end");
                    return Poll::Ready(Err(error.into()));
                }
                Ok(read) => self.incoming.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8], into: &mut VecDeque<ReceivedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            into.extend(descriptors.map(ReceivedFd::new));
        }
    }
    Ok(received.bytes)
}

/// Sends a frame, whole or not at all, from any thread. A template that reads so little that the socket is full is
/// told nothing more: an error.
pub(super) fn send(stream: &UnixStream, frame: &Frame, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode_head(MAX_FRAME_BYTES, &mut bytes).map_err(io::Error::other)?;
    bytes.extend_from_slice(&frame.body);
    send_with(stream, &bytes, descriptors)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::port::wire::frame::{Codec, Kind};

    async fn next(control: &mut Control) -> Result<Frame, ChannelError> {
        std::future::poll_fn(|cx| control.poll_frame(cx)).await
    }

    #[tokio::test]
    async fn descriptor_that_no_frame_needs_ends_the_template() {
        let frame = Frame::new(Kind::Exited, 0, Codec::Json, bytes::Bytes::from_static(b"{}"));
        let null = std::fs::File::open("/dev/null").expect("it is there");
        for count in [1, 250] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut control = Control::new(Arc::new(ours));
            send(&theirs, &frame, &[]).expect("it is sent");
            assert!(next(&mut control).await.is_ok());
            send(&theirs, &frame, &vec![null.as_fd(); count]).expect("it is sent");
            drop(theirs);
            // The frame itself is good.
            let error = match next(&mut control).await {
                Ok(_) => next(&mut control).await.expect_err("nothing took the descriptor"),
                Err(error) => error,
            };
            assert!(error.to_string().contains("a template passed"), "{error}");
        }
    }
}
