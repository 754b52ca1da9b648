//! The messages that only the pool itself sends to its broker.

use actix::Message;
use tokio::sync::oneshot;

use super::errors::StartupFailure;
use crate::pool::core::RequestId;

/// The caller of this request went away.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Abandon(pub(super) RequestId);

/// Tell when the start-up has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TellStartup(pub(super) oneshot::Sender<Result<(), StartupFailure>>);
