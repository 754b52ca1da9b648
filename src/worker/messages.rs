//! The messages to a [`Worker`](super::Worker), and those to its pool.

use std::sync::Arc;

use actix::dev::MessageResponse;
use actix::{Addr, Message};

use super::actor::Worker;
use super::call::{PendingCall, StreamId};
use super::call_table::CallTable;
use super::ids::{LeaseId, RequestId, WorkerId};
use crate::port::Ready;

/// Run a call of the pool, which comes only while there is capacity for it, or end a session, which waits for capacity.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) PendingCall);

/// Look at the [`CallTable`]: a lease has left a call there that cannot wait until Python answers, or its caller has gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// A stream may send this many more items.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Credit {
    pub(crate) stream: StreamId,
    pub(crate) items: u32,
}

/// Serve this lease alone, until its [`EndLease`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginLease(pub(crate) LeaseId);

/// The lease is over. Its calls that still run are awaited first.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndLease(pub(crate) LeaseId);

/// The pool's broker has died: end at once, since the next broker starts with new workers.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BrokerDied;

/// Ask for the load of the worker.
#[derive(Message)]
#[rtype(result = "Load")]
pub(crate) struct GetLoad;

/// A worker whose Python has started. It serves nothing yet.
pub(crate) struct ReadyWorker {
    pub(crate) worker: WorkerId,
    pub(crate) addr: Addr<Worker>,
    pub(crate) pid: u32,
    pub(crate) calls: Arc<CallTable>,
    pub(crate) ready: Ready,
    /// The process was forked from a template.
    pub(crate) forked: bool,
}

/// The load of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MessageResponse)]
pub(crate) enum Load {
    /// So many calls.
    Calls(u32),
    /// A lease, and nothing beside it.
    Lease,
}

/// A message from a worker to its pool.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum WorkerEvent {
    /// The worker can serve. This is the first thing that it tells.
    Ready(ReadyWorker),
    /// This call or lease is over, and the worker can take another. `began`: Python had begun with it.
    Freed { worker: WorkerId, request: RequestId, began: bool },
    /// It takes no more, and will end: a call did not give up, or it broke the protocol.
    Leaving { worker: WorkerId },
    /// Its process has ended. Told before its callers are answered, so that none of them can be given this worker
    /// again; its supervisor reports the end of the actor later.
    Ended { worker: WorkerId, reason: String },
}
