//! What is kept for a whole tree: names, one living child for each, and the instances that outlived their supervisor.

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
    /// By path: whatever supervisor is to start a child there, a living former instance keeps it from that.
    formers: Mutex<HashMap<Arc<str>, Former>>,
    /// Hardly ever true, and asked at each start.
    has_formers: AtomicBool,
    /// How many supervisors have subscribers to their reports.
    pub(crate) subscribed: AtomicUsize,
}

/// An instance that may have outlived its supervisor's wait for its end, or its supervisor.
#[derive(Clone)]
pub(crate) struct Former {
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
    pub(crate) fn outlives(&self, path: Arc<str>, former: Former) {
        let mut formers = self.formers();
        formers.retain(|_, former| !former.control.is_over());
        formers.insert(path, former);
        self.has_formers.store(true, Ordering::Release);
    }

    /// The instance, if there is one, whose end a start at this path has to wait for. It may have ended.
    pub(crate) fn former(&self, path: impl FnOnce() -> Arc<str>) -> Option<Former> {
        if !self.has_formers.load(Ordering::Acquire) {
            return None;
        }
        self.formers().get(&path()).cloned()
    }

    fn formers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Former>> {
        self.formers.lock().unwrap_or_else(PoisonError::into_inner)
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
