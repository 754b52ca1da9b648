//! How many small calls two children take per second from two blocking threads.

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use super::parent::{Parent, Payload, encode, take_frame};

/// Calls per second of all `parents`, each on a thread of its own, one call at a time.
pub(crate) fn depth_one(parents: &mut [Parent], calls_each: usize) -> f64 {
    rate(parents, calls_each, |parent| {
        for x in 0..calls_each as u64 {
            parent.call(Payload { x });
        }
    })
}

/// Calls per second of all `parents`, each on a thread of its own with `depth` calls in flight.
pub(crate) fn pipelined(parents: &mut [Parent], calls_each: usize, depth: usize) -> f64 {
    rate(parents, calls_each, |parent| in_flight(parent, calls_each, depth))
}

fn rate(parents: &mut [Parent], calls_each: usize, run: impl Fn(&mut Parent) + Sync) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for parent in parents.iter_mut() {
            scope.spawn(|| run(parent));
        }
    });
    (parents.len() * calls_each) as f64 / start.elapsed().as_secs_f64()
}

fn in_flight(parent: &mut Parent, calls: usize, depth: usize) {
    let mut out = Vec::new();
    let (mut sent, mut done, mut filled) = (0, 0, 0);
    let mut input = vec![0; 65536];
    while done < calls {
        out.clear();
        while sent < calls && sent - done < depth {
            encode(&mut out, &Payload { x: sent as u64 });
            sent += 1;
        }
        parent.stream.write_all(&out).expect("the child reads");
        filled += parent.stream.read(&mut input[filled..]).expect("the child writes");
        let mut taken = 0;
        while let Some((answer, length)) = take_frame(&input[taken..filled]) {
            assert_eq!(answer.x, done as u64, "a wrong answer");
            taken += length;
            done += 1;
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
    }
}
