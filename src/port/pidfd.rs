//! Signals to a process that somebody else may reap at any moment: by its pidfd, which never means another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

/// `linux/pidfd.h`, from Linux 6.9 on; the libc crate lacks it.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Sends a signal to the process itself.
pub(super) fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Kills a process and its group. `keeps_number`: it surely has not been reaped.
pub(super) fn kill_group(pidfd: impl AsFd, pid: Pid, keeps_number: bool) {
    let sent = send(&pidfd, libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP);
    // `ESRCH`: nothing is left in the group. Else an older kernel, or a sandbox: a group is known by its number only, which
    // is this one's as long as the process lives.
    let refused = sent.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH));
    if refused && (keeps_number || lives(&pidfd)) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    // The process itself may have left its group.
    let _ = signal(&pidfd, libc::SIGKILL);
}

fn lives(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn send(pidfd: impl AsFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor and integers; without a `siginfo_t` the kernel makes one as `kill` does.
    #[allow(unsafe_code)]
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, flags) };
    if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
