//! Names: one living child per name in a whole tree.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::shared::Entry;

/// The names of one tree.
#[derive(Default)]
pub(crate) struct Registry {
    names: Mutex<HashMap<Arc<str>, Named>>,
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
