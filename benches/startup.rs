//! What a zygote saves: `cargo bench --bench startup [-- [--quick] [WORD]...]`.
//!
//! One JSON object a line; `floor` is one cold start of the same module in a bare interpreter, in the same run, and `ratio`
//! is `value / floor`. The module imports DSPy, for which a virtual environment is made under target/; where that is impossible
//! a part of the standard library takes its place, and the cases are named after it. What the cases are is told in
//! `docs/benchmarks.md`.

mod environment;
// Not all of it is needed here.
#[allow(dead_code, unused_imports)]
mod measure;
mod startup_cases;

use measure::{Options, Plan, alternate};
use startup_cases::{Subject, cold_import_ms, grow_ms, pss_mb, restart_ms, start_ms};

fn main() {
    let options = Options::from_arguments();
    let bare = Subject::bare();
    let heavy = Subject::heavy();
    let name = |case: &str| format!("{case}_{}", heavy.name);
    let plan =
        |blocks| Plan { bench: "startup", blocks: if options.quick { 2 } else { blocks }, fresh_every: 1 };

    for (case, zygote) in [("zygote_6", true), ("cold_6", false)] {
        if options.wants(&name(case)) {
            let floor = || || cold_import_ms(&heavy);
            alternate(&name(case), "ms", plan(7), floor, || || start_ms(&heavy, 6, zygote)).print();
        }
    }
    if options.wants(&name("restart")) {
        let floor = || || cold_import_ms(&heavy);
        alternate(&name("restart"), "ms", plan(7), floor, || || restart_ms(&heavy)).print();
    }
    if options.wants("restart_bare") {
        let floor = || || cold_import_ms(&bare);
        alternate("restart_bare", "ms", plan(20), floor, || || restart_ms(&bare)).print();
    }
    if options.wants("grow_1_to_32_bare") {
        let floor = || || cold_import_ms(&bare);
        alternate("grow_1_to_32_bare", "ms", plan(10), floor, || || grow_ms(&bare, 32)).print();
    }
    for (case, zygote) in [("pss_6", true), ("pss_6_cold", false)] {
        if options.wants(&name(case)) {
            let floor = || || pss_mb(&heavy, 1, false);
            alternate(&name(case), "MB", plan(3), floor, || || pss_mb(&heavy, 6, zygote)).print();
        }
    }
}
