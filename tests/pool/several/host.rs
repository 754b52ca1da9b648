//! Host functions that Python calls during a call.

use std::time::Duration;

use actix::{Actor, Context, Handler};
use hatchery::{CallError, HostCall, HostCallCause, HostError, HostReply, PoolBuilder};

use crate::support::{alone_test, pool_of, status_when, wait_for_file};

const SOURCE: &str = r#"
import hatchery


def total(items):
    return sum(hatchery.call_host("price", item, count=2) for item in items)


async def total_async(items):
    return sum([await hatchery.call_host("price", item, count=2) for item in items])


def caught(name, *args):
    try:
        return hatchery.call_host(name, *args)
    except hatchery.HostCallError as error:
        return [error.name, error.cause, error.message]


def let_pass(name):
    return hatchery.call_host(name)


def down(depth):
    return hatchery.call_host("deeper", depth)


def halve(data):
    return hatchery.call_host("reverse", data)


def left():
    try:
        open("left.began", "w").close()
        hatchery.call_host("hang")
    finally:
        open("left.ended", "w").close()
"#;

#[derive(serde::Deserialize)]
struct Options {
    count: u64,
}

fn shop() -> PoolBuilder {
    pool_of(SOURCE)
        .size(2)
        .host_function("price", |call: HostCall| async move {
            let (item,): (String,) = call.args()?;
            let Options { count } = call.kwargs()?;
            Ok::<_, CallError>(count * if item == "pen" { 120 } else { 1500 })
        })
        .host_function("fail", |_: HostCall| async { Err::<(), _>("intended failure".to_owned()) })
        .host_function("panic", |_: HostCall| async {
            if true { panic!("intended failure") } else { Ok::<_, CallError>(()) }
        })
        .host_function("hang", |_: HostCall| std::future::pending::<Result<(), CallError>>())
        .host_function("reverse", |call: HostCall| async move {
            let (data,): (bytes::Bytes,) = call.args()?;
            Ok::<_, CallError>(bytes::Bytes::from(data.iter().rev().copied().collect::<Vec<u8>>()))
        })
        .host_function("deeper", |call: HostCall| async move {
            let (depth,): (u32,) = call.args()?;
            if depth == 0 {
                return Ok(call.depth());
            }
            call.pool().call("down", (depth - 1,)).await
        })
}

alone_test! {
    async fn host_function_result_reaches_python() {
        let pool = shop().start().await.expect("the pool starts");
        for function in ["total", "total_async"] {
            let total: u64 = pool.call(function, (["pen", "book"],)).await.expect("the host has prices");
            assert_eq!(total, 2 * 1620, "{function}");
        }
        let data = bytes::Bytes::from_static(b"\x00\x01\xff");
        let halved: bytes::Bytes = pool.call("halve", (data,)).await.expect("bytes travel");
        assert_eq!(&halved[..], b"\xff\x01\x00");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn host_function_failure_reaches_python_with_cause() {
        let pool = shop().start().await.expect("the pool starts");
        for (name, cause, message) in [
            ("fail", "failed", "intended failure"),
            ("panic", "failed", "panicked: intended failure"),
            ("nothing", "no_such_function", "nothing"),
        ] {
            let told: (String, String, String) = pool.call("caught", (name,)).await.expect("it is caught");
            assert_eq!((&*told.0, &*told.1), (name, cause));
            assert!(told.2.contains(message), "{told:?}");
        }
        let error = pool.call::<_, ()>("let_pass", ("fail",)).await.expect_err("nobody catches it");
        let CallError::HostCall { name, message, cause: HostCallCause::Failed, .. } = &error else { panic!("{error:?}") };
        assert_eq!((&**name, &**message), ("fail", "intended failure"));
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn host_calls_nest_up_to_the_depth_limit() {
        // Each level occupies one worker.
        let pool = shop().size(4).max_host_call_depth(3).start().await.expect("the pool starts");
        assert_eq!(pool.call::<_, u32>("down", (2,)).await.expect("three levels"), 3);
        let error = pool.call::<_, u32>("down", (3,)).await.expect_err("one too many");
        assert!(error.to_string().contains("nest 3 deep"), "{error}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_call_cancels_its_host_calls() {
        let pool = shop().start().await.expect("the pool starts");
        let leaving = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, ()>("left", ()).await }
        });
        wait_for_file("left.began").await;
        leaving.abort();
        wait_for_file("left.ended").await;
        let status = status_when(&pool, "all are idle", |status| status.idle == 2).await;
        assert_eq!(status.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn hanging_host_call_ends_at_the_call_deadline() {
        let pool = shop().start().await.expect("the pool starts");
        let call = pool.request("let_pass").args(("hang",)).timeout(Duration::from_millis(500));
        let error = call.send::<()>().await.expect_err("it hangs");
        assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
        let status = status_when(&pool, "all are idle", |status| status.idle == 2).await;
        assert_eq!(status.restarts, 0);
        pool.shutdown().await;
    }
}

struct Cashier;

impl Actor for Cashier {
    type Context = Context<Self>;
}

impl Handler<HostCall> for Cashier {
    type Result = Result<HostReply, HostError>;

    fn handle(&mut self, call: HostCall, _: &mut Context<Self>) -> Self::Result {
        let (item,): (String,) = call.args().map_err(|error| HostError(error.to_string()))?;
        if item == "spoon" { Err(HostError("sold out".into())) } else { HostReply::new(&item.len()) }
    }
}

alone_test! {
    async fn actor_can_answer_host_calls() {
        let cashier = Cashier.start().recipient();
        let pool = shop().host_recipient("length", cashier).start().await.expect("the pool starts");
        assert_eq!(pool.call::<_, u32>("caught", ("length", "pencil")).await.expect("it answers"), 6);
        let told: (String, String, String) =
            pool.call("caught", ("length", "spoon")).await.expect("it is caught");
        assert_eq!((&*told.1, &*told.2), ("failed", "sold out"));
        pool.shutdown().await;
    }
}
