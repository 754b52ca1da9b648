//! Time per child does not grow with the number of children. It is the processor's time of this thread, which does all of the
//! work, so that others who use the machine do not count; of five runs the best does.

use std::{convert::Infallible, time::Duration};

use actix::prelude::*;
use hatchery::supervisor::{ChildSpec, Restart, Supervisor};

use crate::support::next_report;

struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct End;

impl Handler<End> for Idle {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

fn idle(number: usize, restart: Restart) -> ChildSpec<Idle> {
    ChildSpec::new(number.to_string(), || async { Ok::<_, Infallible>(Idle) }).restart(restart)
}

/// The processor's time that this thread has used.
fn used() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).expect("it grows from 0")
}

/// Measures few and many up to five times, until many take at most `limit` times as long as few.
async fn scales<F: Future<Output = Vec<Duration>>>(
    (few, many): (usize, usize),
    limit: f64,
    measure: impl Fn(usize) -> F,
) {
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (few, many) = (measure(few).await, measure(many).await);
        let ratio: Vec<f64> =
            many.iter().zip(&few).map(|(many, few)| many.as_secs_f64() / few.as_secs_f64()).collect();
        if ratio.iter().all(|&ratio| ratio <= limit) {
            return;
        }
        ratios.push(ratio);
    }
    panic!("more than {limit} times as long: {ratios:?}");
}

/// Starts, and terminates one by one.
async fn start_stop(app: Supervisor, count: usize) -> Vec<Duration> {
    let begin = used();
    for number in 0..count {
        app.start_child(idle(number, Restart::Permanent)).await.unwrap();
    }
    let started = used();
    for number in 0..count {
        app.terminate_child(&number.to_string()).await.unwrap();
    }
    vec![started - begin, used() - started]
}

#[actix::test]
async fn scale_start_stop_many_children() {
    scales((1_000, 100_000), 100.0 * 10.0, |count| async move {
        start_stop(Supervisor::builder("app").start().await.unwrap(), count).await
    })
    .await;
}

#[actix::test]
async fn simple_one_for_one_scale_many_temporary_children() {
    scales((1_000, 10_000), 50.0, |count| async move {
        start_stop(Supervisor::dynamic("app").start().await.unwrap(), count).await
    })
    .await;
}

#[actix::test]
async fn scale_mass_exit_children() {
    for dynamic in [false, true] {
        scales((1_000, 5_000), 12.0, |count| async move {
            let app = if dynamic { Supervisor::dynamic("app") } else { Supervisor::builder("app") };
            let app = app.start().await.unwrap();
            for number in 0..count {
                app.start_child(idle(number, Restart::Temporary)).await.unwrap();
            }
            let mut reports = app.subscribe();
            let begin = used();
            for number in 0..count {
                app.child::<Idle>(&number.to_string()).unwrap().do_send(End).unwrap();
            }
            for _ in 0..count {
                next_report(&mut reports).await;
            }
            assert_eq!(app.count_children().await.unwrap().specs, 0);
            vec![used() - begin]
        })
        .await;
    }
}
