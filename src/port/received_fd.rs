//! Descriptors that another process passed to this one. Closing one may block for as long as that process likes: a
//! socket with `SO_LINGER`, a file of its own file system. So other threads close them: one, or more while those block.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::cmsg_space;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// A descriptor that another process passed. Dropping it leaves the closing to another thread.
#[derive(Debug)]
pub(crate) struct ReceivedFd(Option<OwnedFd>);

impl ReceivedFd {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// For a descriptor that closes at once, such as a pidfd or a memfd.
    pub(crate) fn into_inner(mut self) -> OwnedFd {
        self.0.take().expect("only `drop` and this take it")
    }
}

impl AsFd for ReceivedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("only `drop` and `into_inner` take it").as_fd()
    }
}

impl Drop for ReceivedFd {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            close(fd);
        }
    }
}

/// How many threads close at a time. A descriptor that is being closed counts no longer among the open ones of this
/// process; one that waits does.
const MOST_CLOSERS: usize = 8;

/// More messages than a socket holds.
const MOST_MESSAGES: usize = 10_000;

/// More messages without bytes than a socket holds; by default (`net.unix.max_dgram_qlen`) the kernel takes ten.
const MOST_EMPTY_MESSAGES: usize = 100;

/// The descriptors that wait to be closed. Their number is bounded by the limit of open files.
struct Queue {
    waiting: VecDeque<OwnedFd>,
    /// How many threads there are. They end when nothing waits.
    closers: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), closers: 0 });

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(fd: OwnedFd) {
    let mut queue = queue();
    let blocked = queue.closers > 0 && !queue.waiting.is_empty();
    queue.waiting.push_back(fd);
    if queue.closers > 0 && !(blocked && queue.closers < MOST_CLOSERS) {
        return;
    }
    match std::thread::Builder::new().name("hatchery-closer".into()).spawn(serve) {
        Ok(_) => queue.closers += 1,
        // The next one tries again.
        Err(error) => log::error!(target: "hatchery::port", "cannot close a worker's descriptor: {error}"),
    }
}

fn serve() {
    loop {
        let fd = {
            let mut queue = queue();
            let Some(fd) = queue.waiting.pop_front() else {
                queue.closers -= 1;
                return;
            };
            fd
        };
        // A socket is not to wait for what its other end has not read; on anything else this fails.
        let _ = rustix::net::sockopt::set_socket_linger(&fd, None);
        empty(&fd);
        // Without the lock: this may block all the same.
        drop(fd);
    }
}

/// Takes the descriptors that lie unread in a Unix socket: the kernel would close them together with it.
fn empty(socket: &OwnedFd) {
    if !rustix::net::sockopt::socket_domain(socket).is_ok_and(|domain| domain == AddressFamily::UNIX) {
        return;
    }
    let (mut space, mut bytes) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(253))], vec![0; 1 << 16]);
    let mut empty_messages = 0;
    for _ in 0..MOST_MESSAGES {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
        match received {
            // The end looks like an empty message without descriptors, which others may follow.
            Ok(message) if message.bytes == 0 && empty_messages < MOST_EMPTY_MESSAGES => empty_messages += 1,
            Ok(message) if message.bytes > 0 => {}
            _ => return,
        }
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                descriptors.for_each(|fd| drop(ReceivedFd::new(fd)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::port::fd_passing::send_with;

    #[test]
    fn dropped_descriptor_is_closed_on_another_thread() {
        for _ in 0..100 {
            let (ours, mut other) = UnixStream::pair().expect("a pair");
            drop(ReceivedFd::new(ours.into()));
            assert_eq!(other.read(&mut [0]).expect("it is open"), 0, "the end of the stream comes");
        }
    }

    #[test]
    fn descriptor_whose_close_waits_holds_up_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let lingers = || {
            let socket = TcpStream::connect(address).expect("it listens");
            let (_unread, _) = listener.accept().expect("it comes");
            socket.set_nonblocking(true).expect("a socket");
            while (&socket).write(&[0; 1 << 16]).is_ok() {}
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(600)))
                .expect("a socket");
            (socket, _unread)
        };
        let (sockets, _unread): (Vec<_>, Vec<_>) = (0..4 * MOST_CLOSERS).map(|_| lingers()).unzip();
        for (at, socket) in sockets.into_iter().enumerate() {
            if at % 2 == 0 {
                drop(ReceivedFd::new(socket.into()));
                continue;
            }
            // This descriptor was not received.
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            send_with(&theirs, b"x", &[socket.as_fd()]).expect("there is room");
            drop(socket);
            drop(ReceivedFd::new(ours.into()));
        }
        let (ours, mut other) = UnixStream::pair().expect("a pair");
        other.set_read_timeout(Some(Duration::from_secs(60))).expect("it is open");
        drop(ReceivedFd::new(ours.into()));
        assert_eq!(other.read(&mut [0]).expect("it is closed in time"), 0);
    }
}
