//! A second process of a test, such as a host that is to be killed.

use std::process::{Child, Command, Stdio};

pub(super) const ROLE: &str = "HATCHERY_TEST_ROLE";

/// The role in which this process runs the test; None in the test's own process.
///
/// A test that needs a second process begins with `if role().as_deref() == Some("host") { .. }`.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs the test of this path once more, in a role, below this process; its standard input and output are pipes.
///
/// It is marked as the test is, but not checked by itself: what it leaves, the test leaves. Standard output carries
/// libtest's own lines before the test's.
pub(crate) fn start_role(test: &str, role: &str) -> Child {
    role_command(test, role).spawn().expect("the test binary starts")
}

/// What [`start_role`] starts, for a role that needs more, such as variables of its own.
pub(crate) fn role_command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}
