//! Descriptors that another process passed to this one. Closing one may block for as long as that process likes: a
//! socket with `SO_LINGER`, a file of its own file system. So a thread of its own closes them.

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

/// What waits to be closed. Its length is bounded by the limit of open files.
struct Queue {
    waiting: VecDeque<OwnedFd>,
    /// A thread is there. It ends when nothing waits.
    is_served: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), is_served: false });

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(fd: OwnedFd) {
    let mut queue = queue();
    queue.waiting.push_back(fd);
    if queue.is_served {
        return;
    }
    match std::thread::Builder::new().name("hatchery-closer".into()).spawn(serve) {
        Ok(_) => queue.is_served = true,
        // The next one tries again.
        Err(error) => log::error!(target: "hatchery::port", "cannot close a worker's descriptor: {error}"),
    }
}

fn serve() {
    loop {
        let fd = {
            let mut queue = queue();
            let Some(fd) = queue.waiting.pop_front() else {
                queue.is_served = false;
                return;
            };
            fd
        };
        // Without the lock: this may block.
        drop(fd);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn dropped_descriptor_is_closed_on_another_thread() {
        for _ in 0..100 {
            let (ours, mut other) = UnixStream::pair().expect("a pair");
            drop(Foreign::new(ours.into()));
            assert_eq!(other.read(&mut [0]).expect("it is open"), 0, "the end of the stream comes");
        }
    }
}
