//! The Zygote actor.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, ResponseActFuture, Running as Stay,
};

use super::fork::{ForkError, ForkOrder};
use super::state::ZygoteInfo;
use super::template::Template;
use crate::error::WorkerStartError;
use crate::port::process::spawn::Exit;
use crate::supervisor::{ChildContext, ExitReason};
use crate::text::escaped_lines;

/// Owns the template that workers are forked of, and the former ones as long as they have children to reap.
pub(crate) struct Zygote {
    shared: Arc<ZygoteInfo>,
    context: ChildContext,
    current: Option<Template>,
    /// The template that is used again when a reload fails.
    former: Option<Template>,
    /// Each is asked to end once it has no child left.
    retired: Vec<Template>,
    stopping: bool,
}

/// Fork a worker.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Fork(pub(super) ForkOrder);

/// No worker is to be forked any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Disable;

/// Make a template of the present code.
#[derive(Message)]
#[rtype(result = "Result<(), Arc<WorkerStartError>>")]
pub(super) struct Renew;

/// What [`Renew`] made is kept, or not.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Settle {
    pub(super) keep: bool,
}

impl Zygote {
    pub(super) fn new(shared: Arc<ZygoteInfo>, context: ChildContext) -> Self {
        Self { shared, context, current: None, former: None, retired: Vec::new(), stopping: false }
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        self.current.iter().chain(&self.former).chain(&self.retired)
    }

    /// The first template of this incarnation.
    fn start(&mut self, ctx: &mut Context<Self>) {
        let shared = self.shared.clone();
        let start = async move { Template::start(&shared.spec).await };
        ctx.spawn(start.into_actor(self).map(|started, act, ctx| match started {
            Ok(template) => {
                // A reload may have been quicker.
                if act.current.is_none() && !act.stopping {
                    act.current = act.usable(template);
                }
            }
            Err(error) => {
                if act.current.is_none() && act.shared.template_failed(&Arc::new(error)) {
                    act.end("the template could not start".into(), ctx);
                }
            }
        }));
    }

    /// A template that is ready, unless it has no use: one that cannot fork is ended, and the pool stays cold.
    fn usable(&self, template: Template) -> Option<Template> {
        if let Some(why) = &template.ready().cannot_fork {
            self.shared.cannot_fork(why);
            return None;
        }
        self.shared.template_ready(&template);
        Some(template)
    }

    fn end(&mut self, why: String, ctx: &mut Context<Self>) {
        self.context.exit(ExitReason::Abnormal(why));
        ctx.stop();
    }

    fn current_ended(&mut self, template: Template, exit: Exit, ctx: &mut Context<Self>) {
        let how = match (exit.code, exit.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown exit".into(),
        };
        let again = self.shared.template_ended(&how, template.ended_forking());
        ctx.spawn(template.finish_capture().into_actor(self).map(move |stderr, act, ctx| {
            if !stderr.is_empty() {
                log::warn!(target: "hatchery::zygote", "{}", escaped_lines(&format!("the template ended ({how}); it had printed:\n{stderr}")));
            }
            if again {
                act.end(format!("the template ended: {how}"), ctx);
            }
        }));
    }
}

impl Actor for Zygote {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.shared.set_actor(Some(ctx.address()));
        if !self.shared.is_disabled() {
            self.start(ctx);
        }
        ctx.spawn(Drive);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Stay {
        if !std::mem::replace(&mut self.stopping, true) {
            let templates = self.current.iter_mut().chain(&mut self.former).chain(&mut self.retired);
            for template in templates {
                template.shut_down();
            }
        }
        // They end at once, or `Drive` has them killed.
        if self.templates().next().is_none() { Stay::Stop } else { Stay::Continue }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.set_actor(None);
    }
}

/// Moves the templates along.
struct Drive;

impl ActorFuture<Zygote> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut Zygote,
        ctx: &mut Context<Zygote>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        if let Some(template) = &mut act.current
            && let Poll::Ready(exit) = template.poll(cx)
            && let Some(template) = act.current.take()
            && !act.stopping
        {
            act.current_ended(template, exit, ctx);
        }
        if act.former.as_mut().is_some_and(|template| template.poll(cx).is_ready()) {
            act.former = None;
        }
        act.retired.retain_mut(|template| {
            let mut ended = template.poll(cx).is_ready();
            if !ended && template.is_childless() && template.shut_down() {
                ended = template.poll(cx).is_ready();
            }
            !ended
        });
        if act.stopping && act.templates().next().is_none() {
            ctx.stop();
        }
        Poll::Pending
    }
}

impl Handler<Fork> for Zygote {
    type Result = ();

    fn handle(&mut self, Fork(order): Fork, _: &mut Context<Self>) {
        match &mut self.current {
            Some(template) if !self.stopping => template.fork(order),
            _ => order.refuse(ForkError::NoTemplate),
        }
    }
}

impl Handler<Disable> for Zygote {
    type Result = ();

    fn handle(&mut self, Disable: Disable, _: &mut Context<Self>) {
        self.retired.extend(self.current.take());
    }
}

impl Handler<Renew> for Zygote {
    type Result = ResponseActFuture<Self, Result<(), Arc<WorkerStartError>>>;

    fn handle(&mut self, Renew: Renew, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        let start = async move { Template::start(&shared.spec).await };
        Box::pin(start.into_actor(self).map(|started, act, _| {
            let template = started.map_err(Arc::new)?;
            act.shared.forgive();
            // Two reloads at once are the pool's to prevent; none is lost here.
            act.retired.extend(act.former.take());
            act.former = act.current.take();
            act.current = act.usable(template);
            Ok(())
        }))
    }
}

impl Handler<Settle> for Zygote {
    type Result = ();

    fn handle(&mut self, Settle { keep }: Settle, _: &mut Context<Self>) {
        let Some(former) = self.former.take() else { return };
        if keep {
            self.retired.push(former);
        } else {
            self.shared.template_ready(&former);
            self.retired.extend(self.current.replace(former));
        }
    }
}
