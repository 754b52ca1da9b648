//! What streams, cancelling and deadlines cost: `cargo bench --bench streams [-- [--quick] [WORD]...]`.
//!
//! One JSON object a line; `ratio` is `value / floor`. Words choose the cases whose names contain one of them;
//! the word `floor` adds the floor of a stream against itself and against one that gathers items. What the cases are
//! is told in `docs/benchmarks.md`.

// The calls bench uses more of these.
#[allow(dead_code, unused_imports)]
mod floor;
#[allow(dead_code, unused_imports)]
mod library;
#[allow(dead_code, unused_imports)]
mod measure;
mod streaming;

use library::Home;
use measure::{Options, Plan, alternate, on_one_cpu, paired};
use streaming::{Cancel, Hang, Served, Source, answers_ms, timer_ms};

/// Of each stream of `stream_100k_items`.
const ITEMS: u32 = 100_000;

const HOMES: [(&str, Home); 2] = [("", Home::OwnThread), ("_same_arbiter", Home::CallersArbiter)];

fn main() {
    let options = Options::from_arguments();
    for pinned in [false, true] {
        let suffix = if pinned { "_pinned" } else { "" };
        let run = || {
            streams(&options, suffix);
            first_items(&options, suffix);
            cancels(&options, suffix);
        };
        if pinned { on_one_cpu(run) } else { run() }
    }
    deadlines(&options);
}

fn plan(options: &Options, blocks: usize) -> Plan {
    Plan { bench: "streams", blocks: if options.quick { 4 } else { blocks }, fresh_every: 2 }
}

fn streams(options: &Options, suffix: &str) {
    let plan = plan(options, 20);
    let floor = || {
        let mut source = Source::at_once();
        move || source.rate(ITEMS)
    };
    let case = format!("floor_items{suffix}");
    if options.wants_extra(&case) {
        alternate(&case, "1/s", plan, floor, floor).print();
    }
    let case = format!("floor_items_gathered{suffix}");
    if options.wants_extra(&case) {
        let gathering = || {
            let mut source = Source::gathering();
            move || source.rate(ITEMS)
        };
        alternate(&case, "1/s", plan, floor, gathering).print();
    }
    for (where_, home) in HOMES {
        let case = format!("stream_100k_items{where_}{suffix}");
        if options.wants(&case) {
            let stream = || {
                let mut served = Served::start(home);
                move || served.stream_rate(ITEMS)
            };
            alternate(&case, "1/s", plan, floor, stream).print();
        }
    }
}

fn first_items(options: &Options, suffix: &str) {
    let (plan, each) = (plan(options, 20), if options.quick { 100 } else { 300 });
    for (of, count) in [("", 1), ("_of_100", 100)] {
        for (where_, home) in HOMES {
            let case = format!("first_item{of}{where_}{suffix}");
            if options.wants(&case) {
                let start = || Served::start(home);
                let floor = |served: &mut Served| served.call_latency_us(each);
                let first = |served: &mut Served| served.first_item_us(each, count);
                paired(&case, "us", plan, start, floor, first).print();
            }
        }
    }
}

fn cancels(options: &Options, suffix: &str) {
    let (plan, each) = (plan(options, 20), if options.quick { 20 } else { 100 });
    for (case, what) in [("cancel", Cancel::Stream), ("cancel_call", Cancel::Call)] {
        let case = format!("{case}{suffix}");
        if options.wants(&case) {
            let start = || Served::start(Home::OwnThread);
            let floor = |served: &mut Served| served.call_latency_us(each);
            paired(&case, "us", plan, start, floor, |served| served.cancel_us(what, each)).print();
        }
    }
}

fn deadlines(options: &Options) {
    let (plan, each) = (plan(options, 10), 3);
    for (case, function, line) in [
        ("deadline_answer", "hang_sleep", "in hang_sleep"),
        ("deadline_answer_busy_loop", "hang_busy_loop", "in hang_busy_loop"),
        ("deadline_answer_async", "hang_async", "in hang_async"),
        ("deadline_answer_c_call_with_gil", "hang_c_call_with_gil", "in hang_c_call_with_gil"),
    ] {
        if options.wants(case) {
            let hang = Hang { function, line };
            let floor = || || timer_ms(each);
            let answers = || {
                let mut served = Served::start(Home::OwnThread);
                move || answers_ms(&mut served, hang, each)
            };
            alternate(case, "ms", plan, floor, answers).print();
        }
    }
}
