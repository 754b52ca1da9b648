//! Reaping: at once, or in the background for processes whose owner is gone.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpgid};
use tokio::sync::oneshot;

use crate::port::process::pidfd::Reaped;
use crate::port::zygote::{Children, Orphan};

/// Has a killed process reaped that a template has forked. `asked`: the template has been told to already.
pub(crate) fn orphaned(children: &Children, asked: bool, orphan: Orphan) {
    if let Err((orphan, dying)) = children.reap_dropped(asked, orphan, Dying::new()) {
        reap_in_background(orphan, dying);
    }
}

pub(crate) fn reap_in_background(orphan: Orphan, dying: Dying) {
    in_background(orphan.pid, move || {
        orphan.reap();
        drop(dying);
    });
}

/// Reaps a child of ours that is sure to end, and its group.
pub(crate) fn child_dropped(child: Orphan, dying: Dying) {
    in_background(child.pid, move || {
        child.reap();
        wait_for_group(child.pid);
        drop(dying);
    });
}

/// Ends a child that has just been started and cannot be watched.
pub(crate) fn end_unwatched(mut child: std::process::Child) {
    let dying = Dying::new();
    // Without a pidfd there is only its number. No user code has run in the child yet that could have left a group behind.
    let _ = child.kill();
    in_background(Pid::from_child(&child), move || {
        let _ = child.wait();
        drop(dying);
    });
}

/// Waits on a thread for a child that has ended and is held by its tracer, and sends its exit.
pub(crate) fn reap_elsewhere(child: Orphan) -> oneshot::Receiver<Reaped> {
    let (owner, told) = oneshot::channel();
    let dying = Dying::new();
    in_background(child.pid, move || {
        if let Some(reaped) = child.reap() {
            let _ = owner.send(reaped);
        }
        drop(dying);
    });
    told
}

/// Reaps a template that will end, then the orphans that the kernel gives to this process.
pub(crate) fn template_dropped(template: Orphan, forked: Arc<Children>, dying: Dying) {
    in_background(template.pid, move || {
        template.reap();
        reap_orphans(template.pid, &forked);
        drop(dying);
    });
}

/// Reaps the orphans that the end of a template has given to this process.
pub(crate) fn template_reaped(pid: Pid, forked: Arc<Children>) {
    let dying = Dying::new();
    in_background(pid, move || {
        reap_orphans(pid, &forked);
        drop(dying);
    });
}

/// Of a template that has been reaped: what was killed, and what had not left its group, which was killed with it.
fn reap_orphans(template: Pid, forked: &Children) {
    for (orphan, dying) in forked.template_gone() {
        orphan.reap();
        drop(dying);
    }
    wait_for_group(template);
}

/// Reaps the group of a process that is dead, which was killed, as far as it has fallen to us: to PID 1 of a container,
/// or a subreaper. Mostly nothing has, and this is one system call. What is left in a group keeps its number.
pub(crate) fn reap_group(leader: Pid) {
    loop {
        match waitpgid(leader, WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // Not dead yet.
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let dying = Dying::new();
    in_background(leader, move || {
        wait_for_group(leader);
        drop(dying);
    });
}

/// As [`reap_group`], until nothing of it is left.
pub(crate) fn wait_for_group(leader: Pid) {
    while matches!(waitpgid(leader, WaitOptions::empty()), Ok(Some(_)) | Err(Errno::INTR)) {}
}

type Work = Box<dyn FnOnce() + Send>;

/// Work that waits because no thread could be started.
static WAITING: Mutex<Vec<Work>> = Mutex::new(Vec::new());

fn waiting() -> MutexGuard<'static, Vec<Work>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_background(pid: Pid, work: impl FnOnce() + Send + 'static) {
    if let Err((error, work)) = on_new_thread(Box::new(work)) {
        log::warn!(target: "hatchery::port", "process {pid} is reaped later: no thread can be made: {error}");
        waiting().push(work);
    }
}

/// Does the work on a thread of its own, then the work that waits.
///
/// # Errors
/// When no thread can be made, with the work.
fn on_new_thread(work: Work) -> Result<(), (io::Error, Work)> {
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<Work>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = work.clone();
    let reaper = std::thread::Builder::new().name("hatchery-reaper".into()).spawn(move || {
        let mut next = take(&theirs);
        while let Some(work) = next {
            work();
            next = waiting().pop();
        }
    });
    let Err(error) = reaper else { return Ok(()) };
    take(&work).map_or(Ok(()), |work| Err((error, work)))
}

/// Does what still waits for a thread: on one, or else here.
fn work_off() {
    while let Some(work) = { waiting().pop() } {
        if let Err((_, work)) = on_new_thread(work) {
            work();
        }
    }
}

/// How many dropped processes have been killed and are not reaped yet.
static DYING: Mutex<usize> = Mutex::new(0);
static REAPED: Condvar = Condvar::new();

/// Counts one of them.
pub(crate) struct Dying(());

impl Dying {
    pub(crate) fn new() -> Self {
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
    work_off();
    let dying = DYING.lock().unwrap_or_else(PoisonError::into_inner);
    let (dying, _) =
        REAPED.wait_timeout_while(dying, timeout, |dying| *dying > 0).unwrap_or_else(PoisonError::into_inner);
    *dying == 0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_without_a_thread_is_done_with_the_next_and_at_the_end() {
        let (done, told) = mpsc::channel();
        let next = || told.recv_timeout(Duration::from_secs(20)).expect("it is done");
        let work = |name: &'static str| {
            let done = done.clone();
            Box::new(move || done.send(name).expect("the test waits"))
        };
        waiting().push(work("first"));
        in_background(rustix::process::getpid(), work("second"));
        // Other tests make threads, too, which may take the first.
        let mut both = [next(), next()];
        both.sort_unstable();
        assert_eq!(both, ["first", "second"]);
        waiting().push(work("third"));
        wait_until_reaped(Duration::ZERO);
        assert_eq!(next(), "third");
    }
}
