//! What large payloads, and many calls in few workers, cost: `cargo bench --bench payloads [-- [--quick] [WORD]...]`.
//!
//! One JSON object a line; `ratio` is `value / floor`, and `met` tells whether the ratio (of `numpy_view_*` the value) keeps to
//! `limit`. Words choose the cases whose names contain one of them. What the cases are is told in `docs/benchmarks.md`. numpy and
//! orjson are in a virtual environment that the first run makes under target/; where that is impossible their rows are left out.

mod environment;
// The calls bench uses more of these.
#[allow(dead_code, unused_imports)]
mod floor;
mod measure;
mod payload_cases;

use std::path::{Path, PathBuf};

use floor::{Parent, interpreter, pipelined};
use hatchery::Codec;
use measure::{Options, Plan, Target, alternate, on_one_cpu, paired};
use payload_cases::{
    Documents, RawEcho, Served, Sleepers, asyncio_parents, view_in_place_us, view_of_copy_us,
};

/// Name, bytes, and how many of them a block has.
const SIZES: [(&str, usize, usize); 2] = [("1MB", 1 << 20, 40), ("16MB", 16 << 20, 8)];

const CALLS_IN_FLIGHT: usize = 16;

const SLEEPS: usize = 1000;

fn main() {
    let options = Options::from_arguments();
    let extras = extras(&options);
    for pinned in [false, true] {
        let bench = Bench { options: &options, suffix: if pinned { "_pinned" } else { "" } };
        let run = || {
            if let Some(python) = &extras {
                bench.views(python);
                bench.documents("json_100kB_echo_orjson", python, Codec::Orjson, None);
            }
            bench.echoes();
            bench.documents("json_100kB_echo", interpreter(), Codec::Json, Some(Target::AtMost(1.15)));
            bench.in_flight();
            bench.small_calls();
        };
        if pinned { on_one_cpu(run) } else { run() }
    }
    Bench { options: &options, suffix: "" }.sleeps();
}

/// The interpreter that has numpy and orjson, if a case needs it.
fn extras(options: &Options) -> Option<PathBuf> {
    let numpy = SIZES.iter().any(|(size, ..)| options.wants(&format!("numpy_view_{size}_from_bytes_pinned")));
    if !numpy && !options.wants("json_100kB_echo_orjson_pinned") {
        return None;
    }
    environment::with("bench-venv-payloads", &["numpy", "orjson"])
        .inspect_err(|why| eprintln!("no numpy and orjson ({why}): their rows are left out"))
        .ok()
}

struct Bench<'a> {
    options: &'a Options,
    /// Ends the cases' names.
    suffix: &'static str,
}

impl Bench<'_> {
    fn plan(&self, blocks: usize) -> Plan {
        Plan { bench: "payloads", blocks: if self.options.quick { 4 } else { blocks }, fresh_every: 2 }
    }

    /// The case's name when it is wanted.
    fn wanted(&self, case: &str) -> Option<String> {
        let case = format!("{case}{}", self.suffix);
        self.options.wants(&case).then_some(case)
    }

    /// Pinned rows are for information.
    fn target(&self, target: Target) -> Option<Target> {
        self.suffix.is_empty().then_some(target)
    }

    fn views(&self, python: &Path) {
        for (size, bytes, samples) in SIZES {
            if let Some(case) = self.wanted(&format!("numpy_view_{size}")) {
                let floor = || || view_in_place_us(bytes, samples);
                let view = || {
                    let mut served = Served::by(python);
                    served.view_us(bytes, 4);
                    move || served.view_us(bytes, samples)
                };
                let target = self.target(Target::Within { floors: 2.0, more: 100.0 });
                alternate(&case, "us", self.plan(20), floor, view).against(target).print();
            }
            if let Some(case) = self.wanted(&format!("numpy_view_{size}_from_bytes")) {
                let floor = || || view_of_copy_us(bytes, samples);
                let view = || {
                    let mut served = Served::by(python);
                    served.view_of_bytes_us(bytes, 4);
                    move || served.view_of_bytes_us(bytes, samples)
                };
                let target = self.target(Target::AtMost(1.2));
                alternate(&case, "us", self.plan(20), floor, view).against(target).print();
            }
        }
    }

    fn echoes(&self) {
        for (kind, function, target) in
            [("echo", "echo", Some(Target::AtMost(1.3))), ("copied", "copied", None)]
        {
            for (size, bytes, samples) in SIZES {
                if let Some(case) = self.wanted(&format!("bytes_{kind}_{size}")) {
                    let floor = || {
                        let mut raw = RawEcho::start(bytes);
                        move || raw.echo_us(samples)
                    };
                    let echo = || {
                        let mut served = Served::start();
                        served.echo_us(function, bytes, 4);
                        move || served.echo_us(function, bytes, samples)
                    };
                    let target = target.and_then(|target| self.target(target));
                    alternate(&case, "us", self.plan(20), floor, echo).against(target).print();
                }
            }
        }
    }

    fn documents(&self, case: &str, python: &Path, codec: Codec, target: Option<Target>) {
        let Some(case) = self.wanted(case) else { return };
        let name = if codec == Codec::Orjson { "orjson" } else { "json" };
        let floor = || {
            let mut documents = Documents::start(python, name);
            move || documents.echo_us(100)
        };
        let calls = || {
            let mut served = Served::with(|pool| pool.python(python).codec(codec));
            move || served.documents_us(100)
        };
        let target = target.and_then(|target| self.target(target));
        alternate(&case, "us", self.plan(20), floor, calls).against(target).print();
    }

    fn in_flight(&self) {
        let plan = self.plan(40);
        let calls = if self.options.quick { 2_000 } else { 8_000 };
        let served = |function| {
            move || {
                let mut served = Served::with(|pool| pool.size(2).in_flight(CALLS_IN_FLIGHT));
                served.rate(function, 2 * CALLS_IN_FLIGHT, 50);
                move || served.rate(function, 2 * CALLS_IN_FLIGHT, calls / (2 * CALLS_IN_FLIGHT))
            }
        };
        let target = self.target(Target::AtLeast(0.7));
        if let Some(case) = self.wanted("in_flight_16_small_calls") {
            let floor = || {
                let mut parents = [Parent::start(), Parent::start()];
                move || pipelined(&mut parents, calls / 2, CALLS_IN_FLIGHT)
            };
            alternate(&case, "1/s", plan, floor, served("echo")).against(target).print();
        }
        if let Some(case) = self.wanted("in_flight_16_async") {
            let floor = || {
                let mut parents = asyncio_parents();
                move || pipelined(&mut parents, calls / 2, CALLS_IN_FLIGHT)
            };
            alternate(&case, "1/s", plan, floor, served("echo_async")).against(target).print();
        }
    }

    fn small_calls(&self) {
        let calls = if self.options.quick { 200 } else { 500 };
        if let Some(case) = self.wanted("latency_lease_other_thread") {
            let floor = || {
                let mut parent = Parent::start();
                move || parent.latency_us(calls)
            };
            let lease = || {
                let mut served = Served::start();
                move || served.lease_us(calls)
            };
            let target = self.target(Target::AtMost(1.6));
            alternate(&case, "us", self.plan(40), floor, lease).against(target).print();
        }
        if let Some(case) = self.wanted("host_call") {
            let start = || {
                let mut served = Served::start();
                served.call_us("ask", 100);
                served
            };
            let floor = |served: &mut Served| served.call_us("echo", calls);
            let asks = |served: &mut Served| served.call_us("ask", calls);
            let target = self.target(Target::AtMost(2.0));
            paired(&case, "us", self.plan(40), start, floor, asks).against(target).print();
        }
    }

    fn sleeps(&self) {
        if let Some(case) = self.wanted("async_1000_x_100ms") {
            let floor = || {
                let mut sleepers = Sleepers::start(SLEEPS);
                move || sleepers.ms()
            };
            let calls = || {
                let mut served = Served::with(|pool| pool.size(2).in_flight(SLEEPS / 2));
                served.sleeps_ms(SLEEPS);
                move || served.sleeps_ms(SLEEPS)
            };
            alternate(&case, "ms", self.plan(20), floor, calls).against(Some(Target::AtMost(2.0))).print();
        }
    }
}
