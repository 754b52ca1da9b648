//! The examples, with the Python of this machine. The actix-web example is in `service`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::built::example;
use crate::support::{python, python_module, scratch};

pub(crate) const EXAMPLES: [&str; 9] = [
    "actix_web",
    "application",
    "host_calls",
    "numpy_bytes",
    "quickstart",
    "sessions",
    "streaming",
    "typed",
    "zygote",
];

/// As [`alone_test!`](crate::support::alone_test) without a runtime. Builds the examples before the process of the test starts,
/// so the deadline of the test does not include the build.
macro_rules! example_test {
    (within $seconds:literal seconds: $(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            use $crate::support::{Alone, is_child, test_path};
            if is_child() || $crate::built::build(&$crate::examples::EXAMPLES) {
                let deadline = ::std::time::Duration::from_secs($seconds);
                Alone::new(test_path!($name)).deadline(deadline).run(|| $body);
            }
        }
    };
    ($($test:tt)*) => {
        example_test!(within 60 seconds: $($test)*);
    };
}

pub(crate) use example_test;

#[track_caller]
fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{said}", output.status);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}{said}"))
}

example_test! {
    within 180 seconds:
    /// A pool, with a worker killed on the way, counts what a single script counts.
    fn quickstart_counts_the_same_as_a_single_script() {
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

/// The output of an example without a terminal.
#[track_caller]
fn printed_by(name: &str) -> String {
    let output = Command::new(example(name)).stdin(Stdio::null()).output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Asserts that the lines occur in this order, possibly with others between. `*` matches anything.
#[track_caller]
fn assert_lines(text: &str, expected: &[&str]) {
    let mut lines = text.lines();
    for expected in expected {
        assert!(
            lines.any(|line| matches(line, expected)),
            "{expected:?} is missing or out of order:\n{text}"
        );
    }
}

fn matches(line: &str, pattern: &str) -> bool {
    let Some((begin, mut pattern)) = pattern.split_once('*') else { return line == pattern };
    let Some(mut rest) = line.strip_prefix(begin) else { return false };
    while let Some((middle, after)) = pattern.split_once('*') {
        let Some((_, found)) = rest.split_once(middle) else { return false };
        (rest, pattern) = (found, after);
    }
    rest.ends_with(pattern)
}

example_test! {
    fn streaming_example_prints_each_demonstration() {
        assert_lines(&printed_by("streaming"), &[
            "words as they come; cancelled after 15",
            "[reading the prompt] *[10 of 200] *",
            "15 words taken, then dropped",
            "in Python, the generator: closed after *",
            "the next call is served by the same process, *",
            "a consumer that pauses after the first of 1000: * were made meanwhile, the window is 8",
            "  small after 0.1 s",
            "  medium after 0.2 s",
            "  large after 0.3 s",
        ]);
    }
}

example_test! {
    fn sessions_example_prints_each_demonstration() {
        let text = printed_by("sessions");
        assert_lines(&text, &[
            "  alice remembers green (*, New)",
            "  bob remembers red (*, New)",
            "  alice recalls green (*, Kept)",
            "  bob recalls red (*, Kept)",
            "alice's worker is busy",
            "  alice recalls nothing (*, Elsewhere)",
            "  the worker of the session \"alice\" is busy; *",
            "  alice recalls green (*, Kept)",
            "alice ends",
            "  alice recalls nothing (*, New)",
            "bob's worker is killed",
            "  bob: the worker died*",
            "  the session \"bob\" is lost: its worker ended",
            "  bob recalls nothing (*, New)",
            "  bob remembers blue (*, Kept)",
            "  bob recalls blue (*, Kept)",
        ]);
        // The log is a separate stream, so its order is not fixed.
        assert_lines(&text, &["  Python printed: the session 'alice' ends with {'colour': 'green'}"]);
    }
}

example_test! {
    fn host_calls_example_prints_each_demonstration() {
        assert_lines(&printed_by("host_calls"), &[
            "two pens and a book: 1740 cents",
            "asked for at once:   1740 cents",
            "book: 1500",
            "spoon: we do not sell spoon",
            "4! = 24, through three host calls",
            "5!: *nest 3 deep",
        ]);
    }
}

example_test! {
    fn application_example_recovers_from_each_crash() {
        assert_lines(&printed_by("application"), &[
            "all are up; alice counts 6 words",
            "the database is killed: *",
            "  app/data/database ended: panic: the disk is full",
            "|  |- database [worker] running, *1 restart*",
            "|  `- cache [worker] running, *1 restart, last exit: shutdown",
            "the cache is killed: *",
            "|  |- database [worker] running, *1 restart*",
            "|  `- cache [worker] running, *2 restarts, last exit: panic: *",
            "alice's session is killed: *",
            "   |- alice [worker] running, *1 restart, last exit: panic: a bad request",
            "   `- bob [worker] running, up *",
            "a Python worker is killed: *",
            "  app/texts/serving/workers/1 ended: signal 9, SIGKILL",
            "|  |  |  |- 1 [worker] running, *1 restart, last exit: signal 9, SIGKILL",
            "the whole pool is stopped *",
            "|- texts [supervisor] running, *1 restart, last exit: shutdown",
            "alice counts 6 words",
            "all have ended, *",
        ]);
    }
}

example_test! {
    fn typed_example_prints_calls_and_a_refused_declaration() {
        assert_lines(&printed_by("typed"), &[
            "10 words",
            "5* words a sentence, reading ease *",
            "not started: *`count_words`: parameter 1 is declared as `words`, but is `text` in Python*",
        ]);
    }
}

example_test! {
    within 120 seconds:
    fn zygote_example_compares_forked_and_cold_starts() {
        assert_lines(&printed_by("zygote"), &[
            "* cold * forked",
            "worker 1 of 6 ready after * ms * ms",
            "worker 6 of 6 ready after * ms * ms",
            "killed, the next one answers after * ms * ms",
            "memory (PSS) of the workers * MB * MB",
            "  of the template * MB",
            "written by one worker alone * MB * MB",
        ]);
    }
}

example_test! {
    within 120 seconds:
    fn zygote_example_with_few_descriptors_reports_the_need() {
        let limited = r#"ulimit -n 64; exec "$0""#;
        let output = Command::new("sh").args(["-c", limited]).arg(example("zygote")).output().expect("the pool starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["Too many open files", "may open 64 files (`ulimit -n`)", "a pool of 6 workers needs about"] {
            assert!(said.contains(part), "{said}");
        }
    }
}

example_test! {
    fn numpy_example_without_numpy_says_what_to_install() {
        let missing = "raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')";
        python_module(&scratch(), "numpy", missing);
        let output = Command::new(example("numpy_bytes")).env("PYTHONPATH", scratch()).output().expect("the pool starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("pip install numpy"), "{said}");
    }
}

example_test! {
    within 120 seconds:
    fn numpy_example_halves_a_picture() {
        let Some(python) = crate::payloads::python_with_extras() else { return };
        let environment = python.parent().and_then(Path::parent).expect("ENVIRONMENT/bin/python");
        let output = Command::new(example("numpy_bytes")).env("VIRTUAL_ENV", environment).output().expect("the pool starts");
        let said = last_line(&output);
        assert_eq!((&said["small"], &said["rows"]), (&serde_json::json!([512, 512]), &4096.into()), "{said}");
    }
}
