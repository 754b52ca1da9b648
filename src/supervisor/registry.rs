//! The registry of a whole tree: names, each of one living child, and orphans.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{control::Control, shared::Entry};

/// The names and the unkillable instances of one tree.
#[derive(Default)]
pub(crate) struct Registry {
    names: Mutex<HashMap<Arc<str>, Named>>,
    /// By path: no supervisor starts a child there while its orphan lives.
    orphans: Mutex<HashMap<Arc<str>, Orphan>>,
    /// Hardly ever true, and asked at each start.
    has_orphans: AtomicBool,
    /// How many supervisors have subscribers to their reports.
    pub(crate) subscribed: AtomicUsize,
}

/// An instance that may have outlived its supervisor's wait for its end, or its supervisor.
#[derive(Clone)]
pub(crate) struct Orphan {
    pub(crate) control: Arc<Control>,
    pub(crate) incarnation: u64,
}

#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) path: Arc<str>,
    pub(crate) entry: Entry,
}

impl Registry {
    /// Takes a name until the registration is dropped; the path of its owner when it is taken.
    pub(crate) fn register(self: &Arc<Self>, name: &str, named: Named) -> Result<Registration, Arc<str>> {
        let mut names = self.names();
        if let Some(owner) = names.get(name) {
            return Err(owner.path.clone());
        }
        let name: Arc<str> = name.into();
        names.insert(name.clone(), named);
        Ok(Registration { registry: Arc::downgrade(self), name })
    }

    pub(crate) fn whereis(&self, name: &str) -> Option<Named> {
        self.names().get(name).cloned()
    }

    /// No second instance may be started at this path before this one has ended.
    pub(crate) fn add_orphan(&self, path: Arc<str>, orphan: Orphan) {
        let mut orphans = self.orphans();
        orphans.retain(|_, orphan| !orphan.control.is_over());
        orphans.insert(path, orphan);
        self.has_orphans.store(true, Ordering::Release);
    }

    /// The instance, if there is one, whose end a start at this path has to wait for. It may have ended.
    pub(crate) fn orphan(&self, path: impl FnOnce() -> Arc<str>) -> Option<Orphan> {
        if !self.has_orphans.load(Ordering::Acquire) {
            return None;
        }
        self.orphans().get(&path()).cloned()
    }

    fn orphans(&self) -> MutexGuard<'_, HashMap<Arc<str>, Orphan>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, Named>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name, as long as it is held.
pub(crate) struct Registration {
    registry: Weak<Registry>,
    name: Arc<str>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.names().remove(&self.name);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.name).finish()
    }
}
