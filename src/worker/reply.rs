//! The result of a call, and the worker that ran it.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CallError;
use crate::port::{self, Body};

/// The result of a call, not decoded yet, and the worker that ran it.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let reply = pool.request("price").args(("pen",)).send_raw().await?;
/// let cents: u64 = reply.decode()?;
/// println!("{cents} cents, says {}", reply.worker());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(super) body: Body,
    pub(super) worker: Arc<str>,
    pub(super) placement: Option<Placement>,
}

impl Reply {
    /// The result as a Rust value.
    ///
    /// # Errors
    ///
    /// [`CallError::Decode`] with the place where it does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        port::decode_result(&self.body).map_err(|error| CallError::from(error).on_worker(&self.worker))
    }

    /// The result as the JSON text that came from Python. Where bytes are in it, something else stands for them: decode it
    /// instead.
    pub fn as_json(&self) -> &[u8] {
        &self.body.json
    }

    /// The name of the worker that served it, as in the log and in [`PoolStatus`](crate::PoolStatus).
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Of a call in a session: whether it went to the session's own worker.
    pub fn placement(&self) -> Option<Placement> {
        self.placement
    }
}

/// Where a session's call went.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Placement;
///
/// let reply = pool.session("alice").request("add").args(("pen",)).send_raw().await?;
/// if reply.placement() == Some(Placement::Elsewhere) {
///     println!("{} served the call without the session's state", reply.worker());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Placement {
    /// The session began with this call: its state was empty.
    New,
    /// To the session's own worker, which has its state. That is empty where an earlier call was the first, but ended
    /// before it ran.
    Kept,
    /// The session's own worker was busy, so to another one, which does not have its state.
    Elsewhere,
}
