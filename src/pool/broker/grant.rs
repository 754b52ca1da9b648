//! The right to a worker.

use std::sync::Arc;

use actix::Addr;

use crate::worker::{CallTable, EndLease, LeaseId, PendingCall, Placement, Wake, Worker};

/// The right to a worker. It checks the worker in on drop, even if the caller never received it.
pub(crate) struct Grant {
    pub(super) id: LeaseId,
    pub(super) addr: Addr<Worker>,
    pub(super) calls: Arc<CallTable>,
    pub(crate) worker: Arc<str>,
    pub(crate) pid: u32,
    pub(crate) session: Option<Arc<str>>,
    pub(crate) placement: Option<Placement>,
}

impl Grant {
    /// Gives the worker a call. A call to a worker that has ended answers by itself.
    pub(crate) fn run(&self, call: PendingCall) {
        if self.calls.submit(call.assigned(None, self.placement)) {
            self.wake();
        }
    }

    /// Has the worker look at its calls, one of whose callers may have left.
    pub(crate) fn wake(&self) {
        self.addr.do_send(Wake);
    }

    pub(crate) fn opened(&self) -> Opened {
        Opened { addr: self.addr.clone(), worker: self.worker.clone(), placement: self.placement }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.addr.do_send(EndLease(self.id));
    }
}

/// Which worker has a stream.
pub(crate) struct Opened {
    pub(crate) addr: Addr<Worker>,
    pub(crate) worker: Arc<str>,
    pub(crate) placement: Option<Placement>,
}
