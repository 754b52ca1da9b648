//! Whether calls end in forked workers.

use std::sync::Arc;
use std::time::Instant;

use super::actor::Disable;
use super::state::ZygoteInfo;

/// Told of the calls of one forked worker until it has answered the first: a module that has started threads, or whose
/// locks were held, at the fork may hang in every call.
pub(crate) struct Trial {
    zygote: Arc<ZygoteInfo>,
    code: u64,
}

impl Trial {
    pub(super) fn new(zygote: Arc<ZygoteInfo>) -> Self {
        let code = zygote.code();
        Self { zygote, code }
    }

    /// The worker has answered a call.
    pub(crate) fn passed(self) {
        self.zygote.answered(self.code);
    }

    /// A call of the worker hung, which Python got then. Whether forked workers that have not answered any call are to be replaced by cold ones.
    pub(crate) fn hung(&self, worker: &str, since: Instant) -> bool {
        let given_up = self.zygote.hung(self.code, worker, since);
        if given_up && let Some(actor) = self.zygote.actor() {
            actor.do_send(Disable);
        }
        given_up
    }
}
