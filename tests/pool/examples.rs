//! The quickstart, on this machine's own Python.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{alone_test, example, python};

#[track_caller]
fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{said}", output.status);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}{said}"))
}

alone_test! {
    within 180 seconds:
    /// A pool, with a worker killed on the way, counts what a single script counts.
    fn the_quickstart_counts_what_one_python_counts() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/single_process.py");
        let single = Command::new(python()).arg("-B").arg(script).output().expect("python starts");
        let single = last_line(&single);
        let pool = Command::new(example("quickstart")).output().expect("the example starts");
        let pool = last_line(&pool);
        assert!(single["files"].as_u64().is_some_and(|files| files > 100), "{single}");
        for total in ["files", "functions", "classes", "refused"] {
            assert_eq!(pool[total], single[total], "{total}: {pool} and {single}");
        }
        for (what, number) in [("failed", 0), ("restarts", 1), ("leaked_processes", 0)] {
            assert_eq!(pool[what], number, "{what}: {pool}");
        }
    }
}
