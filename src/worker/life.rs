//! The life of a worker, as a pure state machine.
//!
//! ```text
//!            a call does not give up           the others are over
//!   Serving -------------------------> Leaving -------------------+
//!      |                                  |                       v        process ended
//!      +----- a write finds the channel --+--> Deaf ----------> Ending -----------------> Ended
//!      |      closed                             end of file ^    ^
//!      '---------------- end of file, protocol error, kill --+----'
//! ```
//!
//! An orderly stop, see [`Stop`], may come in every state.
//! Time is an argument; the action comes out as a [`LifeStep`].

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Instant;

use crate::port::CLOSED_GRACE;

/// Why a worker is killed whose connection is closed while its process goes on.
const CLOSED_BY_CODE: &str = "Python code closed its connection to the pool";

#[derive(Debug, PartialEq)]
enum State {
    /// Python gets calls.
    Serving,
    /// Python gets no more calls. Those that it has may end until `until`; `None`: until the pool ends the worker.
    Leaving { why: String, until: Option<Instant> },
    /// Python has closed its end of the channel. What it wrote before is still read. The process has until `kill_at` to end;
    /// `None`: it has been killed.
    Deaf { kill_at: Option<Instant> },
    /// Only the end of the process is awaited. `why`: unknown when the process ends by itself. `kill_at`: as in `Deaf`.
    Ending { why: Option<String>, kill_at: Option<Instant> },
    /// The process has ended.
    Ended,
}

/// How far an orderly stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    /// Asked for: what runs may finish.
    Asked,
    /// Python has been told to exit.
    Told,
}

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LifeStep {
    /// Kill the process.
    Kill,
    /// The time of a worker that leaves is over: end it.
    EndLeaving,
}

#[derive(Debug)]
pub(super) struct Life {
    state: State,
    stop: Stop,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { state: State::Serving, stop: Stop::No }
    }

    /// Whether Python gets more calls.
    pub(super) fn takes_calls(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether anything is written to Python.
    pub(super) fn writes(&self) -> bool {
        matches!(self.state, State::Serving | State::Leaving { .. })
    }

    /// Whether what Python writes is read.
    pub(super) fn reads(&self) -> bool {
        !self.is_ending()
    }

    /// Whether only the end of the process is awaited, or over.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. } | State::Ended)
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(super) fn stop(&self) -> Stop {
        self.stop
    }

    /// An orderly stop has come so far. Returns whether it had not before.
    pub(super) fn advance_stop(&mut self, stop: Stop) -> bool {
        let is_news = self.stop < stop;
        self.stop = self.stop.max(stop);
        is_news
    }

    /// Python gets no more calls. Returns whether it got calls before.
    pub(super) fn leave(&mut self, why: &str, until: Option<Instant>) -> bool {
        let is_news = self.takes_calls();
        if is_news {
            self.state = State::Leaving { why: why.to_owned(), until };
        }
        is_news
    }

    /// A write found the channel closed.
    pub(super) fn write_failed(&mut self, now: Instant) {
        if self.writes() {
            self.state = State::Deaf { kill_at: Some(now + CLOSED_GRACE) };
        }
    }

    /// The end of what Python wrote was read. The process has most likely ended, and its exit says why.
    pub(super) fn end_of_file(&mut self, now: Instant) {
        let (why, kill_at) = match (&self.state, self.stop) {
            (State::Ending { .. } | State::Ended, _) => return,
            (State::Deaf { kill_at }, Stop::Told) => (Some("asked to"), *kill_at),
            (_, Stop::Told) => (Some("asked to"), None),
            (State::Deaf { kill_at: None }, _) => (Some(CLOSED_BY_CODE), None),
            (State::Deaf { kill_at }, _) => (None, *kill_at),
            (State::Serving | State::Leaving { .. }, _) => (None, Some(now + CLOSED_GRACE)),
        };
        self.state = State::Ending { why: why.map(str::to_owned), kill_at };
    }

    /// The worker is ended for this reason; the caller kills the process. An earlier end keeps its reason.
    pub(super) fn end(&mut self, why: &str) {
        if self.reads() {
            self.state = State::Ending { why: Some(why.to_owned()), kill_at: None };
        }
    }

    /// Ends a worker that leaves. Returns whether it was leaving, so that the process is to be killed.
    pub(super) fn end_leaving(&mut self) -> bool {
        let State::Leaving { why, .. } = &self.state else { return false };
        self.state = State::Ending { why: Some(why.clone()), kill_at: None };
        true
    }

    /// The process has ended.
    pub(super) fn ended(&mut self) {
        self.state = State::Ended;
    }

    /// Why the worker ends, when that is not told by the exit of its process.
    pub(super) fn why(&self) -> Option<&str> {
        match &self.state {
            State::Ending { why, .. } if why.is_some() => why.as_deref(),
            _ => (self.stop == Stop::Told).then_some("asked to"),
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Leaving { until, .. } => *until,
            State::Deaf { kill_at } | State::Ending { kill_at, .. } => *kill_at,
            State::Serving | State::Ended => None,
        }
    }

    /// The action that is due now, if there is one.
    pub(super) fn tick(&mut self, now: Instant) -> Option<LifeStep> {
        if self.next_deadline().is_none_or(|due| now < due) {
            return None;
        }
        match &mut self.state {
            State::Leaving { .. } => Some(LifeStep::EndLeaving),
            State::Deaf { kill_at } => {
                *kill_at = None;
                Some(LifeStep::Kill)
            }
            State::Ending { why, kill_at } => {
                *kill_at = None;
                why.get_or_insert_with(|| CLOSED_BY_CODE.to_owned());
                Some(LifeStep::Kill)
            }
            State::Serving | State::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn leaving_worker_ends_with_its_reason_when_its_time_is_over() {
        let now = Instant::now();
        let mut life = Life::new();
        assert!(life.takes_calls());
        assert!(life.leave("a call hangs", Some(now + Duration::from_secs(2))));
        assert!(!life.leave("another one", None));
        assert!(!life.takes_calls() && life.writes() && life.reads());
        assert_eq!(life.tick(now), None);
        assert_eq!(life.tick(now + Duration::from_secs(2)), Some(LifeStep::EndLeaving));
        assert!(life.end_leaving());
        assert_eq!(life.why(), Some("a call hangs"));
        assert!(!life.writes() && !life.reads());
    }

    #[test]
    fn deaf_worker_is_read_and_killed_after_its_grace() {
        let now = Instant::now();
        let mut life = Life::new();
        life.write_failed(now);
        assert!(!life.writes() && life.reads() && !life.takes_calls());
        assert_eq!(life.next_deadline(), Some(now + CLOSED_GRACE));
        assert_eq!(life.tick(now + CLOSED_GRACE), Some(LifeStep::Kill));
        assert_eq!(life.tick(now + CLOSED_GRACE), None);
        life.end_of_file(now + CLOSED_GRACE);
        assert_eq!(life.why(), Some(CLOSED_BY_CODE));
    }

    #[test]
    fn process_that_goes_on_after_end_of_file_is_killed() {
        let now = Instant::now();
        let mut life = Life::new();
        life.end_of_file(now);
        assert_eq!((life.why(), life.reads()), (None, false));
        assert_eq!(life.tick(now + CLOSED_GRACE), Some(LifeStep::Kill));
        assert_eq!(life.why(), Some(CLOSED_BY_CODE));
        life.ended();
        assert!(life.has_ended());
    }

    #[test]
    fn end_of_file_after_a_told_stop_is_the_orderly_end() {
        let now = Instant::now();
        let mut life = Life::new();
        assert!(life.advance_stop(Stop::Asked));
        assert!(!life.advance_stop(Stop::Asked));
        assert!(life.takes_calls(), "what runs may finish");
        assert!(life.advance_stop(Stop::Told));
        life.end_of_file(now);
        assert_eq!((life.why(), life.next_deadline()), (Some("asked to"), None));
    }

    #[test]
    fn first_reason_to_end_is_kept() {
        let mut life = Life::new();
        life.end("protocol error");
        life.end("another one");
        life.write_failed(Instant::now());
        life.end_of_file(Instant::now());
        assert_eq!(life.why(), Some("protocol error"));
    }
}
