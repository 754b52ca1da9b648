//! Signals and reaping by pidfd: a pidfd never means another process, while a number may be used again once its
//! process has been reaped, perhaps by other code of this program.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::port::process::spawn::peak_rss_bytes;

/// `linux/pidfd.h`, from Linux 6.9 on; the libc crate lacks it.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// How a process ended, and its peak memory where the kernel tells the truth about it.
pub(crate) type Reaped = (ExitStatus, Option<u64>);

/// Sends a signal to the process itself.
pub(crate) fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Kills a process and its group.
pub(crate) fn kill_group(pidfd: impl AsFd, pid: Pid) {
    let sent = send(&pidfd, libc::SIGKILL, PIDFD_SIGNAL_PROCESS_GROUP);
    // `ESRCH`: the group is empty. Any other error: the kernel is older, or a sandbox forbids it. The group is then
    // known by its number only.
    let refused = sent.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH));
    if refused && keeps_number(&pidfd, pid) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    // The process itself may have left its group.
    let _ = signal(&pidfd, libc::SIGKILL);
}

/// Whether the number is this process's now: it has not been reaped.
pub(crate) fn keeps_number(pidfd: impl AsFd, pid: Pid) -> bool {
    match number(&pidfd) {
        Ok(number) => number == Some(pid),
        // Without /proc a process that has ended may have been reaped.
        Err(_) => is_running(&pidfd),
    }
}

/// Whether the process has not ended.
pub(crate) fn is_running(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// The process that a pidfd means; `None` when it has been reaped, or the descriptor is no pidfd.
///
/// # Errors
/// There is no /proc.
pub(crate) fn number(pidfd: impl AsFd) -> io::Result<Option<Pid>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i32>().ok());
    Ok(number.filter(|&number| number > 0).and_then(Pid::from_raw))
}

/// The parent of the process that a pidfd means; `None` when the process has been reaped or cannot be seen.
pub(crate) fn parent(pidfd: impl AsFd, pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before the last parenthesis may hold anything.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    // Read before this check, it cannot be another process's.
    (number(pidfd).ok()? == Some(pid)).then(|| Pid::from_raw(parent)).flatten()
}

/// The state of a process that may have ended.
pub(crate) enum Look {
    /// It ended, and this call reaped it.
    Reaped(Reaped),
    /// It has not ended, or another process traces it and has not let go of it yet.
    NotYet,
    /// It is not ours to reap: no child of ours, or reaped already.
    NotOurs,
}

/// Reaps a process if that is possible at once.
pub(crate) fn try_reap(pidfd: impl AsFd) -> Look {
    wait(pidfd, libc::WNOHANG)
}

/// Waits for the end of a process; `None` when it is not ours to reap.
pub(crate) fn reap(pidfd: impl AsFd) -> Option<Reaped> {
    match wait(pidfd, 0) {
        Look::Reaped(reaped) => Some(reaped),
        Look::NotYet | Look::NotOurs => None,
    }
}

fn wait(pidfd: impl AsFd, options: libc::c_int) -> Look {
    // SAFETY: all zeroes is a valid value of both, which are structs of integers.
    #[allow(unsafe_code)]
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    let got = loop {
        // SAFETY: the pointers are to live locals of the types that the kernel writes. The C library's `waitid` lacks
        // the `rusage`.
        #[allow(unsafe_code)]
        let got = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_fd().as_raw_fd(),
                &mut info,
                libc::WEXITED | options,
                &mut usage,
            )
        };
        if got == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break got;
        }
    };
    if got != 0 {
        return Look::NotOurs;
    }
    // SAFETY: `waitid` fills in these members, or leaves them zero.
    #[allow(unsafe_code)]
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Look::NotYet;
    }
    // The form of `wait4`.
    let status = match info.si_code {
        libc::CLD_EXITED => status << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    // posix_spawn shares our memory until the exec, and the kernel counts that as the child's peak: the figure says
    // something about the child only above our own.
    let own = peak_rss_bytes(std::process::id()).unwrap_or(u64::MAX);
    Look::Reaped((ExitStatus::from_raw(status), (peak > own).then_some(peak)))
}

fn send(pidfd: impl AsFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor and integers; without a `siginfo_t` the kernel makes one as `kill` does.
    #[allow(unsafe_code)]
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, flags) };
    if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn sleeping() -> (Child, Pid, std::os::fd::OwnedFd) {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep is there");
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
        (child, pid, pidfd)
    }

    #[test]
    fn number_is_kept_until_the_process_is_reaped() {
        let (_child, pid, pidfd) = sleeping();
        assert_eq!(number(&pidfd).expect("there is /proc"), Some(pid));
        assert_eq!(parent(&pidfd, pid), Some(getpid()));
        assert!(matches!(try_reap(&pidfd), Look::NotYet));
        signal(&pidfd, libc::SIGKILL).expect("it lives");
        let (status, _) = reap(&pidfd).expect("it is our child");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        assert!(!keeps_number(&pidfd, pid) && parent(&pidfd, pid).is_none());
        assert!(matches!(try_reap(&pidfd), Look::NotOurs));
    }

    #[test]
    fn descriptor_that_is_no_pidfd_has_no_number() {
        let file = std::fs::File::open("/proc/version").expect("Linux");
        assert_eq!(number(&file).expect("there is /proc"), None);
        assert!(!keeps_number(&file, getpid()));
    }
}
