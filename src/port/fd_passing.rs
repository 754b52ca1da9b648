//! The socket on which memfds travel, each message ahead of the frame that it belongs to; and how descriptors are sent.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::port::memory::buffer::LEAST_MEMFD_BYTES;
use crate::port::memory::memfd::Memfd;
use crate::port::received_fd::ReceivedFd;
use crate::port::wire::attachment::{Attachment, MOST_MEMFDS};
use crate::port::wire::frame::Frame;

/// Room for all descriptors that the kernel puts into one message, so that none is cut off unnoticed.
const SPACE: usize = cmsg_space!(ScmRights(253));

/// Our end of it. Descriptors that were sent and not received are closed with it, so it is itself closed elsewhere.
#[derive(Debug)]
pub(crate) struct FdSocket {
    socket: ReceivedFd,
    /// Counts the worker's descriptors that this process keeps open.
    kept: Arc<()>,
}

impl FdSocket {
    /// Both ends; the second is the worker's.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { socket: ReceivedFd::new(ours), kept: Arc::default() }, theirs))
    }

    /// Sends the memfds of a frame, if it has any, before the frame itself.
    ///
    /// # Errors
    /// When the kernel takes no more descriptors; nothing has been sent then.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let memfds = frame.attachments.iter().filter_map(|attachment| match attachment {
            Attachment::Memfd(memfd) => Some(memfd.descriptor().ok_or(io::ErrorKind::InvalidInput)),
            _ => None,
        });
        let memfds: Vec<BorrowedFd<'_>> = memfds.collect::<Result<_, _>>()?;
        if memfds.is_empty() {
            return Ok(());
        }
        send_with(&self.socket, &frame.call_id.to_be_bytes(), &memfds)
    }

    /// Fills in the memfds of a frame that came.
    ///
    /// # Errors
    /// Why it cannot be done: the worker broke the protocol, or this process can open no more files.
    pub(crate) fn receive(&self, frame: &mut Frame) -> Result<(), String> {
        let awaited = frame.attachments.iter().filter(|part| matches!(part, Attachment::Awaited(_))).count();
        if awaited == 0 {
            return Ok(());
        }
        if awaited > MOST_MEMFDS {
            return Err(format!("{awaited} memfds in one frame, more than {MOST_MEMFDS}"));
        }
        let fds = self.receive_message(frame.call_id)?;
        if fds.len() != awaited {
            return Err(format!("{awaited} memfds were announced, but {} came", fds.len()));
        }
        let mut fds = fds.into_iter();
        for (index, part) in frame.attachments.iter_mut().enumerate() {
            if let Attachment::Awaited(len) = part {
                let fd = fds.next().expect("they were counted");
                let memfd = Memfd::received(fd, *len, &self.kept)
                    .map_err(|why| format!("attachment {index} cannot be relied on: {why}"))?;
                *part = if memfd.as_slice().len() < LEAST_MEMFD_BYTES {
                    // The number of mappings is limited, too.
                    Attachment::Inline(Bytes::copy_from_slice(memfd.as_slice()))
                } else {
                    Attachment::Memfd(Arc::new(memfd))
                };
            }
        }
        Ok(())
    }

    fn receive_message(&self, call_id: u64) -> Result<Vec<ReceivedFd>, String> {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0; 9];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message =
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut data)], &mut control, flags)
                .map_err(|error| match error {
                    rustix::io::Errno::AGAIN => "the memfds of a frame did not come before it".to_owned(),
                    error => format!("the memfds of a frame cannot be received: {error}"),
                })?;
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = part {
                fds.extend(came.map(ReceivedFd::new));
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err("memfds got lost: this process has too many open files".into());
        }
        if message.bytes != 8 || data[..8] != call_id.to_be_bytes() {
            return Err("the memfds that came belong to another frame".into());
        }
        Ok(fds)
    }
}

/// Sends a few bytes and the descriptors in one message, without waiting: all of it or nothing.
pub(crate) fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    // So few bytes are one buffer of the kernel's, also on a stream socket.
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

impl AsFd for FdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
