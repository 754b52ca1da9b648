//! Memory that two processes share without having to trust each other: memfds, sealed before anybody else gets them.
//!
//! A memfd that shrank under a mapping would end this process with SIGBUS. So one is mapped only when its seals forbid
//! that it ever shrinks or is written again, and when it is as large as it is said to be; privately, because kernels
//! before 6.7 refuse shared mappings of what is sealed against writing.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::budget::KEPT_DESCRIPTORS;
use crate::port::received_fd::ReceivedFd;

/// The required seals. The bytes of a memfd with these seals cannot change.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// `linux/magic.h`: the file system of memfds with ordinary pages.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The largest memfd that is taken from a worker: 16 GiB.
const MOST_BYTES: u64 = 16 << 30;

/// A sealed memfd, mapped read-only.
#[derive(Debug)]
pub(crate) struct Memfd {
    /// `None` when it was closed, since the host keeps enough of them: the bytes are there, and cannot be passed on.
    fd: Option<OwnedFd>,
    map: Map,
    /// Counts the descriptors that one worker has passed and that are open.
    _kept: Option<Arc<()>>,
}

impl Memfd {
    /// A new one with these bytes: they are copied once.
    pub(crate) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let fd = create("hatchery", bytes.len())?;
        let mut at = 0;
        while at < bytes.len() {
            match rustix::io::pwrite(&fd, &bytes[at..], at as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => at += written,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        let map = Map::read_only(fd.as_fd(), bytes.len())?;
        Ok(Self::new(fd, map))
    }

    fn new(fd: OwnedFd, map: Map) -> Self {
        Self { fd: Some(fd), map, _kept: None }
    }

    /// A memfd from a worker, which says that it has this many bytes. `kept` counts the descriptors of that worker's
    /// memfds: this one's is closed when [enough](KEPT_DESCRIPTORS) are open.
    ///
    /// # Errors
    /// What is wrong with the memfd. Its bytes have not been touched then.
    pub(crate) fn received(fd: ReceivedFd, len: u64, kept: &Arc<()>) -> Result<Self, String> {
        // Only shared memory has seals at all.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| "it is no memfd".to_owned())?;
        if !seals.contains(SEALS) {
            return Err("it is not sealed against shrinking, growing and writing".into());
        }
        // A page of hugetlbfs can be missing when it is touched.
        let file_system = rustix::fs::fstatfs(&fd).map_err(|error| error.to_string())?;
        if file_system.f_type as i64 != TMPFS_MAGIC {
            return Err("it has pages of another size".into());
        }
        let stat = rustix::fs::fstat(&fd).map_err(|error| error.to_string())?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size < len {
            return Err(format!("it has {size} bytes, not {len}"));
        }
        if size > MOST_BYTES {
            return Err(format!("it has {size} bytes, more than {MOST_BYTES}"));
        }
        // Each page that is missing would cost this process memory when it is read.
        if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size {
            return Err("it has holes".into());
        }
        let len = usize::try_from(len).map_err(|error| error.to_string())?;
        // It closes at once: it is a memfd.
        let fd = fd.into_inner();
        let map = Map::read_only(fd.as_fd(), len).map_err(|error| format!("it cannot be mapped: {error}"))?;
        // The counter itself is one reference.
        let kept = (Arc::strong_count(kept) <= KEPT_DESCRIPTORS).then(|| kept.clone());
        Ok(Self { fd: kept.is_some().then_some(fd), map, _kept: kept })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.map.as_slice()
    }

    /// By which it is passed to another process; `None` when the descriptor was closed.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

/// A memfd that is being filled, mapped for writing.
#[derive(Debug)]
pub(crate) struct OpenMemfd {
    fd: OwnedFd,
    map: Map,
}

impl OpenMemfd {
    /// A new memfd of this many zeroes.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let fd = create("hatchery", len)?;
        let map = Map::new(fd.as_fd(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
        map.keep_from_children()?;
        Ok(Self { fd, map })
    }

    /// No more bytes are written.
    ///
    /// # Errors
    /// The bytes, in ordinary memory, when it cannot be sealed, or mapped again.
    pub(crate) fn seal(self) -> Result<Memfd, Vec<u8>> {
        let Self { fd, map } = self;
        let len = map.len;
        // The kernel refuses to seal what is still mapped for writing.
        drop(map);
        let rescue = |_| {
            let mut bytes = vec![0; len];
            let mut at = 0;
            while at < len {
                at += rustix::io::pread(&fd, &mut bytes[at..], at as u64).expect("a memfd can be read");
            }
            bytes
        };
        rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(io::Error::from).map_err(rescue)?;
        let map = Map::read_only(fd.as_fd(), len).map_err(rescue)?;
        Ok(Memfd::new(fd, map))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.map.as_slice()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is writable, of this length, and lives as long as `self`; the descriptor has not left
        // this object, so that no other process has a mapping of its own, and `&mut self` is the only way to this one.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.map.at.as_ptr().cast(), self.map.len)
        }
    }
}

/// A memfd of so many zeroes, which can neither shrink nor grow: a mapping of it never ends this process by SIGBUS. Its
/// pages are there, for the same reason.
///
/// # Errors
/// The kernel has no memory or no descriptor for it, or the limit of file sizes (`ulimit -f`) forbids it: the kernel
/// would end this process by SIGXFSZ.
pub(crate) fn create(name: &str, len: usize) -> io::Result<OwnedFd> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < len as u64) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    // A process of the same user may have opened it by /proc before it was sealed.
    if rustix::fs::fstat(&fd)?.st_size as u64 != len as u64 {
        return Err(io::Error::other("another process changed the size of a memfd"));
    }
    if len > 0 {
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len as u64)?;
    }
    Ok(fd)
}

/// A mapping of the beginning of a file.
#[derive(Debug)]
struct Map {
    at: NonNull<c_void>,
    len: usize,
}

// SAFETY: memory of the process, of no thread; it is only written through `&mut OpenMemfd`.
#[allow(unsafe_code)]
unsafe impl Send for Map {}
// SAFETY: as above; shared references only read.
#[allow(unsafe_code)]
unsafe impl Sync for Map {}

impl Map {
    fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::new(fd, len, ProtFlags::READ, MapFlags::PRIVATE)
    }

    fn new(fd: BorrowedFd<'_>, len: usize, access: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { at: NonNull::dangling(), len }); // the kernel knows no empty mappings
        }
        if isize::try_from(len).is_err() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the kernel chooses the place, so that nothing else is there. The file cannot shrink below `len`:
        // it is sealed against that, or nobody else has it.
        #[allow(unsafe_code)]
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, flags, fd, 0)? };
        let at = NonNull::new(at).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, len })
    }

    /// A child that is forked at the wrong moment would keep it mapped, so that it could not be sealed.
    fn keep_from_children(&self) -> io::Result<()> {
        if self.len > 0 {
            // SAFETY: the mapping is our own, and this changes nothing but what a forked child gets of it.
            #[allow(unsafe_code)]
            unsafe {
                rustix::mm::madvise(self.at.as_ptr(), self.len, rustix::mm::Advice::LinuxDontFork)?;
            }
        }
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is readable, of this length, and lives as long as `self`. Nobody writes into it while
        // this reference lives: a sealed file cannot be written, and one that is open for writing is written through
        // `&mut OpenMemfd` only.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.at.as_ptr().cast(), self.len)
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: it was mapped with this length, and references to it borrow `self`.
            #[allow(unsafe_code)]
            let unmapped = unsafe { rustix::mm::munmap(self.at.as_ptr(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

#[cfg(test)]
#[path = "memfd_tests.rs"]
mod tests;
