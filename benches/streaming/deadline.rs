//! From a call's deadline until its caller has the answer.

use std::time::{Duration, Instant};

use actix_rt::System;
use hatchery::{CallError, Phase};

use super::served::Served;
use crate::measure::median;

const TIMEOUT: Duration = Duration::from_millis(100);

/// A function that does not come back.
#[derive(Clone, Copy)]
pub(crate) struct Hang {
    /// Its name in `served.py`.
    pub(crate) function: &'static str,
    /// What its stack must show.
    pub(crate) line: &'static str,
}

/// The median of so many calls, in ms. Each answer must have the stack of the function that hangs.
pub(crate) fn answers_ms(served: &mut Served, hang: Hang, samples: usize) -> f64 {
    served.run(async move |pool| {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            // The worker must have come back from the sample before: a deadline in the queue is not what is measured.
            let _: u64 = pool.call("echo", (1,)).await.expect("the call succeeds");
            // A little earlier than the library takes it.
            let deadline = Instant::now() + TIMEOUT;
            let answer = pool.request(hang.function).timeout(TIMEOUT).send::<()>().await;
            times.push(ms(deadline.elapsed()));
            match answer {
                Err(CallError::Timeout { phase: Phase::Run, stack: Some(stack), .. })
                    if stack.contains("served.py") && stack.contains(hang.line) => {}
                other => panic!("not a deadline with a stack: {other:?}"),
            }
        }
        median(&mut times)
    })
}

/// The floor: how late a bare timer of the same length is, in ms.
pub(crate) fn timer_ms(samples: usize) -> f64 {
    System::new().block_on(async move {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let deadline = Instant::now() + TIMEOUT;
            tokio::time::sleep_until(deadline.into()).await;
            times.push(ms(deadline.elapsed()));
        }
        median(&mut times)
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
