//! Descriptors that another process passed to this one. Closing one may block for as long as that process likes: a
//! socket with `SO_LINGER`, a file of its own file system. So other threads close them: one, or more while those block.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A descriptor that another process passed. Dropping it leaves the closing to another thread.
#[derive(Debug)]
pub(crate) struct Foreign(Option<OwnedFd>);

impl Foreign {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// For one that is known to close at once, such as a pidfd or a memfd.
    pub(crate) fn into_inner(mut self) -> OwnedFd {
        self.0.take().expect("only `drop` and this take it")
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("only `drop` and `into_inner` take it").as_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            close(fd);
        }
    }
}

/// How many threads close at a time. A descriptor that is being closed counts no longer among the open ones of this
/// process; one that waits does.
const MOST_CLOSERS: usize = 8;

/// What waits to be closed. Its length is bounded by the limit of open files.
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
        // Without the lock: this may block all the same.
        drop(fd);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn dropped_descriptor_is_closed_on_another_thread() {
        for _ in 0..100 {
            let (ours, mut other) = UnixStream::pair().expect("a pair");
            drop(Foreign::new(ours.into()));
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
        let (sockets, _unread): (Vec<_>, Vec<_>) = (0..2 * MOST_CLOSERS).map(|_| lingers()).unzip();
        for socket in sockets {
            drop(Foreign::new(socket.into()));
        }
        let (ours, mut other) = UnixStream::pair().expect("a pair");
        other.set_read_timeout(Some(Duration::from_secs(60))).expect("it is open");
        drop(Foreign::new(ours.into()));
        assert_eq!(other.read(&mut [0]).expect("it is closed in time"), 0);
    }
}
