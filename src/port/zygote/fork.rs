//! One fork: the worker's descriptors, and the host's ends of them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::error::WorkerStartError;
use crate::port::fd_passing::FdSocket;
use crate::port::process::parent_death::HostEnd;
use crate::port::process::spawn::{Process, socketpair};
use crate::port::process::start_marker::StartMarker;

/// Why a worker was not forked, or not ready after it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForkError {
    /// There is no template now, or it died on the way. No fault of the fork's.
    #[error("the template is not there")]
    NoTemplate,
    /// The template could not fork.
    #[error("the template could not fork: {0}")]
    Refused(String),
    /// The template does not answer.
    #[error("the template did not answer for {0:?}, and was killed")]
    TemplateHangs(Duration),
    /// The worker's descriptors could not be made.
    #[error("cannot make the descriptors of a worker: {0}")]
    Descriptors(io::Error),
    /// It was forked, but was not ready.
    #[error("a forked worker did not become ready: {0}")]
    Start(WorkerStartError),
}

/// A fork that is wanted.
pub(crate) struct ForkOrder {
    pub(super) worker: String,
    /// In the order in which they are sent.
    pub(super) theirs: Theirs,
    pub(super) parent_death: HostEnd,
    pub(super) reply: oneshot::Sender<Result<Process, ForkError>>,
}

impl ForkOrder {
    /// Answers that it was not done.
    pub(crate) fn refuse(self, error: ForkError) {
        let _ = self.reply.send(Err(error));
    }
}

/// The worker's ends.
pub(super) struct Theirs {
    pub(super) channel: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) stacks: OwnedFd,
    pub(super) parent_death: OwnedFd,
    pub(super) fd_socket: OwnedFd,
    pub(super) begun: Option<OwnedFd>,
}

/// Our ends, and the answer.
pub(crate) struct Ours {
    pub(crate) socket: UnixStream,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) stacks: pipe::Receiver,
    pub(crate) descriptors: FdSocket,
    pub(crate) begun: Option<StartMarker>,
    pub(crate) forked: oneshot::Receiver<Result<Process, ForkError>>,
}

/// Makes all that connects us with a worker to be forked. `several`: it may get several calls at a time.
pub(crate) fn order(worker: &str, several: bool) -> io::Result<(ForkOrder, Ours)> {
    let (socket, channel) = socketpair()?;
    let (stdout, their_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stacks, their_stacks) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (parent_death, their_parent_death) = StdUnixStream::pair()?;
    let parent_death = HostEnd::new(parent_death.into());
    let (descriptors, fd_socket) = FdSocket::pair()?;
    let begun = several.then(StartMarker::new).transpose()?;
    let their_begun = begun.as_ref().map(|begun| begun.as_fd().try_clone_to_owned()).transpose()?;
    let (reply, forked) = oneshot::channel();
    let theirs = Theirs {
        channel,
        stdout: their_stdout,
        stderr: their_stderr,
        stacks: their_stacks,
        parent_death: their_parent_death.into(),
        fd_socket,
        begun: their_begun,
    };
    let ours = Ours {
        socket,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        stderr: pipe::Receiver::from_owned_fd(stderr)?,
        stacks: pipe::Receiver::from_owned_fd(stacks)?,
        descriptors,
        begun,
        forked,
    };
    Ok((ForkOrder { worker: worker.to_owned(), theirs, parent_death, reply }, ours))
}
