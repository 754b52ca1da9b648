//! The framed channel to a worker: frames in and out of a non-blocking socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_read_buf;

use crate::budget::UNWRITTEN_BYTES;
use crate::port::fd_passing::FdSocket;
use crate::port::memory::buffer_pool;
use crate::port::received_fd::ReceivedFd;
use crate::port::wire::attachment::Attachment;
use crate::port::wire::frame::{Frame, FrameDecoder, FrameError, LENGTH_BYTES};
use crate::port::write_buffer::{Purpose, WriteBuffer};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The worker closed its end, or is gone.
    #[error("the worker closed the channel")]
    Closed,
    #[error(transparent)]
    Io(io::Error),
    /// It reads nothing.
    #[error(
        "it has not read {bytes} bytes of what it was sent beside its calls; at most {UNWRITTEN_BYTES} may wait"
    )]
    Unread { bytes: u64 },
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                ChannelError::Closed
            }
            _ => ChannelError::Io(error),
        }
    }
}

/// Both directions.
pub(crate) struct Channel {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

/// Frames in.
pub(crate) struct FrameReader {
    socket: OwnedReadHalf,
    /// Where memfds come.
    descriptors: Arc<FdSocket>,
    decoder: FrameDecoder,
    incoming: BytesMut,
    /// The part of a large payload that has come, and the length of the whole. `incoming` is empty then.
    large: Option<(Vec<u8>, usize)>,
    /// The kernel refuses descriptors on this socket.
    refuses: bool,
    _hold: Option<Arc<ReceivedFd>>,
}

/// Writes frames, from any thread.
pub(crate) struct FrameWriter {
    socket: OwnedWriteHalf,
    /// Where memfds go.
    descriptors: Arc<FdSocket>,
    max_frame_bytes: u32,
    /// Frames that the socket has not taken yet.
    outgoing: WriteBuffer,
    /// Nothing that follows would be understood.
    failed: Option<io::ErrorKind>,
    /// Behind `socket`, so that it is dropped last.
    _hold: Option<Arc<ReceivedFd>>,
}

impl Channel {
    pub(crate) fn new(stream: UnixStream, descriptors: FdSocket, max_frame_bytes: u32) -> Self {
        // Older kernels let a worker pass descriptors here, which are closed with the socket if they were not received.
        let refuses = set_passes_rights(&stream, false).is_ok();
        let hold = if refuses { None } else { hold(&stream) };
        let (reading, writing) = stream.into_split();
        let descriptors = Arc::new(descriptors);
        let reader = FrameReader {
            socket: reading,
            descriptors: descriptors.clone(),
            decoder: FrameDecoder { max_frame_bytes },
            incoming: BytesMut::with_capacity(READ_BYTES),
            large: None,
            refuses,
            _hold: hold.clone(),
        };
        let writer = FrameWriter {
            socket: writing,
            descriptors,
            max_frame_bytes,
            outgoing: WriteBuffer::default(),
            failed: None,
            _hold: hold,
        };
        Self { reader, writer }
    }

    /// The socket itself, for another protocol. No frame may be in transit.
    pub(crate) fn into_stream(self) -> UnixStream {
        let Self { reader, writer } = self;
        debug_assert!(reader.incoming.is_empty() && writer.outgoing.is_empty());
        reader.socket.reunite(writer.socket).expect("they are the halves of one socket")
    }
}

impl FrameWriter {
    /// Sends a frame: at once as far as the socket takes it, the rest by [`poll_flush`](Self::poll_flush).
    ///
    /// An error means that the worker has got nothing of it.
    pub(crate) fn send(&mut self, frame: &Frame, purpose: Purpose) -> Result<(), ChannelError> {
        let untouched = self.outgoing.is_empty();
        self.queue(frame, purpose)?;
        if untouched && let Err(error) = self.outgoing.write_now(&self.socket) {
            // Its memfds are there already.
            self.failed = Some(error.kind());
            self.outgoing.clear();
            return Err(error.into());
        }
        Ok(())
    }

    /// Leaves a frame to the next [`poll_flush`](Self::poll_flush), which writes all that is there at once. Memfds are sent
    /// now; those that the kernel does not take go within the frame.
    ///
    /// An error means that the worker has got nothing of it.
    pub(crate) fn queue(&mut self, frame: &Frame, purpose: Purpose) -> Result<(), ChannelError> {
        if let Some(failed) = self.failed {
            return Err(io::Error::from(failed).into());
        }
        // The limit is asked first: memfds without a frame would be taken for the next one's.
        self.outgoing.append(frame, self.max_frame_bytes)?;
        if let Err(error) = self.descriptors.send(frame) {
            self.outgoing.take_back();
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Err(ChannelError::Closed);
            }
            self.outgoing.append(&inline(frame), self.max_frame_bytes)?;
        }
        self.outgoing.mark_last(purpose);
        Ok(())
    }

    /// How many bytes of frames of this purpose the socket has not taken.
    pub(crate) fn unwritten(&self, purpose: Purpose) -> u64 {
        self.outgoing.unwritten(purpose)
    }

    /// Memory that is not needed any more, to be let go where code of its owner does no harm.
    pub(crate) fn take_spent(&mut self) -> Vec<Bytes> {
        self.outgoing.take_spent()
    }

    /// Where the frame ends that was sent or queued last, in all that goes this way.
    pub(crate) fn end(&self) -> u64 {
        self.outgoing.end()
    }

    /// How much the socket has taken: of a frame that [`end`](Self::end)s behind it, the worker has got a part at most.
    pub(crate) fn written(&self) -> u64 {
        self.outgoing.written()
    }

    /// Whether [`poll_flush`](Self::poll_flush) has something to do.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Leaves raw bytes, ahead of the first frame, to [`poll_flush`](Self::poll_flush).
    pub(crate) fn queue_raw(&mut self, bytes: &[u8]) {
        self.outgoing.append_raw(bytes);
    }

    /// Writes the queued frames; ready when the socket has taken all of them.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(ready!(self.outgoing.poll_write(&mut self.socket, cx))?))
    }
}

impl FrameReader {
    /// Receives what of a frame is in memfds.
    fn complete(&self, mut frame: Frame) -> Result<Frame, ChannelError> {
        self.descriptors
            .receive(&mut frame)
            .map_err(|message| FrameError::Attachments { kind: frame.kind, message })?;
        Ok(frame)
    }

    /// The next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ChannelError>> {
        loop {
            if let Some((payload, size)) = &mut self.large {
                while payload.len() < *size {
                    let missing = *size - payload.len();
                    let mut rest = payload.limit(missing);
                    if ready!(poll_receive(&mut self.socket, self.refuses, cx, &mut rest))? == 0 {
                        return Poll::Ready(Err(ChannelError::Closed));
                    }
                }
                let payload = std::mem::take(payload);
                self.large = None;
                return Poll::Ready(self.complete(Frame::decode(buffer_pool::freeze(payload))?));
            }
            if let Some(size) = self.decoder.large(&self.incoming)? {
                self.incoming.advance(LENGTH_BYTES);
                let mut payload = buffer_pool::with_capacity(size);
                payload.extend_from_slice(&self.incoming.split());
                self.large = Some((payload, size));
                continue;
            }
            if let Some(frame) = self.decoder.decode(&mut self.incoming)? {
                return Poll::Ready(self.complete(frame));
            }
            if self.incoming.capacity() - self.incoming.len() < READ_BYTES / 16 {
                // Takes the same memory again once the frames cut from it are gone.
                self.incoming.reserve(READ_BYTES);
            }
            if ready!(poll_receive(&mut self.socket, self.refuses, cx, &mut self.incoming))? == 0 {
                return Poll::Ready(Err(ChannelError::Closed));
            }
        }
    }
}

/// A second descriptor of a socket. The last descriptor that is closed closes what is still in the socket, so it is left
/// to another thread. `None` when this process has no descriptor left.
pub(crate) fn hold(socket: &UnixStream) -> Option<Arc<ReceivedFd>> {
    Some(Arc::new(ReceivedFd::new(socket.as_fd().try_clone_to_owned().ok()?)))
}

/// `asm-generic/socket.h`, from Linux 6.16 on; the libc crate lacks it.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Whether the other end of a socket may pass descriptors.
///
/// # Errors
/// The kernel is older than Linux 6.16, and always lets them pass.
pub(crate) fn set_passes_rights(socket: &UnixStream, passes: bool) -> io::Result<()> {
    let value = libc::c_int::from(passes);
    // SAFETY: the descriptor is open, and the pointer is to a live integer of the length that is given.
    #[allow(unsafe_code)]
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads the bytes that the socket has; 0 at its end.
///
/// Where the kernel does not refuse descriptors they are received, since `read` closes those that came with the bytes at
/// once, and such a close may block. Where it does, tokio's own reading costs less: it knows after a short read that
/// nothing is left.
fn poll_receive(
    socket: &mut OwnedReadHalf,
    refuses: bool,
    cx: &mut Context<'_>,
    into: &mut impl BufMut,
) -> Poll<Result<usize, ChannelError>> {
    if refuses {
        return poll_read_buf(Pin::new(socket), cx, into).map_err(ChannelError::from);
    }
    let socket: &UnixStream = socket.as_ref();
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match socket.try_io(Interest::READABLE, || receive(socket, into)) {
            Ok(Some(read)) => return Poll::Ready(Ok(read)),
            Ok(None) => return Poll::Ready(Err(FrameError::Descriptors.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    }
}

/// `None` when descriptors came, which do not belong on this socket.
fn receive(socket: &UnixStream, into: &mut impl BufMut) -> io::Result<Option<usize>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let chunk = into.chunk_mut();
    let len = chunk.len();
    // SAFETY: the slice is of this length, and only the kernel writes to it, initialized bytes.
    #[allow(unsafe_code)]
    let bytes = unsafe { std::slice::from_raw_parts_mut(chunk.as_mut_ptr(), len) };
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut came = false;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            came = true;
            descriptors.for_each(|fd| drop(ReceivedFd::new(fd)));
        }
    }
    if came || received.flags.contains(ReturnFlags::CTRUNC) {
        return Ok(None);
    }
    // SAFETY: the kernel has written this many bytes.
    #[allow(unsafe_code)]
    unsafe {
        into.advance_mut(received.bytes);
    }
    Ok(Some(received.bytes))
}

/// The same frame without memfds.
fn inline(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    for attachment in &mut frame.attachments {
        *attachment = Attachment::Inline(attachment.buffer().to_bytes());
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    /// Passes a descriptor together with the bytes.
    fn pass(socket: &UnixStream, bytes: &[u8]) -> rustix::io::Result<usize> {
        let file = std::fs::File::open("/proc/version").expect("Linux");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    }

    #[tokio::test]
    async fn descriptor_on_the_channel_is_refused() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (descriptors, _) = FdSocket::pair().expect("a pair");
        let mut channel = Channel::new(ours, descriptors, 1 << 20);
        // As on a kernel before Linux 6.16.
        let socket: &UnixStream = channel.reader.socket.as_ref();
        if set_passes_rights(socket, true).is_ok() {
            set_passes_rights(socket, false).expect("as before");
            assert_eq!(pass(&theirs, b"x"), Err(rustix::io::Errno::PERM), "the kernel refuses it");
            set_passes_rights(socket, true).expect("as before");
        }
        channel.reader.refuses = false;
        pass(&theirs, b"x").expect("the kernel passes it");
        let frame = std::future::poll_fn(|cx| channel.reader.poll_frame(cx)).await;
        assert!(matches!(frame, Err(ChannelError::Frame(FrameError::Descriptors))), "{frame:?}");
    }
}
