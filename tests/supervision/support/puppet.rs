//! Actors that do as they are told.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use hatchery::supervisor::{ChildContext, ChildSpec, Declined, ExitReason};

use super::{Diary, Guard};

/// How a `Puppet` behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    pub(crate) refuses_to_stop: bool,
    pub(crate) panics_in_started: bool,
    pub(crate) panics_in_stopping: bool,
    pub(crate) panics_in_drop: bool,
    pub(crate) pending_work: bool,
    pub(crate) stops_in_started: bool,
    /// When it is to stop it first takes this time, or until it is told to stop once more.
    pub(crate) cleanup: Option<Duration>,
    /// Whatever it is asked to, it ends with this reason.
    pub(crate) ends_with: Option<ExitReason>,
}

impl Manners {
    /// Only a kill ends it.
    pub(crate) fn stubborn() -> Self {
        Self { refuses_to_stop: true, pending_work: true, ..Self::default() }
    }

    /// Its clean-up takes this time.
    pub(crate) fn tidy(cleanup: Duration) -> Self {
        Self { cleanup: Some(cleanup), ..Self::default() }
    }
}

/// What comes of a start.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Up,
    Fail,
    Decline,
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
    pub(crate) fn spec(diary: &Diary, name: &str) -> ChildSpec<Puppet> {
        Self::spec_with(diary, name, Manners::default())
    }

    pub(crate) fn spec_with(diary: &Diary, name: &str, manners: Manners) -> ChildSpec<Puppet> {
        let diary = diary.clone();
        ChildSpec::with_context(name, move |cx| {
            let puppet = Puppet::new(&diary, cx, manners.clone());
            async move { Ok::<_, Infallible>(puppet) }
        })
    }

    /// The specification of one with these starts; after them the last one again.
    pub(crate) fn scripted(diary: &Diary, name: &str, starts: &[Start]) -> ChildSpec<Puppet> {
        let (diary, starts, next) = (diary.clone(), starts.to_vec(), Arc::new(AtomicUsize::new(0)));
        ChildSpec::with_context(name, move |cx| {
            let start = starts[next.fetch_add(1, Ordering::SeqCst).min(starts.len() - 1)];
            let diary = diary.clone();
            async move {
                let refuse = |what: &str, error: Box<dyn Error + Send + Sync>| {
                    diary.write(format!("{what} {}", cx.id()));
                    Err(error)
                };
                match start {
                    Start::Up => Ok(Puppet::new(&diary, cx, Manners::default())),
                    Start::Fail => refuse("fail", "told to fail".into()),
                    Start::Decline => refuse("decline", Declined.into()),
                }
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

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        if self.manners.panics_in_stopping {
            panic!("in stopping");
        }
        if let Some(time) = self.manners.cleanup.take() {
            self.diary.write(format!("clean {}", self.name));
            ctx.run_later(time, |_, ctx| ctx.stop());
            return Running::Continue;
        }
        if let Some(reason) = &self.manners.ends_with {
            self.cx.exit(reason.clone());
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

/// Makes a puppet tell its supervisor that it has done its work.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Settle;

impl Handler<Settle> for Puppet {
    type Result = ();

    fn handle(&mut self, _: Settle, _: &mut Self::Context) {
        self.cx.mark_settled();
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
    WaitForEver,
}

impl End {
    pub(crate) fn shutdown() -> Self {
        End::Exit(ExitReason::Shutdown)
    }

    pub(crate) fn abnormal() -> Self {
        End::Exit(ExitReason::Abnormal("abnormal".into()))
    }
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
            End::WaitForEver => ctx.wait(std::future::pending::<()>().into_actor(self)),
        }
    }
}
