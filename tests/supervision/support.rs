//! Actors that do as they are told, and waits that end.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::prelude::*;
use hatchery::supervisor::{
    ChildContext, ChildRef, ChildSpec, ExitReason, Report, ReportEvent, Reports, Supervisor, SupervisorRef,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What happens in a test, in order; and how many actors live.
#[derive(Clone, Default)]
pub(crate) struct Diary {
    lines: Arc<Mutex<Vec<String>>>,
    living: Arc<Mutex<HashMap<String, usize>>>,
}

impl Diary {
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    pub(crate) fn living(&self) -> usize {
        self.living.lock().unwrap().values().sum()
    }

    /// A factory's child: counted while it lives, and never twice at once.
    pub(crate) fn guard(&self, name: &str) -> Guard {
        let mut living = self.living.lock().unwrap();
        let count = living.entry(name.to_owned()).or_default();
        assert_eq!(*count, 0, "two instances of {name} at once");
        *count += 1;
        Guard { diary: self.clone(), name: name.to_owned() }
    }

    pub(crate) async fn wait_until_empty(&self) {
        wait_until("all actors are dropped", || self.living() == 0).await;
    }
}

pub(crate) struct Guard {
    diary: Diary,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.diary.living.lock().unwrap().get_mut(&self.name).unwrap() -= 1;
    }
}

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

/// How a `Puppet` behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    pub(crate) refuses_to_stop: bool,
    pub(crate) panics_in_started: bool,
    pub(crate) panics_in_stopping: bool,
    pub(crate) panics_in_drop: bool,
    pub(crate) pending_work: bool,
    pub(crate) stops_in_started: bool,
}

pub(crate) struct Puppet {
    pub(crate) name: String,
    pub(crate) diary: Diary,
    pub(crate) manners: Manners,
    pub(crate) cx: ChildContext,
    _guard: Guard,
}

impl Puppet {
    pub(crate) fn new(diary: &Diary, cx: ChildContext, manners: Manners) -> Self {
        let name = cx.id().to_owned();
        diary.write(format!("start {name}"));
        Self { _guard: diary.guard(&cx.path()), name, diary: diary.clone(), manners, cx }
    }

    /// The specification of one that behaves.
    pub(crate) fn spec(diary: &Diary, name: &str) -> ChildSpec {
        Self::spec_with(diary, name, Manners::default())
    }

    pub(crate) fn spec_with(diary: &Diary, name: &str, manners: Manners) -> ChildSpec {
        let diary = diary.clone();
        ChildSpec::with_context(name, move |cx| {
            let puppet = Puppet::new(&diary, cx, manners.clone());
            async move { Ok::<_, Infallible>(puppet) }
        })
    }

    /// The specification of one whose start fails while the counter says so; it counts down.
    pub(crate) fn failing(diary: &Diary, name: &str, failures: &Arc<AtomicUsize>) -> ChildSpec {
        let (diary, failures) = (diary.clone(), failures.clone());
        ChildSpec::with_context(name, move |cx| {
            let (diary, failures) = (diary.clone(), failures.clone());
            async move {
                let left = failures.load(Ordering::SeqCst);
                if left > 0 {
                    failures.store(left - 1, Ordering::SeqCst);
                    diary.write(format!("fail {}", cx.id()));
                    return Err("told to fail");
                }
                Ok(Puppet::new(&diary, cx, Manners::default()))
            }
        })
    }

    /// The specification of one whose start never ends; `Started` lines tell that it has begun.
    pub(crate) fn hanging(diary: &Diary, name: &str) -> ChildSpec {
        let diary = diary.clone();
        ChildSpec::with_context(name, move |cx| {
            let diary = diary.clone();
            async move {
                let _guard = diary.guard(&cx.path());
                diary.write(format!("hang {}", cx.id()));
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(Puppet::new(&diary, cx, Manners::default()))
            }
        })
    }
}

impl Actor for Puppet {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.manners.panics_in_started {
            panic!("in started");
        }
        if self.manners.pending_work {
            ctx.run_interval(Duration::from_millis(1), |_, _| {});
            ctx.spawn(std::future::pending::<()>().into_actor(self));
        }
        if self.manners.stops_in_started {
            ctx.stop();
        }
    }

    fn stopping(&mut self, _ctx: &mut Self::Context) -> Running {
        if self.manners.panics_in_stopping {
            panic!("in stopping");
        }
        if self.manners.refuses_to_stop { Running::Continue } else { Running::Stop }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.diary.write(format!("stop {}", self.name));
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        if self.manners.panics_in_drop {
            panic!("in drop");
        }
    }
}

#[derive(Message)]
#[rtype(result = "u64")]
pub(crate) struct Who;

impl Handler<Who> for Puppet {
    type Result = u64;

    fn handle(&mut self, _: Who, _: &mut Self::Context) -> u64 {
        self.cx.incarnation()
    }
}

/// What a puppet can be told to do to itself.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) enum End {
    Stop,
    Panic,
    PanicInFuture,
    Exit(ExitReason),
    Block(Duration),
    WaitForEver,
}

impl Handler<End> for Puppet {
    type Result = ();

    fn handle(&mut self, end: End, ctx: &mut Self::Context) {
        match end {
            End::Stop => ctx.stop(),
            End::Panic => panic!("in a handler"),
            End::PanicInFuture => {
                ctx.spawn(async { panic!("in a future") }.into_actor(self));
            }
            End::Exit(reason) => self.cx.exit(reason),
            End::Block(duration) => {
                self.diary.write("block");
                std::thread::sleep(duration);
            }
            End::WaitForEver => ctx.wait(std::future::pending::<()>().into_actor(self)),
        }
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

/// Makes a puppet end, and waits for its next incarnation.
pub(crate) async fn crash(supervisor: &SupervisorRef, child: &str) -> u64 {
    let mut reports = supervisor.subscribe();
    puppet(supervisor, child).do_send(End::Panic).unwrap();
    started(&mut reports, child).await
}

pub(crate) fn puppet(supervisor: &SupervisorRef, path: &str) -> ChildRef<Puppet> {
    supervisor.child(path).unwrap()
}

pub(crate) async fn who(supervisor: &SupervisorRef, path: &str) -> u64 {
    within("an answer", puppet(supervisor, path).send(Who)).await.unwrap()
}

pub(crate) async fn stop(app: Supervisor, diary: &Diary) {
    within("the stop", app.stop()).await;
    assert_eq!(diary.living(), 0, "stopped, and nothing lives");
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
