//! Sessions: the worker they are assigned to, their state, and their end.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, join_all};
use hatchery::{
    Affinity, Call, CallError, EndSession, Lease, OverloadCause, Phase, Placement, Pool, Reply, Session,
};

use super::read;
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, alone_test, assert_workers_kept, kill, lines, pids, pool_with, status_when,
    touch, wait_for_file, wait_until,
};

const SOURCE: &str = r#"
import hatchery


def visit():
    """Return the process id and the number of earlier visits of this session."""
    session = hatchery.session()
    session["visits"] = session.get("visits", 0) + 1
    return [os.getpid(), session["visits"] - 1]


async def async_visit():
    return visit()


def visits(count):
    for _ in range(count):
        yield visit()


def remember(key, value):
    hatchery.session()[key] = value


def recall(key):
    return hatchery.session().get(key)


def hold_session(name):
    remember("held", name)
    return hold(name)


@hatchery.on_session_end
def ended(name, state):
    append("ended", name + " " + " ".join(sorted(state)))
    if "raise" in state:
        raise KeyError(state["raise"])
    if "hang" in state:
        time.sleep(1000)


@hatchery.on_session_end
async def also_ended(name, state):
    append("also ended", name)
"#;

/// The process id of the worker, and the number of earlier visits.
type Visit = (u32, u32);

async fn pool(size: usize) -> Pool {
    pool_with(SOURCE).size(size).start().await.expect("the pool starts")
}

/// Makes a visit. Returns it with its placement.
async fn visit(session: &Session) -> (Visit, Option<Placement>) {
    let reply: Reply = session.request("visit").send_raw().await.expect("the call succeeds");
    (reply.decode().expect("it tells"), reply.placement())
}

async fn remember(session: &Session, key: &str) {
    session.call::<_, ()>("remember", (key, key)).await.expect("the call succeeds");
}

/// Leases the worker of the session.
async fn lease_worker(session: &Session) -> Lease {
    let lease = session.checkout().await.expect("the worker is free");
    assert_ne!(lease.placement(), Some(Placement::Elsewhere));
    lease
}

fn assert_lost<T: std::fmt::Debug>(answer: Result<T, CallError>, name: &str) {
    let error = answer.expect_err("its worker has died");
    let CallError::SessionLost { session } = &error else { panic!("{error:?}") };
    assert!(session == name && !error.is_retryable() && error.attempts() == 0);
}

alone_test! {
    async fn session_calls_share_state() {
        let pool = pool(3).await;
        let alice = pool.session("alice");
        let ((own, _), placement) = visit(&alice).await;
        assert_eq!(placement, Some(Placement::New));
        for before in 1..10 {
            assert_eq!(visit(&alice).await, ((own, before), Some(Placement::Kept)));
        }
        // The same holds for every kind of call and every handle.
        let again = pool.session("alice");
        assert_eq!(again.call::<_, Visit>("async_visit", ()).await.expect("the call succeeds"), (own, 10));
        let items = again.stream::<Visit>("visits", (2,)).await.expect("the call succeeds");
        assert_eq!(items.placement(), Some(Placement::Kept));
        assert_eq!(read(items).await.0, [(own, 11), (own, 12)]);
        let by_request = pool.request("visit").session("alice").affinity(Affinity::StrictQueue);
        assert_eq!(by_request.send::<Visit>().await.expect("the call succeeds"), (own, 13));
        let lease = alice.checkout().await.expect("the worker is free");
        assert_eq!((lease.pid(), lease.placement()), (own, Some(Placement::Kept)));
        for before in 14..17 {
            assert_eq!(lease.call::<_, Visit>("visit", ()).await.expect("the call succeeds"), (own, before));
        }
        assert_eq!(read(lease.stream::<Visit>("visits", (1,)).await.expect("the call succeeds")).await.0, [(own, 17)]);
        drop(lease);
        let message = Call::new("visit", ()).expect("the arguments can be encoded").session("alice").affinity(Affinity::StrictQueue);
        let reply = pool.actor().send(message).await.expect("the broker is up").expect("the call succeeds");
        assert_eq!(reply.decode::<Visit>().expect("it tells"), (own, 18));
        assert_eq!(reply.placement(), Some(Placement::Kept));
        assert_eq!(pool.status().await.expect("the pool runs").sessions, 1);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn sessions_in_one_worker_do_not_share_state() {
        let pool = pool(1).await;
        let names = ["alice", "bob", "", "a \"quoted\" \\ name\n", "\u{1f425} \u{e4}", &"long ".repeat(1000)];
        for name in names {
            assert_eq!(visit(&pool.session(name)).await.0.1, 0, "{name}");
            pool.session(name).call::<_, ()>("remember", ("name", name)).await.expect("the call succeeds");
        }
        for name in names {
            let found: String = pool.session(name).call("recall", ("name",)).await.expect("the call succeeds");
            assert_eq!(found, name);
            assert_eq!(visit(&pool.session(name)).await.0.1, 1, "{name}");
        }
        assert_eq!(pool.status().await.expect("the pool runs").sessions, names.len());
        // A call without a session has no placement.
        let reply = pool.request("add").args((1, 2)).send_raw().await.expect("the call succeeds");
        assert_eq!(reply.placement(), None);
        let error = pool.call::<_, Visit>("visit", ()).await.expect_err("there is no session");
        let CallError::Python { type_name, message, .. } = &error else { panic!("{error:?}") };
        assert!(type_name == "RuntimeError" && message.contains("hatchery.session()"), "{message}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unmet_affinity_hint_is_reported_as_elsewhere() {
        let pool = pool(2).await;
        let alice = pool.session("alice");
        let ((own, _), _) = visit(&alice).await;
        let lease = lease_worker(&alice).await;
        let ((other, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::Elsewhere)));
        assert_ne!(other, own);
        let elsewhere = alice.checkout().await.expect("the other one is free");
        assert_eq!((elsewhere.pid(), elsewhere.placement()), (other, Some(Placement::Elsewhere)));
        drop(elsewhere);
        status_when(&pool, "it is back", |status| status.idle == 1).await;
        let items = alice.stream::<Visit>("visits", (1,)).await.expect("the other one is free");
        assert_eq!((items.worker() != lease.worker(), items.placement()), (true, Some(Placement::Elsewhere)));
        assert_eq!(read(items).await.0, [(other, 1)]);
        drop(lease);
        status_when(&pool, "its own is free", |status| status.idle == 2).await;
        assert_eq!(visit(&alice).await, ((own, 1), Some(Placement::Kept)));
        // State on other workers ends with the session.
        alice.end().await.expect("the hooks succeed");
        assert_eq!(lines("ended"), ["alice visits", "alice visits"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn strict_queue_waits_while_other_workers_are_idle() {
        let pool = pool(2).await;
        let alice = pool.session("alice").affinity(Affinity::StrictQueue);
        let ((own, _), placement) = visit(&alice).await;
        assert_eq!(placement, Some(Placement::New));
        let lease = lease_worker(&alice).await;
        let (visited, leased, ()) = tokio::join!(visit(&alice), alice.checkout(), async {
            let status = status_when(&pool, "both requests are queued", |status| status.waiting == 2).await;
            assert_eq!((status.idle, status.busy), (1, 1));
            assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("others are served"), 3);
            drop(lease);
        });
        assert_eq!(visited, ((own, 1), Some(Placement::Kept)));
        assert_eq!(leased.expect("it is free in the end").placement(), Some(Placement::Kept));
        status_when(&pool, "all are back", |status| status.idle == 2).await;
        let lease = lease_worker(&alice).await;
        let late = alice.request("visit").timeout(Duration::from_millis(100)).send::<Visit>().await;
        assert!(matches!(late, Err(CallError::Timeout { phase: Phase::Queue, .. })), "{late:?}");
        drop(lease);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn strict_fail_fast_refuses_while_worker_is_busy() {
        let pool = pool(2).await;
        let alice = pool.session("alice").affinity(Affinity::StrictFailFast);
        let ((own, _), placement) = visit(&alice).await;
        assert_eq!(placement, Some(Placement::New));
        let lease = lease_worker(&alice).await;
        let refused = [
            alice.call::<_, Visit>("visit", ()).await.map(drop),
            alice.stream::<Visit>("visits", (1,)).await.map(drop),
            alice.checkout().await.map(drop),
        ];
        for answer in refused {
            let error = answer.expect_err("its worker is taken");
            let CallError::SessionBusy { session, retry_after } = &error else { panic!("{error:?}") };
            assert!(session == "alice" && *retry_after >= Duration::from_secs(1));
            assert!(error.is_retryable() && error.attempts() == 0);
        }
        drop(lease);
        status_when(&pool, "the worker is free", |status| status.idle == 2 && status.session_busy == 3).await;
        assert_eq!(visit(&alice).await, ((own, 1), Some(Placement::Kept)));
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn answered_caller_finds_worker_of_session_free() {
        let pool = pool(2).await;
        let alice = pool.session("alice").affinity(Affinity::StrictFailFast);
        let ((own, _), _) = visit(&alice).await;
        for before in 0..300 {
            let items = alice.stream::<Visit>("visits", (1,)).await.expect("the worker is free");
            assert_eq!(read(items).await.0, [(own, 2 * before + 1)]);
            assert_eq!(visit(&alice).await, ((own, 2 * before + 2), Some(Placement::Kept)));
            let error = alice.call::<_, ()>("fail", ("no",)).await.expect_err("the function raises");
            assert!(matches!(error, CallError::Python { .. }), "{error:?}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_of_dead_worker_is_reported_lost_once() {
        let pool = pool(2).await;
        for (deaths, affinity) in (1..).zip([Affinity::Hint, Affinity::StrictQueue, Affinity::StrictFailFast]) {
            let alice = pool.session("alice").affinity(affinity);
            let ((own, before), placement) = visit(&alice).await;
            assert_eq!((before, placement), (0, Some(Placement::New)));
            kill(own);
            // The pool counts a dead worker as idle until it notices the death.
            status_when(&pool, "the worker is replaced", |status| status.restarts == deaths && status.idle == 2).await;
            assert_lost(alice.call::<_, Visit>("visit", ()).await, "alice");
            let ((_, before), placement) = visit(&alice).await;
            assert_eq!((before, placement), (0, Some(Placement::New)), "{affinity:?}");
            alice.end().await.expect("the hooks succeed");
        }
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.session_lost, status.sessions), (3, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_loss_is_repeated_until_a_caller_receives_it() {
        // The broker runs on this thread, so it cannot answer before the caller drops its request.
        let pool = pool_with(SOURCE).size(2).on_current_arbiter().start().await.expect("the pool starts");
        let alice = pool.session("alice").affinity(Affinity::StrictQueue);
        let ((own, _), _) = visit(&alice).await;
        kill(own);
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.idle == 2).await;

        let message = Call::new("visit", ()).expect("the arguments can be encoded").session("alice").affinity(Affinity::Hint);
        assert!(pool.actor().send(message).now_or_never().is_none(), "the request is dropped before the broker handles it");
        // Drop a call, a stream and a checkout: first before and then after the answer of the broker.
        for waits in [false, true] {
            let before = pool.status().await.expect("the pool runs").session_lost;
            let mut call = pin!(alice.call::<_, Visit>("visit", ()));
            let mut stream = pin!(alice.stream::<Visit>("visits", (1,)));
            let mut lease = pin!(alice.checkout());
            assert!((&mut call).now_or_never().is_none() && (&mut stream).now_or_never().is_none());
            assert!((&mut lease).now_or_never().is_none());
            if waits {
                status_when(&pool, "all were told", |status| status.session_lost >= before + 3).await;
            }
        }
        assert_lost(alice.call::<_, Visit>("visit", ()).await, "alice");
        let ((_, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::New)), "one caller received the loss");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn pinned_requests_fail_at_once_when_their_worker_dies() {
        let pool = pool(2).await;
        let alice = pool.session("alice").affinity(Affinity::StrictQueue);
        let ((own, _), _) = visit(&alice).await;
        let (held, first, second, ()) = tokio::join!(
            alice.call::<_, u32>("hold_session", ("a",)),
            async {
                // The call waits behind the lease, even when the worker has free capacity.
                status_when(&pool, "the lease waits", |status| status.waiting == 1).await;
                alice.call::<_, Visit>("visit", ()).await
            },
            async { wait_for_file("a.began").await; alice.checkout().await.map(drop) },
            async {
                status_when(&pool, "both requests are queued", |status| status.waiting == 2).await;
                kill(own);
            }
        );
        let held = held.expect_err("its worker is dead");
        assert!(matches!(held, CallError::WorkerDied { started: true, signal: Some(9), .. }), "{held:?}");
        assert_lost(first, "alice");
        assert_lost(second, "alice");
        let ((_, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::New)), "it was told");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idle_session_expires() {
        let pool = pool_with(SOURCE).size(1).session_ttl(Duration::from_millis(400)).start().await;
        let pool = pool.expect("the pool starts");
        let (alice, bob) = (pool.session("alice"), pool.session("bob"));
        visit(&alice).await;
        // A session in use does not expire.
        let lease = lease_worker(&bob).await;
        assert_eq!(lease.call::<_, Visit>("visit", ()).await.expect("the call succeeds").1, 0);
        let (since, ttl) = (Instant::now(), Duration::from_millis(800));
        wait_until("the ttl has passed", LONG_TIMEOUT, || since.elapsed() > ttl).await;
        assert_eq!(lease.call::<_, Visit>("visit", ()).await.expect("the call succeeds").1, 1);
        drop(lease);
        status_when(&pool, "both have expired", |status| status.sessions == 0).await;
        wait_until("the hooks have run", LONG_TIMEOUT, || lines("also ended").len() == 2).await;
        assert_eq!(lines("ended"), ["alice visits", "bob visits"]);
        let ((_, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::New)));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_limit_evicts_the_longest_idle_session() {
        let pool = pool_with(SOURCE).size(4).max_sessions(3).start().await.expect("the pool starts");
        let all = ["a", "b", "c"].map(|name| pool.session(name));
        for session in &all {
            visit(session).await;
        }
        visit(&all[0]).await;
        visit(&pool.session("d")).await;
        wait_until("the hooks have run", LONG_TIMEOUT, || lines("also ended") == ["b"]).await;
        assert_eq!(visit(&all[0]).await.0.1, 2, "the session was used recently");
        visit(&pool.session("e")).await;
        wait_until("the hooks have run", LONG_TIMEOUT, || lines("also ended") == ["b", "c"]).await;
        // Sessions in use are not evicted, so there is no room for another session.
        let leases = join_all(["a", "d", "e"].map(|name| async { pool.session(name).checkout().await.expect("a worker is free") }));
        let leases = leases.await;
        let error = pool.session("f").call::<_, Visit>("visit", ()).await.expect_err("there is no room");
        assert!(matches!(error, CallError::Overloaded { cause: OverloadCause::MaxSessions, .. }) && error.is_retryable(), "{error:?}");
        drop(leases);
        status_when(&pool, "all are free", |status| status.idle == 4).await;
        visit(&pool.session("f")).await;
        wait_until("the hooks have run", LONG_TIMEOUT, || lines("also ended").len() == 3).await;
        assert_eq!(lines("ended").len(), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_end_waits_for_running_call() {
        let pool = pool(2).await;
        let alice = pool.session("alice");
        let (held, end, ()) = tokio::join!(
            alice.call::<_, u32>("hold_session", ("a",)),
            async { wait_for_file("a.began").await; alice.end().await },
            async {
                wait_for_file("a.began").await;
                status_when(&pool, "the session is removed", |status| status.sessions == 0).await;
                assert!(lines("ended").is_empty());
                touch("a.go");
            }
        );
        held.expect("the held call returns");
        end.expect("the hooks succeed");
        assert_eq!((lines("ended"), lines("also ended")), (vec!["alice held".into()], vec!["alice".into()]));
        let ((_, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::New)));
        // The same by message, and for an unknown session.
        let broker = pool.actor();
        broker.send(EndSession("alice".into())).await.expect("the broker is up").expect("the hooks succeed");
        broker.send(EndSession("nobody".into())).await.expect("the broker is up").expect("there is nothing to do");
        pool.session("nobody").end().await.expect("there is nothing to do");
        assert_eq!(lines("also ended"), ["alice", "alice"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn failed_session_hook_is_reported_and_session_ends() {
        let pool = pool_with(SOURCE).size(1).hook_timeout(SHORT_TIMEOUT).cancel_grace(LONG_TIMEOUT);
        let pool = pool.start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let alice = pool.session("alice");
        remember(&alice, "raise").await;
        let error = alice.end().await.expect_err("its hook raises");
        let CallError::Python { type_name, message, traceback, .. } = &error else { panic!("{error:?}") };
        assert_eq!((type_name.as_str(), message.as_str()), ("KeyError", "'raise'"));
        assert!(traceback.contains("in ended") && lines("also ended") == ["alice"], "{traceback}");
        assert_eq!(visit(&alice).await.0.1, 0);
        remember(&alice, "hang").await;
        let error = alice.end().await.expect_err("its hook hangs");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, .. }), "{error:?}");
        let ((_, before), placement) = visit(&alice).await;
        assert_eq!((before, placement), (0, Some(Placement::New)));
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}
