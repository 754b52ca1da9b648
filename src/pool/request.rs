//! A call with options.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::core::RequestId;
use super::handle::Inner;
use super::lease::LeaseToken;
use super::messages::{Item, Reply};
use crate::error::{CallError, Phase};
use crate::{port, timer};

/// How often an idempotent call is handed to a worker at most.
const IDEMPOTENT_ATTEMPTS: u32 = 2;

/// A call being put together; [`send`](Request::send) sends it.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
/// use std::time::Duration;
/// let n: u64 = pool
///     .request("count_words")
///     .args(("to be or not to be",))
///     .timeout(Duration::from_secs(2))
///     .idempotent()
///     .send()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a, A = (), K = ()> {
    pool: &'a Arc<Inner>,
    lease: Option<&'a LeaseToken>,
    function: &'a str,
    args: A,
    kwargs: Option<K>,
    timeout: Duration,
    idempotent: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(pool: &'a Arc<Inner>, lease: Option<&'a LeaseToken>, function: &'a str) -> Self {
        let timeout = pool.settings.call_timeout;
        Self { pool, lease, function, args: (), kwargs: None, timeout, idempotent: false }
    }
}

impl<'a, A: Serialize, K: Serialize> Request<'a, A, K> {
    /// The arguments: a tuple, an array or a `Vec` gives positional ones, a map or struct gives keywords, `()`
    /// gives none. Default: none.
    pub fn args<B: Serialize>(self, args: B) -> Request<'a, B, K> {
        let Self { pool, lease, function, kwargs, timeout, idempotent, .. } = self;
        Request { pool, lease, function, args, kwargs, timeout, idempotent }
    }

    /// Keyword arguments beside positional ones: a map or struct. Default: none.
    pub fn kwargs<L: Serialize>(self, kwargs: L) -> Request<'a, A, L> {
        let Self { pool, lease, function, args, timeout, idempotent, .. } = self;
        Request { pool, lease, function, args, kwargs: Some(kwargs), timeout, idempotent }
    }

    /// How long the call may take, waiting for a worker and a second attempt included. Each wait for
    /// a worker is limited by the pool's checkout timeout too. Default: the pool's call timeout (30 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Running this call twice does no harm: if its worker dies, it is sent to another one, once, within the
    /// same deadline. Default: off.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sends the call and waits for its result, decoded as `T`.
    ///
    /// Dropping the future takes a waiting call out of the queue. One that runs already is not interrupted: its
    /// result is thrown away, and its deadline still holds.
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, CallError> {
        self.send_raw().await?.decode()
    }

    /// Like [`send`](Request::send), with the result left as it came.
    ///
    /// # Errors
    ///
    /// Any [`CallError`] but [`Decode`](CallError::Decode).
    pub async fn send_raw(self) -> Result<Reply, CallError> {
        let Self { pool, lease, function, args, kwargs, timeout, idempotent } = self;
        let body = encode_call(function, &args, kwargs.as_ref(), pool.settings.max_frame_bytes)?;
        let deadline = timer::deadline(Instant::now(), timeout);
        if let Some(lease) = lease {
            return lease.run(body, deadline).await.map(|body| Reply { body });
        }
        let mut attempts = 0;
        loop {
            let error = match attempt(pool, body.clone(), deadline).await {
                Ok(body) => return Ok(Reply { body }),
                Err(error) => error,
            };
            // A call that surely had not begun is simply given to another worker, as if the dead one had never
            // been chosen.
            let again = match &error {
                CallError::WorkerDied { started: false, .. } => true,
                CallError::WorkerDied { .. } => {
                    attempts += 1;
                    idempotent && attempts < IDEMPOTENT_ATTEMPTS
                }
                CallError::Timeout { phase: Phase::Queue, .. } => false,
                _ => {
                    attempts += 1;
                    false
                }
            };
            if !again || Instant::now() >= deadline {
                return Err(error.with_attempts(attempts));
            }
        }
    }
}

/// A call's body, under the wire's rules and the frame limit.
pub(super) fn encode_call(
    function: &str,
    args: &impl Serialize,
    kwargs: Option<&impl Serialize>,
    max_frame_bytes: u32,
) -> Result<Bytes, CallError> {
    let body = port::call_body(function, args, kwargs)?;
    check_frame(&body, max_frame_bytes)?;
    Ok(body)
}

/// A body that fits no frame must not get to a worker, which could only be ended then.
pub(super) fn check_frame(body: &Bytes, max_frame_bytes: u32) -> Result<(), CallError> {
    let (size, limit) = ((port::HEADER_BYTES + body.len()) as u64, u64::from(max_frame_bytes));
    if size > limit { Err(CallError::FrameTooLarge { size, limit }) } else { Ok(()) }
}

async fn attempt(pool: &Inner, body: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
    let (reply, answer) = oneshot::channel();
    let waits = pool.settings.checkout_timeout.min(deadline.saturating_duration_since(Instant::now()));
    let item = Item::Call { body, deadline, reply };
    pool.submit(item, waits, answer).await
}

impl RequestId {
    /// One that no other request of this process has.
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}
