//! Which calls a worker has begun: sixteen bytes of shared memory that outlive it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::port::memory::memfd;

const BYTES: usize = 16;

/// The marks of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StartedCalls {
    /// Calls with a larger id have surely not begun.
    pub(crate) last: u64,
    /// The call whose user code is on the main thread; 0: none's.
    pub(crate) on_main: u64,
}

/// The memory of the marks. The host reads it by a system call, so nothing is mapped here.
pub(crate) struct StartMarker(OwnedFd);

impl StartMarker {
    pub(crate) fn new() -> io::Result<Self> {
        memfd::create("hatchery-begun", BYTES).map(Self)
    }

    /// The worker's marks. If they cannot be read, every call may have begun.
    pub(crate) fn read(&self) -> StartedCalls {
        let mut bytes = [0; BYTES];
        match rustix::io::pread(&self.0, &mut bytes, 0) {
            Ok(BYTES) => {
                let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]));
                StartedCalls { last: word(0), on_main: word(8) }
            }
            _ => StartedCalls { last: u64::MAX, on_main: 0 },
        }
    }
}

impl AsFd for StartMarker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_marks_calls_and_cannot_cut_the_memory_short() {
        let mark = StartMarker::new().expect("Linux has memfds");
        assert_eq!(mark.read(), StartedCalls::default());
        let words = [7u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
        rustix::io::pwrite(&mark.0, &words, 0).expect("it is ours");
        assert_eq!(mark.read(), StartedCalls { last: 7, on_main: 5 });
        rustix::fs::ftruncate(&mark.0, 3).expect_err("it is sealed");
        assert_eq!(mark.read().last, 7);
    }
}
