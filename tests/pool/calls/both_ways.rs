//! Each operation of a handle, also as a message to the `PoolActor`: the results are the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use hatchery::{
    Affinity, Call, CallError, Checkout, EndSession, GetStatus, OpenStream, Pool, Progress, ReloadWorkers,
    Reply,
};
use serde_json::{Value, json};

use crate::support::{
    LONG_TIMEOUT, alone_test, pids, pool_with, status_when, touch, wait_for_file, wait_until,
};

const MORE: &str = r#"
import hatchery

def told():
    return [hatchery.request_id(), hatchery.traceparent(), hatchery.deadline() > 0]

def visit():
    state = hatchery.session()
    state["visits"] = state.get("visits", 0) + 1
    return state["visits"]

def steps(count):
    for step in range(count):
        hatchery.progress(step)
    return count

def items(count, at_end=None):
    for number in range(count):
        hatchery.progress(number)
        yield number
    if at_end:
        raise ValueError(at_end)

def visits(count):
    for _ in range(count):
        yield visit()
"#;

/// One call, with its options.
#[derive(Clone, Default)]
struct Case {
    name: &'static str,
    function: &'static str,
    args: Value,
    timeout: Option<Duration>,
    session: Option<(&'static str, Affinity)>,
    idempotent: bool,
    tells_progress: bool,
    is_stream: bool,
    request_id: Option<&'static str>,
    /// The expected value, or items and error, as [`Outcome::text`] writes them.
    result: &'static str,
}

/// How the call is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Handle,
    Message,
}

/// What the caller receives.
struct Outcome {
    values: Vec<Value>,
    updates: Vec<Value>,
    placement: Option<hatchery::Placement>,
    error: Option<CallError>,
}

impl Outcome {
    fn text(&self) -> String {
        let mut text = String::new();
        if !self.updates.is_empty() {
            text += &format!("{} after ", Value::from(self.updates.clone()));
        }
        text += &self.values.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
        if let Some(placement) = self.placement {
            text += &format!(" {placement:?}");
        }
        match &self.error {
            None => {}
            Some(CallError::Timeout { phase, .. }) => text += &format!(" Timeout {phase:?}"),
            Some(CallError::WorkerDied { started, attempts, .. }) => {
                text += &format!(" WorkerDied started={started} attempts={attempts}");
            }
            Some(CallError::Python { type_name, message, attempts, .. }) => {
                text += &format!(" {type_name}: {message} attempts={attempts}");
            }
            Some(error) => {
                let debug = format!("{error:?}");
                text += &format!(" {}", variant(error).unwrap_or(&debug));
            }
        }
        text.trim().to_owned()
    }
}

fn variant(error: &CallError) -> Option<&'static str> {
    Some(match error {
        CallError::NoSuchFunction { .. } => "NoSuchFunction",
        CallError::Arguments { .. } => "Arguments",
        CallError::FrameTooLarge { .. } => "FrameTooLarge",
        CallError::SessionBusy { .. } => "SessionBusy",
        CallError::SessionLost { .. } => "SessionLost",
        CallError::Overloaded { .. } => "Overloaded",
        CallError::Encode { .. } => "Encode",
        CallError::Draining => "Draining",
        _ => return None,
    })
}

/// Collects progress updates.
struct Listener(Arc<Mutex<Vec<Value>>>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Progress> for Listener {
    type Result = ();

    fn handle(&mut self, progress: Progress, _: &mut Context<Self>) {
        self.0.lock().expect("no panic").push(progress.decode().expect("JSON"));
    }
}

impl Case {
    /// The case as a message.
    fn message(&self, updates: &Arc<Mutex<Vec<Value>>>) -> Result<Call, CallError> {
        let mut call = Call::new(self.function, &self.args)?;
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        if let Some((session, affinity)) = self.session {
            call = call.session(session).affinity(affinity);
        }
        if self.idempotent {
            call = call.idempotent();
        }
        if let Some(id) = self.request_id {
            call = call.request_id(id).traceparent("00-1-2-01");
        }
        if self.tells_progress {
            call = call.progress_to(Listener(updates.clone()).start().recipient());
        }
        Ok(call)
    }

    async fn run(&self, way: Way, pool: &Pool) -> Outcome {
        let updates = Arc::<Mutex<Vec<Value>>>::default();
        let mut outcome = Outcome { values: Vec::new(), updates: Vec::new(), placement: None, error: None };
        if self.is_stream {
            match self.stream(way, pool, &updates).await {
                Ok(mut stream) => {
                    outcome.placement = stream.placement();
                    while let Some(item) = stream.next().await {
                        match item {
                            Ok(item) => outcome.values.push(item),
                            Err(error) => outcome.error = Some(error),
                        }
                    }
                }
                Err(error) => outcome.error = Some(error),
            }
        } else {
            match self.reply(way, pool, &updates).await {
                Ok(reply) => {
                    outcome.values.push(reply.decode().expect("JSON"));
                    outcome.placement = reply.placement();
                }
                Err(error) => outcome.error = Some(error),
            }
        }
        if self.tells_progress {
            // Updates and the result arrive in different mailboxes.
            let all = outcome.values.first().filter(|_| !self.is_stream).and_then(Value::as_u64);
            let all = all.unwrap_or(outcome.values.len() as u64) as usize;
            wait_until("all updates are there", LONG_TIMEOUT, || {
                updates.lock().expect("no panic").len() >= all
            })
            .await;
        }
        outcome.updates = updates.lock().expect("no panic").clone();
        outcome
    }

    fn request<'a>(
        &self,
        pool: &'a Pool,
        updates: &Arc<Mutex<Vec<Value>>>,
    ) -> hatchery::Request<'a, Pool, Value> {
        let mut request = pool.request(self.function).args(self.args.clone());
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        if let Some((session, affinity)) = self.session {
            request = request.session(session).affinity(affinity);
        }
        if self.idempotent {
            request = request.idempotent();
        }
        if let Some(id) = self.request_id {
            request = request.request_id(id).traceparent("00-1-2-01");
        }
        if self.tells_progress {
            let updates = updates.clone();
            request = request.on_progress(move |progress| {
                updates.lock().expect("no panic").push(progress.decode().expect("JSON"));
            });
        }
        request
    }

    async fn reply(
        &self,
        way: Way,
        pool: &Pool,
        updates: &Arc<Mutex<Vec<Value>>>,
    ) -> Result<Reply, CallError> {
        match way {
            Way::Handle => self.request(pool, updates).send_raw().await,
            Way::Message => pool.actor().send(self.message(updates)?).await.expect("the broker is up"),
        }
    }

    async fn stream(
        &self,
        way: Way,
        pool: &Pool,
        updates: &Arc<Mutex<Vec<Value>>>,
    ) -> Result<hatchery::CallStream<Value>, CallError> {
        match way {
            Way::Handle => self.request(pool, updates).stream().await,
            Way::Message => {
                let open = OpenStream::new(self.message(updates)?);
                pool.actor().send(open).await.expect("the broker is up")
            }
        }
    }
}

fn case(name: &'static str, function: &'static str, args: Value, result: &'static str) -> Case {
    Case { name, function, args, result, ..Case::default() }
}

fn cases() -> Vec<Case> {
    let brief = Some(Duration::from_millis(300));
    let strict = Some(("strict", Affinity::StrictQueue));
    vec![
        case("positional arguments", "add", json!([1, 2]), "3"),
        case("keyword arguments", "add", json!({"a": 1}), "11"),
        case("no arguments", "count", json!([]), "1"),
        case("an exception", "fail", json!(["no"]), "ValueError: no attempts=1"),
        case("an unknown function", "nothing", json!([]), "NoSuchFunction"),
        case("wrong arguments", "add", json!([1, 2, 3]), "Arguments"),
        case("arguments of no form", "add", json!(5), "Encode"),
        case("arguments over the limit", "echo", json!(["x".repeat(64 * 1024)]), "FrameTooLarge"),
        Case { timeout: brief, ..case("a timeout while it runs", "sleep", json!([60]), "Timeout Run") },
        case("a death", "die", json!([3]), "WorkerDied started=true attempts=1"),
        Case { idempotent: true, ..case("a death, tried again", "die_once", json!([3]), "\"alive\"") },
        Case {
            idempotent: true,
            ..case("two deaths", "die", json!([3]), "WorkerDied started=true attempts=2")
        },
        Case {
            request_id: Some("r-7"),
            ..case("a request id", "told", json!([]), r#"["r-7","00-1-2-01",true]"#)
        },
        Case { session: Some(("a", Affinity::Hint)), ..case("a session", "visit", json!([]), "1 New") },
        Case { session: strict, ..case("a strict session", "visit", json!([]), "1 New") },
        Case { tells_progress: true, ..case("progress", "steps", json!([3]), "[0,1,2] after 3") },
        Case { is_stream: true, ..case("a stream", "items", json!([3]), "0 1 2") },
        Case {
            is_stream: true,
            ..case("a stream that fails", "items", json!([2, "no"]), "0 1 ValueError: no attempts=1")
        },
        Case {
            is_stream: true,
            session: strict,
            ..case("a stream in a session", "visits", json!([2]), "1 2 New")
        },
        Case {
            is_stream: true,
            tells_progress: true,
            ..case("a stream with progress", "items", json!([2]), "[0,1] after 0 1")
        },
        Case { is_stream: true, ..case("a stream of no iterator", "pid", json!([]), "Encode") },
    ]
}

async fn pool() -> Pool {
    pool_with(MORE).size(2).max_frame_bytes(64 * 1024).start().await.expect("the pool starts")
}

alone_test! {
    async fn calls_by_handle_and_message_have_the_same_result() {
        for case in cases() {
            for way in [Way::Handle, Way::Message] {
                let pool = pool().await;
                let outcome = case.run(way, &pool).await;
                assert_eq!(outcome.text(), case.result, "{} by {way:?}: {:?}", case.name, outcome.error);
                status_when(&pool, "all workers serve", |status| status.idle == 2).await;
                pool.shutdown().await;
                let _ = std::fs::remove_file(crate::support::scratch_file("deaths"));
            }
        }
    }
}

alone_test! {
    async fn queue_errors_by_handle_and_message_are_the_same() {
        let brief = Some(Duration::from_millis(100));
        for way in [Way::Handle, Way::Message] {
            let pool = pool_with(MORE).size(1).queue_bound(crate::IN_FLIGHT).start().await.expect("the pool starts");
            let name = format!("{way:?}");
            let (held, ()) = tokio::join!(crate::support::fill_worker::<u32>(&pool, "hold", (&name,)), async {
                wait_for_file(&format!("{name}.began")).await;
                let late = Case { timeout: brief, ..case("", "pid", json!([]), "") };
                assert_eq!(late.run(way, &pool).await.text(), "Timeout Queue", "{way:?}");
                let mut waiting = Vec::new();
                for _ in 0..crate::IN_FLIGHT {
                    waiting.push(actix_rt::spawn({
                        let pool = pool.clone();
                        async move { pool.call::<_, u32>("pid", ()).await }
                    }));
                }
                status_when(&pool, "the queue is full", |status| status.waiting == crate::IN_FLIGHT).await;
                let refused = case("", "pid", json!([]), "");
                assert_eq!(refused.run(way, &pool).await.text(), "Overloaded", "{way:?}");
                touch(&format!("{name}.go"));
                for call in waiting {
                    call.await.expect("no panic").expect("the call succeeds");
                }
            });
            held.expect("the held call returns");
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn leases_by_handle_and_message_reach_the_same_session() {
        for way in [Way::Handle, Way::Message] {
            let pool = pool().await;
            let session = pool.session("alice").affinity(Affinity::StrictQueue);
            assert_eq!(session.call::<_, u32>("visit", ()).await.expect("the call succeeds"), 1);
            let lease = match way {
                Way::Handle => session.checkout().await,
                Way::Message => {
                    let checkout = Checkout::new().session("alice", Affinity::StrictQueue);
                    pool.actor().send(checkout).await.expect("the broker is up")
                }
            };
            let lease = lease.expect("the session's worker is free");
            assert_eq!(format!("{:?}", lease.placement()), "Some(Kept)", "{way:?}");
            assert_eq!(lease.call::<_, u32>("visit", ()).await.expect("the call succeeds"), 2);
            drop(lease);
            match way {
                Way::Handle => session.end().await.expect("it ends"),
                Way::Message => {
                    let end = EndSession("alice".into());
                    pool.actor().send(end).await.expect("the broker is up").expect("it ends");
                }
            }
            assert_eq!(session.call::<_, u32>("visit", ()).await.expect("the call succeeds"), 1, "{way:?}");
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn status_and_reload_by_handle_and_message_are_the_same() {
        for way in [Way::Handle, Way::Message] {
            let pool = pool().await;
            let former = pids(&pool).await;
            let status = match way {
                Way::Handle => pool.status().await.expect("the pool runs"),
                Way::Message => pool.actor().send(GetStatus).await.expect("the broker is up"),
            };
            assert!(status.workers.iter().all(|worker| worker.memory.is_some()), "{way:?}: {status:#?}");
            match way {
                Way::Handle => pool.reload().await.expect("the code is good"),
                Way::Message => {
                    pool.actor().send(ReloadWorkers).await.expect("the broker is up").expect("the code is good");
                }
            }
            let now = pids(&pool).await;
            assert!(now.len() == 2 && now.iter().all(|pid| !former.contains(pid)), "{way:?}: {now:?} replace {former:?}");
            pool.shutdown().await;
            let ended = case("", "pid", json!([]), "");
            let error = ended.run(Way::Handle, &pool).await.error.expect("it has ended");
            assert!(matches!(error, CallError::Draining | CallError::Unavailable { .. }), "{error:?}");
        }
    }
}
