//! Starts that fail, each by another way, and what the error says.

use hatchery::{CallError, PoolStartError, StartPhase, UnavailableCause, WorkerStartError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pools::{pool_of, pool_of_module, serves, start, start_error};
use crate::support::{
    LONG_TIMEOUT, SHORT_START_TIMEOUT, alone_test, fds, logged, python_module, scratch, status_when,
    wait_until,
};

alone_test! {
    async fn failed_import_error_has_its_traceback() {
        let error = start_error(pool_of("def inner():\n    return 1 / 0\ninner()")).await;
        let WorkerStartError::Python { phase, type_name, message, traceback, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((phase, &*type_name, &*message), (StartPhase::Import, "ZeroDivisionError", "division by zero"));
        let place = scratch().join("faulty.py");
        assert!(traceback.starts_with("Traceback (most recent call last):\n"), "{traceback}");
        assert!(traceback.contains(&format!("File \"{}\", line 2, in inner", place.display())), "{traceback}");
        assert!(!traceback.contains("hatchery/") && !traceback.contains("importlib"), "{traceback}");
    }
}

alone_test! {
    async fn missing_or_invalid_module_fails_the_import() {
        let error = start_error(pool_of("").module("no_such_module").name("faulty")).await;
        let told = matches!(&error, WorkerStartError::Python { phase: StartPhase::Import, type_name, message, .. }
            if type_name == "ModuleNotFoundError" && message.contains("no_such_module"));
        assert!(told, "{error:?}");
        let error = start_error(pool_of("def broken(:")).await;
        let told = matches!(&error, WorkerStartError::Python { type_name, traceback, .. }
            if type_name == "SyntaxError" && traceback.contains("def broken(:"));
        assert!(told, "{error:?}");
    }
}

/// The pool's thread needs descriptors, and there are none.
async fn start_without_free_descriptors() {
    let before = getrlimit(Resource::Nofile);
    let own = fds(std::process::id());
    let lowest_free = (0..).find(|fd| !own.contains_key(fd)).expect("there are numbers enough");
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free.into()), ..before })
        .expect("the limit can be lowered");
    let started = pool_of_module().size(3).start().await;
    setrlimit(Resource::Nofile, before).expect("the limit can be raised again");
    let Err(error) = started else { panic!("there are no descriptors for it") };
    assert!(matches!(&error, PoolStartError::Thread(_)), "{error:?}");
    let text = error.to_string();
    for part in ["Too many open files", "(`ulimit -n`)", "a pool of 3 workers needs about"] {
        assert!(text.contains(part), "{text}");
    }
}

alone_test! {
    async fn arbiter_without_descriptors_reports_how_many_it_needs() {
        start_without_free_descriptors().await;
    }
}

alone_test! {
    tokio async fn system_without_descriptors_reports_how_many_it_needs() {
        start_without_free_descriptors().await;
    }
}

alone_test! {
    async fn hanging_import_is_killed_and_its_output_reported() {
        // So that finding the interpreter takes no part of the short time.
        start(pool_of("")).await.shutdown().await;
        let after = SHORT_START_TIMEOUT;
        let source = "import sys, time\nprint('on its way')\nprint('stuck', file=sys.stderr)\ntime.sleep(1000)";
        let error = start_error(pool_of(source).spawn_timeout(after)).await;
        let WorkerStartError::TimedOut { after: told, output, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*told, &**output), (after, "on its way\nstuck"));
        assert!(error.to_string().starts_with("the worker was not ready within 10s"), "{error}");
        assert!(format!("{error:#}").contains("it printed:\n    on its way\n    stuck"), "{error:#}");
    }
}

alone_test! {
    async fn import_that_prints_succeeds() {
        let source = "import os, sys\nprint('one')\nos.write(1, b'two\\n')\nprint('three', file=sys.stderr)";
        let pool = start(pool_of(source)).await;
        serves(&pool).await;
        // Whoever imports prints.
        let target = if crate::ZYGOTE { "hatchery::python::faulty-zygote" } else { "hatchery::python::faulty-1" };
        wait_until("the lines are logged", LONG_TIMEOUT, || {
            logged(log::Level::Info, target) == ["one", "two"] && logged(log::Level::Warn, target) == ["three"]
        })
        .await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn import_that_exits_differs_from_import_that_dies() {
        let error = start_error(pool_of("import sys\nsys.exit('enough')")).await;
        let told = matches!(&error, WorkerStartError::Python { phase: StartPhase::Import, type_name, message, .. }
            if type_name == "SystemExit" && message == "enough");
        assert!(told, "{error:?}");

        let source = "import os\nprint('last words')\nos._exit(3)";
        let error = start_error(pool_of(source)).await;
        let told = matches!(&error, WorkerStartError::Died { exit: Some(3), signal: None, output, .. }
            if output == "last words");
        assert!(told, "{error:?}");

        let error = start_error(pool_of("import os\nos._exit(0)")).await;
        assert!(matches!(error, WorkerStartError::Died { exit: Some(0), signal: None, .. }), "{error:?}");

        let error = start_error(pool_of("import ctypes\nctypes.string_at(0)")).await;
        assert!(matches!(error, WorkerStartError::Died { exit: None, signal: Some(11), .. }), "{error:?}");
    }
}

alone_test! {
    async fn import_that_writes_to_the_socket_is_a_protocol_error() {
        let source = "import os
print('innocent')
for fd in map(int, os.listdir('/proc/self/fd')):
    try:
        if os.readlink(f'/proc/self/fd/{fd}').startswith('socket:'):
            os.write(fd, b'hello, world')
    except OSError:
        pass
";
        let error = start_error(pool_of(source)).await;
        let WorkerStartError::Protocol { detail, output } = &error else { panic!("{error:?}") };
        assert!(detail.contains("over the limit") && output == "innocent", "{error:?}");
    }
}

alone_test! {
    async fn missing_listed_function_fails_the_start() {
        let source = "def parse(): pass\ndef _private(): pass\nfrom os import getpid";
        for (name, near) in [("prase", "did you mean 'parse'?"), ("_private", "no function"), ("getpid", "no function")] {
            let error = start_error(pool_of(source).functions(["ping", name])).await;
            let told = matches!(&error, WorkerStartError::Python { phase: StartPhase::Setup, message, .. }
                if message.contains(name) && message.contains(near));
            assert!(told, "{error:?}");
        }
    }
}

alone_test! {
    async fn pool_with_min_ready_zero_reports_failure_and_recovers() {
        let pool = start(pool_of("raise RuntimeError('no licence')").size(2).min_ready(0)).await;
        status_when(&pool, "both have failed", |status| status.workers.iter().all(|worker| {
            worker.last_exit.as_ref().is_some_and(|why| why.contains("no licence"))
        }))
        .await;
        let error = pool.call::<_, ()>("ping", ()).await.expect_err("nothing can start");
        assert!(error.is_retryable() && error.attempts() == 0);
        let CallError::Unavailable { cause: UnavailableCause::StartFailed(cause) } = &error else {
            panic!("{error:?}");
        };
        let told = matches!(&**cause, WorkerStartError::Python { traceback, .. } if traceback.contains("faulty.py"));
        assert!(told, "{error}");
        // The slots keep trying.
        python_module(&scratch(), "faulty", "def ping(): return 'pong'");
        status_when(&pool, "a worker is ready", |status| status.ready > 0).await;
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_start_leaves_nothing_behind() {
        for moment in ["at_once", "while_it_imports"] {
            // A module for each: what is left of the first start may come to its import before it is killed.
            let begun = scratch().join(format!("{moment}.begun"));
            let source = format!("import time\nopen({:?}, 'w').close()\ntime.sleep(1000)", begun.display().to_string());
            python_module(&scratch(), moment, &source);
            let start = tokio::spawn(pool_of_module().module(moment).size(2).start());
            if moment == "at_once" {
                tokio::task::yield_now().await;
            } else {
                wait_until("a worker imports", LONG_TIMEOUT, || begun.exists()).await;
            }
            start.abort();
            let given_up = start.await.expect_err("the call never returns");
            assert!(given_up.is_cancelled());
        }
    }
}
