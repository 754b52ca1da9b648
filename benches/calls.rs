//! What a call costs, beside the floor: `cargo bench --bench calls [-- [--quick] [WORD]...]`.
//!
//! One JSON object a line; `ratio` is `value / floor`. Words choose the cases whose names contain one of them;
//! the word `floor` adds the floor against itself. What the cases are is told in `docs/benchmarks.md`.

mod floor;
mod library;
// Other benches use more of it.
#[allow(dead_code, unused_imports)]
mod measure;

use floor::{Parent, depth_one, importing, pipelined, side_by_side};
use library::{Callers, FIRST_START, Home, cold_start_ms, first_start_ms, print_first_start, worker_imports};
use measure::{Options, Plan, alternate, on_one_cpu};

fn main() {
    if std::env::args().any(|argument| argument == FIRST_START) {
        return print_first_start();
    }
    let options = Options::from_arguments();
    for pinned in [false, true] {
        let suffix = if pinned { "_pinned" } else { "" };
        let run = || calls(&options, suffix);
        if pinned { on_one_cpu(run) } else { run() }
    }
    startup(&options);
}

/// Latency and throughput; `suffix` ends the cases' names.
fn calls(options: &Options, suffix: &str) {
    let calls = if options.quick { 200 } else { 500 };
    let plan = Plan { bench: "calls", blocks: if options.quick { 6 } else { 40 }, fresh_every: 2 };
    let name = |case: &str| format!("{case}{suffix}");

    let floor = || {
        let mut parent = Parent::start();
        move || parent.latency_us(calls)
    };
    let case = name("floor_latency");
    if options.wants_extra(&case) {
        alternate(&case, "us", plan, floor, floor).print();
    }
    for (case, home) in
        [("latency_same_arbiter", Home::CallersArbiter), ("latency_other_thread", Home::OwnThread)]
    {
        let case = name(case);
        if options.wants(&case) {
            let pool = || {
                let mut callers = Callers::start(home, 1);
                move || callers.latency_us(calls)
            };
            alternate(&case, "us", plan, floor, pool).print();
        }
    }

    let pair = || [Parent::start(), Parent::start()];
    let floor = || {
        let mut parents = pair();
        move || depth_one(&mut parents, 4 * calls)
    };
    let case = name("floor_throughput_2_workers");
    if options.wants_extra(&case) {
        alternate(&case, "1/s", plan, floor, floor).print();
    }
    let case = name("floor_throughput_2_workers_64_in_flight");
    if options.wants_extra(&case) {
        let pipelined = || {
            let mut parents = pair();
            move || pipelined(&mut parents, 8 * calls, 32)
        };
        alternate(&case, "1/s", plan, floor, pipelined).print();
    }
    for (case, home) in [
        ("throughput_2_workers_64_callers", Home::OwnThread),
        ("throughput_2_workers_64_callers_same_arbiter", Home::CallersArbiter),
    ] {
        let case = name(case);
        if options.wants(&case) {
            let pool = || {
                let mut callers = Callers::start(home, 2);
                move || callers.rate(64, calls / 8)
            };
            alternate(&case, "1/s", plan, floor, pool).print();
        }
    }
}

/// Six workers from nothing.
fn startup(options: &Options) {
    let plan = Plan { bench: "calls", blocks: if options.quick { 2 } else { 20 }, fresh_every: 1 };
    let case = |name: &str, case: fn(usize) -> f64| {
        if options.wants(name) {
            let bare = importing(worker_imports());
            alternate(name, "ms", plan, || || side_by_side(6, &bare), || || case(6)).print();
        }
    };
    case("cold_start_6_bare", cold_start_ms);
    case("cold_start_6_bare_first_in_process", first_start_ms);
    let name = "floor_cold_start_6_bare";
    if options.wants_extra(name) {
        let bare = importing(worker_imports());
        alternate(name, "ms", plan, || || side_by_side(6, &bare), || || side_by_side(6, &bare)).print();
    }
}
