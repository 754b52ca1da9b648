//! The thread that a pool lives on.
//!
//! | started                                | the pool lives on                                   |
//! |----------------------------------------|-----------------------------------------------------|
//! | with `on_current_arbiter()`            | the caller's arbiter                                |
//! | in an actix System                     | an arbiter (a thread) of its own in that System     |
//! | anywhere else (plain tokio, no runtime)| a thread of its own with a System of its own        |
//!
//! [`Runtime::shutdown`] ends it in order and joins the thread. Dropping it ends it at once and does not wait.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System};
use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::sync::oneshot;

use crate::port;
use crate::supervisor::Supervisor;

/// How long a killed process may take to be gone.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// A place to run a pool in. Dropping it ends its thread without waiting.
pub(crate) struct PoolThread {
    arbiter: ArbiterHandle,
    thread: Option<Thread>,
}

enum Thread {
    Arbiter(Arbiter),
    System { system: System, thread: JoinHandle<()> },
}

impl PoolThread {
    /// The arbiter that this runs on; `None` when it runs on none.
    pub(crate) fn current() -> Option<Self> {
        Arbiter::try_current().map(|arbiter| Self { arbiter, thread: None })
    }

    /// A thread of its own.
    pub(crate) fn new() -> io::Result<Self> {
        if Arbiter::try_current().is_some() {
            let arbiter = Arbiter::try_new()?;
            Ok(Self { arbiter: arbiter.handle(), thread: Some(Thread::Arbiter(arbiter)) })
        } else {
            Self::new_system()
        }
    }

    fn new_system() -> io::Result<Self> {
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("hatchery-pool".into()).spawn(move || {
            // `System::new` would panic.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let runner = System::with_tokio_rt(|| runtime);
            let _ = started.send(Ok(System::current()));
            if let Err(error) = runner.run() {
                log::error!(target: "hatchery::pool", "the pool's system ended: {error}");
            }
        })?;
        let ended = || Err(io::Error::other("the pool's thread ended at its start"));
        let system = start.recv().unwrap_or_else(|_| ended())?;
        let arbiter = system.arbiter().clone();
        Ok(Self { arbiter, thread: Some(Thread::System { system, thread }) })
    }

    /// Runs a future here that need not be `Send`; `None` when the place ends before it.
    pub(crate) async fn run<F, Fut>(&self, future: F) -> Option<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send,
    {
        let (done, output) = oneshot::channel();
        self.arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                let _ = done.send(future().await);
            });
        });
        output.await.ok()
    }

    /// Ends the thread, and waits for its end and that of the processes that had to be killed.
    pub(crate) async fn stop_and_join(self) {
        self.stop_and_join_by(|join| {
            // This blocks for a moment, which no executor's thread should.
            std::thread::Builder::new().name("hatchery-join".into()).spawn(join).map(drop)
        })
        .await;
    }

    /// `spawn` starts a thread, or cannot: then this one waits.
    async fn stop_and_join_by(mut self, spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>) {
        let thread = self.thread.take();
        // It is dropped with the thread's tasks.
        let (held, gone) = oneshot::channel::<()>();
        if let Some(thread) = &thread {
            let _ = self.arbiter.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            thread.stop();
        }
        let thread = Arc::new(Mutex::new(thread));
        let (joined, join) = oneshot::channel();
        let on_other_thread = {
            let thread = thread.clone();
            move || {
                join_thread(&thread);
                let _ = joined.send(());
            }
        };
        match spawn(Box::new(on_other_thread)) {
            Ok(()) => drop(join.await),
            Err(error) => {
                log::warn!(target: "hatchery::pool", "cannot start a thread to join the pool's: {error}");
                let _ = gone.await;
                join_thread(&thread);
            }
        }
    }
}

/// Waits for the end of a thread that has been stopped, and of the processes that had to be killed.
fn join_thread(thread: &Mutex<Option<Thread>>) {
    match thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(Thread::Arbiter(arbiter)) => drop(arbiter.join()),
        Some(Thread::System { thread, .. }) => drop(thread.join()),
        None => {}
    }
    if !port::wait_until_reaped(REAP_TIMEOUT) {
        log::error!(target: "hatchery::pool", "a worker's process cannot be killed and is left behind");
    }
}

impl Thread {
    fn stop(&self) {
        match self {
            Self::Arbiter(arbiter) => drop(arbiter.stop()),
            Self::System { system, .. } => system.stop(),
        }
    }
}

impl Drop for PoolThread {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            thread.stop();
        }
    }
}

/// A started pool's tree and place. Dropping it kills the tree and ends the thread without waiting.
pub(crate) struct Runtime {
    state: Mutex<State>,
}

enum State {
    Open {
        root: Supervisor,
        place: PoolThread,
    },
    /// Makes progress while a caller waits for it; `None` only while it is being made.
    Closing(Option<Shared<BoxFuture<'static, ()>>>),
}

impl Runtime {
    pub(crate) fn new(root: Supervisor, place: PoolThread) -> Self {
        Self { state: Mutex::new(State::Open { root, place }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the tree in order and the thread after it. When one caller stops waiting, the next call continues.
    pub(crate) async fn shutdown(&self) {
        let closing = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Closing(None)) {
                State::Open { root, place } => {
                    let closing = end(root, place).boxed().shared();
                    *state = State::Closing(Some(closing.clone()));
                    Some(closing)
                }
                State::Closing(closing) => {
                    *state = State::Closing(closing.clone());
                    closing
                }
            }
        };
        if let Some(closing) = closing {
            closing.await;
        }
    }
}

/// Ends a tree in order, and the thread that it lived on.
pub(crate) async fn end(root: Supervisor, place: PoolThread) {
    root.stop().await;
    place.stop_and_join().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that lives on a place's thread; its end is the other end's.
    async fn resident(place: &PoolThread) -> Arc<()> {
        let ours = Arc::new(());
        let theirs = ours.clone();
        place
            .run(move || async move {
                actix_rt::spawn(async move {
                    let _held = theirs;
                    std::future::pending::<()>().await;
                });
            })
            .await
            .expect("it runs");
        ours
    }

    async fn ends_without_a_thread() {
        let place = PoolThread::new().expect("there are threads");
        let resident = resident(&place).await;
        place.stop_and_join_by(|_| Err(io::Error::other("no more threads"))).await;
        assert_eq!(Arc::strong_count(&resident), 1, "the thread has ended");
    }

    #[test]
    fn place_of_a_system_ends_when_no_thread_can_be_made() {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(ends_without_a_thread());
    }

    #[test]
    fn place_of_an_arbiter_ends_when_no_thread_can_be_made() {
        System::new().block_on(ends_without_a_thread());
    }
}
