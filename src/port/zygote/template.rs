//! The template process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::Pid;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::children::{Children, Orphan, Reaper};
use super::control::{Control, send};
use super::fork::{ForkError, ForkOrder};
use super::identity;
use crate::error::WorkerStartError;
use crate::port::channel::ChannelError;
use crate::port::process::capture::Capture;
use crate::port::process::limits::too_many_open_files;
use crate::port::process::parent_death::{self, HostEnd};
use crate::port::process::reap::orphaned;
use crate::port::process::spawn::{Exit, Process};
use crate::port::start::{PortSpec, Starting};
use crate::port::wire::frame::{Codec, Frame, FrameError, Kind};
use crate::port::wire::message::{Ready, shutdown_frame};

/// How long a template may be silent while workers are asked of it. It takes a few milliseconds for each.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a template may take to end that was asked to. It does nothing before that.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The settings of a template.
#[derive(Debug, Clone)]
pub(crate) struct TemplateSpec {
    pub(crate) port: Arc<PortSpec>,
    /// Imported before the pool's own module, in this order.
    pub(crate) preload: Vec<String>,
    /// The process's name, and that of its lines in the log.
    pub(crate) name: String,
}

/// A process that has imported the modules and forks workers. Dropping it kills it, but none of its workers.
pub(crate) struct Template {
    port: Arc<PortSpec>,
    process: Process,
    control: Control,
    capture: Capture,
    children: Arc<Children>,
    ready: Ready,
    /// Those that were asked for and not answered, in order.
    forks: BTreeMap<u64, Fork>,
    /// When it has not answered any of them for too long.
    overdue: Option<Pin<Box<Sleep>>>,
    last_fork: u64,
    /// How many it forked and has not reaped.
    unreaped: usize,
    /// Asked to end.
    ending: bool,
    /// When it is killed because it did not.
    grace: Option<Pin<Box<Sleep>>>,
    /// It was killed because of a fork, whose caller has the reason.
    blamed: bool,
    /// It broke the protocol, and was killed for that.
    broken: bool,
    /// It ended with forks pending, and no better reason is known.
    ended_forking: bool,
}

/// A fork that was asked for.
struct Fork {
    /// The worker's end, which is still open here, so that it can be armed; and ours.
    held: OwnedFd,
    parent_death: HostEnd,
    reply: oneshot::Sender<Result<Process, ForkError>>,
}

impl Template {
    /// Starts a Python that imports all modules. Must be called on an arbiter.
    pub(crate) async fn start(spec: &TemplateSpec) -> Result<Self, WorkerStartError> {
        let (starting, ready) = Starting::start(&spec.port, &spec.name, Some(&spec.preload)).await?;
        let Starting { mut process, channel, capture, .. } = starting;
        let control = Control::new(Arc::new(channel.into_stream()));
        let children = Arc::new(Children::new(control.stream().clone(), control.hold()));
        process.forks(children.clone());
        Ok(Self {
            port: spec.port.clone(),
            process,
            control,
            capture,
            children,
            ready,
            forks: BTreeMap::new(),
            overdue: None,
            last_fork: 0,
            unreaped: 0,
            ending: false,
            grace: None,
            blamed: false,
            broken: false,
            ended_forking: false,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its report when it was ready.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Whether it has nothing left to do but to fork.
    pub(crate) fn is_childless(&self) -> bool {
        self.unreaped == 0 && self.forks.is_empty()
    }

    /// Whether it has ended while it was to fork, perhaps because of that.
    pub(crate) fn ended_forking(&self) -> bool {
        self.ended_forking
    }

    /// Asks for a worker.
    pub(crate) fn fork(&mut self, order: ForkOrder) {
        let ForkOrder { worker, theirs, parent_death, reply } = order;
        if reply.is_closed() {
            return;
        }
        self.last_fork += 1;
        let mut descriptors = vec![
            theirs.channel.as_fd(),
            theirs.stdout.as_fd(),
            theirs.stderr.as_fd(),
            theirs.stacks.as_fd(),
            theirs.parent_death.as_fd(),
            theirs.fd_socket.as_fd(),
        ];
        descriptors.extend(theirs.begun.as_ref().map(AsFd::as_fd));
        let number = descriptors.len() as u32;
        let body = worker.into_bytes().into();
        let frame = Frame { number, ..Frame::new(Kind::Fork, self.last_fork, Codec::Json, body) };
        match send(self.control.stream(), &frame, &descriptors) {
            Ok(()) => {
                let fork = Fork { held: theirs.parent_death, parent_death, reply };
                self.forks.insert(self.last_fork, fork);
            }
            Err(error) => {
                log::warn!(target: "hatchery::port", "cannot ask template {} for a worker: {error}", self.pid());
                let _ = reply.send(Err(ForkError::NoTemplate));
            }
        }
    }

    /// Asks it to end; it does so at once, or is killed. Whether it had not been asked before: then
    /// [`poll`](Self::poll) has to be called once more.
    pub(crate) fn shut_down(&mut self) -> bool {
        if std::mem::replace(&mut self.ending, true) {
            return false;
        }
        match send(self.control.stream(), &shutdown_frame(), &[]) {
            Ok(()) => self.grace = Some(Box::pin(sleep(SHUTDOWN_GRACE))),
            Err(_) => self.kill(),
        }
        true
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// Ends a template that broke the protocol. Nothing more is read from it.
    fn break_off(&mut self, error: &dyn std::fmt::Display) {
        log::error!(target: "hatchery::port", "template {}: {error}", self.pid());
        self.broken = true;
        self.kill();
    }

    /// Moves its answers along. Ready once it has ended; none of its workers has then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        while !self.broken {
            match self.control.poll_frame(cx) {
                Poll::Ready(Ok(frame)) => {
                    if let Err(error) = self.told(&frame) {
                        self.break_off(&error);
                    }
                }
                // Its end tells more, and is near: whoever closes this channel has no other.
                Poll::Ready(Err(ChannelError::Closed)) => break,
                // It ended before it had read all.
                Poll::Ready(Err(ChannelError::Io(error)))
                    if error.kind() == io::ErrorKind::ConnectionReset =>
                {
                    break;
                }
                Poll::Ready(Err(error)) => self.break_off(&error),
                Poll::Pending => break,
            }
        }
        if self.grace.as_mut().is_some_and(|grace| grace.as_mut().poll(cx).is_ready()) {
            self.grace = None;
            log::warn!(target: "hatchery::port", "template {} does not end, and is killed", self.pid());
            self.kill();
        }
        if self.forks.is_empty() {
            self.overdue = None;
        } else if self
            .overdue
            .get_or_insert_with(|| Box::pin(sleep(FORK_TIMEOUT)))
            .as_mut()
            .poll(cx)
            .is_ready()
        {
            self.overdue = None;
            log::warn!(target: "hatchery::port", "template {} does not answer", self.pid());
            self.kill();
            // The others are not to blame.
            if let Some((_, fork)) = self.forks.pop_first() {
                self.blamed = true;
                self.give_up(fork, ForkError::TemplateHangs(FORK_TIMEOUT));
            }
        }
        let exit = ready!(self.process.poll_ended(cx));
        self.ended_forking |= !self.forks.is_empty() && !self.blamed;
        self.give_up_forks();
        Poll::Ready(exit)
    }

    /// The last lines of its standard error, once it has ended.
    pub(crate) async fn finish_capture(mut self) -> String {
        self.capture.finish().await;
        self.capture.stderr_tail()
    }

    fn give_up_forks(&mut self) {
        while let Some((_, fork)) = self.forks.pop_first() {
            self.give_up(fork, ForkError::NoTemplate);
        }
    }

    /// Ends a worker that a dead template may have forked without telling.
    fn give_up(&self, Fork { held, parent_death: ours, reply }: Fork, error: ForkError) {
        let forked =
            parent_death::owner(&held).and_then(|pid| identity::holder(pid, self.process.id(), &held));
        // The kernel kills it now, if it is there: it has seen to that before it left the template's group.
        drop(ours);
        if let Some(orphan) = forked {
            orphaned(&self.children, false, orphan);
        }
        let _ = reply.send(Err(error));
    }

    fn told(&mut self, frame: &Frame) -> Result<(), FrameError> {
        match frame.kind {
            Kind::Forked => self.forked(frame),
            Kind::Exited => {
                self.unreaped = self.unreaped.saturating_sub(1);
                self.children.exited(frame);
                Ok(())
            }
            other => Err(FrameError::UnexpectedKind(other)),
        }
    }

    fn forked(&mut self, frame: &Frame) -> Result<(), FrameError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Body {
            Forked { pid: i32 },
            Refused { error: String },
        }
        let body = serde_json::from_slice(&frame.body)
            .map_err(|error| FrameError::Body { kind: frame.kind, message: error.to_string() })?;
        let fork = self.forks.remove(&frame.call_id);
        self.overdue = None;
        let pid = match body {
            Body::Forked { pid } => pid,
            Body::Refused { error } => {
                if let Some(fork) = fork {
                    let _ = fork.reply.send(Err(ForkError::Refused(error)));
                }
                return Ok(());
            }
        };
        // Some numbers mean a whole group, or all processes.
        let Some(pid) = (pid > 1).then(|| Pid::from_raw(pid)).flatten() else {
            let message = format!("{pid} is no worker's process id");
            if let Some(fork) = fork {
                self.blamed = true;
                self.give_up(fork, ForkError::Refused(message.clone()));
            }
            return Err(FrameError::Body { kind: frame.kind, message });
        };
        self.unreaped += 1;
        let Some(Fork { held, parent_death: ours, reply }) = fork else {
            return Err(FrameError::Body { kind: frame.kind, message: "nobody asked for it".into() });
        };
        let Some(pidfd) = self.control.take_descriptor() else {
            // This process is at its limit of open files. The kernel kills the worker.
            drop(ours);
            orphaned(&self.children, false, Orphan::unseen(pid));
            let why = format!("its pidfd did not arrive; {}", too_many_open_files(&self.port));
            let _ = reply.send(Err(ForkError::Refused(why)));
            return Ok(());
        };
        // Nothing is armed, signalled or reaped that a template merely claims to have forked.
        let pidfd = match identity::check(pidfd, pid, self.process.id(), &held) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(why) => {
                self.blamed = true;
                self.give_up(Fork { held, parent_death: ours, reply }, ForkError::Refused(why.clone()));
                return Err(FrameError::Body { kind: frame.kind, message: why });
            }
        };
        // The worker does the same, but perhaps never comes to it: handlers of a fork run before.
        let armed = parent_death::arm(&held, pid);
        let reaper = Reaper::template(self.children.clone());
        let process = Process::forked(pid, pidfd.clone(), ours, reaper)
            .inspect_err(|_| orphaned(&self.children, false, Orphan::new(pid, pidfd)))?;
        // Dropped, and so killed, when its caller has left.
        let _ = reply.send(armed.map(|()| process).map_err(ForkError::Descriptors));
        Ok(())
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // First, so that it forks nothing after it has been looked what it has forked.
        self.kill();
        self.give_up_forks();
    }
}
