//! Starts that wait for the test's verdict.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hatchery::supervisor::{ChildContext, ChildSpec};
use tokio::sync::{mpsc, oneshot};

use super::{Diary, Manners, Puppet, within};

/// Where starts ask whether they may succeed. An open gate lets all of them pass; without a gate they wait for ever.
pub(crate) struct Gate {
    is_open: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<Ask>,
    asks: mpsc::UnboundedReceiver<Ask>,
}

struct Ask {
    id: String,
    verdict: oneshot::Sender<bool>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        let (sender, asks) = mpsc::unbounded_channel();
        Self { is_open: Arc::default(), sender, asks }
    }

    pub(crate) fn open() -> Self {
        let gate = Self::closed();
        gate.set_open(true);
        gate
    }

    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }

    /// The specification of a puppet whose every start asks here.
    pub(crate) fn spec(&self, diary: &Diary, name: &str) -> ChildSpec<Puppet> {
        let (diary, is_open, sender) = (diary.clone(), self.is_open.clone(), self.sender.clone());
        ChildSpec::with_context(name, move |cx: ChildContext| {
            let (diary, is_open, sender) = (diary.clone(), is_open.clone(), sender.clone());
            async move {
                if !is_open.load(Ordering::SeqCst) {
                    let _guard = diary.guard(&cx.path());
                    let (verdict, decided) = oneshot::channel();
                    let _ = sender.send(Ask { id: cx.id().to_owned(), verdict });
                    match decided.await {
                        Ok(true) => {}
                        Ok(false) => {
                            diary.write(format!("fail {}", cx.id()));
                            return Err("told to fail");
                        }
                        Err(_) => std::future::pending().await,
                    }
                }
                Ok(Puppet::new(&diary, cx, Manners::default()))
            }
        })
    }

    /// The next start that asks has to be one of this child. It waits as long as the verdict is kept.
    pub(crate) async fn next(&mut self, id: &str) -> Verdict {
        let ask = within("a start", self.asks.recv()).await.unwrap();
        assert_eq!(ask.id, id, "whose start comes next");
        Verdict(ask.verdict)
    }
}

/// What a start waits for. It is an error when nobody waits any more.
#[must_use]
pub(crate) struct Verdict(oneshot::Sender<bool>);

impl Verdict {
    pub(crate) fn pass(self) {
        self.0.send(true).expect("the start waits");
    }

    pub(crate) fn fail(self) {
        self.0.send(false).expect("the start waits");
    }

    /// Waits until the start is cancelled.
    pub(crate) async fn cancelled(mut self) {
        within("the start is cancelled", self.0.closed()).await;
    }
}
