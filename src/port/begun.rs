//! Which calls a worker has begun: sixteen bytes of shared memory that outlive it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

const BYTES: usize = 16;

/// What a worker has marked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Calls with a larger id have surely not begun.
    pub(crate) last: u64,
    /// The call whose user code is on the main thread; 0: none's.
    pub(crate) on_main: u64,
}

/// The memory that it marks them in. The host only reads it, by a system call, so that nothing need be mapped here.
pub(crate) struct BegunMark(OwnedFd);

impl BegunMark {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("hatchery-begun", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, BYTES as u64)?;
        Ok(Self(fd))
    }

    /// A worker that has cut the memory short is believed to have begun everything.
    pub(crate) fn read(&self) -> Begun {
        let mut bytes = [0; BYTES];
        match rustix::io::pread(&self.0, &mut bytes, 0) {
            Ok(BYTES) => {
                let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]));
                Begun { last: word(0), on_main: word(8) }
            }
            _ => Begun { last: u64::MAX, on_main: 0 },
        }
    }
}

impl AsFd for BegunMark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_read_and_a_short_memory_means_every_doubt() {
        let mark = BegunMark::new().expect("Linux has memfds");
        assert_eq!(mark.read(), Begun::default());
        let words = [7u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
        rustix::io::pwrite(&mark.0, &words, 0).expect("it is ours");
        assert_eq!(mark.read(), Begun { last: 7, on_main: 5 });
        rustix::fs::ftruncate(&mark.0, 3).expect("it is not sealed");
        assert_eq!(mark.read().last, u64::MAX);
    }
}
