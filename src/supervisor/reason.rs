//! Why a child ended.

use std::fmt;

/// Why a supervised child ended.
///
/// Actix has no exit reasons. The supervisor derives the reason from the way in which the child's future
/// ended, or takes the one that the child has set through [`ChildContext::exit`](super::ChildContext::exit).
///
/// ```
/// use hatchery::supervisor::ExitReason;
///
/// assert!(ExitReason::Normal.is_normal());
/// assert!(!ExitReason::Panic("no such row".into()).is_normal());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// The actor stopped by itself.
    Normal,
    /// The supervisor asked for the end, or a nested supervisor gave up (as in OTP).
    Shutdown,
    /// User code panicked; the text is the panic's message.
    Panic(String),
    /// The child was killed: brutally, or because it did not stop in time.
    Killed,
    /// The thread (arbiter) on which the child ran has stopped under it.
    ArbiterStopped,
    /// The child named its own reason.
    Abnormal(String),
}

impl ExitReason {
    /// Whether a [`Restart::Transient`](super::Restart::Transient) child stays down after this end.
    pub fn is_normal(&self) -> bool {
        matches!(self, ExitReason::Normal | ExitReason::Shutdown)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("normal"),
            ExitReason::Shutdown => f.write_str("shutdown"),
            ExitReason::Panic(message) => write!(f, "panic: {message}"),
            ExitReason::Killed => f.write_str("killed"),
            ExitReason::ArbiterStopped => f.write_str("its arbiter has stopped"),
            ExitReason::Abnormal(reason) => f.write_str(reason),
        }
    }
}
