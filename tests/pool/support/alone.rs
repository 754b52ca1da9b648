//! A test that runs alone in a process of its own.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use super::{inside, outside};

/// How long a test may take unless it says otherwise.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long processes, threads and descriptors of a test may take to end: once inside the child, once after its exit.
const SETTLE: Duration = Duration::from_secs(30);

/// A test that runs alone. In `cargo test` it starts the child and checks it; in the child it runs the body.
pub(crate) struct Alone {
    pub(super) test: String,
    pub(super) deadline: Duration,
    pub(super) settle: Duration,
}

/// Why a test that ran alone has failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status of the child; `None` when it was killed at the deadline.
    pub(crate) status: Option<ExitStatus>,
    /// One sentence for each problem.
    pub(crate) findings: Vec<String>,
    /// What the child wrote to its standard output and error.
    pub(crate) output: String,
}

impl Alone {
    /// The test of this path, as [`test_path!`](test_path) gives it.
    pub(crate) fn new(test: &str) -> Alone {
        Alone { test: test.to_owned(), deadline: DEADLINE, settle: SETTLE }
    }

    /// How long the child may take until it is killed. Default: 60 s.
    pub(crate) fn deadline(self, deadline: Duration) -> Alone {
        Alone { deadline, ..self }
    }

    /// How long processes, threads and descriptors may take to end before they count as leaked. Default: 30 s.
    pub(crate) fn settle(self, settle: Duration) -> Alone {
        Alone { settle, ..self }
    }

    /// Runs the body alone.
    ///
    /// # Panics
    ///
    /// When the body fails or leaks something. The message has all problems and the output of the child.
    pub(crate) fn run(self, body: impl FnOnce()) {
        if let Err(failure) = self.outcome(body) {
            panic!("{failure}");
        }
    }

    /// Runs the body alone and returns the outcome. Code after this call runs only in the outer process.
    pub(crate) fn outcome(self, body: impl FnOnce()) -> Result<(), Failure> {
        if inside::is_child() {
            inside::run(body);
            std::process::exit(0);
        }
        outside::run(&self)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the test's own process failed:")?;
        for finding in &self.findings {
            writeln!(f, "  {finding}")?;
        }
        write!(f, "----- its output -----\n{}\n----- end of its output -----", self.output.trim_end())
    }
}

/// The libtest path of a test in the calling module: `test_path!(name)`.
macro_rules! test_path {
    ($name:ident) => {
        concat!(module_path!(), "::", stringify!($name)).split_once("::").expect("a crate and a test").1
    };
}

/// Declares a test that runs alone:
///
/// ```text
/// alone_test! {
///     /// In an actix system, as under `#[actix::main]`.
///     async fn name() { .. }
/// }
/// alone_test! { tokio async fn name() { .. } }           // under a multi-threaded tokio, no System
/// alone_test! { fn name() { .. } }                       // no runtime
/// alone_test! { within 120 seconds: async fn name() { .. } }
/// ```
macro_rules! alone_test {
    (within $seconds:literal seconds: $(#[$meta:meta])* async fn $name:ident() $body:block) => {
        alone_test!(@ $seconds, [$(#[$meta])*], $name, $crate::support::in_system(|| async move $body));
    };
    (within $seconds:literal seconds: $(#[$meta:meta])* tokio async fn $name:ident() $body:block) => {
        alone_test!(@ $seconds, [$(#[$meta])*], $name, $crate::support::in_tokio(|| async move $body));
    };
    (within $seconds:literal seconds: $(#[$meta:meta])* fn $name:ident() $body:block) => {
        alone_test!(@ $seconds, [$(#[$meta])*], $name, || $body);
    };
    (@ $seconds:literal, [$($meta:tt)*], $name:ident, $body:expr) => {
        $($meta)*
        #[test]
        fn $name() {
            $crate::support::Alone::new($crate::support::test_path!($name))
                .deadline(::std::time::Duration::from_secs($seconds))
                .run($body);
        }
    };
    ($($test:tt)*) => {
        alone_test!(within 60 seconds: $($test)*);
    };
}

pub(crate) use {alone_test, test_path};
