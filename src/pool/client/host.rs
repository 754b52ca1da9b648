//! What Python may call here while it serves a call.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use actix::{Message, Recipient};
use bytes::Bytes;
use futures_util::future::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::pool::Pool;
use crate::error::{CallError, Direction, HostCallCause};
use crate::pool::broker::BrokerRef;
use crate::port::{self, Body, HostRequest};
use crate::worker::{HostContext, HostFunction, HostFunctions, HostOutcome};

/// How deep host calls may nest unless configured otherwise.
const MAX_DEPTH: u32 = 8;

/// A call that Python makes: `hatchery.call_host("name", …)`.
///
/// It comes to a closure ([`PoolBuilder::host_function`](crate::PoolBuilder::host_function)) or, as a message, to an actor
/// ([`PoolBuilder::host_recipient`](crate::PoolBuilder::host_recipient)).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{HostCall, HostError, Pool};
///
/// let pool = Pool::builder()
///     .module("orders")
///     .host_function("price", |call: HostCall| async move {
///         let (item,): (String,) = call.args().map_err(|error| HostError(error.to_string()))?;
///         if item == "pen" { Ok(120) } else { Err(HostError(format!("we do not sell {item}"))) }
///     })
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug)]
#[rtype(result = "Result<HostReply, HostError>")]
pub struct HostCall {
    name: String,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    context: HostContext,
    pool: Pool,
}

impl HostCall {
    /// The name of the host function.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The positional arguments, as a tuple, an array or a `Vec`.
    ///
    /// # Errors
    ///
    /// [`CallError::Decode`] with the place where they do not fit.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        self.decode(self.args.as_deref().map_or("[]", RawValue::get), "args")
    }

    /// The keyword arguments, as a struct or a map.
    ///
    /// # Errors
    ///
    /// [`CallError::Decode`] with the place where they do not fit.
    pub fn kwargs<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        self.decode(self.kwargs.as_deref().map_or("{}", RawValue::get), "kwargs")
    }

    fn decode<T: DeserializeOwned>(&self, text: &str, root: &str) -> Result<T, CallError> {
        let (json, attachments) = (Bytes::copy_from_slice(text.as_bytes()), self.context.attachments.clone());
        port::decode_result(&Body { json, attachments }).map_err(|error| {
            let path = error.path.replacen("result", root, 1);
            let (direction, context) = (Direction::Arguments, Box::default());
            CallError::Decode { path, message: error.message, direction, context }
        })
    }

    /// The worker that calls.
    pub fn worker(&self) -> &str {
        &self.context.worker
    }

    /// How many host calls this one is nested in, itself included: 1 unless a host function has called Python through
    /// [`pool`](HostCall::pool).
    pub fn depth(&self) -> u32 {
        self.context.depth
    }

    /// When the caller that waits for all of this stops waiting.
    pub fn deadline(&self) -> Instant {
        self.context.deadline
    }

    /// The pool that the call comes from, for calls back into it; they count as nested, and take another worker while
    /// this one waits.
    ///
    /// Registered functions hold no handle of their own, so that they do not keep the pool alive.
    pub fn pool(&self) -> Pool {
        self.pool.clone()
    }
}

/// An actor's answer to a [`HostCall`].
///
/// ```
/// use hatchery::HostReply;
///
/// let reply = HostReply::new(&120)?;
/// # Ok::<(), hatchery::HostError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HostReply(Body);

impl HostReply {
    /// A value for Python.
    ///
    /// # Errors
    ///
    /// When it has no JSON form.
    pub fn new(value: &impl Serialize) -> Result<Self, HostError> {
        port::encode_value(value).map(Self).map_err(|error| HostError(error.message))
    }
}

/// Why an actor cannot do what a [`HostCall`] asks: Python sees `hatchery.HostCallError` with this message.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{HostCall, HostError, Pool};
///
/// let pool = Pool::builder()
///     .module("orders")
///     .host_function("price", |call: HostCall| async move {
///         let (item,): (String,) = call.args().map_err(|error| HostError(error.to_string()))?;
///         if item == "pen" { Ok(120) } else { Err(HostError(format!("we do not sell {item}"))) }
///     })
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(
    /// The message.
    pub String,
);

/// The functions of a pool that is being put together.
#[derive(Clone)]
pub(crate) struct HostBuilder {
    functions: HashMap<String, Registered>,
    pub(crate) max_depth: u32,
}

type Registered =
    Arc<dyn Fn(HostCall) -> futures_util::future::LocalBoxFuture<'static, HostOutcome> + Send + Sync>;

impl Default for HostBuilder {
    fn default() -> Self {
        Self { functions: HashMap::new(), max_depth: MAX_DEPTH }
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

impl HostBuilder {
    pub(crate) fn function<F, Fut, T, E>(&mut self, name: String, function: F)
    where
        F: Fn(HostCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + 'static,
        T: Serialize + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let registered: Registered = Arc::new(move |call| {
            let answer = function(call);
            async move {
                match answer.await {
                    Ok(value) => {
                        port::encode_value(&value).map_err(|error| (HostCallCause::Failed, error.message))
                    }
                    Err(error) => Err((HostCallCause::Failed, error.into().to_string())),
                }
            }
            .boxed_local()
        });
        self.functions.insert(name, registered);
    }

    pub(crate) fn recipient(&mut self, name: String, recipient: Recipient<HostCall>) {
        let registered: Registered = Arc::new(move |call| {
            let answer = recipient.send(call);
            async move {
                match answer.await {
                    Ok(Ok(HostReply(body))) => Ok(body),
                    Ok(Err(HostError(message))) => Err((HostCallCause::Failed, message)),
                    Err(error) => Err((HostCallCause::Cancelled, format!("the host's actor: {error}"))),
                }
            }
            .boxed_local()
        });
        self.functions.insert(name, registered);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.functions.keys().cloned().collect();
        names.sort();
        names
    }

    /// As the workers want them.
    pub(crate) fn build(&self, broker: BrokerRef, max_frame_bytes: u32) -> HostFunctions {
        let by_name = self.functions.iter().map(|(name, registered)| {
            let (registered, broker) = (registered.clone(), broker.clone());
            let function: HostFunction = Arc::new(move |request, context| {
                let HostRequest(name, args, kwargs, _) = request;
                let pool = Pool::of(broker.clone(), context.depth);
                let answer = registered(HostCall { name, args, kwargs, context, pool });
                async move {
                    answer.await?.fitting(max_frame_bytes).map_err(|size| {
                        let message =
                            format!("the result of {size} bytes is over the limit of {max_frame_bytes}");
                        (HostCallCause::Failed, message)
                    })
                }
                .boxed_local()
            });
            (name.clone(), function)
        });
        HostFunctions { by_name: Arc::new(by_name.collect()), max_depth: self.max_depth }
    }
}
