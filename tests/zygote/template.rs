//! The template: the state of its workers, and its death.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use hatchery::{CallError, Pool, PoolStatus, ZygoteState};

use crate::payloads::python_with_extras;
use crate::support::{
    LONG_TIMEOUT, MODULE, Seed, alone_test, descendants, fds, in_system, is_alive, kill, lines, pgid, pids,
    pool_of, role, scratch, start_role, started, state, status_when, stop, test_path, touch, wait_until,
    zombies,
};

/// The template's process id.
async fn template(pool: &Pool) -> u32 {
    let ready = |status: &PoolStatus| status.zygote.as_ref().is_some_and(|zygote| zygote.pid.is_some());
    let status = status_when(pool, "there is a template", ready).await;
    status.zygote.and_then(|zygote| zygote.pid).expect("it was waited for")
}

/// Waits until this process has no zombie. As a subreaper it adopts children that the template did not reap.
async fn no_zombie_is_left() {
    wait_until("no zombie is left", LONG_TIMEOUT, || zombies(std::process::id()) == 0).await;
}

/// The descriptors of an idle template. It has closed its copies of the descriptors of its last worker.
pub(crate) async fn fds_of_idle(zygote: u32) -> BTreeMap<u32, String> {
    wait_until("the template waits for requests", LONG_TIMEOUT, || state(zygote) == Some('S')).await;
    fds(zygote)
}

fn all_forked(status: &PoolStatus) -> bool {
    status.workers.iter().all(|worker| worker.forked == Some(true))
}

alone_test! {
    async fn forked_workers_report_exit_code_signal_and_memory() {
        let pool = started(2).await;
        let status = pool.status().await.expect("the pool runs");
        assert!(all_forked(&status), "{status:?}");
        let zygote = status.zygote.expect("the pool has a zygote");
        assert_eq!((&zygote.state, zygote.restarts, zygote.forked), (&ZygoteState::Ready, 0, 2));
        assert!(zygote.warnings.is_empty() && zygote.last_failure.is_none(), "{zygote:?}");
        for pid in pids(&pool).await {
            assert_eq!(pgid(pid), Some(pid), "a group of its own");
        }
        let error = pool.call::<_, ()>("die", (7,)).await.expect_err("the worker dies");
        let told = matches!(error, CallError::WorkerDied { exit: Some(7), signal: None, max_rss_bytes: Some(1..), .. });
        assert!(told, "{error:?}");
        status_when(&pool, "the worker is replaced", |status| status.idle == 2).await;
        kill(pids(&pool).await[0]);
        let replaced = status_when(&pool, "the worker is replaced", |status| status.idle == 2 && status.restarts == 2).await;
        assert!(all_forked(&replaced), "{replaced:?}");
        assert!(replaced.workers[0].last_exit.as_deref().is_some_and(|how| how.contains("signal 9")), "{replaced:?}");
        pool.shutdown().await;
    }
}

const LOOKS: &str = r#"
import gc, os, random, sys, threading

def pid():
    return os.getpid()

def looks():
    with open("/proc/self/comm") as comm:
        name = comm.read().strip()
    return [name, gc.isenabled(), gc.get_freeze_count() > 0, random.random(), len(os.listdir("/proc/self/task"))]
"#;

alone_test! {
    async fn forked_worker_behaves_like_a_cold_one() {
        let pool = pool_of(LOOKS).name("a-pool-of-a-long-name").size(3).start().await.expect("the pool starts");
        let mut random = BTreeSet::new();
        let mut leases = Vec::new();
        for _ in 0..3 {
            let lease = pool.checkout().await.expect("each once");
            let looks: (String, bool, bool, f64, u32) = lease.call("looks", ()).await.expect("the call succeeds");
            // At most 15 bytes, including the number of the worker.
            let number = lease.worker().rsplit_once('-').map(|(_, number)| number).expect("it has one");
            assert_eq!(looks.0, format!("a-pool-of-a-l-{number}"));
            assert_eq!((looks.1, looks.2, looks.4), (true, true, 1), "{looks:?}");
            random.insert(looks.3.to_bits());
            leases.push(lease);
        }
        assert_eq!(random.len(), 3, "each has random numbers of its own");
        drop(leases);
        pool.shutdown().await;
    }
}

const NUMPY: &str = "
import numpy as np

def draw():
    return np.random.random()

def product():
    ones = np.ones((400, 400))
    return float((ones @ ones).sum())
";

alone_test! {
    async fn forked_numpy_workers_draw_different_random_numbers() {
        let Some(python) = python_with_extras() else { return };
        let pool = pool_of(NUMPY).python(python).size(3).start().await.expect("the pool starts");
        let mut drawn = BTreeSet::new();
        let mut leases = Vec::new();
        for _ in 0..3 {
            let lease = pool.checkout().await.expect("each once");
            drawn.insert(lease.call::<_, f64>("draw", ()).await.expect("the call succeeds").to_bits());
            assert_eq!(lease.call::<_, f64>("product", ()).await.expect("the call succeeds"), 400f64.powi(3));
            leases.push(lease);
        }
        assert_eq!(drawn.len(), 3, "each has random numbers of its own");
        drop(leases);
        let status = pool.status().await.expect("the pool runs");
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)), "{status:?}");
        pool.shutdown().await;
    }
}

const HOOKS: &str = r#"
import os
import hatchery

def note(line):
    with open("hooks", "a") as file:
        file.write(f"{line} {os.getpid()}\n")

@hatchery.on_preload
def load():
    note("preload")

@hatchery.on_start
def start():
    note("start")

def pid():
    return os.getpid()
"#;

alone_test! {
    async fn preload_hooks_run_in_template_start_hooks_in_workers() {
        let pool = pool_of(HOOKS).size(2).start().await.expect("the pool starts");
        let template = template(&pool).await;
        let mut expected: Vec<_> = pids(&pool).await.into_iter().map(|pid| format!("start {pid}")).collect();
        expected.push(format!("preload {template}"));
        assert_eq!(BTreeSet::from_iter(lines("hooks")), BTreeSet::from_iter(expected));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn killed_idle_template_is_replaced_without_restarts() {
        let pool = started(2).await;
        let (before, first) = (pids(&pool).await, template(&pool).await);
        kill(first);
        let back = |status: &PoolStatus| {
            status.zygote.as_ref().is_some_and(|it| it.restarts == 1 && it.state == ZygoteState::Ready)
        };
        let status = status_when(&pool, "a new template is ready", back).await;
        assert_eq!(pids(&pool).await, before, "the workers live on");
        assert_eq!(status.restarts, 0);
        assert!(status.zygote.expect("the pool has a zygote").last_failure.is_some_and(|why| why.contains("signal 9")));
        // The workers are orphans now. This process is a subreaper, so it gets their exit codes.
        let error = pool.call::<_, ()>("die", (9,)).await.expect_err("the worker dies");
        assert!(matches!(error, CallError::WorkerDied { exit: Some(9), .. }), "{error:?}");
        for pid in before.into_iter().filter(|&pid| is_alive(pid)) {
            kill(pid);
        }
        let status = status_when(&pool, "both are replaced", |it| it.restarts == 2 && it.idle == 2).await;
        assert!(all_forked(&status), "by forks of the new template: {status:?}");
        assert_ne!(template(&pool).await, first);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn orphan_reaped_by_init_ends_without_an_exit_code() {
        if role().is_some() {
            return host_whose_template_dies().await;
        }
        // This process is a subreaper and adopts the orphans of the host.
        let mut host = start_role(test_path!(orphan_reaped_by_init_ends_without_an_exit_code), "host");
        let output = BufReader::new(host.stdout.take().expect("a pipe")).lines();
        let told: Vec<_> = output.map_while(Result::ok).filter(|line| line.starts_with("told ")).collect();
        assert_eq!(told, ["told None None"]);
        assert!(host.wait().expect("the process is our child").success());
    }
}

async fn host_whose_template_dies() {
    let pool = started(1).await;
    kill(template(&pool).await);
    let back = |status: &PoolStatus| status.zygote.as_ref().is_some_and(|zygote| zygote.restarts == 1);
    status_when(&pool, "the death of the template is counted", back).await;
    let error = pool.call::<_, ()>("die", (9,)).await.expect_err("the worker dies");
    let CallError::WorkerDied { exit, signal, .. } = error else { panic!("{error:?}") };
    println!("told {exit:?} {signal:?}");
    status_when(&pool, "the worker is replaced", |status| status.idle == 1).await;
    pool.shutdown().await;
}

alone_test! {
    async fn template_killed_during_a_fork_causes_a_cold_start() {
        let pool = started(1).await;
        let (worker, zygote) = (pids(&pool).await[0], template(&pool).await);
        stop(zygote);
        wait_until("the process is stopped", LONG_TIMEOUT, || state(zygote) == Some('T')).await;
        kill(worker);
        // The stopped template never reads the request for the next fork.
        status_when(&pool, "the worker is to be replaced", |status| status.restarts == 1).await;
        kill(zygote);
        let status = status_when(&pool, "the worker is replaced", |status| status.idle == 1).await;
        assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
        assert_eq!(status.zygote.expect("the pool has a zygote").failed_forks, 0, "a dead template is not a failed fork");
        no_zombie_is_left().await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn template_that_does_not_answer_is_replaced() {
        let pool = started(1).await;
        let (worker, zygote) = (pids(&pool).await[0], template(&pool).await);
        stop(zygote);
        kill(worker);
        let status = status_when(&pool, "the worker is replaced", |status| status.idle == 1 && status.restarts == 1).await;
        assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
        let back = |status: &PoolStatus| {
            status.zygote.as_ref().is_some_and(|it| it.state == ZygoteState::Ready && it.restarts == 1)
        };
        status_when(&pool, "a new template is ready", back).await;
        assert!(!is_alive(zygote));
        no_zombie_is_left().await;
        pool.shutdown().await;
    }
}

alone_test! {
    within 120 seconds:
    /// Kills a worker, and then the template at a random moment of the next fork.
    async fn template_killed_at_any_moment_leaves_nothing() {
        let seed = Seed::new();
        let mut random = seed.rng();
        for _ in 0..12 {
            let pool = started(2).await;
            let zygote = template(&pool).await;
            kill(pids(&pool).await[0]);
            // A random moment; the sleep waits for no event.
            tokio::time::sleep(Duration::from_micros(random.u64(0..4000))).await;
            kill(zygote);
            status_when(&pool, "both workers are ready", |status| status.idle == 2 && status.restarts == 1).await;
            pool.shutdown().await;
            wait_until("nothing lives", LONG_TIMEOUT, || descendants(std::process::id()).is_empty()).await;
        }
    }
}

alone_test! {
    async fn template_killed_under_load_fails_no_call() {
        let pool = started(4).await;
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut calls = 0_u32;
                    while !Path::new(&scratch().join("enough")).exists() {
                        pool.call::<_, u32>("pid", ()).await.expect("no call fails");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for kills in 1..=4 {
            kill(template(&pool).await);
            let seen = |status: &PoolStatus| status.zygote.as_ref().is_some_and(|zygote| zygote.restarts == kills);
            status_when(&pool, "the death of the template is counted", seen).await;
        }
        crate::support::touch("enough");
        for caller in callers {
            assert!(caller.await.expect("no call failed") > 0);
        }
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

/// The first template ignores the request to exit.
const DEAF: &str = "
import os, time
from hatchery import _zygote

serve = _zygote._Template.serve

def deaf(self):
    own = serve(self)
    while own is None:
        time.sleep(1)
    return own

if not os.path.exists('second'):
    _zygote._Template.serve = deaf

def pid():
    return os.getpid()
";

alone_test! {
    async fn old_template_that_does_not_exit_is_killed() {
        let pool = pool_of(DEAF).size(1).start().await.expect("the pool starts");
        let former = template(&pool).await;
        touch("second");
        pool.reload().await.expect("the reload succeeds");
        wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(former)).await;
        let status = pool.status().await.expect("the pool runs");
        assert!(all_forked(&status) && status.zygote.is_some_and(|it| it.restarts == 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stopped_old_template_does_not_delay_the_next_restart() {
        let pool = started(1).await;
        let former = template(&pool).await;
        stop(former);
        // The stopped template cannot report the exit of its worker, so it is kept.
        pool.reload().await.expect("the reload succeeds");
        let current = template(&pool).await;
        assert!(current != former && is_alive(former));
        kill(current);
        let back = |status: &PoolStatus| {
            status.zygote.as_ref().is_some_and(|it| it.restarts == 1 && it.state == ZygoteState::Ready)
        };
        status_when(&pool, "a new template is ready", back).await;
        assert!(!is_alive(former));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn template_keeps_no_descriptors_of_its_workers() {
        let pool = started(1).await;
        let zygote = template(&pool).await;
        let before = fds_of_idle(zygote).await;
        for restarts in 1..=3 {
            kill(pids(&pool).await[0]);
            status_when(&pool, "the worker is replaced", |it| it.restarts == restarts && it.idle == 1).await;
        }
        wait_until("it has closed its copies", LONG_TIMEOUT, || fds(zygote) == before).await;
        pool.shutdown().await;
    }
}

#[test]
fn killed_host_takes_its_template_along() {
    crate::support::Alone::new(test_path!(killed_host_takes_its_template_along)).run(|| {
        if role().is_some() {
            return in_system(|| async {
                let pool = pool_of(MODULE).size(2).start().await.expect("the pool starts");
                println!("ready {}", template(&pool).await);
                std::future::pending::<()>().await;
            })();
        }
        let mut host = start_role(test_path!(killed_host_takes_its_template_along), "host");
        let output = BufReader::new(host.stdout.take().expect("a pipe")).lines();
        let ready =
            output.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("ready ")?.to_owned()));
        let zygote: u32 = ready.expect("it was ready").parse().expect("a number");
        let below = descendants(host.id());
        assert!(below.contains(&zygote) && below.len() == 3, "{below:?}");
        // A stopped template must die, too.
        stop(zygote);
        host.kill().expect("the process is our child");
        host.wait().expect("the process is our child");
        crate::support::wait_until_blocking("all are dead", LONG_TIMEOUT, || {
            !below.iter().any(|&pid| is_alive(pid))
        });
    });
}
