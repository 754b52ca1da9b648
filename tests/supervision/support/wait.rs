//! Waits that end.

use std::time::{Duration, Instant};

use hatchery::supervisor::{ExitReason, Report, ReportEvent, Reports, Supervisor, SupervisorRef};

use super::{Diary, End, PATIENCE, puppet};

/// Polls a condition that another thread or task will make true.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match actix_rt::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("never came: {what}"),
    }
}

pub(crate) async fn next_report(reports: &mut Reports) -> Report {
    within("a report", reports.recv()).await.expect("reports go on")
}

/// Reads reports up to one that fits.
pub(crate) async fn report_where(reports: &mut Reports, mut fits: impl FnMut(&Report) -> bool) -> Report {
    loop {
        let report = next_report(reports).await;
        if fits(&report) {
            return report;
        }
    }
}

pub(crate) async fn started(reports: &mut Reports, child: &str) -> u64 {
    let report = report_where(
        reports,
        |report| matches!(&report.event, ReportEvent::Started { id, .. } if &**id == child),
    );
    match report.await.event {
        ReportEvent::Started { incarnation, .. } => incarnation,
        _ => unreachable!(),
    }
}

pub(crate) async fn terminated(reports: &mut Reports, child: &str) -> ExitReason {
    let report = report_where(
        reports,
        |report| matches!(&report.event, ReportEvent::ChildTerminated { id, .. } if &**id == child),
    );
    match report.await.event {
        ReportEvent::ChildTerminated { reason, .. } => reason,
        _ => unreachable!(),
    }
}

/// Makes a puppet end, and waits until its supervisor has seen that and decided what follows.
pub(crate) async fn end(supervisor: &impl AsRef<SupervisorRef>, child: &str, how: End) -> ExitReason {
    let supervisor = supervisor.as_ref();
    let mut reports = supervisor.subscribe();
    puppet(supervisor, child).do_send(how).unwrap();
    terminated(&mut reports, child).await
}

/// Makes a puppet end, and waits for its next incarnation.
pub(crate) async fn crash(supervisor: &impl AsRef<SupervisorRef>, child: &str) -> u64 {
    let supervisor = supervisor.as_ref();
    crash_until(supervisor, child, child).await
}

/// Makes a puppet end, and waits for the next incarnation of the last of its group.
pub(crate) async fn crash_until(supervisor: &impl AsRef<SupervisorRef>, child: &str, last: &str) -> u64 {
    let supervisor = supervisor.as_ref();
    let mut reports = supervisor.subscribe();
    puppet(supervisor, child).do_send(End::Panic).unwrap();
    started(&mut reports, last).await
}

/// Waits until the supervisor has ended by itself, and with it all below it.
pub(crate) async fn gave_up(app: &Supervisor, diary: &Diary) {
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
    assert_eq!(diary.living(), 0, "ended, and nothing lives");
}

/// What is reported from here to the end, as "a stopped", "b error: killed", "c ended: normal".
pub(crate) async fn shutdown_reports(reports: &mut Reports) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(report) = within("the last report", reports.recv()).await {
        lines.push(match report.event {
            ReportEvent::Stopped { id, .. } => format!("{id} stopped"),
            ReportEvent::ShutdownError { id, reason, .. } => format!("{id} error: {reason}"),
            ReportEvent::ChildTerminated { id, reason, .. } => format!("{id} ended: {reason}"),
            ReportEvent::Shutdown { cause } => cause.to_string(),
            other => panic!("{other:?}"),
        });
    }
    lines
}
