//! The host killed by SIGKILL: no code of ours runs then, and nothing may stay alive.
//!
//! ```text
//!   test  ->  host (this binary, in a role): starts a pool, brings its workers into a state, says "ready"
//!     |          `- workers, perhaps with children of theirs
//!     `- looks who lives below the host, kills it, waits until all of those are dead
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::faults::pools::{pool_of_module, serves, start, status, write_module};
use crate::support::{
    LONG_TIMEOUT, Seed, alone_test, descendants, describe, in_system, is_alive, kill, marked, role, scratch,
    start_role, state, stop, test_path, wait_until, wait_until_blocking,
};

const SOURCE: &str = "
import ctypes, os, subprocess, time

def _begun(folder):
    with open(f'{folder}/{os.getpid()}.begun', 'w'):
        pass

def sleep(folder):
    _begun(folder)
    time.sleep(1000)

def spin(folder):
    # In C, and without ever letting go of the interpreter.
    _begun(folder)
    sum(range(10**15))

def wait_in_c(folder):
    # The same, asleep: PyDLL keeps the interpreter's lock.
    _begun(folder)
    ctypes.PyDLL(None).sleep(1000)

def ignore_signals(folder):
    import signal
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    _begun(folder)
    while True:
        time.sleep(1000)

if 'IMPORT_FOR_EVER_IN' in os.environ:
    sleep(os.environ['IMPORT_FOR_EVER_IN'])

def start_children(folder):
    silent = subprocess.Popen(['sleep', '1000'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loud = subprocess.Popen(['sleep', '1000'])
    shell = subprocess.Popen(['sh', '-c', 'sleep 1000; true'])
    if os.fork() == 0:
        time.sleep(1000)
    return 'started'
";

/// In which state a host's workers are when it is killed.
#[derive(Clone, Copy)]
enum Workers {
    Idle,
    /// In this function, one each.
    In(&'static [&'static str]),
    Stopped,
    WithChildren,
    /// In the module's import.
    Importing,
}

impl Workers {
    /// How many processes there are below the host at least.
    fn processes(self) -> usize {
        match self {
            // With a zygote only its template imports.
            Workers::Importing if crate::ZYGOTE => 1,
            Workers::Idle | Workers::Stopped | Workers::Importing => 2,
            Workers::In(functions) => functions.len(),
            // Its worker, two sleeps, a shell with its sleep, a forked one.
            Workers::WithChildren => 5,
        }
    }
}

/// Kills a host whose workers are in this state, ten times in CI; three times where that is done again with several calls
/// a worker.
fn host_killed(test: &str, workers: Workers) {
    if role().is_some() {
        return in_system(move || host(workers))();
    }
    write_module(SOURCE);
    for _ in 0..rounds() {
        round(test, workers);
    }
    assert_no_process_left();
}

fn assert_no_process_left() {
    let mark = std::env::var("HATCHERY_TEST_MARK").expect("a test that runs alone is marked");
    let own = std::process::id();
    wait_until_blocking("nothing of ours lives", LONG_TIMEOUT, || {
        marked(&mark).iter().all(|&pid| pid == own)
    });
}

fn rounds() -> usize {
    let in_ci = if crate::IN_FLIGHT == 1 { 10 } else { 3 };
    std::env::var("HATCHERY_ROUNDS").map_or(in_ci, |text| text.parse().expect("HATCHERY_ROUNDS is a number"))
}

fn round(test: &str, workers: Workers) {
    let mut host = start_role(test, "host");
    let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "the host came to its state");
    let below = descendants(host.id());
    assert!(
        below.len() >= workers.processes(),
        "{:?}",
        below.iter().map(|&pid| describe(pid)).collect::<Vec<_>>()
    );
    host.kill().expect("the process is our child");
    host.wait().expect("the process is our child");
    let living = || below.iter().copied().filter(|&pid| is_alive(pid)).map(describe).collect::<Vec<_>>();
    wait_until_blocking("all that was below the host is dead", LONG_TIMEOUT, || living().is_empty());
    for pid in below {
        reap(pid);
    }
}

/// Kills a host at random moments of a start and of calls.
fn host_killed_at_random(test: &str) {
    if role().is_some() {
        return in_system(|| async {
            let pool = start(pool_of_module().size(2).min_ready(0)).await;
            loop {
                serves(&pool).await;
            }
        })();
    }
    write_module(SOURCE);
    let seed = Seed::new();
    let mut random = seed.rng();
    for _ in 0..rounds() {
        let mut host = start_role(test, "host");
        // This waits for nothing: any moment will do.
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
        host.kill().expect("the process is our child");
        host.wait().expect("the process is our child");
        assert_no_process_left();
    }
}

/// Orphans come to this process; a thousand rounds would leave many thousand zombies.
fn reap(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
}

/// The life of a host, until it is killed.
async fn host(workers: Workers) {
    let size = match workers {
        Workers::In(functions) => functions.len(),
        Workers::WithChildren => 1,
        Workers::Idle | Workers::Stopped | Workers::Importing => 2,
    };
    let folder = scratch().join(std::process::id().to_string());
    std::fs::create_dir(&folder).expect("the scratch folder is writable");
    let builder = pool_of_module().size(size);
    let pool = start(match workers {
        Workers::Importing => builder.min_ready(0).env("IMPORT_FOR_EVER_IN", &folder),
        _ => builder,
    })
    .await;
    match workers {
        Workers::Idle => {}
        Workers::Importing => {
            wait_until("all have begun", LONG_TIMEOUT, || begun(&folder) == workers.processes()).await
        }
        Workers::In(functions) => {
            for function in functions {
                let (pool, folder) = (pool.clone(), folder.clone());
                tokio::spawn(async move { pool.call::<_, Value>(function, (folder,)).await });
            }
            wait_until("all have begun", LONG_TIMEOUT, || begun(&folder) == functions.len()).await;
        }
        Workers::Stopped => {
            for worker in status(&pool).await.workers {
                let pid = worker.pid.expect("it is ready");
                stop(pid);
                wait_until("the process is stopped", LONG_TIMEOUT, || state(pid) == Some('T')).await;
            }
        }
        Workers::WithChildren => {
            let started: String = pool.call("start_children", (scratch(),)).await.expect("the call succeeds");
            assert_eq!(started, "started");
        }
    }
    println!("ready");
    std::io::stdout().flush().expect("the test reads");
    std::future::pending::<()>().await;
}

fn begun(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("it is there").count()
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_idle_workers_leaves_nothing() {
        host_killed(test_path!(killed_host_with_idle_workers_leaves_nothing), Workers::Idle);
    }
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_busy_workers_leaves_nothing() {
        host_killed(test_path!(killed_host_with_busy_workers_leaves_nothing), Workers::In(&["sleep", "ignore_signals"]));
    }
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_workers_in_c_code_leaves_nothing() {
        host_killed(test_path!(killed_host_with_workers_in_c_code_leaves_nothing), Workers::In(&["spin", "wait_in_c"]));
    }
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_stopped_workers_leaves_nothing() {
        host_killed(test_path!(killed_host_with_stopped_workers_leaves_nothing), Workers::Stopped);
    }
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_grandchildren_leaves_nothing() {
        host_killed(test_path!(killed_host_with_grandchildren_leaves_nothing), Workers::WithChildren);
    }
}

alone_test! {
    within 3600 seconds:
    fn killed_host_with_importing_workers_leaves_nothing() {
        host_killed(test_path!(killed_host_with_importing_workers_leaves_nothing), Workers::Importing);
    }
}

alone_test! {
    within 3600 seconds:
    fn host_killed_at_any_moment_leaves_nothing() {
        host_killed_at_random(test_path!(host_killed_at_any_moment_leaves_nothing));
    }
}

alone_test! {
    within 120 seconds:
    fn killed_host_with_forked_child_ends_its_workers() {
        let test = test_path!(killed_host_with_forked_child_ends_its_workers);
        if role().is_some() {
            return in_system(|| async {
                let pool = start(pool_of_module().size(2)).await;
                serves(&pool).await;
                // SAFETY: the child makes no call but `pause`, until it is killed.
                #[allow(unsafe_code)]
                let child = unsafe {
                    let child = libc::fork();
                    if child == 0 {
                        loop {
                            libc::pause();
                        }
                    }
                    child
                };
                println!("ready {child}");
                std::io::stdout().flush().expect("a pipe");
                std::future::pending::<()>().await;
            })();
        }
        write_module(SOURCE);
        let mut host = start_role(test, "host");
        let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
        let child = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ready ")?.parse::<u32>().ok())
            .expect("the host forked");
        let below = descendants(host.id());
        assert!(below.len() >= 3 && below.contains(&child), "two workers and the child: {below:?}");
        host.kill().expect("the process is our child");
        host.wait().expect("the process is our child");
        let living = || below.iter().copied().filter(|&pid| pid != child && is_alive(pid)).collect::<Vec<_>>();
        wait_until_blocking("the workers are dead", LONG_TIMEOUT, || living().is_empty());
        assert!(is_alive(child), "the forked child lives on");
        kill(child);
        assert_no_process_left();
    }
}
