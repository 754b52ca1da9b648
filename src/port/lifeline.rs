//! A socketpair without traffic by which the kernel itself kills a worker's group once this process
//! is gone, however it went and whatever the worker is doing then: the worker holds one end, on which
//! a hang-up is made to raise SIGKILL for the group; this process alone holds the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::Pid;

/// `asm-generic/fcntl.h`; the libc crate lacks them.
const F_SETSIG: libc::c_int = 10;
const F_GETOWN_EX: libc::c_int = 16;

/// `fd`: the worker's end, which is still open here too.
pub(super) fn arm(fd: impl AsFd, group: Pid) -> io::Result<()> {
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

/// The process, or leader of a group, that a worker's end is armed for.
pub(super) fn owner(fd: impl AsFd) -> Option<Pid> {
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
