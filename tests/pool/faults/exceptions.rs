//! What user code raises arrives as `Python` errors, and the worker lives on.

use hatchery::{CallError, Pool};
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::alone_test;

const SOURCE: &str = "
import json, os, signal, sys

class Refused(Exception):
    pass

class Silent(Exception):
    def __str__(self):
        raise RuntimeError('not even this')

class Hidden(type):
    @property
    def __module__(cls):
        raise RuntimeError('nor this')

def chained():
    try:
        {}['key']
    except KeyError as error:
        raise Refused('no key') from error

def context():
    try:
        1 / 0
    finally:
        json.loads('{')

def exits(code):
    sys.exit(code)

def interrupts():
    # A host that was started in the background ignores it, and Python then does too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass

def generator_exit():
    raise GeneratorExit

def raises_keyboard_interrupt():
    raise KeyboardInterrupt('mine')

def too_much():
    return bytearray(1 << 62)

def out_of_memory():
    import resource
    with open('/proc/self/statm') as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20), resource.RLIM_INFINITY))
    taken = []
    try:
        while True:
            taken.append('x' * (1 << 16))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def recurses(n=0):
    return recurses(n + 1)

def silent():
    raise Silent

def strange():
    raise Hidden('Strange', (Exception,), {})('strange')

class Faceless(TypeError):
    @property
    def __class__(self):
        raise RuntimeError('nor this')

def faceless():
    raise Faceless('faceless')

def lone():
    raise ValueError('half a pair: \\ud800')

def long():
    raise ValueError('x' * 5_000_000)

def group():
    raise ExceptionGroup('several', [ValueError('one'), KeyError('two')])

async def later():
    raise Refused('later')
";

async fn raised(pool: &Pool, function: &str, args: impl serde::Serialize) -> (String, String, String) {
    let before = pid(pool).await;
    let error = pool.call::<_, Value>(function, args).await.expect_err("the function raises");
    assert!(!error.is_retryable() && error.attempts() == 1, "{error:?}");
    let CallError::Python { type_name, message, traceback, .. } = error else {
        panic!("{function}: {error:?}");
    };
    serves(pool).await;
    assert_eq!(pid(pool).await, before, "the worker lives on after {function}");
    (type_name, message, traceback)
}

alone_test! {
    async fn exception_arrives_with_type_traceback_and_causes() {
        let pool = start(pool_of(SOURCE)).await;
        let (type_name, message, traceback) = raised(&pool, "chained", ()).await;
        assert_eq!((&*type_name, &*message), ("faulty.Refused", "no key"));
        assert!(traceback.contains("KeyError: 'key'"), "{traceback}");
        assert!(traceback.contains("was the direct cause of the following exception"), "{traceback}");
        assert!(traceback.trim_end().ends_with("faulty.Refused: no key"), "{traceback}");
        assert!(!traceback.contains("<hatchery>"), "{traceback}");

        let (type_name, _, traceback) = raised(&pool, "context", ()).await;
        assert_eq!(type_name, "json.decoder.JSONDecodeError");
        assert!(traceback.contains("ZeroDivisionError"), "{traceback}");

        let (type_name, message, traceback) = raised(&pool, "later", ()).await;
        assert_eq!((&*type_name, &*message), ("faulty.Refused", "later"));
        assert!(traceback.contains("in later") && !traceback.contains("base_events"), "{traceback}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn system_exit_does_not_end_the_worker() {
        let pool = start(pool_of(SOURCE)).await;
        for (code, told) in [(Value::from(0), "0"), (Value::from(7), "7"), (Value::from("bye"), "bye")] {
            let (type_name, message, _) = raised(&pool, "exits", (code,)).await;
            assert_eq!((&*type_name, &*message), ("SystemExit", told));
        }
        assert_eq!(raised(&pool, "interrupts", ()).await.0, "KeyboardInterrupt");
        let (type_name, message, _) = raised(&pool, "raises_keyboard_interrupt", ()).await;
        assert_eq!((&*type_name, &*message), ("KeyboardInterrupt", "mine"));
        assert_eq!(raised(&pool, "generator_exit", ()).await.0, "GeneratorExit");
        assert_eq!(status(&pool).await.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn out_of_memory_and_recursion_are_python_errors() {
        let pool = start(pool_of(SOURCE)).await;
        assert_eq!(raised(&pool, "too_much", ()).await.0, "MemoryError");
        assert_eq!(raised(&pool, "out_of_memory", ()).await.0, "MemoryError");
        let (type_name, message, traceback) = raised(&pool, "recurses", ()).await;
        assert_eq!(type_name, "RecursionError");
        assert!(message.contains("maximum recursion depth"), "{message}");
        assert!(traceback.len() < 100_000, "{} bytes", traceback.len());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn exceptions_that_fail_to_print_still_arrive() {
        let pool = start(pool_of(SOURCE)).await;
        let (type_name, message, _) = raised(&pool, "silent", ()).await;
        assert_eq!(type_name, "faulty.Silent");
        assert!(message.contains("RuntimeError"), "{message}");
        let (_, message, _) = raised(&pool, "lone", ()).await;
        assert!(message.starts_with("half a pair: "), "{message}");
        let (_, message, traceback) = raised(&pool, "long", ()).await;
        assert!(message.len() < 20_000 && traceback.len() < 80_000, "{} and {}", message.len(), traceback.len());
        assert!(message.contains("characters left out"));
        let (type_name, message, _) = raised(&pool, "strange", ()).await;
        assert!(type_name.contains("Strange") && message == "strange", "{type_name}: {message}");
        assert_eq!(raised(&pool, "faceless", ()).await.0, "faulty.Faceless");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn exception_group_arrives_where_python_supports_it() {
        let pool = start(pool_of(SOURCE)).await;
        let (type_name, _, traceback) = raised(&pool, "group", ()).await;
        // Before 3.11 there are none.
        if type_name != "NameError" {
            assert_eq!(type_name, "ExceptionGroup");
            assert!(traceback.contains("ValueError: one") && traceback.contains("KeyError: 'two'"), "{traceback}");
        }
        pool.shutdown().await;
    }
}
