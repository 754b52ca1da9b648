//! What one call costs in the pool's core, as JSON lines: `cargo bench --bench core`.
//!
//! `{"bench":"core","case":…,"value":…,"unit":"ns","floor":…,"ratio":…}`: nanoseconds of one request that comes, one call
//! that ends, and one dispatch. The cases are the number of requests in the queue: shared ones, which any worker may serve, or
//! ones that are pinned to a busy session. The floor is the empty queue: the cost should hardly grow with the queue.

// Each benchmark uses a part of it.
#[allow(dead_code, unused_imports)]
mod measure;

use std::time::Instant;

use hatchery::CoreBench;
use measure::{Options, Row, median};

const BLOCKS: usize = 41;

fn main() {
    let options = Options::from_arguments();
    let calls: u32 = if options.quick { 20_000 } else { 100_000 };
    let cases = [("shared_0", 0, false), ("shared_100", 100, false), ("shared_10000", 10_000, false)]
        .into_iter()
        .chain([("pinned_100", 100, true), ("pinned_10000", 10_000, true)]);
    let mut benches: Vec<_> = cases
        .filter(|(case, ..)| options.wants(case) || *case == "shared_0")
        .map(|(case, waiting, pinned)| (case, CoreBench::new(Instant::now(), waiting, pinned), Vec::new()))
        .collect();
    // The cases take turns, so that all see the same machine.
    for _ in 0..BLOCKS {
        for (_, bench, times) in &mut benches {
            let begin = Instant::now();
            for _ in 0..calls {
                bench.call();
            }
            times.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
        }
    }
    let floor = median(&mut benches[0].2);
    for (case, _, times) in &mut benches {
        let value = median(times);
        Row::new("core", case, "ns", value, floor, value / floor).print();
    }
}
