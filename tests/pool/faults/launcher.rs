//! What a worker's process is started through, and the environment that it gets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hatchery::{Pool, PoolStartError, WorkerStartError};

use super::pools::{pid, pool_of, start, start_error};
use crate::support::{alone_test, descendants, kill, python, scratch, status_when};

const SOURCE: &str = "
import os, resource
def limit(): return resource.getrlimit(resource.RLIMIT_CORE)[0]
def variable(name): return os.environ.get(name)
def variables(): return sorted(os.environ)
";

/// Ends the pool's one worker, and waits for the next one.
async fn replace_worker(pool: &Pool) {
    let before = pid(pool).await;
    kill(before);
    status_when(pool, "another worker is ready", |status| {
        status.workers[0].pid.is_some_and(|pid| pid != before)
    })
    .await;
}

fn script(path: &Path, lines: &str) {
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("the scratch folder is writable");
    std::fs::write(path, format!("#!/bin/sh\n{lines}\n")).expect("the scratch folder is writable");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the process is our child");
}

alone_test! {
    async fn launcher_starts_each_worker() {
        let launcher = ["sh", "-c", "ulimit -c 0; exec \"$@\"", "sh", "env", "LAUNCHED=yes"];
        let pool = start(pool_of(SOURCE).launcher(launcher)).await;
        for _ in 0..2 {
            assert_eq!(pool.call::<_, i64>("limit", ()).await.expect("the call succeeds"), 0);
            let launched: Option<String> = pool.call("variable", ("LAUNCHED",)).await.expect("the call succeeds");
            assert_eq!(launched.as_deref(), Some("yes"));
            replace_worker(&pool).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn launcher_that_forks_fails_the_start() {
        let forks = ["sh", "-c", "\"$@\"; exit $?", "sh"];
        let error = start_error(pool_of(SOURCE).launcher(forks)).await;
        let told = matches!(&error, WorkerStartError::NotReplaced { program, .. } if program.ends_with("/sh"));
        assert!(told, "{error:?}");
        assert!(error.to_string().contains("`exec`"), "{error}");
        assert!(descendants(std::process::id()).is_empty());
    }
}

alone_test! {
    async fn launcher_that_fails_reports_its_output() {
        let fails = ["sh", "-c", "echo no such limit >&2; exit 3"];
        let error = start_error(pool_of(SOURCE).launcher(fails)).await;
        let told = matches!(&error, WorkerStartError::Died { exit: Some(3), output, .. } if output.contains("no such limit"));
        assert!(told, "{error:?}");
    }
}

alone_test! {
    async fn launcher_with_too_low_file_limit_reports_it() {
        let error = start_error(pool_of(SOURCE).launcher(["sh", "-c", "ulimit -n 5; exec \"$@\"", "sh"])).await;
        let told = matches!(&error, WorkerStartError::Died { exit: Some(74), output, .. } if output.contains("`ulimit -n`"));
        assert!(told, "{error:?}");
    }
}

alone_test! {
    async fn missing_launcher_is_a_config_error() {
        for missing in ["launcher-that-nobody-has", "/nowhere/launcher"] {
            match pool_of(SOURCE).launcher([missing]).start().await {
                Err(PoolStartError::Config(error)) => {
                    assert_eq!((error.field, error.value), ("launcher", format!("{missing:?}")));
                }
                other => panic!("not refused as a setting: {other:?}"),
            }
        }
    }
}

alone_test! {
    async fn wrapper_as_interpreter_starts_each_worker() {
        let wrapper = scratch().join("bin/wrapper");
        script(&wrapper, &format!("export WRAPPED=yes; ulimit -c 0; exec {} \"$@\"", python().display()));
        let pool = start(pool_of(SOURCE).python(&wrapper)).await;
        for _ in 0..2 {
            let wrapped: Option<String> = pool.call("variable", ("WRAPPED",)).await.expect("the call succeeds");
            assert_eq!(wrapped.as_deref(), Some("yes"));
            assert_eq!(pool.call::<_, i64>("limit", ()).await.expect("the call succeeds"), 0);
            replace_worker(&pool).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn wrapper_that_forks_fails_the_start() {
        let wrapper = scratch().join("bin/forks");
        script(&wrapper, &format!("{} \"$@\"\nexit $?", python().display()));
        let error = start_error(pool_of(SOURCE).python(&wrapper)).await;
        let told = matches!(&error, WorkerStartError::NotReplaced { program, .. } if Path::new(program) == wrapper);
        assert!(told, "{error:?}");
        assert!(descendants(std::process::id()).is_empty());
    }
}

alone_test! {
    async fn shim_of_a_version_manager_runs_once() {
        let (shim, runs) = (scratch().join("shims/python3"), scratch().join("runs"));
        script(&shim, &format!("echo run >> {}; exec {} \"$@\"", runs.display(), python().display()));
        let pool = start(pool_of(SOURCE).size(2).python(&shim)).await;
        pool.shutdown().await;
        assert_eq!(std::fs::read_to_string(runs).expect("the shim wrote it"), "run\n");
    }
}

alone_test! {
    async fn env_clear_and_env_remove_apply_in_order() {
        let home = std::env::var("HOME").ok();
        let pool = start(pool_of(SOURCE).name("removed").env("A", "1").env_remove("A").env_remove("PATH")).await;
        for (name, expected) in [("A", None), ("PATH", None), ("HOME", home)] {
            let value: Option<String> = pool.call("variable", (name,)).await.expect("the call succeeds");
            assert_eq!(value, expected, "{name}");
        }
        pool.shutdown().await;
        let cleared = pool_of(SOURCE).name("cleared").env("A", "1").env_clear().env("B", "2");
        let pool = start(cleared.python(interpreter())).await;
        let names: Vec<String> = pool.call("variables", ()).await.expect("the call succeeds");
        // Python itself sets LC_CTYPE where no locale is set; the worker sets what its children import the package by.
        let set_by_python = ["LC_CTYPE", "HATCHERY_WORKER", "PYTHONPATH"];
        let ours: Vec<_> = names.iter().filter(|name| !set_by_python.contains(&name.as_str())).collect();
        assert_eq!(ours, ["B"]);
        pool.shutdown().await;
    }
}

/// The tests' interpreter itself: a shim cannot run without an environment.
fn interpreter() -> PathBuf {
    let output = std::process::Command::new(python())
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("Python starts");
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

alone_test! {
    async fn too_large_environment_error_names_largest_variable() {
        // Linux takes 128 KiB for one variable.
        let error = start_error(pool_of(SOURCE).env("HUGE", "x".repeat(200_000))).await;
        assert!(matches!(error, WorkerStartError::Spawn { .. }), "{error:?}");
        let text = error.to_string();
        for part in ["the largest is `HUGE` with 200000 bytes", ".env_remove(name)"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
