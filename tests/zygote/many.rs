//! Many workers of one template.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hatchery::PoolStatus;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, fds, kill, pids, pool_of, status_when, wait_until, zombies,
};
use crate::template::fds_of_idle;

const WORKERS: usize = 64;
const RESTARTS: usize = 200;

alone_test! {
    within 120 seconds:
    async fn two_hundred_restarts_of_64_workers_leave_nothing() {
        let pool = pool_of(MODULE).size(WORKERS).start().await.expect("all are forked");
        let status = pool.status().await.expect("the pool runs");
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)));
        assert_eq!(pids(&pool).await.into_iter().collect::<BTreeSet<_>>().len(), WORKERS);
        let zygote = status.zygote.and_then(|zygote| zygote.pid).expect("it is ready");
        let own = std::process::id();
        let before = (fds(own).len(), fds_of_idle(zygote).await.len());

        let begun = Instant::now();
        let mut killed = 0;
        while killed < RESTARTS {
            // Kill all workers at once and wait until all are ready again.
            let victims = pids(&pool).await;
            for victim in victims.into_iter().take(RESTARTS - killed) {
                kill(victim);
                killed += 1;
            }
            let back = |status: &PoolStatus| status.restarts == killed as u64 && status.ready == WORKERS as u32;
            status_when(&pool, "all are back", back).await;
        }
        // The back-off alone delays a slot by 9 s; the rest is for a busy machine.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(60), "{took:?}");

        let status = pool.status().await.expect("the pool runs");
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)), "{status:?}");
        wait_until("no zombie is left", LONG_TIMEOUT, || zombies(own) + zombies(zygote) == 0).await;
        wait_until("no descriptor is left", LONG_TIMEOUT, || (fds(own).len(), fds(zygote).len()) == before).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn pool_start_needs_few_extra_descriptors() {
        let before = getrlimit(Resource::Nofile);
        // Seven descriptors for each worker, and some more during the start.
        let enough = fds(std::process::id()).len() + 7 * WORKERS + 80;
        setrlimit(Resource::Nofile, Rlimit { current: Some(enough as u64), ..before }).expect("the limit can be lowered");
        let pool = pool_of(MODULE).size(WORKERS).start().await.expect("all are forked");
        let status = pool.status().await.expect("the pool runs");
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)), "{status:?}");
        for victim in pids(&pool).await {
            kill(victim);
        }
        let back = |status: &PoolStatus| status.restarts == WORKERS as u64 && status.ready == WORKERS as u32;
        let status = status_when(&pool, "all are back", back).await;
        assert!(status.workers.iter().all(|worker| worker.forked == Some(true)), "{status:?}");
        pool.shutdown().await;
        setrlimit(Resource::Nofile, before).expect("the limit can be raised again");
    }
}

alone_test! {
    async fn status_shows_memory_shared_with_the_template() {
        // 16 MB that no process writes to.
        let source = format!("{MODULE}\nballast = bytes(range(256)) * 65536\n");
        let pool = pool_of(&source).size(4).start().await.expect("the pool starts");
        let status = pool.status().await.expect("the pool runs");
        let zygote = status.zygote.and_then(|zygote| zygote.memory).expect("it is ready");
        assert!(zygote.private_dirty_bytes < 8 << 20, "the ballast is shared: {zygote:?}");
        for worker in status.workers {
            let memory = worker.memory.expect("it is ready");
            assert!(memory.private_dirty_bytes < 8 << 20, "the ballast is the template's: {memory:?}");
            assert!(memory.pss_bytes > 3 << 20, "and a fifth of it counts: {memory:?}");
        }
        pool.shutdown().await;
    }
}
