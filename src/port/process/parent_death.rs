//! A socketpair without traffic by which the kernel itself kills a worker's group once this process
//! is gone, however it went and whatever the worker is doing then: the worker holds one end, on which
//! a hang-up is made to raise SIGKILL for the group; this process alone holds the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::Pid;

/// The host's end of a parent-death socket. It is the host's alone: a child that the host forks does not keep it, so that the
/// workers end with the host although the child lives on.
#[derive(Debug)]
pub(crate) struct HostEnd {
    slot: Option<&'static AtomicI32>,
    _fd: OwnedFd,
}

/// How many ends are kept from forked children. Beyond that a child without exec keeps the workers alive.
const MOST_HOST_ENDS: usize = 4096;
const FREE: i32 = -1;
static HOST_ENDS: [AtomicI32; MOST_HOST_ENDS] = [const { AtomicI32::new(FREE) }; MOST_HOST_ENDS];
static AT_FORK: Once = Once::new();

impl HostEnd {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        AT_FORK.call_once(|| {
            // SAFETY: the handler makes system calls and reads atomics only, as a child of a program with threads may.
            #[allow(unsafe_code)]
            let failed = unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
            if failed != 0 {
                log::warn!(target: "hatchery::port", "forked children of this program will keep its workers alive");
            }
        });
        let number = fd.as_raw_fd();
        let take = |slot: &&AtomicI32| {
            slot.compare_exchange(FREE, number, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        Self { slot: HOST_ENDS.iter().find(take), _fd: fd }
    }
}

impl Drop for HostEnd {
    fn drop(&mut self) {
        // Before the descriptor is closed: its number may then be another's.
        if let Some(slot) = self.slot {
            slot.store(FREE, Ordering::Release);
        }
    }
}

/// Puts `/dev/null` in the place of each end. The numbers stay open, since the child's copies of their owners close them.
extern "C" fn close_in_child() {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a string that ends with a zero, and integers.
    #[allow(unsafe_code)]
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), flags) };
    for slot in &HOST_ENDS {
        let held = slot.load(Ordering::Acquire);
        if held == FREE {
            continue;
        }
        // SAFETY: integers only. Without `/dev/null` the end is closed all the same.
        #[allow(unsafe_code)]
        unsafe {
            if null == -1 || libc::dup3(null, held, libc::O_CLOEXEC) == -1 {
                libc::close(held);
            }
        }
    }
    if null != -1 {
        // SAFETY: it was opened above.
        #[allow(unsafe_code)]
        unsafe {
            libc::close(null);
        }
    }
}

/// `asm-generic/fcntl.h`; the libc crate lacks them.
const F_SETSIG: libc::c_int = 10;
const F_GETOWN_EX: libc::c_int = 16;

/// `fd`: the worker's end, which is still open here too.
pub(crate) fn arm(fd: impl AsFd, group: Pid) -> io::Result<()> {
    let group = group.as_raw_nonzero().get();
    for (command, argument) in
        [(F_SETSIG, libc::SIGKILL), (libc::F_SETOWN, -group), (libc::F_SETFL, libc::O_ASYNC)]
    {
        // SAFETY: the descriptor is open, and these commands take an integer.
        #[allow(unsafe_code)]
        if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, argument) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends what [`arm`] did: nothing is signalled any more.
pub(crate) fn disarm(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the command takes an integer.
    #[allow(unsafe_code)]
    if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETOWN, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The process, or leader of a group, that a worker's end is armed for.
pub(crate) fn owner(fd: impl AsFd) -> Option<Pid> {
    #[repr(C)]
    struct Owner {
        kind: libc::c_int,
        pid: libc::pid_t,
    }
    let mut owner = Owner { kind: 0, pid: 0 };
    // SAFETY: the descriptor is open, and the kernel writes a `struct f_owner_ex`, which this is.
    #[allow(unsafe_code)]
    let got = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), F_GETOWN_EX, &mut owner) };
    if got == -1 { None } else { Pid::from_raw(owner.pid) }
}
