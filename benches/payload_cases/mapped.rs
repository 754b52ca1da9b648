//! A sealed memfd, mapped, with nothing around it.

use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A mapping that ends with it.
pub(super) struct Mapped {
    at: NonNull<std::ffi::c_void>,
    len: usize,
}

impl Mapped {
    /// Creates, writes, seals and maps.
    pub(super) fn copy_of(bytes: &[u8]) -> Mapped {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("floor", flags).expect("a memfd");
        let written = rustix::io::write(&fd, bytes).expect("it takes them");
        assert_eq!(written, bytes.len(), "it takes all of them");
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        // The kernel refuses while somebody else has a page of it in hand, as what watches the memory of this machine may.
        let mut sealed = Err(rustix::io::Errno::BUSY);
        for _ in 0..20 {
            if sealed == Err(rustix::io::Errno::BUSY) {
                sealed = rustix::fs::fcntl_add_seals(&fd, seals);
            }
        }
        sealed.expect("it is sealed");
        let (access, private) = (ProtFlags::READ, MapFlags::PRIVATE);
        // SAFETY: the kernel chooses the place, and what is sealed neither shrinks nor changes.
        #[allow(unsafe_code)]
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes.len(), access, private, &fd, 0) };
        let at = NonNull::new(at.expect("it is mapped")).expect("not at 0");
        Mapped { at, len: bytes.len() }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: it is mapped, readable and of this length as long as `self` lives, and nobody can write into it.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.at.as_ptr().cast(), self.len)
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length; slices of it borrow `self`.
        #[allow(unsafe_code)]
        unsafe {
            rustix::mm::munmap(self.at.as_ptr(), self.len).expect("it was mapped");
        }
    }
}
