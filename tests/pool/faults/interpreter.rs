//! Interpreters that are none, too old, or chosen by the environment.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hatchery::{Pool, PoolStartError, WorkerStartError};

use super::pools::{pool_of, serves, start, start_error};
use crate::support::{
    LONG_TIMEOUT, SHORT_START_TIMEOUT, alone_test, cont, kill, python, role, role_command, rss_bytes,
    scratch, state, stop, test_path, wait_until_blocking,
};

/// An executable script of this name.
fn script(name: &str, lines: &str) -> PathBuf {
    let path = scratch().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("the scratch folder is writable");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("the process is our child");
    path
}

alone_test! {
    async fn missing_interpreter_error_names_the_path() {
        let missing = scratch().join("python9");
        let no_program = scratch().join("no-program");
        std::fs::write(&no_program, "").expect("the scratch folder is writable");
        let cases = [missing.clone(), scratch(), no_program, PathBuf::from("python-that-nobody-has")];
        for chosen in cases {
            let error = start_error(pool_of("").python(&chosen)).await;
            let WorkerStartError::NoInterpreter { looked_for } = &error else { panic!("{error:?}") };
            assert!(looked_for.contains(&chosen.display().to_string()), "{error}");
            assert!(error.to_string().contains(".python(path)"), "{error}");
        }
    }
}

alone_test! {
    async fn program_that_is_not_python_is_unusable() {
        let rubbish = script("rubbish", "echo rubbish; echo 'and more' >&2; exit 5");
        let killed = script("killed", "exec python3 -c 'import os; os.kill(os.getpid(), 9)'");
        let marked = script("marked", "echo 'HATCHERY-PROBE {\"version\": 3}'");
        let uncompiled =
            script("uncompiled", "echo 'HATCHERY-PROBE {\"version\": [3, 12, 0], \"executable\": \"\"}'");
        let cases = [
            (PathBuf::from("true"), "exit code 0"),
            (rubbish, "exit code 5"),
            (killed, "signal 9"),
            (marked, "did not say what it is"),
            (uncompiled, "did not compile"),
        ];
        for (program, told) in cases {
            let error = start_error(pool_of("").python(&program)).await;
            let WorkerStartError::InterpreterUnusable { path, detail, output } = &error else { panic!("{error:?}") };
            assert!(path.ends_with(&*program.to_string_lossy()) && detail.contains(told), "{error}");
            if program.ends_with("rubbish") {
                assert!(output == "rubbish\nand more" && format!("{error:#}").contains("    rubbish\n    and more"), "{error:?}");
            }
        }
    }
}

alone_test! {
    async fn interpreter_with_wrong_file_format_fails_to_spawn() {
        let program = scratch().join("text");
        std::fs::write(&program, "neither a script nor a binary").expect("the scratch folder is writable");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("the process is our child");
        let error = start_error(pool_of("").python(&program)).await;
        let told = matches!(&error, WorkerStartError::Spawn { program: named, .. } if *named == program.display().to_string());
        assert!(told, "{error:?}");
    }
}

alone_test! {
    async fn too_old_interpreter_error_reports_the_version() {
        let old = script("old", "echo 'HATCHERY-PROBE {\"version\": [3, 8, 18], \"executable\": \"/usr/bin/python3.8\"}'");
        let error = start_error(pool_of("").python(&old)).await;
        let told = matches!(&error, WorkerStartError::InterpreterTooOld { path, version }
            if *path == old.display().to_string() && version == "3.8.18");
        assert!(told, "{error:?}");

        // Real ones, where the machine has them.
        for name in ["python2", "python2.7", "python3.6", "python3.7", "python3.8"] {
            let answers = Command::new(name).arg("--version").output().is_ok_and(|it| it.status.success());
            if answers {
                println!("{name} is asked too");
                let error = start_error(pool_of("").python(name)).await;
                let told = matches!(&error, WorkerStartError::InterpreterTooOld { version, .. }
                    if version.starts_with(name.trim_start_matches("python")));
                assert!(told, "{name}: {error:?}");
            }
        }
    }
}

alone_test! {
    fn probe_stopped_while_answering_still_answers_fully() {
        const PROBE: &str = include_str!("../../../src/python/probe.py");
        let (mut socket, theirs) = UnixStream::pair().expect("a pair");
        let mut probe = Command::new(python())
            .args(["-c", PROBE])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let sources = serde_json::json!({"hatchery": format!("text = '{}'", "x".repeat(200_000))});
        socket.write_all(format!("\n{sources}").as_bytes()).expect("it reads");
        drop(socket);
        let mut stdout = probe.stdout.take().expect("a pipe");
        // Nobody reads its answer yet, of which a pipe holds a part.
        wait_until_blocking("the pipe is full", LONG_TIMEOUT, || {
            rustix::io::ioctl_fionread(&stdout).is_ok_and(|held| held >= 1 << 16) && state(probe.id()) == Some('S')
        });
        stop(probe.id());
        wait_until_blocking("the process is stopped", LONG_TIMEOUT, || state(probe.id()) == Some('T'));
        cont(probe.id());
        let mut answer = String::new();
        stdout.read_to_string(&mut answer).expect("it is text");
        assert!(probe.wait().expect("the process is our child").success());
        let facts = answer.trim().strip_prefix("HATCHERY-PROBE ").expect("the mark");
        let facts: serde_json::Value = serde_json::from_str(facts).expect("all of the answer is there");
        assert!(facts["package"].as_str().is_some_and(|package| package.len() > 400_000));
    }
}

alone_test! {
    async fn interpreter_that_prints_at_start_is_usable() {
        let chatty = script("chatty", &format!("echo welcome; echo to Python >&2; exec {} \"$@\"", python().display()));
        let pool = start(pool_of("").python(chatty)).await;
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn hanging_interpreter_error_shows_its_output() {
        let lines = "echo waiting for a licence; echo no route to the server >&2; exec sleep 1000";
        let builder = pool_of("").python(script("hangs", lines)).size(2).spawn_timeout(SHORT_START_TIMEOUT);
        let Err(error) = builder.start().await else { panic!("it is no Python") };
        let PoolStartError::Worker(failure) = &error else { panic!("{error:?}") };
        let WorkerStartError::TimedOut { output, .. } = &*failure.cause else { panic!("{error:?}") };
        assert_eq!(output, "waiting for a licence\nno route to the server");
        assert!(format!("{error:#}").contains("no route to the server"), "{error:#}");
    }
}

alone_test! {
    async fn interpreter_with_endless_output_uses_no_memory() {
        let endless = script("endless", "exec cat /dev/zero");
        let after = Duration::from_secs(1);
        let own = std::process::id();
        let before = rss_bytes(own).expect("it lives");
        let error = start_error(pool_of("").python(endless).spawn_timeout(after)).await;
        assert!(matches!(error, WorkerStartError::TimedOut { .. }), "{error:?}");
        let grown = rss_bytes(own).expect("it lives").saturating_sub(before);
        assert!(grown < 30_000_000, "{grown} bytes more");
    }
}

alone_test! {
    async fn active_virtual_environment_is_used() {
        const SOURCE: &str = "import sys\ndef prefix(): return sys.prefix";
        let environment = std::fs::canonicalize(scratch()).expect("it is there").join("environment");
        if role().as_deref() == Some("inside") {
            let pool = start(pool_of(SOURCE)).await;
            let prefix: PathBuf = pool.call("prefix", ()).await.expect("the call succeeds");
            assert_eq!(prefix, environment);
            // A choice of the application goes first.
            let chosen = start(pool_of(SOURCE).name("chosen").python(base(&environment))).await;
            let prefix: PathBuf = chosen.call("prefix", ()).await.expect("it runs");
            assert_ne!(prefix, environment);
            pool.shutdown().await;
            chosen.shutdown().await;
            return;
        }
        if role().as_deref() == Some("broken") {
            let error = start_error(pool_of(SOURCE)).await;
            let told = matches!(&error, WorkerStartError::NoInterpreter { looked_for }
                if looked_for.starts_with("VIRTUAL_ENV is set, but"));
            assert!(told, "{error:?}");
            return;
        }
        let made = Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(&environment).status();
        assert!(made.expect("Python starts").success(), "Python has its venv module");
        let test = test_path!(active_virtual_environment_is_used);
        for (role, environment) in [("inside", environment.clone()), ("broken", scratch().join("none"))] {
            let output = role_command(test, role)
                .env("VIRTUAL_ENV", environment)
                .spawn()
                .and_then(|child| child.wait_with_output())
                .expect("the test binary runs");
            assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

/// The interpreter that a virtual environment was made of.
fn base(environment: &std::path::Path) -> PathBuf {
    let config = std::fs::read_to_string(environment.join("pyvenv.cfg")).expect("the module venv writes it");
    let home = config.lines().find_map(|line| line.strip_prefix("home = ")).expect("it names its base");
    PathBuf::from(home).join("python3")
}

alone_test! {
    async fn pool_without_a_module_is_refused() {
        let error = Pool::builder().start().await.expect_err("nothing to import");
        assert!(error.to_string().contains("module"), "{error}");
    }
}

alone_test! {
    async fn process_left_by_a_wrapper_does_not_delay_the_start() {
        // The process left the group, so that nothing of ours ends it, and holds the output of the wrapper's first run.
        let left = scratch().join("left");
        let (file, python) = (left.display(), python());
        let leaves = format!("setsid sh -c 'echo $$ > {file}; exec sleep 60' &\nuntil [ -s {file} ]; do sleep 0.01; done");
        let lines = format!("if [ ! -e {file} ]; then {leaves}\nfi\nexec {} \"$@\"", python.display());
        let wrapper = script("leaves", &lines);
        let pool = start(pool_of("def serves(): return 1").python(wrapper).spawn_timeout(Duration::from_secs(25))).await;
        assert_eq!(pool.call::<_, u32>("serves", ()).await.expect("the call succeeds"), 1);
        pool.shutdown().await;
        let left = std::fs::read_to_string(left).expect("the wrapper wrote it");
        kill(left.trim().parse().expect("a process id"));
    }
}
