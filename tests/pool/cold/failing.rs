//! A module that breaks while the pool runs. A template would keep the module as it was.

use hatchery::WorkerState;

use crate::start::failing::{RAISES, assert_traceback, start_failed};
use crate::support::{MODULE, alone_test, kill, pids, python_module, scratch, started, status_when};

alone_test! {
    async fn broken_module_of_running_pool_can_be_repaired() {
        let pool = started(2).await;
        python_module(&scratch(), "subject", RAISES);
        let workers = pids(&pool).await;
        kill(workers[0]);
        let failed = |status: &hatchery::PoolStatus| {
            status.workers.iter().any(|worker| worker.state == WorkerState::Failed)
        };
        status_when(&pool, "one cannot be replaced", failed).await;
        let served: u32 = pool.call("pid", ()).await.expect("the other one serves");
        assert_eq!(served, workers[1]);
        kill(workers[1]);
        let all_failed = |status: &hatchery::PoolStatus| {
            status.workers.iter().all(|worker| worker.state == WorkerState::Failed)
        };
        status_when(&pool, "none can be replaced", all_failed).await;
        assert_traceback(&start_failed(pool.call("pid", ()).await));
        python_module(&scratch(), "subject", MODULE);
        status_when(&pool, "both are back", |status| status.idle == 2).await;
        let one: u32 = pool.call("add", (1, 0)).await.expect("it is mended");
        assert_eq!(one, 1);
        pool.shutdown().await;
    }
}
