//! One process in a process group of its own, tied to this one's life.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::descriptors::Descriptors;

/// What to start. Everything of this process's environment that `env` does not change is inherited.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    /// Absolute, so that nothing is searched for between fork and exec.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<PathBuf>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) max_rss_bytes: Option<u64>,
}

/// A started process and what connects us with it.
pub(crate) struct Spawned {
    pub(crate) process: Process,
    /// Our end of the socketpair whose other end is its standard input.
    pub(crate) socket: UnixStream,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    /// Our end of the pipe for stacks, and the number of the process's end.
    pub(crate) stacks: pipe::Receiver,
    pub(crate) stack_fd: i32,
    /// Our end of the socket for memfds, and the number of the process's end.
    pub(crate) descriptors: Descriptors,
    pub(crate) fd_socket: i32,
}

/// What both ends of the socket ask for as send buffer. The kernel caps it at `net.core.wmem_max`;
/// nothing depends on how much is granted.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Held while descriptors are inheritable, so that no other worker started meanwhile gets them too.
static SPAWNING: Mutex<()> = Mutex::new(());

/// Starts a process. Must be called within a tokio runtime.
///
/// `Command` takes posix_spawn here (0.2 ms whatever the size of this process): nothing in this
/// function may make it fall back to fork (`pre_exec`, `uid`, a cleared environment with a bare
/// program name).
///
/// `shared`: a descriptor that the process gets under its own number.
pub(crate) fn spawn(line: &CommandLine, shared: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
    let (ours, theirs) = StdUnixStream::pair()?;
    for end in [&ours, &theirs] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, SEND_BUFFER_BYTES)?;
    }
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&line.program);
    command
        .args(&line.args)
        .envs(line.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(dir) = &line.current_dir {
        command.current_dir(dir);
    }
    let (lifeline, held) = StdUnixStream::pair()?;
    let (stacks, written) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (descriptors, fd_socket) = Descriptors::pair()?;
    let inherited: Vec<_> =
        [held.as_fd(), written.as_fd(), fd_socket.as_fd()].into_iter().chain(shared).collect();
    let spawned = spawn_inheriting(&mut command, &inherited);
    let mut child = spawned.map_err(|error| match &line.current_dir {
        // The system says the same as for a missing program.
        Some(dir) if !dir.is_dir() => {
            io::Error::new(error.kind(), format!("its current directory {} is none", dir.display()))
        }
        _ => error,
    })?;
    let pid = Pid::from_child(&child);
    lifeline::arm(held.as_raw_fd(), pid).inspect_err(|_| {
        kill_group(pid);
        let _ = reap(pid);
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for as pipes");
    };
    let process = Process::new(&child, lifeline.into())?;
    Ok(Spawned {
        process,
        socket: UnixStream::from_std(ours)?,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        stacks: pipe::Receiver::from_owned_fd(stacks)?,
        stack_fd: written.as_raw_fd(),
        descriptors,
        fd_socket: fd_socket.as_raw_fd(),
    })
}

/// Starts the command with these descriptors open under their own numbers.
fn spawn_inheriting(command: &mut Command, inherited: &[BorrowedFd<'_>]) -> io::Result<std::process::Child> {
    let _guard = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    for &fd in inherited {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    let child = command.spawn();
    for &fd in inherited {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    child
}

/// A running process. Dropping it kills its whole group and sees to it that it is reaped.
pub(crate) struct Process {
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: AsyncFd<OwnedFd>,
    exit: Option<Exit>,
    /// The most memory seen while it ran: a dead process no longer tells.
    peak_rss_bytes: Option<u64>,
    _lifeline: OwnedFd,
}

impl Process {
    fn new(child: &std::process::Child, lifeline: OwnedFd) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        // Until this object is whole nobody else would end the child.
        // No flags: `NONBLOCK` needs Linux 5.10, and a pidfd is only polled.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(watch)
            .inspect_err(|_| {
                kill_group(pid);
                let _ = reap(pid);
            })?;
        Ok(Self { pid, pidfd, exit: None, peak_rss_bytes: None, _lifeline: lifeline })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills the process and everything else in its group.
    pub(crate) fn kill(&self) {
        if self.exit.is_none() {
            kill_group(self.pid);
        }
    }

    /// Sends the process itself, not its group, a signal.
    pub(crate) fn signal(&self, signal: i32) {
        if self.exit.is_none() {
            // SAFETY: two integers; the process is not reaped yet, so the number is still its own.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(self.pid.as_raw_nonzero().get(), signal);
            }
        }
    }

    /// Notes how much memory it uses now, for [`Exit::max_rss_bytes`].
    pub(crate) fn sample_memory(&mut self) {
        if let Some(bytes) = peak_rss_bytes(self.pid()) {
            self.peak_rss_bytes = Some(bytes);
        }
    }

    /// Ready once the process has ended, by whatever cause; the rest of its group is killed then,
    /// before its number can be given to another process.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        if let Some(exit) = self.exit {
            return Poll::Ready(exit);
        }
        // An error here means that the reactor is shutting down: nothing more will be told.
        if ready!(self.pidfd.poll_read_ready(cx)).is_err() {
            return Poll::Pending;
        }
        kill_group(self.pid);
        let exit = reap(self.pid).map(|(status, peak)| {
            let max_rss_bytes = self.peak_rss_bytes.max(peak);
            Exit { code: status.code(), signal: status.signal(), max_rss_bytes }
        });
        // `None` when somebody else in this process reaped it: how it ended is then lost.
        let exit = exit.unwrap_or(Exit { code: None, signal: None, max_rss_bytes: self.peak_rss_bytes });
        self.exit = Some(exit);
        Poll::Ready(exit)
    }

    pub(crate) async fn ended(&mut self) -> Exit {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }
}

fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open, and nobody takes it out of the `AsyncFd` again.
    #[allow(unsafe_code)]
    unsafe {
        Ok(AsyncFd::register(pidfd)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_some() {
            return;
        }
        kill_group(self.pid);
        let pid = self.pid;
        // A killed process takes a moment to end; a drop may not wait for it.
        let reaper = std::thread::Builder::new().name("hatchery-reaper".into());
        let dying = Dying::new();
        let reap = move || {
            reap(pid);
            drop(dying);
        };
        if let Err(error) = reaper.spawn(reap) {
            log::error!(target: "hatchery::port", "cannot reap process {pid}: {error}");
        }
    }
}

/// How many dropped processes have been killed and are not reaped yet.
static DYING: Mutex<usize> = Mutex::new(0);
static REAPED: Condvar = Condvar::new();

/// Counts one of them.
struct Dying(());

impl Dying {
    fn new() -> Self {
        *DYING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        *DYING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        REAPED.notify_all();
    }
}

/// Blocks until every dropped process has been reaped, at most for `timeout`: one that the kernel holds in an
/// uninterruptible state cannot be ended by anybody. Whether all are.
pub(crate) fn wait_until_reaped(timeout: Duration) -> bool {
    let dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
    let (dying, _) =
        REAPED.wait_timeout_while(dying, timeout, |dying| *dying > 0).unwrap_or_else(PoisonError::into_inner);
    *dying == 0
}

fn kill_group(pid: Pid) {
    // It fails only when nothing is left in the group.
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    // The process itself may have left its group (`os.setpgid`); it is not reaped yet, so the number
    // is still its own.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// Waits for the end of a process that has ended or is sure to; `None` when it is not ours to reap.
/// With its peak memory, where `wait4` tells the truth about it.
fn reap(pid: Pid) -> Option<(ExitStatus, Option<u64>)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`, a struct of integers.
    #[allow(unsafe_code)]
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right type.
        #[allow(unsafe_code)]
        let got = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, 0, &mut usage) };
        if got != -1 {
            break;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    // posix_spawn shares our memory until the exec, and the kernel counts that as the child's peak:
    // the figure says something about the child only above our own.
    let own = peak_rss_bytes(std::process::id()).unwrap_or(u64::MAX);
    Some((ExitStatus::from_raw(status), (peak > own).then_some(peak)))
}

/// `VmHWM` of `/proc/PID/status`.
fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A socketpair without traffic by which the kernel itself kills a worker's group once this process
/// is gone, however it went and whatever the worker is doing then: the worker holds one end, on which
/// a hang-up is made to raise SIGKILL for the group; this process alone holds the other.
mod lifeline {
    use super::*;

    /// `asm-generic/fcntl.h`; the libc crate lacks it.
    const F_SETSIG: libc::c_int = 10;

    /// `fd`: the worker's end, which is still open here too.
    pub(super) fn arm(fd: i32, group: Pid) -> io::Result<()> {
        let group = group.as_raw_nonzero().get();
        for (command, argument) in
            [(F_SETSIG, libc::SIGKILL), (libc::F_SETOWN, -group), (libc::F_SETFL, libc::O_ASYNC)]
        {
            // SAFETY: the descriptor is open, and these commands take an integer.
            #[allow(unsafe_code)]
            if unsafe { libc::fcntl(fd, command, argument) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}
