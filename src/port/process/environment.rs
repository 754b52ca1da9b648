//! How the environment of a worker's process differs from this process's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::Command;

/// Changes to the environment that this process hands on.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Environment {
    /// Nothing of this process's environment is handed on.
    cleared: bool,
    /// In the order in which they are made; `None` removes the variable.
    changes: Vec<(OsString, Option<OsString>)>,
}

impl Environment {
    pub(crate) fn set(&mut self, name: OsString, value: OsString) {
        self.changes.push((name, Some(value)));
    }

    pub(crate) fn remove(&mut self, name: OsString) {
        self.changes.push((name, None));
    }

    /// Drops inherited variables and earlier changes.
    pub(crate) fn clear(&mut self) {
        self.cleared = true;
        self.changes.clear();
    }

    /// Every variable that is set or removed.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.changes.iter().map(|(name, value)| (name.as_os_str(), value.as_deref()))
    }

    pub(crate) fn apply(&self, command: &mut Command) {
        if self.cleared {
            command.env_clear();
        }
        for (name, value) in self.changes() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// How large it is, for an error that says it is too large. Values may be secrets: only names are told.
    pub(crate) fn describe_size(&self) -> String {
        let mut variables: HashMap<OsString, usize> = HashMap::new();
        if !self.cleared {
            variables.extend(std::env::vars_os().map(|(name, value)| (name, value.len())));
        }
        for (name, value) in &self.changes {
            match value {
                Some(value) => variables.insert(name.clone(), value.len()),
                None => variables.remove(name),
            };
        }
        // Each is `NAME=value` and a zero byte.
        let total: usize = variables.iter().map(|(name, value)| name.len() + value + 2).sum();
        let largest = variables.iter().max_by_key(|(_, value)| **value);
        let largest = largest.map_or(String::new(), |(name, value)| {
            format!("; the largest is `{}` with {value} bytes", name.display())
        });
        format!("{} variables of {total} bytes together{largest}", variables.len())
    }
}

impl fmt::Debug for Environment {
    /// Values may be secrets: only names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.changes.iter().map(|(name, _)| name).collect();
        f.debug_struct("Environment").field("cleared", &self.cleared).field("changes", &names).finish()
    }
}
