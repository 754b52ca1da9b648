//! Errors as a person meets them: one line, or the whole report.

use std::time::Duration;

use hatchery::{CallError, Direction, WorkerStartError};
use serde_json::Value;

use super::pools::{pool_of, start, start_error};
use crate::support::{SHORT_START_TIMEOUT, alone_test, builder, scratch};

const SHOP: &str = "import json, os, time, sys
def price(item):
    if item == 'none':
        raise ValueError('no such\\nitem \\x1b[2J')
    return json.loads(item)
def wait(seconds):
    time.sleep(seconds)
def die():
    print('the last words', file=sys.stderr, flush=True)
    os._exit(3)
def late():
    import no_such_package
def odd():
    return object()
def big(size):
    return 'x' * size
";

/// The line and the report of an error; the report is what `Debug` writes too.
fn written(error: &CallError) -> (String, String) {
    let (line, report) = (error.to_string(), format!("{error:#}"));
    assert!(!line.chars().any(char::is_control), "one line: {line:?}");
    assert!(report.starts_with(&line) && format!("{error:?}") == report, "{report}");
    assert!(!report.contains('\u{1b}'), "{report}");
    (line, report)
}

alone_test! {
    async fn call_errors_have_a_line_with_place_and_a_report() {
        let pool = start(pool_of(SHOP).name("shop")).await;
        let call = pool.request("price").args(("none",)).request_id("r-17");
        let (line, report) = written(&call.send::<Value>().await.expect_err("the function raises"));
        assert!(line.starts_with("ValueError: no such item [2J, raised while it ran `price` at faulty.py:4"), "{line}");
        for part in ["worker: shop-1", "request id: r-17", "attempts: 1", "    Traceback (most recent call last):"] {
            assert!(report.contains(part), "{part} in {report}");
        }
        let in_library = pool.call::<_, Value>("price", ("{",)).await.expect_err("the function raises");
        assert_eq!(in_library.place().as_deref(), Some("faulty.py:5"));

        let call = pool.request("wait").args((600,)).timeout(Duration::from_millis(300));
        let error = call.send::<Value>().await.expect_err("it takes too long");
        let (line, report) = written(&error);
        assert_eq!(line, "the deadline passed while it ran `wait` at faulty.py:7");
        assert!(report.contains("stack, innermost last:") && error.stack().is_some(), "{report}");

        let error = pool.call::<_, Value>("die", ()).await.expect_err("the worker dies");
        let (line, report) = written(&error);
        assert!(line.starts_with("the worker died (exit code 3) while it ran `die`"), "{line}");
        assert!(report.contains("    the last words") && !line.contains("channel"), "{report}");
        assert_eq!((error.worker(), error.function()), (Some("shop-1"), Some("die")));

        let (_, report) = written(&pool.call::<_, Value>("late", ()).await.expect_err("the function raises"));
        for part in ["interpreter: ", "search path: ", "hint: ", "no_such_package"] {
            assert!(report.contains(part), "{part} in {report}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn value_errors_report_the_direction() {
        let pool = start(pool_of(SHOP).max_frame_bytes(65_536)).await;
        let large = "x".repeat(70_000);
        let no_json = std::collections::HashMap::from([((1, 2), 3)]);
        let faults = [
            (pool.call::<_, Value>("big", (large,)).await, Direction::Arguments),
            (pool.call("price", (no_json,)).await, Direction::Arguments),
            (pool.call("big", (70_000,)).await, Direction::Result),
            (pool.call("odd", ()).await, Direction::Result),
            (pool.call::<_, u8>("price", ("300",)).await.map(Value::from), Direction::Result),
        ];
        for (answer, direction) in faults {
            let error = answer.expect_err("it cannot be sent");
            assert_eq!(error.direction(), Some(direction), "{error}");
            let called = u32::from(direction == Direction::Result);
            assert_eq!((error.attempts(), error.to_string().contains(&direction.to_string())), (called, true), "{error}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn missing_package_error_names_interpreter_and_venv() {
        let venv = scratch().join(".venv");
        std::fs::create_dir_all(&venv).expect("the scratch folder is writable");
        std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\n").expect("the test's own file");
        let error = start_error(pool_of("import no_such_package")).await;
        let report = format!("{error:?}");
        for part in ["No module named 'no_such_package'", "interpreter: ", "search path: ", "traceback:"] {
            assert!(report.contains(part), "{part} in {report}");
        }
        let told = if std::env::var_os("VIRTUAL_ENV").is_some() { "hint: " } else { "/.venv is not used" };
        assert!(report.contains(told) && !error.to_string().contains('\n'), "{report}");
        std::fs::remove_dir_all(&venv).expect("the scratch folder is writable");
    }
}

alone_test! {
    async fn missing_module_error_names_the_search_path() {
        let empty = scratch().join("empty");
        std::fs::create_dir_all(&empty).expect("the scratch folder is writable");
        let error = start_error(builder().module("no_such_shop").name("faulty").path(&empty).size(1)).await.to_string();
        let told = format!("`no_such_shop` is not in {}", empty.display());
        assert!(error.contains(&told), "{error}");
    }
}

alone_test! {
    async fn start_timeout_shows_the_stack_of_the_import() {
        start(pool_of("")).await.shutdown().await;
        let source = "import time\ndef load():\n    time.sleep(1000)\nload()";
        let error = start_error(pool_of(source).spawn_timeout(SHORT_START_TIMEOUT)).await;
        let WorkerStartError::TimedOut { stack: Some(stack), .. } = &error else { panic!("{error:?}") };
        assert!(stack.contains("line 3, in load") && !stack.contains("importlib"), "{stack}");
        assert!(error.to_string().ends_with(": it was at faulty.py:3"), "{error}");
    }
}
