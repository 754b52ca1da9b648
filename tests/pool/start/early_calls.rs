//! Calls that are sent before the workers are ready.

use futures_util::future::join_all;

use crate::support::{MODULE, alone_test, pool_of};

alone_test! {
    within 180 seconds:
    /// Calls sent as soon as `start()` returns, while the workers still start, all succeed. `HATCHERY_ROUNDS` sets the
    /// number of rounds.
    async fn calls_sent_while_workers_start_succeed() {
        let in_ci = if crate::IN_FLIGHT == 1 { 200 } else { 20 };
        let rounds = std::env::var("HATCHERY_ROUNDS").map_or(in_ci, |rounds| rounds.parse().expect("a number"));
        for round in 0..rounds {
            let pool = pool_of(MODULE).size(6).min_ready(0).start().await.expect("the start does not wait for workers");
            let calls = (0..5).map(|number: u64| pool.call::<_, u64>("add", (number, round)));
            for (number, answer) in (0..).zip(join_all(calls).await) {
                match answer {
                    Ok(sum) => assert_eq!(sum, number + round),
                    Err(error) => panic!("call {number} of round {round}: {error:?}"),
                }
            }
            pool.shutdown().await;
        }
    }
}
