//! User code that closes descriptors, its own and ours.

use hatchery::CallError;
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::{alone_test, fds, scratch, status_when};

const SOURCE: &str = "
import os

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
    async fn closing_the_standard_descriptors_harms_nobody_else() {
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
    async fn closing_every_descriptor_costs_the_worker() {
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
    async fn a_worker_holds_its_own_descriptors_alone() {
        // What the test itself got from whoever started it without CLOEXEC.
        let inherited = fds(std::process::id());
        let pool = start(pool_of(SOURCE).size(4)).await;
        let status = status_when(&pool, "all are ready", |status| status.ready == 4).await;
        for worker in status.workers {
            let mut fds = fds(worker.pid.expect("it is ready"));
            assert_eq!(fds.remove(&0).as_deref(), Some("/dev/null"), "{fds:?}");
            for pipe in [1, 2] {
                assert!(fds.remove(&pipe).is_some_and(|target| target.starts_with("pipe:")), "{fds:?}");
            }
            fds.retain(|fd, target| inherited.get(fd) != Some(target));
            // The protocol, the lifeline and the socket for memfds, the pipe for stacks, and the package for children; where it may have several
            // calls, the mark of those that it has begun.
            let marks = usize::from(crate::IN_FLIGHT > 1);
            let sockets = fds.values().filter(|target| target.starts_with("socket:")).count();
            let pipes = fds.values().filter(|target| target.starts_with("pipe:")).count();
            assert_eq!((sockets, pipes, fds.len()), (3, 1, 5 + marks), "{fds:?}");
        }
        assert_eq!(pool.call::<_, u32>("own_sockets", ()).await.expect("it runs"), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn what_a_worker_starts_inherits_its_lifeline_at_most() {
        let inherited = fds(std::process::id());
        let pool = start(pool_of(SOURCE)).await;
        let worker = fds(pid(&pool).await);
        let child: Vec<(u32, String)> = pool.call("fds_of_a_child", ()).await.expect("it runs");
        let more: Vec<_> = child
            .iter()
            .filter(|(fd, target)| *fd > 2 && worker.get(fd) == Some(target) && inherited.get(fd) != Some(target))
            .collect();
        assert!(more.len() <= 1 && more.iter().all(|(_, target)| target.starts_with("socket:")), "{more:?}");
        pool.shutdown().await;
    }
}
