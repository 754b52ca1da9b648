//! What the public types promise beyond their methods.

use crate::supervisor::{ChildRef, ChildSpec, Report, Supervisor, SupervisorBuilder, SupervisorRef, Tree};
use crate::*;

fn is_send<T: Send>() {}

fn is_send_and_sync<T: Send + Sync>() {}

/// It holds when it compiles.
#[test]
fn handles_messages_and_errors_move_between_threads() {
    is_send_and_sync::<Pool>();
    is_send_and_sync::<PoolBuilder>();
    is_send_and_sync::<Lease>();
    is_send_and_sync::<Session>();
    is_send_and_sync::<Reply>();
    is_send_and_sync::<Progress>();
    is_send_and_sync::<PoolStatus>();
    is_send_and_sync::<Buffer>();
    is_send_and_sync::<Array<f64>>();
    is_send::<CallStream<String>>();
    is_send::<Call>();
    is_send::<Checkout>();
    is_send::<OpenStream<String>>();
    is_send::<HostCall>();
    is_send_and_sync::<CallError>();
    is_send_and_sync::<ConfigError>();
    is_send_and_sync::<PoolStartError>();
    is_send_and_sync::<ReloadError>();
    is_send_and_sync::<WorkerStartError>();
    is_send_and_sync::<Supervisor>();
    is_send_and_sync::<SupervisorRef>();
    is_send_and_sync::<SupervisorBuilder>();
    is_send_and_sync::<ChildSpec<PoolActor>>();
    is_send_and_sync::<ChildRef<PoolActor>>();
    is_send_and_sync::<Report>();
    is_send_and_sync::<Tree>();
}
