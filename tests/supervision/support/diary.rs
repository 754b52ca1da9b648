//! What happens in a test, in order; and how many actors live.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::wait_until;

#[derive(Clone, Default)]
pub(crate) struct Diary {
    lines: Arc<Mutex<Vec<String>>>,
    living: Arc<Mutex<HashMap<String, usize>>>,
}

impl Diary {
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// Waits until this has been written, and leaves it there.
    pub(crate) async fn wait_for(&self, line: &str) {
        wait_until(line, || self.lines.lock().unwrap().iter().any(|written| written == line)).await;
    }

    pub(crate) fn living(&self) -> usize {
        self.living.lock().unwrap().values().sum()
    }

    /// A factory's child: counted while it lives, and never twice at once.
    pub(crate) fn guard(&self, name: &str) -> Guard {
        let mut living = self.living.lock().unwrap();
        let count = living.entry(name.to_owned()).or_default();
        assert_eq!(*count, 0, "two instances of {name} at once");
        *count += 1;
        Guard { diary: self.clone(), name: name.to_owned() }
    }

    pub(crate) async fn wait_until_empty(&self) {
        wait_until("all actors are dropped", || self.living() == 0).await;
    }
}

pub(crate) struct Guard {
    diary: Diary,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.diary.living.lock().unwrap().get_mut(&self.name).unwrap() -= 1;
    }
}
