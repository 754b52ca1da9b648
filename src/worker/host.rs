//! Calls that Python makes of the host while it serves one.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::{AbortHandle, Abortable, FutureExt, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::budget::HOST_CALLS;
use crate::error::HostCallCause;
use crate::port::{Attachment, Body, HostRequest, WorkerError};
use crate::text;

/// A host call's end: one JSON value, or an error.
pub(crate) type HostOutcome = Result<Body, (HostCallCause, String)>;

/// What a host function knows beside its arguments.
#[derive(Debug, Clone)]
pub(crate) struct HostContext {
    /// The worker that calls.
    pub(crate) worker: Arc<str>,
    /// How many host calls this one is nested in, itself included.
    pub(crate) depth: u32,
    /// The deadline of the call on whose behalf it comes.
    pub(crate) deadline: Instant,
    /// What placeholders in its arguments stand for.
    pub(crate) attachments: Vec<Attachment>,
}

/// A function of the host's. Its future runs in the worker's task, so it must not block.
pub(crate) type HostFunction =
    Arc<dyn Fn(HostRequest, HostContext) -> LocalBoxFuture<'static, HostOutcome> + Send + Sync>;

/// What Python may call here.
#[derive(Clone, Default)]
pub(crate) struct HostFunctions {
    pub(crate) by_name: Arc<HashMap<String, HostFunction>>,
    /// How deep host calls may nest.
    pub(crate) max_depth: u32,
}

/// Host calls that run.
#[derive(Default)]
pub(super) struct HostCalls {
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
}

/// A host call that has ended.
pub(super) struct Ended {
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) failed: bool,
}

/// The host calls of one call: given up when it is dropped.
#[derive(Default)]
pub(super) struct OnBehalf(Vec<(u64, AbortHandle)>);

impl OnBehalf {
    pub(super) fn add(&mut self, id: u64, handle: AbortHandle) {
        self.0.push((id, handle));
    }

    /// Removes a host call that has ended; whether it was one of these.
    pub(super) fn forget(&mut self, id: u64) -> bool {
        let at = self.0.iter().position(|(its, _)| *its == id);
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    /// Gives one up.
    pub(super) fn abort(&self, id: u64) {
        for (_, handle) in self.0.iter().filter(|(its, _)| *its == id) {
            handle.abort();
        }
    }
}

impl Drop for OnBehalf {
    fn drop(&mut self) {
        for (_, handle) in &self.0 {
            handle.abort();
        }
    }
}

impl HostCalls {
    /// How many run, or have an answer that the worker has not got yet.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Begins a host call. Returns what aborts it; `None` when it is refused.
    pub(super) fn begin(
        &mut self,
        functions: &HostFunctions,
        id: u64,
        request: HostRequest,
        context: HostContext,
    ) -> Option<AbortHandle> {
        let name = request.0.clone();
        if self.len() >= HOST_CALLS {
            let message = format!("the worker has {HOST_CALLS} host calls pending, which is the most");
            self.refuse(id, name, HostCallCause::Failed, &message);
            return None;
        }
        let Some(function) = functions.by_name.get(&name) else {
            self.refuse(id, name, HostCallCause::NoSuchFunction, "the host has no such function");
            return None;
        };
        if context.depth > functions.max_depth {
            let message = format!("host calls may nest {} deep", functions.max_depth);
            self.refuse(id, name, HostCallCause::Depth, &message);
            return None;
        }
        let (handle, registration) = AbortHandle::new_pair();
        let (function, deadline) = (function.clone(), context.deadline);
        // The function itself is user code too, not only its future.
        let call = AssertUnwindSafe(async move { function(request, context).await }).catch_unwind();
        let call = Abortable::new(call, registration).map(move |outcome| {
            let outcome = match outcome {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err((HostCallCause::Failed, format!("panicked: {}", message_of(&*panic)))),
                Err(_) if Instant::now() >= deadline => {
                    Err((HostCallCause::Timeout, "the deadline of the call passed".into()))
                }
                Err(_) => Err((HostCallCause::Cancelled, "the call was given up".into())),
            };
            match outcome {
                Ok(body) => Ended { id, body, failed: false },
                Err((cause, message)) => failure(id, name, cause, message),
            }
        });
        self.running.push(call.boxed_local());
        Some(handle)
    }

    pub(super) fn refuse(&mut self, id: u64, name: String, cause: HostCallCause, message: &str) {
        let ended = failure(id, text::name(&name).into_owned(), cause, message.into());
        self.running.push(std::future::ready(ended).boxed_local());
    }

    /// The next host call that ends.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(ended)) => Poll::Ready(ended),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

fn failure(id: u64, name: String, cause: HostCallCause, message: String) -> Ended {
    let name = text::name(&name).into_owned();
    let error = WorkerError::HostCall { name, message, cause };
    let body = serde_json::to_vec(&error).expect("strings are JSON");
    Ended { id, body: bytes::Bytes::from(body).into(), failed: true }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a message",
    }
}
