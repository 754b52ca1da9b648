//! Starts workers' processes, forked where that is possible.

use std::io;
use std::sync::Arc;

use super::actor::{Disable, Fork, Renew, Settle, Zygote};
use super::fork::ForkError;
use super::state::{ZygoteInfo, ZygoteStatus};
use super::template::TemplateSpec;
use super::trial::Trial;
use crate::error::WorkerStartError;
use crate::port::process::limits::explained;
use crate::port::start::{Port, PortSpec};
use crate::supervisor::{Backoff, ChildSpec};

/// Where a pool's workers get their processes from.
#[derive(Clone)]
pub(crate) struct Spawner {
    spec: Arc<PortSpec>,
    zygote: Option<Arc<ZygoteInfo>>,
}

impl Spawner {
    /// Every process is a Python of its own, or is forked of one that has imported these modules before the pool's
    /// own. `name` names the template.
    pub(crate) fn new(spec: Arc<PortSpec>, preload: Option<Vec<String>>, name: String) -> Self {
        let template = preload.map(|preload| TemplateSpec { port: spec.clone(), preload, name });
        Self { spec, zygote: template.map(|template| Arc::new(ZygoteInfo::new(template))) }
    }

    /// The same error, with what to do about it where the system lacks room for the pool.
    pub(crate) fn explained(&self, error: io::Error) -> io::Error {
        explained(error, &self.spec)
    }

    /// The zygote's place in the tree. Its deaths do not count: workers are started cold meanwhile.
    pub(crate) fn zygote(&self) -> Option<ChildSpec<Zygote>> {
        let shared = self.zygote.clone()?;
        let spec = ChildSpec::with_context("zygote", move |context| {
            let shared = shared.clone();
            async move { Ok::<_, std::convert::Infallible>(Zygote::new(shared, context)) }
        });
        Some(spec.backoff(Backoff::default()))
    }

    pub(crate) fn status(&self) -> Option<ZygoteStatus> {
        Some(self.zygote.as_ref()?.status())
    }

    /// Starts a worker's process. Must be called on an arbiter.
    pub(crate) async fn start(&self, worker: &str) -> Result<Port, Arc<WorkerStartError>> {
        let Some(zygote) = &self.zygote else { return self.cold(worker).await };
        zygote.first().await?;
        // The template is looked for when it is this worker's turn: it may have ended by then.
        let turn = zygote.turn().await;
        let Some(actor) = zygote.ready_actor() else {
            drop(turn);
            return self.cold(worker).await;
        };
        match Port::fork(&self.spec, worker, turn, |order| actor.do_send(Fork(order))).await {
            Ok(port) => {
                zygote.forked();
                Ok(port)
            }
            Err(ForkError::NoTemplate) => self.cold(worker).await,
            Err(error) => {
                let why = error.to_string();
                // When this fails too, it is not the fork's fault, and this says best why.
                let port = self.cold(worker).await?;
                if !zygote.fork_failed(worker, &why) {
                    actor.do_send(Disable);
                }
                Ok(port)
            }
        }
    }

    /// What hears how the calls of a worker with this process fare; `None` for a cold one.
    pub(crate) fn trial(&self, port: &Port) -> Option<Trial> {
        port.forked.then(|| self.zygote.clone().map(Trial::new))?
    }

    async fn cold(&self, worker: &str) -> Result<Port, Arc<WorkerStartError>> {
        Port::start(&self.spec, worker).await.map_err(Arc::new)
    }

    /// Has a fresh template made of the present code; workers are forked of it from then on. The former one is kept
    /// until [`settle`](Self::settle). Nothing without a zygote.
    pub(crate) async fn renew(&self) -> Result<(), Arc<WorkerStartError>> {
        let Some(zygote) = &self.zygote else { return Ok(()) };
        // A zygote that restarts makes its template of the present code anyway.
        let Some(actor) = zygote.actor() else { return Ok(()) };
        let gone = || Err(Arc::new(WorkerStartError::Ended { reason: "the zygote itself ended".into() }));
        actor.send(Renew).await.unwrap_or_else(|_| gone())
    }

    /// Keeps the fresh template, or goes back to the former one.
    pub(crate) fn settle(&self, keep: bool) {
        if let Some(actor) = self.zygote.as_ref().and_then(|zygote| zygote.actor()) {
            actor.do_send(Settle { keep });
        }
    }
}
