//! Modules that do not survive a fork: they are reported, and workers that fail to start are started cold.

use hatchery::{Pool, PoolStartError, PoolStatus, StartPhase, WorkerStartError, ZygoteState, ZygoteStatus};

use crate::payloads::python_with_extras;
use crate::support::{
    LONG_TIMEOUT, SHORT_START_TIMEOUT, alone_test, descendants, kill, logged, pids, pool_of, python,
    python_module, scratch, status_when, wait_until, zombies,
};

const PLAIN: &str = "import os\n\ndef pid():\n    return os.getpid()\n";

/// A thread that exists only in the template.
const THREAD: &str = "
import threading, time
threading.Thread(target=time.sleep, args=(1000,), name='a-poller', daemon=True).start()
";

const SOCKET: &str = "
import socket
a, b = socket.socketpair()
file = open('/dev/zero')
";

/// The zygote status after a worker has served a call.
async fn zygote_of(source: &str, preload: &[&str]) -> ZygoteStatus {
    let pool =
        pool_of(source).preload(preload.iter().copied()).size(2).start().await.expect("the pool starts");
    pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
    let zygote = pool.status().await.expect("the pool runs").zygote.expect("the pool has a zygote");
    pool.shutdown().await;
    zygote
}

alone_test! {
    async fn module_that_starts_a_thread_is_reported() {
        let zygote = zygote_of(&format!("{THREAD}{PLAIN}"), &[]).await;
        assert_eq!((zygote.state, zygote.forked), (ZygoteState::Ready, 2));
        let [warning] = &zygote.warnings[..] else { panic!("{:?}", zygote.warnings) };
        assert!(warning.starts_with("module 'subject' left 1 thread ") && warning.contains("a-poller"), "{warning}");
        assert!(crate::support::logged(log::Level::Warn, "hatchery::zygote").iter().any(|line| line.contains("a-poller")));
    }
}

alone_test! {
    async fn warnings_name_the_module_at_fault() {
        python_module(&scratch(), "harmless", "import json\n");
        python_module(&scratch(), "polls", THREAD);
        python_module(&scratch(), "connects", SOCKET);
        let zygote = zygote_of(PLAIN, &["harmless", "polls", "connects"]).await;
        let [thread, socket, file] = &zygote.warnings[..] else { panic!("{:?}", zygote.warnings) };
        assert!(thread.starts_with("module 'polls' left 1 thread "), "{thread}");
        assert!(socket.starts_with("module 'connects' left a socket open "), "{socket}");
        assert!(file.starts_with("module 'connects' left a file open ") && file.contains("/dev/zero"), "{file}");
    }
}

alone_test! {
    async fn modules_known_to_break_after_fork_are_reported() {
        python_module(&scratch(), "grpc", "class Channel: pass\nchannel = Channel()\n");
        python_module(&scratch(), "torch", "class cuda:\n    is_initialized = staticmethod(lambda: True)\n");
        let zygote = zygote_of(PLAIN, &["torch", "grpc"]).await;
        let [cuda, grpc] = &zygote.warnings[..] else { panic!("{:?}", zygote.warnings) };
        assert!(cuda.starts_with("module 'torch': CUDA is initialised"), "{cuda}");
        assert!(grpc.starts_with("module 'grpc': a gRPC channel or server exists"), "{grpc}");
    }
}

alone_test! {
    async fn grpc_import_alone_gives_no_warning() {
        python_module(&scratch(), "grpc", "class Channel: pass\n");
        assert_eq!(zygote_of(PLAIN, &["grpc"]).await.warnings, [""; 0]);
    }
}

alone_test! {
    async fn allowed_module_gives_no_warning() {
        python_module(&scratch(), "polls", THREAD);
        python_module(&scratch(), "connects", SOCKET);
        let source = format!("{THREAD}{PLAIN}");
        let builder = pool_of(&source).preload(["polls", "connects"]).size(1);
        let pool = builder.zygote_allow("polls").zygote_allow("subject").start().await.expect("the pool starts");
        let warnings = pool.status().await.expect("the pool runs").zygote.expect("the pool has a zygote").warnings;
        assert!(warnings.len() == 2 && warnings.iter().all(|it| it.starts_with("module 'connects' ")), "{warnings:?}");
        pool.shutdown().await;
        let refused = pool_of(PLAIN).zygote().zygote_allow("pols").start().await.expect_err("no such module");
        assert!(matches!(&refused, PoolStartError::Config(error) if error.field == "zygote_allow"), "{refused:?}");
    }
}

alone_test! {
    async fn openblas_threads_give_no_warning_but_others_do() {
        let Some(python) = python_with_extras() else { return };
        python_module(&scratch(), "beside", &format!("import numpy\n{THREAD}"));
        for (module, count) in [("numpy", 0), ("beside", 1)] {
            let builder = pool_of(PLAIN).python(&python).preload([module]).size(1);
            // As on a machine with four processors.
            let pool = builder.env("OPENBLAS_NUM_THREADS", "4").start().await.expect("the pool starts");
            let warnings = pool.status().await.expect("the pool runs").zygote.expect("the pool has a zygote").warnings;
            assert_eq!(warnings.len(), count, "{warnings:?}");
            assert!(warnings.iter().all(|it| it.contains("left 1 thread ") && it.contains("a-poller")), "{warnings:?}");
            pool.shutdown().await;
        }
    }
}

/// The template creates OpenMP threads. Their first use in a forked process waits forever.
const OPENMP: &str = "
import ctypes, os
import hatchery
gomp = ctypes.CDLL('libgomp.so.1')
work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: None)

def parallel():
    gomp.GOMP_parallel(work, None, 4, 0)

parallel()

@hatchery.on_start
def use():
    parallel()

def pid():
    return os.getpid()
";

alone_test! {
    async fn workers_that_hang_in_openmp_start_cold() {
        let mut look = std::process::Command::new(python());
        look.args(["-c", "import ctypes; ctypes.CDLL('libgomp.so.1')"]);
        if !look.output().expect("python starts").status.success() {
            let missing = "there is no libgomp.so.1 on this machine";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            return eprintln!("skipped: {missing}");
        }
        // Override limits of the machine that would allow fewer threads.
        let builder = pool_of(OPENMP).env("OMP_THREAD_LIMIT", "64").env("OMP_DYNAMIC", "false");
        let pool = builder.size(1).spawn_timeout(SHORT_START_TIMEOUT).start().await.expect("the pool starts");
        let status = pool.status().await.expect("the pool runs");
        let zygote = status.zygote.as_ref().expect("the pool has a zygote");
        assert!(zygote.warnings.iter().any(|it| it.starts_with("module 'subject' left 3 threads ")), "{zygote:?}");
        assert_eq!((status.workers[0].forked, zygote.failed_forks), (Some(false), 1), "{status:?}");
        assert!(zygote.last_failure.as_ref().is_some_and(|why| why.contains("not ready within 10s")), "{zygote:?}");
        pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
        pool.shutdown().await;
    }
}

/// Hangs at the start of a forked worker.
const HANGS_WHEN_FORKED: &str = "
import os, time
import hatchery
imported = os.getpid()

@hatchery.on_start
def start():
    if os.getpid() != imported:
        time.sleep(1000)

def pid():
    return os.getpid()
";

alone_test! {
    async fn repeated_fork_failures_disable_the_zygote() {
        let builder = pool_of(HANGS_WHEN_FORKED).size(3).spawn_timeout(SHORT_START_TIMEOUT);
        let pool = builder.start().await.expect("it starts cold");
        let disabled = |status: &PoolStatus| {
            let zygote = status.zygote.as_ref().expect("the pool has a zygote");
            matches!(&zygote.state, ZygoteState::Disabled { reason } if reason.starts_with("3 failures in a row"))
        };
        let status = status_when(&pool, "the zygote is disabled", disabled).await;
        assert!(status.workers.iter().all(|worker| worker.forked == Some(false)), "{status:?}");
        assert_eq!(status.zygote.expect("the pool has a zygote").failed_forks, 3);
        // The template and the failed forks are gone.
        let workers = pids(&pool).await;
        let only_workers = || descendants(std::process::id()).iter().all(|pid| workers.contains(pid));
        crate::support::wait_until("only the workers live", LONG_TIMEOUT, only_workers).await;
        kill(workers[0]);
        let status = status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.idle == 3).await;
        assert_eq!(status.workers[0].forked, Some(false));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn child_of_forked_worker_imports_hatchery_from_worker() {
        let source = "
import os, subprocess, sys

def file_in_a_child():
    print_it = 'import hatchery; print(hatchery.__file__)'
    return os.getpid(), subprocess.check_output([sys.executable, '-c', print_it], text=True)
";
        let pool = pool_of(source).size(1).start().await.expect("the pool starts");
        let (worker, file): (u32, String) = pool.call("file_in_a_child", ()).await.expect("the call succeeds");
        assert_eq!(pool.status().await.expect("the pool runs").workers[0].forked, Some(true));
        assert!(file.starts_with(&format!("/proc/{worker}/fd/")), "{file}");
        pool.shutdown().await;
    }
}

/// A pool whose Python runs this `sitecustomize` first.
async fn pool_with_sitecustomize(python: &str) -> (Pool, PoolStatus) {
    python_module(&scratch(), "sitecustomize", python);
    let pool = pool_of(PLAIN).size(2).env("PYTHONPATH", scratch()).start().await.expect("the pool starts");
    pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
    let status = pool.status().await.expect("the pool runs");
    (pool, status)
}

alone_test! {
    /// Python builds of conda lack `os.pidfd_open`.
    async fn python_without_pidfd_open_still_opens_pidfds() {
        let (pool, status) = pool_with_sitecustomize("import os\ndel os.pidfd_open\n").await;
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)), "{status:?}");
        kill(pids(&pool).await[0]);
        let replaced = status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.idle == 2).await;
        assert!(replaced.workers[0].last_exit.as_deref().is_some_and(|how| how.contains("signal 9")), "{replaced:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn python_without_pidfds_disables_the_zygote() {
        let (pool, status) = pool_with_sitecustomize("import os, sys\ndel os.pidfd_open\nsys.modules['ctypes'] = None\n").await;
        assert!(status.workers.iter().all(|worker| worker.forked == Some(false)), "{status:?}");
        let zygote = status.zygote.expect("the pool has a zygote");
        let ZygoteState::Disabled { reason } = &zygote.state else { panic!("{zygote:?}") };
        assert!(reason.contains("needs pidfds") && zygote.pid.is_none(), "{zygote:?}");
        pool.reload().await.expect("its workers are replaced all the same");
        let status = pool.status().await.expect("the pool runs");
        assert!(status.workers.iter().all(|worker| worker.forked == Some(false)), "{status:?}");
        pool.shutdown().await;
    }
}

const ENDS_THE_TEMPLATE: &str = "
import os
os.register_at_fork(before=lambda: os._exit(3))

def pid():
    return os.getpid()
";

alone_test! {
    async fn template_that_dies_at_every_fork_is_disabled() {
        let pool = pool_of(ENDS_THE_TEMPLATE).size(1).start().await.expect("it starts cold");
        for deaths in 1..=2 {
            let again = |status: &PoolStatus| {
                let zygote = status.zygote.as_ref().expect("the pool has a zygote");
                zygote.state == ZygoteState::Ready && zygote.restarts == deaths && status.idle == 1
            };
            status_when(&pool, "a new template is ready", again).await;
            kill(pids(&pool).await[0]);
        }
        let disabled = |status: &PoolStatus| {
            let zygote = status.zygote.as_ref().expect("the pool has a zygote");
            matches!(&zygote.state, ZygoteState::Disabled { .. }) && status.restarts == 2 && status.idle == 1
        };
        let status = status_when(&pool, "the zygote is disabled", disabled).await;
        assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
        let zygote = status.zygote.expect("the pool has a zygote");
        let ZygoteState::Disabled { reason } = &zygote.state else { unreachable!("it was waited for") };
        let says = reason.starts_with("3 failures in a row") && reason.contains("exit code 3, while it was to fork");
        assert!(says, "{reason}");
        assert_eq!((zygote.restarts, zygote.failed_forks), (3, 0), "{zygote:?}");
        pool.shutdown().await;
    }
}

/// A module whose template runs the Python statements `answer` before its first answer to a fork. They may change `body`, the
/// answer, and `fd`, the pidfd. Further lines need an indentation of 8 spaces.
pub(crate) fn lying_template(answer: &str) -> String {
    format!(
        "
import os
from hatchery import _zygote

first = True
tell = _zygote._Template.tell

def lie(self, kind, number, fork_id, body, fd=None):
    global first
    if kind == _zygote.FORKED and first:
        first = False
        {answer}
    tell(self, kind, number, fork_id, body, fd)

_zygote._Template.tell = lie

def pid():
    return os.getpid()
"
    )
}

alone_test! {
    async fn fork_without_its_pidfd_is_reaped() {
        let pool = pool_of(&lying_template("fd = None")).size(1).start().await.expect("it starts cold");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
        let zygote = status.zygote.expect("the pool has a zygote");
        assert_eq!((&zygote.state, zygote.failed_forks), (&ZygoteState::Ready, 1), "{zygote:?}");
        let template = zygote.pid.expect("it is ready");
        wait_until("it is reaped", LONG_TIMEOUT, || descendants(template).len() + zombies(template) == 0).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn template_with_impossible_pid_is_killed() {
        let own = std::process::id();
        for pid in ["1", "-5", "0"] {
            let pool = pool_of(&lying_template(&format!("body = {{'pid': {pid}}}"))).size(1).start().await.expect("it starts cold");
            let again = |status: &PoolStatus| {
                let zygote = status.zygote.as_ref().expect("the pool has a zygote");
                zygote.state == ZygoteState::Ready && zygote.restarts == 1
            };
            let status = status_when(&pool, "a new template is ready", again).await;
            assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
            assert_eq!(status.zygote.expect("the pool has a zygote").failed_forks, 1);
            wait_until("only worker and template live", LONG_TIMEOUT, || descendants(own).len() == 2).await;
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn template_passing_extra_descriptors_is_killed() {
        let more = "self.socket.sendmsg([_zygote._HEAD.pack(20, _zygote.EXITED, 1, 0, 4000000, 0, 0)], \
            [(_zygote._socket.SOL_SOCKET, _zygote._socket.SCM_RIGHTS, _zygote.array.array('i', [0, 0]))])";
        let pool = pool_of(&lying_template(more)).size(1).start().await.expect("the pool starts");
        let again = |status: &PoolStatus| {
            let zygote = status.zygote.as_ref().expect("the pool has a zygote");
            zygote.state == ZygoteState::Ready && zygote.restarts == 1 && status.idle == 1
        };
        status_when(&pool, "a new template is ready", again).await;
        let told = logged(log::Level::Error, "hatchery::port");
        assert!(told.iter().any(|line| line.contains("a descriptor that belongs to no frame")), "{told:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn template_passing_endless_descriptors_is_killed() {
        // A frame of 9000 bytes, sent byte by byte, with two descriptors for each byte.
        let more = "wire = _zygote._wire
        self.socket.sendall(_zygote._HEAD.pack(wire.HEADER_BYTES + 9000, _zygote.EXITED, wire.JSON, 0, 1, 0, 9000))
        rights = [(_zygote._socket.SOL_SOCKET, _zygote._socket.SCM_RIGHTS, _zygote.array.array('i', [0, 0]))]
        for _ in range(100):
            try:
                self.socket.sendmsg([b'0'], rights)
            except OSError:
                os._exit(3)";
        let pool = pool_of(&lying_template(more)).size(1).start().await.expect("it starts cold");
        let again = |status: &PoolStatus| {
            let zygote = status.zygote.as_ref().expect("the pool has a zygote");
            zygote.state == ZygoteState::Ready && zygote.restarts == 1
        };
        let status = status_when(&pool, "a new template is ready", again).await;
        assert_eq!(status.workers[0].forked, Some(false), "{status:?}");
        let told = logged(log::Level::Error, "hatchery::port");
        assert!(told.iter().any(|line| line.contains("passed descriptors without end")), "{told:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn failed_preload_fails_the_start() {
        let start = pool_of(PLAIN).preload(["no_such_module"]).start().await;
        let Err(PoolStartError::Worker(failure)) = start else { panic!("{start:?}") };
        let WorkerStartError::Python { phase: StartPhase::Import, type_name, .. } = &*failure.cause else {
            panic!("{failure:?}")
        };
        assert_eq!(type_name, "ModuleNotFoundError");

        let source = format!("{PLAIN}\nimport hatchery\n@hatchery.on_preload\ndef load():\n    raise OSError('no model')\n");
        let start = pool_of(&source).start().await;
        let Err(PoolStartError::Worker(failure)) = start else { panic!("{start:?}") };
        let told = matches!(&*failure.cause, WorkerStartError::Python { phase: StartPhase::OnPreload, message, .. }
            if message == "no model");
        assert!(told, "{failure:?}");
    }
}

alone_test! {
    async fn failed_start_hook_is_not_a_fork_failure() {
        let source = format!("{PLAIN}\nimport hatchery\n@hatchery.on_start\ndef load():\n    raise OSError('no model')\n");
        let pool = pool_of(&source).size(1).min_ready(0).start().await.expect("the start does not wait for workers");
        let failed = |status: &PoolStatus| status.workers[0].last_exit.is_some();
        let status = status_when(&pool, "it has failed", failed).await;
        assert!(status.workers[0].last_exit.as_ref().is_some_and(|why| why.contains("no model")), "{status:?}");
        let zygote = status.zygote.expect("the pool has a zygote");
        assert_eq!((zygote.state, zygote.failed_forks), (ZygoteState::Ready, 0));
        pool.shutdown().await;
    }
}
