//! One process in a process group of its own, tied to this one's life.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::port::channel::set_passes_rights;
use crate::port::fd_passing::{FdSocket, send_with};
use crate::port::process::environment::Environment;
use crate::port::process::parent_death::HostEnd;
use crate::port::process::reap::{
    Dying, child_dropped, end_unwatched, orphaned, reap_in_background, template_dropped, template_reaped,
};
use crate::port::process::{parent_death, pidfd};
use crate::port::zygote::{Children, Orphan, Reaper};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    /// Absolute, so that nothing is searched for between fork and exec.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Environment,
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
    /// Our end of the pipe for stacks.
    pub(crate) stacks: pipe::Receiver,
    /// Our end of the socket for memfds.
    pub(crate) descriptors: FdSocket,
}

/// What both ends of the socket ask for as send buffer. The kernel caps it at `net.core.wmem_max`;
/// nothing depends on how much is granted.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Starts a process. Must be called within a tokio runtime.
///
/// `Command` takes posix_spawn here (0.2 ms whatever the size of this process): nothing in this
/// function may make it fall back to fork (`pre_exec`, `uid`, a cleared environment with a bare
/// program name).
///
/// The process inherits its standard streams and nothing else: what is inheritable for a moment is inherited by whatever
/// another thread starts in that moment. Its other descriptors come with `first`, the first bytes in its standard input:
/// the pipe for stacks, its end of the parent-death socket, the socket for memfds, and `shared`, if there is one. The parent-death socket holds
/// before the process has received its end, since a message on its way keeps a descriptor open.
pub(crate) fn spawn(line: &CommandLine, first: &[u8], shared: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
    let (socket, theirs) = socketpair()?;
    let mut command = Command::new(&line.program);
    command
        .args(&line.args)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    line.env.apply(&mut command);
    if let Some(dir) = &line.current_dir {
        command.current_dir(dir);
    }
    let (parent_death, held) = StdUnixStream::pair()?;
    let parent_death = HostEnd::new(parent_death.into());
    let (stacks, written) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (descriptors, fd_socket) = FdSocket::pair()?;
    let passed: Vec<_> =
        [written.as_fd(), held.as_fd(), fd_socket.as_fd()].into_iter().chain(shared).collect();
    send_with(&socket, first, &passed)?;
    let mut child = command.spawn().map_err(|error| match &line.current_dir {
        // The system says the same as for a missing program.
        Some(dir) if !dir.is_dir() => {
            io::Error::new(error.kind(), format!("its current directory {} is none", dir.display()))
        }
        _ if error.raw_os_error() == Some(libc::E2BIG) => {
            let environment = line.env.describe_size();
            let what_to_do =
                "leave out what the workers do not need with `.env_remove(name)` or `.env_clear()`";
            let text =
                format!("its environment is larger than the system allows: {environment}; {what_to_do}");
            io::Error::new(error.kind(), text)
        }
        _ => error,
    })?;
    let pid = Pid::from_child(&child);
    // No flags: `NONBLOCK` needs Linux 5.10, and a pidfd is only polled.
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Arc::new(pidfd),
        Err(error) => {
            end_unwatched(child);
            return Err(error.into());
        }
    };
    // From here on the child is killed and reaped when this function fails.
    let process = Process::new(pid, pidfd.clone(), parent_death, Reaper::Us)?;
    parent_death::arm(held.as_fd(), pid)?;
    if !pidfd::keeps_number(&pidfd, pid) {
        // The program ignores SIGCHLD, or reaps all children: the child is gone, and its number may be another's.
        parent_death::disarm(held.as_fd())?;
    }
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for as pipes");
    };
    Ok(Spawned {
        process,
        socket,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
        stacks: pipe::Receiver::from_owned_fd(stacks)?,
        descriptors,
    })
}

/// A channel: our end, and a process's.
pub(crate) fn socketpair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    for end in [&ours, &theirs] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, SEND_BUFFER_BYTES)?;
    }
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    // Older kernels cannot; the channel then refuses descriptors when they come.
    let _ = set_passes_rights(&ours, false);
    Ok((ours, theirs.into()))
}

/// A running process. Dropping it kills its whole group and has it reaped.
pub(crate) struct Process {
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: AsyncFd<Arc<OwnedFd>>,
    reaper: Reaper,
    /// It is dead, and its group killed; its number may be another's from now on.
    ended: bool,
    exit: Option<Exit>,
    /// The most memory seen while it ran: a dead process no longer tells.
    peak_rss_bytes: Option<u64>,
    _parent_death: HostEnd,
    /// The processes that it has forked for us.
    forked: Option<Arc<Children>>,
}

impl Process {
    /// A process that need not be our child. `pidfd` is surely its own.
    pub(crate) fn forked(
        pid: Pid,
        pidfd: Arc<OwnedFd>,
        parent_death: HostEnd,
        reaper: Reaper,
    ) -> io::Result<Self> {
        Self::new(pid, pidfd, parent_death, reaper).inspect_err(|error| {
            log::error!(target: "hatchery::port", "cannot watch process {pid}: {error}");
        })
    }

    /// Kills a child of ours when it fails.
    fn new(pid: Pid, pidfd: Arc<OwnedFd>, parent_death: HostEnd, reaper: Reaper) -> io::Result<Self> {
        let watched = watch(pidfd.clone()).inspect_err(|_| {
            if matches!(reaper, Reaper::Us) {
                pidfd::kill_group(&pidfd, pid);
                child_dropped(Orphan::new(pid, pidfd.clone()), Dying::new());
            }
        })?;
        Ok(Self {
            pid,
            pidfd: watched,
            reaper,
            ended: false,
            exit: None,
            peak_rss_bytes: None,
            _parent_death: parent_death,
            forked: None,
        })
    }

    /// It is a template: once it has been reaped, the processes that it forked are reaped, too.
    pub(crate) fn forks(&mut self, children: Arc<Children>) {
        self.forked = Some(children);
    }

    /// Whether it is known to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn id(&self) -> Pid {
        self.pid
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills the process and everything else in its group.
    pub(crate) fn kill(&self) {
        if !self.ended {
            self.kill_all();
        }
    }

    fn kill_all(&self) {
        pidfd::kill_group(&self.pidfd, self.pid);
    }

    /// Sends the process itself, not its group, a signal.
    pub(crate) fn signal(&self, signal: i32) {
        if !self.ended {
            // A process that has ended needs no signal.
            let _ = pidfd::signal(&self.pidfd, signal);
        }
    }

    /// Notes how much memory it uses now, for [`Exit::max_rss_bytes`].
    pub(crate) fn sample_memory(&mut self) {
        if let Some(bytes) = peak_rss_bytes(self.pid()) {
            self.peak_rss_bytes = Some(bytes);
        }
    }

    /// Whether a signal such as `SIGSTOP` has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state() == Some('T')
    }

    /// What stands in place of the stack of a process that is stopped, which can tell none; `None` when it is not stopped.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        let (state, why) = match self.state()? {
            'T' => ('T', "by a signal such as SIGSTOP or SIGTTIN; SIGCONT lets it go on"),
            't' => ('t', "by a debugger"),
            _ => return None,
        };
        Some(format!("  the worker's process is stopped, state {state}: {why}"))
    }

    /// The kernel's letter for the state of the process; `None` once it has ended, or without `/proc`.
    fn state(&self) -> Option<char> {
        if self.ended {
            return None;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The name of the program stands in parentheses, and may hold some itself.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Ready once the process has ended; the rest of its group is killed then,
    /// before its number can be given to another process.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        if let Some(exit) = self.exit {
            return Poll::Ready(exit);
        }
        // An error here means that the reactor is shutting down: nothing more will be told.
        if ready!(self.pidfd.poll_read_ready(cx)).is_err() {
            return Poll::Pending;
        }
        if !self.ended {
            self.kill_all();
            self.ended = true;
        }
        let exit =
            ready!(self.reaper.poll_reaped(self.pid, self.pidfd.get_ref(), cx)).map(|(status, peak)| {
                let max_rss_bytes = self.peak_rss_bytes.max(peak);
                Exit { code: status.code(), signal: status.signal(), max_rss_bytes }
            });
        // `None` when another thread has reaped it: its exit status is lost.
        let exit = exit.unwrap_or(Exit { code: None, signal: None, max_rss_bytes: self.peak_rss_bytes });
        self.exit = Some(exit);
        if let Some(forked) = self.forked.take() {
            template_reaped(self.pid, forked);
        }
        Poll::Ready(exit)
    }

    pub(crate) async fn ended(&mut self) -> Exit {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }
}

fn watch(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor is open, and stays in the `AsyncFd`.
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
        if !self.ended {
            self.kill_all();
        }
        // A killed process takes a moment to end; a drop may not wait for it.
        let dying = Dying::new();
        let orphan = Orphan::new(self.pid, self.pidfd.get_ref().clone());
        match (&self.reaper, self.forked.take()) {
            (Reaper::Us | Reaper::Thread(_), Some(forked)) => template_dropped(orphan, forked, dying),
            (Reaper::Us, None) => child_dropped(orphan, dying),
            // Its thread reaps it.
            (Reaper::Thread(_), None) => {}
            (Reaper::Template { children, asked }, _) => orphaned(children, asked.is_some(), orphan),
            (Reaper::Whoever, _) => reap_in_background(orphan, dying),
        }
    }
}

/// `VmHWM` of `/proc/PID/status`.
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> CommandLine {
        CommandLine {
            program: "/bin/sleep".into(),
            args: vec!["1000".into()],
            env: Environment::default(),
            current_dir: None,
        }
    }

    #[tokio::test]
    async fn host_death_before_descriptors_are_read_ends_the_worker() {
        // `sleep` reads nothing: its end of the parent-death socket is in the socket.
        let Spawned { mut process, socket, .. } = spawn(&sleeper(), b"first", None).expect("it starts");
        let (other, _) = StdUnixStream::pair().expect("a pair");
        // Both are closed when the host is gone, in any order.
        drop(socket);
        drop(std::mem::replace(&mut process._parent_death, HostEnd::new(other.into())));
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), process.ended()).await;
        let exit = ended.expect("the kernel ends it");
        assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGKILL)));
    }
}
