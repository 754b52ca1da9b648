//! A second process of a test, such as a host that the test kills.

use std::process::{Child, Command, Stdio};

pub(super) const ROLE: &str = "HATCHERY_TEST_ROLE";

/// The role of this process. `None` in the process of the test itself.
///
/// A test that needs a second process begins with `if role().as_deref() == Some("host") { .. }`.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Starts the test with this path in a child process with a role. Its standard input and output are pipes.
///
/// The test is checked for the leaks of this process. Standard output begins with lines of libtest.
pub(crate) fn start_role(test: &str, role: &str) -> Child {
    role_command(test, role).spawn().expect("the test binary starts")
}

/// The command of [`start_role`], for a role that needs more settings, such as environment variables.
pub(crate) fn role_command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}
