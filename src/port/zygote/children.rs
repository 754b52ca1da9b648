//! The ends of forked workers: who reaps them, and how that is told.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::Pid;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::control::send;
use crate::port::process::pidfd::{self, Look, Reaped};
use crate::port::process::reap::{Dying, reap_elsewhere, reap_group, wait_for_group};
use crate::port::received_fd::ReceivedFd;
use crate::port::wire::frame::{Codec, Frame, Kind};

/// How long a template, or a tracer, may hold back the exit status of a worker that is dead. A template answers within a fraction of a
/// millisecond, unless it is stopped, or the machine very busy.
const REAP_TIMEOUT: Duration = Duration::from_secs(3);

/// A process that will be reaped by init, or by us if it falls to us.
pub(crate) struct Orphan {
    pub(crate) pid: Pid,
    /// `None` when only its template has said that there is such a process: we then neither signal nor reap it.
    pidfd: Option<Arc<OwnedFd>>,
}

impl Orphan {
    pub(crate) fn new(pid: Pid, pidfd: Arc<OwnedFd>) -> Self {
        Self { pid, pidfd: Some(pidfd) }
    }

    pub(super) fn unseen(pid: Pid) -> Self {
        Self { pid, pidfd: None }
    }

    /// Waits for its end and that of its group, if they are ours.
    pub(crate) fn reap(&self) -> Option<Reaped> {
        let pidfd = self.pidfd.as_ref()?;
        if !pidfd::is_running(pidfd) {
            // Older kernels know a group by nothing but its leader's number.
            pidfd::kill_group(pidfd, self.pid);
        }
        let reaped = pidfd::reap(pidfd)?;
        wait_for_group(self.pid);
        Some(reaped)
    }
}

/// The processes that a template has forked and that must be reaped. The template and those processes share it.
pub(crate) struct Children {
    stream: Arc<UnixStream>,
    state: Mutex<State>,
    /// Dropped after `stream`, see [`hold`](crate::port::channel::hold).
    _hold: Option<Arc<ReceivedFd>>,
}

#[derive(Default)]
struct State {
    /// The template has been reaped: init, or this process, is the parent of its processes now.
    gone: bool,
    waiting: HashMap<u32, Waiting>,
}

/// Who waits for the end of a process.
enum Waiting {
    Owner(oneshot::Sender<Reaped>),
    /// The owner has dropped it: it is killed.
    Dropped(Orphan, Dying),
}

impl Children {
    pub(super) fn new(stream: Arc<UnixStream>, hold: Option<Arc<ReceivedFd>>) -> Self {
        Self { stream, state: Mutex::default(), _hold: hold }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a process reaped that is dead or sure to die soon; gives `waiting` back when the template is gone.
    fn reap(&self, pid: Pid, waiting: Waiting) -> Result<(), Waiting> {
        let number = number(pid);
        let mut state = self.state();
        if state.gone {
            return Err(waiting);
        }
        state.waiting.insert(number, waiting);
        let frame = Frame { number, ..Frame::new(Kind::Reap, 0, Codec::None, bytes::Bytes::new()) };
        // A template that takes nothing more is gone or stopped; its end is handled elsewhere.
        let _ = send(&self.stream, &frame, &[]);
        Ok(())
    }

    /// Has a process reaped that was killed and dropped; gives it back when the template is gone. `asked`: the template
    /// has been told to already, and would count a second answer as another process's.
    pub(crate) fn reap_dropped(
        &self,
        asked: bool,
        orphan: Orphan,
        dying: Dying,
    ) -> Result<(), (Orphan, Dying)> {
        if asked {
            return self.give_up(orphan, dying);
        }
        self.reap(orphan.pid, Waiting::Dropped(orphan, dying)).map_err(|waiting| match waiting {
            Waiting::Dropped(orphan, dying) => (orphan, dying),
            Waiting::Owner(_) => unreachable!("it was given the other one"),
        })
    }

    /// Nobody waits any more for the end of a dead process that the template was told to reap. It stays known, for the
    /// case that the template ends without having done it; gives it back when that has happened.
    fn give_up(&self, orphan: Orphan, dying: Dying) -> Result<(), (Orphan, Dying)> {
        let mut state = self.state();
        if state.gone {
            return Err((orphan, dying));
        }
        // There is none when its end has just been told.
        if let Some(waiting) = state.waiting.get_mut(&number(orphan.pid)) {
            *waiting = Waiting::Dropped(orphan, dying);
        }
        Ok(())
    }

    /// The template has told the end of one.
    pub(super) fn exited(&self, frame: &Frame) {
        #[derive(Deserialize, Default)]
        struct Body {
            status: Option<i32>,
            max_rss_bytes: Option<u64>,
        }
        let body: Body = serde_json::from_slice(&frame.body).unwrap_or_default();
        let waiting = self.state().waiting.remove(&frame.number);
        match (waiting, body.status) {
            (Some(Waiting::Owner(owner)), Some(status)) => {
                let _ = owner.send((ExitStatus::from_raw(status), body.max_rss_bytes));
            }
            // An owner kills the group itself.
            (Some(Waiting::Dropped(Orphan { pid, pidfd: Some(_) }, _)), _) => reap_group(pid),
            _ => {}
        }
    }

    /// The template has been reaped. Returns the killed processes that this process must reap now.
    pub(crate) fn template_gone(&self) -> Vec<(Orphan, Dying)> {
        let mut state = self.state();
        state.gone = true;
        // The owners see their waiting end, and look for themselves.
        let dropped = state.waiting.drain().filter_map(|(_, waiting)| match waiting {
            Waiting::Dropped(orphan, dying) => Some((orphan, dying)),
            Waiting::Owner(_) => None,
        });
        dropped.collect()
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Who reaps a process.
pub(crate) enum Reaper {
    /// We do: it is our child.
    Us,
    /// A thread of ours does: it is our child, but its tracer has not let go of it.
    Thread(Asked),
    /// Its template is gone: init, or we if it has fallen to us.
    Whoever,
    /// The template that it was forked of, when we say so.
    Template { children: Arc<Children>, asked: Option<Asked> },
}

/// A template, or a thread, that was told to reap.
pub(crate) struct Asked {
    told: oneshot::Receiver<Reaped>,
    late: Pin<Box<Sleep>>,
}

impl Asked {
    fn new(told: oneshot::Receiver<Reaped>) -> Self {
        Self { told, late: Box::pin(sleep(REAP_TIMEOUT)) }
    }
}

impl Reaper {
    pub(super) fn template(children: Arc<Children>) -> Self {
        Self::Template { children, asked: None }
    }

    /// How a process ended that is dead; `None` when that cannot be learned.
    pub(crate) fn poll_reaped(
        &mut self,
        pid: Pid,
        pidfd: &Arc<OwnedFd>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Reaped>> {
        loop {
            let (children, asked) = match self {
                Self::Us | Self::Whoever => match pidfd::try_reap(pidfd) {
                    Look::Reaped(reaped) => {
                        reap_group(pid);
                        return Poll::Ready(Some(reaped));
                    }
                    Look::NotOurs => return Poll::Ready(None),
                    Look::NotYet => {
                        *self = Self::Thread(Asked::new(reap_elsewhere(Orphan::new(pid, pidfd.clone()))));
                        continue;
                    }
                },
                // After the timeout its thread waits on; how it ended is then lost.
                Self::Thread(Asked { told, late }) => {
                    return match Pin::new(told).poll(cx) {
                        Poll::Ready(told) => Poll::Ready(told.ok()),
                        Poll::Pending => late.as_mut().poll(cx).map(|()| None),
                    };
                }
                Self::Template { children, asked } => (children, asked),
            };
            match asked {
                None => {
                    let (owner, told) = oneshot::channel();
                    match children.reap(pid, Waiting::Owner(owner)) {
                        Ok(()) => *asked = Some(Asked::new(told)),
                        Err(_) => *self = Self::Whoever,
                    }
                }
                Some(Asked { told, late }) => match Pin::new(told).poll(cx) {
                    Poll::Ready(Ok(reaped)) => {
                        // Not before: the process itself may be ours by now, its template having just died.
                        reap_group(pid);
                        return Poll::Ready(Some(reaped));
                    }
                    // The template could not tell, or is gone; then it may be ours.
                    Poll::Ready(Err(_)) => *self = Self::Whoever,
                    Poll::Pending => {
                        ready!(late.as_mut().poll(cx));
                        match children.give_up(Orphan::new(pid, pidfd.clone()), Dying::new()) {
                            Ok(()) => return Poll::Ready(None),
                            Err(_) => *self = Self::Whoever,
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::port::process::reap::orphaned;
    use crate::port::wire::frame::FrameDecoder;
    use bytes::BytesMut;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    use tokio_util::codec::Decoder as _;

    #[tokio::test]
    async fn a_template_is_told_once_to_reap_a_process_that_is_dropped_meanwhile() {
        let (ours, template) = UnixStream::pair().expect("a pair");
        let children = Arc::new(Children::new(Arc::new(ours), None));
        // None of it touches the process.
        let pid = getpid();
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).expect("it lives"));
        let mut reaper = Reaper::template(children.clone());
        assert!(reaper.poll_reaped(pid, &pidfd, &mut Context::from_waker(Waker::noop())).is_pending());
        let Reaper::Template { asked, .. } = reaper else { panic!("the template lives") };
        orphaned(&children, asked.is_some(), Orphan::new(pid, pidfd));

        let (mut bytes, mut decoder) = (BytesMut::new(), FrameDecoder { max_frame_bytes: 1000 });
        template.readable().await.expect("it is open");
        let _ = template.try_read_buf(&mut bytes).expect("it was told");
        let told = decoder.decode(&mut bytes).expect("a frame").expect("a whole one");
        assert_eq!((told.kind, told.number), (Kind::Reap, number(pid)));
        assert!(bytes.is_empty(), "and nothing else");
        assert_eq!(children.template_gone().len(), 1, "it is still known");
    }
}
