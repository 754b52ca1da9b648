//! Types that are `Send` and `Sync`, and futures that are `Send`. The compiler checks this.

use std::fmt::Debug;

use hatchery::{
    Call, CallError, Checkout, Lease, Pool, PoolBuilder, PoolStartError, PoolStatus, Reply, Request,
};

fn assert_shared<T: Send + Sync + Debug>() {}

fn assert_send<T: Send + 'static>(_: T) {}

fn futures(pool: Pool, lease: Lease) {
    let (pool, lease): (&'static Pool, &'static Lease) = (Box::leak(pool.into()), Box::leak(lease.into()));
    assert_send(Pool::builder().start());
    assert_send(pool.call::<_, u64>("f", (1,)));
    assert_send(pool.request("f").args((1,)).kwargs(()).idempotent().send::<u64>());
    assert_send(pool.request("f").send_raw());
    assert_send(pool.checkout());
    assert_send(pool.status());
    assert_send(pool.shutdown());
    assert_send(lease.call::<_, u64>("f", (1,)));
    assert_send(pool.actor().send(Checkout::default()));
}

#[test]
fn handles_and_futures_are_send() {
    assert_shared::<Pool>();
    assert_shared::<Lease>();
    assert_shared::<PoolBuilder>();
    assert_shared::<PoolStartError>();
    assert_shared::<PoolStatus>();
    assert_shared::<CallError>();
    assert_shared::<Call>();
    assert_shared::<Checkout>();
    assert_shared::<Reply>();
    let _ = futures;
    let _ = |request: Request<'static>| assert_send(request);
}
