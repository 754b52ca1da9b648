//! What may be shared between threads, and futures that `tokio::spawn` and handlers take. The compiler does the test.

use std::fmt::Debug;

use hatchery::{
    Call, CallError, Checkout, Lease, Pool, PoolBuilder, PoolStartError, PoolStatus, Reply, Request,
};

fn shared<T: Send + Sync + Debug>() {}

fn travels<T: Send + 'static>(_: T) {}

fn futures(pool: Pool, lease: Lease) {
    let (pool, lease): (&'static Pool, &'static Lease) = (Box::leak(pool.into()), Box::leak(lease.into()));
    travels(Pool::builder().start());
    travels(pool.call::<_, u64>("f", (1,)));
    travels(pool.request("f").args((1,)).kwargs(()).idempotent().send::<u64>());
    travels(pool.request("f").send_raw());
    travels(pool.checkout());
    travels(pool.status());
    travels(pool.shutdown());
    travels(lease.call::<_, u64>("f", (1,)));
    travels(pool.actor().send(Checkout::default()));
}

#[test]
fn handles_and_futures_are_send() {
    shared::<Pool>();
    shared::<Lease>();
    shared::<PoolBuilder>();
    shared::<PoolStartError>();
    shared::<PoolStatus>();
    shared::<CallError>();
    shared::<Call>();
    shared::<Checkout>();
    shared::<Reply>();
    let _ = futures;
    let _ = |request: Request<'static>| travels(request);
}
