//! What may happen in a history, and to which pool.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Affinity, Config};

/// How news travel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Post {
    AtOnce,
    Late,
    Lost,
}

/// One step of a history. A slot, a request or a letter is named by a number taken modulo how many there are.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Submit {
        timeout_ms: u64,
        bytes: u64,
        session: Option<(usize, Affinity)>,
        exclusive: bool,
    },
    Announce,
    /// The caller of the next request that is assigned has gone when the shell looks.
    GoesUnseen,
    EndSession {
        session: usize,
    },
    Abandon {
        request: u64,
    },
    /// The caller of a request that was told of a loss takes that answer, or leaves before it does.
    LossHeard {
        which: usize,
        leaves: bool,
    },
    StartSucceeds {
        slot: u32,
        post: Post,
    },
    StartFails {
        slot: u32,
        post: Post,
    },
    Finishes {
        slot: u32,
        which: usize,
        /// Before Python had it.
        dropped: bool,
        post: Post,
    },
    Leaves {
        slot: u32,
        post: Post,
    },
    Dies {
        slot: u32,
        post: Post,
    },
    /// A successor of the slot's worker is started beside it, unless there is one.
    Reloads {
        slot: u32,
    },
    /// It is ready, and the slot's worker from now on.
    SuccessorSucceeds {
        slot: u32,
        post: Post,
    },
    SuccessorFails {
        slot: u32,
    },
    /// A worker that was succeeded goes on: it starts, ends something that it serves, or ends. Its supervisor may start
    /// it again.
    FormerGoesOn {
        former: usize,
        dies: bool,
        again: bool,
        post: Post,
    },
    /// A late letter arrives, whatever was sent before or after it.
    Arrives {
        letter: usize,
    },
    /// Something once sent arrives again.
    Repeats {
        letter: usize,
    },
    /// News of a slot that never was.
    Stray {
        slot: u32,
        incarnation: u64,
        kind: u8,
    },
    /// Time passes, and nobody ticks.
    Waits {
        ms: u64,
    },
    Ticks,
    /// Time passes up to the next deadline, which is then ticked.
    Sleeps,
    Closes,
}

fn post() -> impl Strategy<Value = Post> {
    prop_oneof![6 => Just(Post::AtOnce), 3 => Just(Post::Late), 1 => Just(Post::Lost)]
}

pub(super) const SESSIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn session() -> impl Strategy<Value = Option<(usize, Affinity)>> {
    let affinity = prop_oneof![
        2 => Just(Affinity::Hint),
        2 => Just(Affinity::StrictQueue),
        1 => Just(Affinity::StrictFailFast)
    ];
    prop::option::weighted(0.7, (0..SESSIONS.len(), affinity))
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let slot = || 0..4u32;
    prop_oneof![
        32 => (0..80u64, 0..8u64, session(), prop::bool::weighted(0.25))
            .prop_map(|(timeout_ms, bytes, session, exclusive)| Submit { timeout_ms, bytes, session, exclusive }),
        4 => Just(Announce),
        2 => Just(GoesUnseen),
        3 => (0..SESSIONS.len()).prop_map(|session| EndSession { session }),
        6 => any::<u64>().prop_map(|request| Abandon { request }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, leaves)| LossHeard { which, leaves }),
        14 => (slot(), post()).prop_map(|(slot, post)| StartSucceeds { slot, post }),
        9 => (slot(), post()).prop_map(|(slot, post)| StartFails { slot, post }),
        16 => (slot(), any::<usize>(), prop::bool::weighted(0.1), post())
            .prop_map(|(slot, which, dropped, post)| Finishes { slot, which, dropped, post }),
        2 => (slot(), post()).prop_map(|(slot, post)| Leaves { slot, post }),
        6 => (slot(), post()).prop_map(|(slot, post)| Dies { slot, post }),
        6 => slot().prop_map(|slot| Reloads { slot }),
        6 => (slot(), post()).prop_map(|(slot, post)| SuccessorSucceeds { slot, post }),
        1 => slot().prop_map(|slot| SuccessorFails { slot }),
        6 => (any::<usize>(), prop::bool::weighted(0.3), any::<bool>(), post())
            .prop_map(|(former, dies, again, post)| FormerGoesOn { former, dies, again, post }),
        10 => any::<usize>().prop_map(|letter| Arrives { letter }),
        5 => any::<usize>().prop_map(|letter| Repeats { letter }),
        1 => (4..9u32, any::<u64>(), any::<u8>()).prop_map(|(slot, incarnation, kind)| Stray { slot, incarnation, kind }),
        6 => (0..20u64).prop_map(|ms| Waits { ms }),
        3 => Just(Ticks),
        3 => Just(Sleeps),
        1 => Just(Closes),
    ]
}

pub(super) fn config() -> impl Strategy<Value = Config> {
    let max_sessions = prop_oneof![1 => Just(0), 20 => 1..=5usize];
    let session_ttl = (5..100u64).prop_map(Duration::from_millis);
    let in_flight = prop_oneof![2 => Just(1u32), 2 => Just(2u32), 1 => 3..=4u32];
    (1..=4u32, in_flight, (0..=5usize, 1..=20u64), max_sessions, session_ttl).prop_flat_map(
        |(size, in_flight, (queue_bound, queue_bytes), max_sessions, session_ttl)| {
            (0..=size).prop_map(move |min_ready| Config {
                size,
                min_ready,
                in_flight,
                queue_bound,
                queue_bytes,
                session_ttl,
                max_sessions,
            })
        },
    )
}
