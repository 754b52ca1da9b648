//! Tests of the harness: it finds each kind of leak and passes a clean test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::{
    Alone, Failure, Guards, LONG_TIMEOUT, SHORT_START_TIMEOUT, Seed, alone_test, cont, descendants, describe,
    fds, in_system, is_alive, kill, marked, pgid, python, role, rss_bytes, scratch, start_role, state, stop,
    test_path, threads, wait_until, wait_until_blocking,
};

alone_test! {
    async fn clean_test_in_a_system_passes() {
        assert!(actix::System::try_current().is_some());
        let guards = Guards::default();
        let guard = guards.guard();
        assert_eq!(guards.live(), 1);
        actix::spawn(async move { drop(guard) });
        wait_until("the guard goes", LONG_TIMEOUT, || guards.live() == 0).await;
    }
}

alone_test! {
    tokio async fn clean_test_under_tokio_passes() {
        assert!(actix::System::try_current().is_none());
        tokio::spawn(async {}).await.expect("no panic");
        wait_until("at once", LONG_TIMEOUT, || true).await;
    }
}

alone_test! {
    within 30 seconds:
    fn process_helpers_observe_and_signal() {
        let mut child = sleep().process_group(0).spawn().expect("sleep starts");
        let pid = child.id();
        wait_until_blocking("sleep runs", LONG_TIMEOUT, || describe(pid).ends_with(": sleep 1000"));
        assert!(is_alive(pid) && pgid(pid) == Some(pid));
        assert_eq!(descendants(std::process::id()), [pid]);
        let mark = std::env::var("HATCHERY_TEST_MARK").expect("a test that runs alone is marked");
        assert!(marked(&mark).contains(&pid) && marked("another").is_empty());
        assert!(rss_bytes(pid).expect("it lives") > 0);
        assert_eq!(threads(pid).into_values().collect::<Vec<_>>(), ["sleep"]);
        assert_eq!(fds(pid).get(&0).map(String::as_str), Some("/dev/null"));
        stop(pid);
        wait_until_blocking("the process is stopped", LONG_TIMEOUT, || state(pid) == Some('T'));
        cont(pid);
        wait_until_blocking("it goes on", LONG_TIMEOUT, || state(pid) == Some('S'));
        kill(pid);
        wait_until_blocking("it is dead before it is reaped", LONG_TIMEOUT, || state(pid) == Some('Z'));
        assert!(!is_alive(pid) && descendants(std::process::id()).is_empty());
        child.wait().expect("the process is our child");
        assert_eq!(state(pid), None);
    }
}

#[test]
fn leaked_child_is_found() {
    let failure = expect_failure(Alone::new(test_path!(leaked_child_is_found)), || {
        leave_sleep();
    });
    assert!(failure.output.contains("  process ") && failure.output.contains("sleep 1000"), "{failure}");
}

#[test]
fn child_leaked_by_dead_test_process_is_found_and_killed() {
    let test = test_path!(child_leaked_by_dead_test_process_is_found_and_killed);
    let failure = expect_failure(Alone::new(test), || {
        leave_sleep();
        kill(std::process::id());
    });
    let left = failure.findings.iter().find_map(|finding| finding.strip_prefix("left a process behind: "));
    let left = left.unwrap_or_else(|| panic!("{failure}"));
    let pid = left.split_once(' ').expect("a pid and more").0.parse().expect("a pid");
    assert!(left.contains("sleep 1000"), "{failure}");
    wait_until_blocking("the process is dead", LONG_TIMEOUT, || !is_alive(pid));
}

#[test]
fn leaked_grandchild_in_its_own_session_is_found() {
    let test = test_path!(leaked_grandchild_in_its_own_session_is_found);
    let failure = expect_failure(Alone::new(test), || {
        sleep_in_its_own_session(&[]);
    });
    assert!(failure.output.contains("sleep 1000"), "{failure}");
}

#[test]
fn leaked_grandchild_without_environment_is_found() {
    let test = test_path!(leaked_grandchild_without_environment_is_found);
    let failure = expect_failure(Alone::new(test), || {
        sleep_in_its_own_session(&["env", "-i"]);
    });
    assert!(failure.output.contains("sleep 1000"), "{failure}");
}

#[test]
fn leaked_file_descriptor_is_found() {
    let failure = expect_failure(Alone::new(test_path!(leaked_file_descriptor_is_found)), || {
        std::mem::forget(File::open("/proc/version"));
    });
    assert!(failure.output.contains(": /proc/version"), "{failure}");
}

#[test]
fn leaked_thread_is_found() {
    let failure = expect_failure(Alone::new(test_path!(leaked_thread_is_found)), || {
        // The thread gets its name when it starts.
        let (begins, begun) = mpsc::channel();
        let leave = move || {
            begins.send(()).expect("the test waits");
            thread::park();
        };
        thread::Builder::new().name("left-behind".into()).spawn(leave).expect("a thread");
        begun.recv().expect("it begins");
    });
    assert!(failure.output.contains(": left-behind"), "{failure}");
}

#[test]
fn leaked_file_is_found() {
    let failure = expect_failure(Alone::new(test_path!(leaked_file_is_found)), || {
        File::create(scratch().join("mine")).expect("the scratch folder is writable");
        File::create(std::env::temp_dir().join("forgotten")).expect("TMPDIR");
    });
    assert_found(&failure, "left a file in TMPDIR: forgotten");
    assert_eq!(failure.findings.len(), 1, "{failure}");
}

#[test]
fn panic_is_reported() {
    let body = in_system(|| async { panic!("intended failure") });
    let failure = expect_failure(Alone::new(test_path!(panic_is_reported)), body);
    assert_eq!(failure.status.and_then(|status| status.code()), Some(101), "{failure}");
    assert!(failure.to_string().contains("intended failure"), "{failure}");
}

#[test]
fn seed_is_printed_only_on_panic() {
    let failure = expect_failure(Alone::new(test_path!(seed_is_printed_only_on_panic)), || {
        let seed = Seed::new();
        assert_eq!(seed.rng().u64(..), seed.rng().u64(..));
        drop(seed);
        println!("until here");
        let _seed = Seed::new();
        panic!("intended failure");
    });
    let (before, after) = failure.output.split_once("until here").expect("it was said");
    assert!(!before.contains("HATCHERY_SEED") && after.contains("replay with HATCHERY_SEED="), "{failure}");
}

#[test]
fn hanging_test_is_killed_and_its_processes_are_named() {
    // Long enough for the process and its `sleep` to start on a busy machine.
    let alone = Alone::new(test_path!(hanging_test_is_killed_and_its_processes_are_named))
        .deadline(SHORT_START_TIMEOUT);
    let failure = expect_failure(alone, || {
        sleep().spawn().expect("sleep starts").wait().expect("the process is our child");
    });
    assert!(failure.status.is_none());
    assert_found(&failure, "was killed after 10s");
    assert_found(&failure, "sleep 1000");
}

#[test]
fn early_exit_fails_the_test() {
    let failure = expect_failure(Alone::new(test_path!(early_exit_fails_the_test)), || std::process::exit(0));
    assert_found(&failure, "never completed");
}

#[test]
fn wrong_test_path_fails_the_test() {
    let failure = expect_failure(Alone::new("harness::no_such_test"), || {});
    assert_found(&failure, "never completed");
}

alone_test! {
    fn second_process_of_a_test_can_be_killed() {
        if role().as_deref() == Some("host") {
            leave_sleep();
            println!("ready");
            std::io::stdout().flush().expect("the test reads");
            loop {
                thread::park();
            }
        }
        let mut host = start_role(test_path!(second_process_of_a_test_can_be_killed), "host");
        let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
        let below = descendants(host.id());
        assert_eq!(below.len(), 1);
        host.kill().expect("the process is our child");
        host.wait().expect("the process is our child");
        assert!(descendants(std::process::id()).contains(&below[0]), "orphans come to the test");
        kill(below[0]);
        wait_until_blocking("the orphan is dead", LONG_TIMEOUT, || !is_alive(below[0]));
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    command
}

/// Starts a `sleep` and does not wait for it.
fn leave_sleep() {
    drop(sleep().spawn().expect("sleep starts"));
}

/// Leaves an orphaned `sleep` in its own session, started through `prefix`.
fn sleep_in_its_own_session(prefix: &[&str]) {
    const DETACH: &str = "import os, sys
if os.fork() == 0:
    os.setsid()
    os.execvp(sys.argv[1], sys.argv[1:])";
    let status = Command::new(python()).args(["-c", DETACH]).args(prefix).args(["sleep", "1000"]).status();
    assert!(status.expect("python starts").success());
}

#[track_caller]
fn expect_failure(alone: Alone, body: impl FnOnce()) -> Failure {
    // The leaks of these tests never end by themselves.
    alone.settle(Duration::from_millis(100)).outcome(body).expect_err("the harness finds what this test does")
}

#[track_caller]
fn assert_found(failure: &Failure, what: &str) {
    assert!(failure.findings.iter().any(|finding| finding.contains(what)), "{failure}");
}
