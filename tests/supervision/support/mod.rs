//! Actors that do as they are told, what is asked of their supervisors, and waits that end.

mod ask;
mod diary;
mod gate;
mod puppet;
mod wait;

use std::time::Duration;

use hatchery::supervisor::{Strategy, Supervisor, SupervisorBuilder};

pub(crate) use ask::{begin_stop, counts, incarnations, is_up, listed, puppet, stop, who};
pub(crate) use diary::{Diary, Guard};
pub(crate) use gate::{Gate, Verdict};
pub(crate) use puppet::{End, Manners, Puppet, Settle, Start, Who};
pub(crate) use wait::{
    crash, crash_until, end, gave_up, next_report, report_where, shutdown_reports, started, terminated,
    wait_until, within,
};

pub(crate) const S: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// How long a test waits for what has to come, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor with this strategy that forgets no restart, and puppets of these names.
pub(crate) fn group(
    diary: &Diary,
    strategy: Strategy,
    intensity: u32,
    puppets: &[&str],
) -> SupervisorBuilder {
    let builder = Supervisor::builder("app").strategy(strategy).intensity(intensity, HOUR);
    puppets.iter().fold(builder, |builder, name| builder.child_spec(Puppet::spec(diary, name)))
}

/// Runs a test alone in a process of its own, and fails if that process aborts or fails.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    const MARK: &str = "SUPERVISION_TEST_ALONE";
    if std::env::var(MARK).is_ok_and(|name| name == test) {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{test} did not run:\n{text}");
}
