//! User code that closes descriptors, its own and ours; and descriptors that reach a process by mistake.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use hatchery::CallError;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::{alone_test, fds, kill, scratch, status_when};

const SOURCE: &str = "
import os

def targets():
    found = {}
    for fd in os.listdir('/proc/self/fd'):
        try:
            found[fd] = os.readlink('/proc/self/fd/' + fd)
        except OSError:
            pass  # that of the folder itself
    return found

at_import = targets()

def seen_at_import():
    return at_import

def close_standard():
    for fd in range(3):
        os.close(fd)
    return 'closed'

def talk():
    print('anybody there?')

def write_files(folder):
    # The lowest free descriptors: 0, 1 and 2 once those are closed.
    files = [open(f'{folder}/{n}', 'w') for n in range(5)]
    for file in files:
        file.write(str(file.fileno()))
        file.close()
    return len(files)

def close_all():
    os.closerange(0, 4096)
    return 'closed'

def close_all_and_wait():
    os.closerange(0, 4096)
    import time
    time.sleep(1000)

def fds_of_a_child():
    import subprocess
    listed = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, stdout=subprocess.PIPE, check=True)
    links = [line.rsplit(maxsplit=3) for line in listed.stdout.decode().splitlines() if ' -> ' in line]
    return [[int(fd), target] for _, fd, _, target in links]

def own_sockets():
    return sum(os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')
               for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}'))
";

alone_test! {
    async fn closing_standard_descriptors_keeps_the_worker() {
        let pool = start(pool_of(SOURCE)).await;
        let worker = pid(&pool).await;
        assert_eq!(pool.call::<_, String>("close_standard", ()).await.expect("it only closes"), "closed");
        serves(&pool).await;
        assert!([0, 1, 2].iter().all(|fd| !fds(worker).contains_key(fd)), "{:?}", fds(worker));
        // As in any script: there is nothing to print to.
        let error = pool.call::<_, Value>("talk", ()).await.expect_err("it cannot print");
        assert!(matches!(&error, CallError::Python { type_name, .. } if type_name == "OSError"), "{error:?}");
        serves(&pool).await;
        assert_eq!(pool.call::<_, u32>("write_files", (scratch(),)).await.expect("it only writes"), 5);
        serves(&pool).await;
        assert_eq!((status(&pool).await.restarts, pid(&pool).await), (0, worker));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn closing_every_descriptor_kills_the_worker() {
        let pool = start(pool_of(SOURCE)).await;
        let error = pool.call::<_, Value>("close_all", ()).await.expect_err("it has no way to answer");
        let told = matches!(&error, CallError::WorkerDied { started: true, exit: Some(74), signal: None, .. });
        assert!(told, "{error:?}");
        serves(&pool).await;
        // One that never comes to notice it is not waited for until its deadline.
        let error = pool.call::<_, Value>("close_all_and_wait", ()).await.expect_err("it has no way to answer");
        assert!(matches!(&error, CallError::WorkerDied { started: true, signal: Some(9), .. }), "{error:?}");
        let replaced = status_when(&pool, "a third worker is ready", |it| it.restarts == 2 && it.ready == 1);
        let status = replaced.await;
        assert!(status.workers[0].last_exit.as_ref().is_some_and(|why| why.contains("connection to the pool")), "{status:?}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_holds_only_its_own_descriptors() {
        let pool = start(pool_of(SOURCE).size(4)).await;
        let status = status_when(&pool, "all are ready", |status| status.ready == 4).await;
        for worker in status.workers {
            let mut fds = fds(worker.pid.expect("it is ready"));
            assert_eq!(fds.remove(&0).as_deref(), Some("/dev/null"), "{fds:?}");
            for pipe in [1, 2] {
                assert!(fds.remove(&pipe).is_some_and(|target| target.starts_with("pipe:")), "{fds:?}");
            }
            // The protocol, the parent-death socket and the socket for memfds, the pipe for stacks, and the package for children; where it may have several
            // calls, the mark of those that it has begun.
            let marks = usize::from(crate::IN_FLIGHT > 1);
            let sockets = fds.values().filter(|target| target.starts_with("socket:")).count();
            let pipes = fds.values().filter(|target| target.starts_with("pipe:")).count();
            assert_eq!((sockets, pipes, fds.len()), (3, 1, 5 + marks), "{fds:?}");
        }
        assert_eq!(pool.call::<_, u32>("own_sockets", ()).await.expect("the call succeeds"), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn child_of_a_worker_inherits_only_standard_streams() {
        let pool = start(pool_of(SOURCE)).await;
        let mut child: Vec<(u32, String)> = pool.call("fds_of_a_child", ()).await.expect("the call succeeds");
        child.retain(|(fd, target)| *fd > 2 && !is_listed_folder(target));
        assert_eq!(child, []);
        pool.shutdown().await;
    }
}

/// `ls /proc/self/fd` has that folder open.
fn is_listed_folder(target: &str) -> bool {
    target.starts_with("/proc/") && target.ends_with("/fd")
}

/// Whether a program that the calling process starts now gets this descriptor.
fn is_inheritable(fd: u32) -> bool {
    let file = format!("/proc/self/fdinfo/{fd}");
    let flags = std::fs::read_to_string(file).ok().and_then(|info| {
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        i32::from_str_radix(&flags, 8).ok()
    });
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC == 0)
}

alone_test! {
    async fn inheritable_descriptor_of_the_host_is_closed_in_workers() {
        let path = scratch().join("secret");
        let file = File::create(&path).expect("the scratch folder is writable");
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        fcntl_setfd(&file, FdFlags::empty()).expect("it is open");
        fcntl_setfd(&reading, FdFlags::empty()).expect("it is open");
        fcntl_setfd(&writing, FdFlags::empty()).expect("it is open");
        fcntl_setfd(&listener, FdFlags::empty()).expect("it is open");
        let own = fds(std::process::id());
        let passed: Vec<_> =
            [file.as_raw_fd(), reading.as_raw_fd(), writing.as_raw_fd(), listener.as_raw_fd()]
                .map(|fd| own[&fd.unsigned_abs()].clone())
                .into();
        let pool = start(pool_of(SOURCE)).await;
        for function in ["seen_at_import", "targets"] {
            let seen: std::collections::BTreeMap<String, String> = pool.call(function, ()).await.expect("the call succeeds");
            let leaked: Vec<_> = seen.iter().filter(|(_, target)| passed.contains(target)).collect();
            assert!(leaked.is_empty(), "{function}: {leaked:?}");
        }
        // A zygote is one of them.
        for process in crate::support::descendants(std::process::id()) {
            let open = fds(process);
            assert!(open.values().all(|target| !passed.contains(target)), "{process}: {open:?}");
        }
        assert!(fcntl_getfd(&file).expect("it is open").is_empty(), "the host's own is left as it is");
        pool.shutdown().await;
    }
}

/// Writes which descriptors it was started with, as any child of the host's would have them, and runs its arguments.
const NOTES_ITS_DESCRIPTORS: &str = "ls -l /proc/self/fd >> \"$0\"; exec \"$@\"";

/// The numbers and targets that `ls -l` has written.
fn listed(path: &Path) -> Vec<(u32, String)> {
    let text = std::fs::read_to_string(path).expect("the launcher has written it");
    let links = text.lines().filter_map(|line| line.split_once(" -> "));
    links
        .map(|(before, target)| {
            let fd = before.rsplit(' ').next().and_then(|fd| fd.parse().ok()).expect("the name of a link");
            (fd, target.to_owned())
        })
        .collect()
}

alone_test! {
    async fn process_started_with_a_worker_inherits_nothing() {
        let inherited: Vec<_> =
            fds(std::process::id()).into_iter().filter(|(fd, _)| is_inheritable(*fd)).map(|it| it.1).collect();
        let seen = scratch().join("seen");
        let launcher = ["sh", "-c", NOTES_ITS_DESCRIPTORS, seen.to_str().expect("a path of ASCII")];
        let pool = start(pool_of(SOURCE).size(2).launcher(launcher)).await;
        status_when(&pool, "all are ready", |status| status.ready == 2).await;
        let before = pid(&pool).await;
        kill(before);
        status_when(&pool, "all are ready again", |status| {
            status.ready == 2 && status.workers[0].pid != Some(before)
        })
        .await;
        let mut found = listed(&seen);
        assert!(found.len() >= 4, "{found:?}");
        found.retain(|(fd, target)| *fd > 2 && !is_listed_folder(target) && !inherited.contains(target));
        assert_eq!(found, []);
        // Nor does the host hold what another program would inherit.
        let own = fds(std::process::id());
        let leaks: Vec<_> =
            own.iter().filter(|(fd, target)| is_inheritable(**fd) && !inherited.contains(target)).collect();
        assert!(leaks.is_empty(), "{leaks:?}");
        pool.shutdown().await;
    }
}
