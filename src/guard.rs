//! Users' code where it must do no harm: a panic in it ends here.
//!
//! Not only hooks are users' code. A value of theirs is dropped, an error of theirs is printed, a logger or a waker of
//! theirs is called. What cannot be caught is a second panic while a first one unwinds, such as of two fields of
//! one actor: Rust ends the process then.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs users' code; the message of its panic.
pub(crate) fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(message_of)
}

/// Drops a user's value; a panic in its drop ends here.
pub(crate) fn discard<T>(value: T) {
    // The panic hook has had its say.
    let _ = guarded(move || drop(value));
}

/// The text of a panic.
fn message_of(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<String>() {
        Ok(message) => return *message,
        Err(panic) => panic,
    };
    if let Some(message) = panic.downcast_ref::<&str>() {
        return (*message).to_owned();
    }
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // One whose drop panics with another of its kind would never come to an end.
        std::mem::forget(second);
    }
    "a value that is not text".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn whatever_it_does() {
        assert_eq!(guarded(|| 1), Ok(1));
        assert_eq!(guarded(|| -> u8 { panic!("with {}", "a text") }), Err("with a text".to_owned()));
        let message = guarded(|| -> u8 { std::panic::panic_any(7) });
        assert_eq!(message, Err("a value that is not text".to_owned()));
        discard(Bomb);
        assert!(guarded(|| std::panic::panic_any(Bomb)).is_err());
    }
}
