//! Start and stop hooks of a module, and its exports.

use futures_util::future::join_all;
use hatchery::{CallError, PoolStartError, StartPhase, WorkerStartError};
use log::Level;

use crate::support::{
    LONG_TIMEOUT, MODULE, SHORT_START_TIMEOUT, SHORT_TIMEOUT, alone_test, builder, descendants, is_alive,
    kill, lines, logged, pids, pool_with, python_module, scratch, scratch_file, status_when, wait_until,
};

const IN_ORDER: &str = r#"
import asyncio

import hatchery

append("order", "import")


@hatchery.on_start
def first():
    append("order", "first start")


@hatchery.on_start
async def second():
    await asyncio.sleep(0)
    append("order", "second start")


@hatchery.on_stop
def last():
    append("order", "last stop")


@hatchery.on_stop
async def next_to_last():
    await asyncio.sleep(0)
    append("order", "next to last stop")
"#;

alone_test! {
    async fn hooks_run_in_order_at_worker_start_and_stop() {
        let pool = pool_with(IN_ORDER).size(1).start().await.expect("the pool starts");
        let started = ["import", "first start", "second start"];
        assert_eq!(lines("order"), started);
        assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("the call succeeds"), 3);
        kill(pids(&pool).await[0]);
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.idle == 1).await;
        // A forked worker does not import the module.
        let again = if crate::ZYGOTE { &started[1..] } else { &started };
        let both = [&started, again].concat();
        assert_eq!(lines("order"), both);
        pool.shutdown().await;
        assert_eq!(lines("order")[both.len()..], ["next to last stop", "last stop"]);
        assert!(logged(Level::Error, "hatchery::worker").is_empty());
    }
}

alone_test! {
    async fn start_hook_that_raises_fails_the_start() {
        for head in ["def", "async def"] {
            let source = format!(
                "import hatchery\n@hatchery.on_start\n{head} load():\n    raise RuntimeError('no model')\n"
            );
            let error = pool_with(&source).size(2).start().await.expect_err("it cannot start");
            assert!(descendants(std::process::id()).is_empty());
            let Some(WorkerStartError::Python { phase, type_name, message, traceback, .. }) = error.worker_error() else {
                panic!("{error:?}")
            };
            assert_eq!(
                (*phase, type_name.as_str(), message.as_str()),
                (StartPhase::OnStart, "RuntimeError", "no model")
            );
            assert!(traceback.contains("in load") && !traceback.contains("hatchery._"), "{traceback}");
            assert!(error.to_string().contains("on_start hook"), "{error}");
        }
    }
}

alone_test! {
    async fn start_hook_that_hangs_ends_at_the_spawn_timeout() {
        // The interpreter is cached afterwards, so the timeout covers only the worker.
        pool_with("").size(1).start().await.expect("the pool starts").shutdown().await;
        let waits = ["import time; time.sleep(1000)", "import asyncio; await asyncio.Event().wait()"];
        let hangs = waits.into_iter().zip(["blocks", "awaits"]).map(|(wait, name)| async move {
            let head = if wait.contains("await") { "async def" } else { "def" };
            let source = format!(
                "import hatchery\n@hatchery.on_start\n{head} load():\n    print('loading the model')\n    {wait}\n"
            );
            python_module(&scratch(), name, &source);
            let pool = builder().module(name).path(scratch()).size(1).spawn_timeout(SHORT_START_TIMEOUT);
            let error = pool.start().await.expect_err("it hangs");
            let Some(WorkerStartError::TimedOut { after, output, .. }) = error.worker_error() else {
                panic!("{error:?}")
            };
            assert!(*after == SHORT_START_TIMEOUT && output.contains("loading the model"), "{output}");
        });
        // Both at once.
        join_all(hangs).await;
        assert!(descendants(std::process::id()).is_empty());
    }
}

alone_test! {
    async fn stop_hook_that_raises_is_logged_and_shutdown_continues() {
        let source = "
import hatchery
@hatchery.on_stop
def last():
    append('order', 'last')
@hatchery.on_stop
def failing():
    append('order', 'failing')
    raise RuntimeError('cannot save')
@hatchery.on_stop
async def first():
    append('order', 'first')
";
        let pool = pool_with(source).size(2).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        pool.shutdown().await;
        assert!(workers.iter().all(|pid| !is_alive(*pid)));
        let mut order = lines("order");
        order.sort();
        assert_eq!(order, ["failing", "failing", "first", "first", "last", "last"]);
        let told = logged(Level::Error, "hatchery::worker");
        assert_eq!(told.len(), 2, "{told:?}");
        for told in told {
            assert!(told.contains("on_stop hook") && told.contains("RuntimeError: cannot save"), "{told}");
            assert!(told.contains("in failing"), "{told}");
        }
    }
}

alone_test! {
    async fn stop_hook_that_hangs_is_killed_at_shutdown_timeout() {
        let source = "
import asyncio
import hatchery
@hatchery.on_stop
HEAD hang():
    touch('NAME.stopping')
    WAIT
";
        let hangs = [
            ("sleeps", "def", "time.sleep(1000)"),
            ("awaits", "async def", "await asyncio.Event().wait()"),
            ("waits_in_c", "def", "wait_in_c()"),
        ];
        let hangs = hangs.map(async |(name, head, wait)| {
            let source = source.replace("HEAD", head).replace("WAIT", wait).replace("NAME", name);
            python_module(&scratch(), name, &[MODULE, &source].concat());
            let pool = builder().module(name).path(scratch()).current_dir(scratch()).size(1).shutdown_timeout(SHORT_TIMEOUT);
            let pool = pool.start().await.expect("the pool starts");
            let worker = pids(&pool).await[0];
            pool.shutdown().await;
            wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
            assert!(scratch_file(&format!("{name}.stopping")).exists(), "the hook started");
        });
        // All at once.
        join_all(hangs).await;
    }
}

alone_test! {
    async fn only_marked_functions_are_exported() {
        let source = "
import hatchery
@hatchery.export
def _hidden():
    return 'found'
@hatchery.export(name='other name')
async def _named():
    return 'found too'
";
        let pool = pool_with(source).size(1).start().await.expect("the pool starts");
        assert_eq!(pool.call::<_, String>("_hidden", ()).await.expect("it is marked"), "found");
        assert_eq!(pool.call::<_, String>("other name", ()).await.expect("it is marked"), "found too");
        for name in ["add", "_named"] {
            let error = pool.call::<_, u32>(name, (1, 2)).await.expect_err("it is not marked");
            assert!(matches!(error, CallError::NoSuchFunction { .. }), "{error:?}");
        }
        let status = pool.status().await.expect("the pool runs");
        let python = status.workers[0].python.as_ref().expect("it is ready");
        let names: Vec<&str> = python.functions.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(names, ["_hidden", "other name"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn duplicate_export_name_fails_the_start() {
        let source = "
import hatchery
@hatchery.export(name='same')
def one():
    pass
@hatchery.export(name='same')
def two():
    pass
";
        let error = pool_with(source).size(1).start().await.expect_err("it cannot start");
        let PoolStartError::Worker(failure) = &error else { panic!("{error:?}") };
        let WorkerStartError::Python { phase: StartPhase::Setup, message, .. } = &*failure.cause else {
            panic!("{error:?}")
        };
        assert!(message.contains("'same'") && message.contains("@export(name="), "{message}");
    }
}
