//! Each report carries the settings of its child.

use hatchery::supervisor::{
    AutoShutdown, ChildError, ChildOptions, ChildSpec, Kind, Report, ReportEvent, Restart, Shutdown,
    Supervisor,
};

use crate::support::*;

/// A child that cannot be looked up when its report is read.
fn brief(diary: &Diary, id: &str) -> ChildSpec<Puppet> {
    Puppet::spec(diary, id).restart(Restart::Temporary).shutdown(Shutdown::Brutal)
}

#[actix::test]
async fn of_a_child_that_is_gone() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    let mut reports = app.subscribe();
    let options = brief(&diary, "a").options().clone();
    app.start_child(brief(&diary, "a")).await.unwrap();
    end(&app, "a", End::Panic).await;
    assert!(matches!(app.child_options("a").await, Err(ChildError::NotFound)));
    app.start_child(brief(&diary, "b")).await.unwrap();
    app.terminate_child("b").await.unwrap();
    stop(app, &diary).await;

    let mut seen = Vec::new();
    while let Some(Report { child, event, .. }) = within("the last report", reports.recv()).await {
        seen.push(match event {
            ReportEvent::Started { id, .. } => (format!("{id} started"), child),
            ReportEvent::ChildTerminated { id, .. } => (format!("{id} ended"), child),
            ReportEvent::Stopped { id, .. } => (format!("{id} stopped"), child),
            ReportEvent::Shutdown { cause } => (cause.to_string(), child),
            other => panic!("{other:?}"),
        });
    }
    let of = |id: &str| {
        let mut options: ChildOptions = options.clone();
        options.id = id.into();
        Some(options)
    };
    let expected = [
        ("a started", of("a")),
        ("a ended", of("a")),
        ("b started", of("b")),
        ("b stopped", of("b")),
        ("requested", None),
    ];
    assert_eq!(seen, expected.map(|(what, child)| (what.to_owned(), child)));
}

/// The report of a shutdown has the child that caused it, and that of the parent the supervisor that ended.
#[actix::test]
async fn of_a_shutdown() {
    let diary = Diary::default();
    let inner = Supervisor::builder("inner")
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child_spec(brief(&diary, "job").significant());
    let app = Supervisor::builder("app").intensity(0, HOUR).supervisor("inner", inner).start().await.unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "inner/job").do_send(End::Stop).unwrap();
    gave_up(&app, &diary).await;

    let mut lines = Vec::new();
    while let Some(report) = within("the last report", reports.recv()).await {
        let child = report.child.as_ref().unwrap();
        assert_eq!(child.kind == Kind::Supervisor, &*child.id == "inner");
        assert_eq!(child.significant, &*child.id == "job");
        lines.push(format!("{report}: {:?}", child.restart));
    }
    assert_eq!(
        lines,
        [
            "app/inner/job: ended (incarnation 1): normal: Temporary",
            "app/inner: shuts down: significant child `job` ended: Temporary",
            "app/inner: ended (incarnation 1): shutdown: Permanent",
            "app: shuts down: restart intensity exceeded by `inner`: Permanent",
        ]
    );
}
