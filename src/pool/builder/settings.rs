//! Checks the settings of a builder.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use super::PoolBuilder;
use crate::error::ConfigError;
use crate::pool::broker::{BrokerRef, CallDefaults, Config, Inbox, PoolShared};
use crate::pool::core;
use crate::port::{Spawner, find_program};
use crate::worker;

/// The smallest frame limit: room for any error.
const LEAST_FRAME_BYTES: u32 = 64 * 1024;

impl PoolBuilder {
    /// Refuses settings that cannot be used.
    pub(super) fn check(&self) -> Result<Config, ConfigError> {
        let refuse = |field, value: &dyn fmt::Debug, allowed| {
            Err(ConfigError { field, value: format!("{value:?}"), allowed })
        };
        let module = match &self.module {
            Some(module) if module.split('.').next() == Some("hatchery") => {
                return refuse("module", module, "not `hatchery`, which is the workers' own package");
            }
            Some(module) if is_module(module) => module.clone(),
            Some(module) => return refuse("module", module, "a Python module's name, as in `import`"),
            None => return refuse("module", &"", "must be set: `.module(\"name\")`"),
        };
        if !(1..=1024).contains(&self.size) {
            return refuse("size", &self.size, "1 to 1024 workers");
        }
        if !(1..=1024).contains(&self.in_flight) {
            return refuse("in_flight", &self.in_flight, "1 to 1024 calls");
        }
        if self.threads > 0 && self.in_flight == 1 {
            return refuse(
                "threads",
                &self.threads,
                "0 unless in_flight is more than 1: one call needs no threads",
            );
        }
        if self.threads > 1024 {
            return refuse("threads", &self.threads, "at most 1024 threads");
        }
        let min_ready = self.min_ready.unwrap_or(self.size);
        if min_ready > self.size {
            return refuse("min_ready", &min_ready, "at most the pool's size");
        }
        if let Some(module) = self.preload.iter().find(|module| !is_module(module)) {
            return refuse("preload", module, "Python modules' names, as in `import`");
        }
        let is_imported = |allowed: &String| *allowed == module || self.preload.contains(allowed);
        if let Some(allowed) = self.port.zygote_allow.iter().find(|allowed| !is_imported(allowed)) {
            return refuse("zygote_allow", allowed, "the pool's module, or one that is given to `preload`");
        }
        let limit = self.port.max_frame_bytes;
        if limit < LEAST_FRAME_BYTES {
            return refuse("max_frame_bytes", &limit, "at least 65536 bytes (64 KiB)");
        }
        let timeouts = [
            ("spawn_timeout", self.port.spawn_timeout),
            ("checkout_timeout", self.checkout_timeout),
            ("call_timeout", self.call_timeout),
            ("shutdown_timeout", self.shutdown_timeout),
            ("hook_timeout", self.hook_timeout),
            ("session_ttl", self.session_ttl),
        ];
        for (field, timeout) in timeouts {
            if timeout.is_zero() {
                return refuse(field, &timeout, "more than zero");
            }
        }
        if let Some((field, value, allowed)) = self.backoff.refusal() {
            return Err(ConfigError { field, value, allowed });
        }
        if self.queue_bytes == 0 {
            return refuse("queue_bytes", &0, "at least 1 byte");
        }
        if self.max_sessions == 0 {
            return refuse("max_sessions", &0, "at least 1");
        }
        if let Some((name, _)) = self.port.env.changes().find(|(name, _)| !is_variable(name)) {
            return refuse("env", &name, "names that are not empty and hold neither `=` nor a zero byte");
        }
        let has_zero_byte = |text: &OsStr| text.as_encoded_bytes().contains(&0);
        if let Some((name, _)) = self.port.env.changes().find(|(_, value)| value.is_some_and(has_zero_byte)) {
            // The value itself may be a secret.
            return refuse("env", &name, "values that hold no zero byte");
        }
        let mut launcher = self.port.launcher.clone();
        if let Some(word) = launcher.iter().find(|word| has_zero_byte(word)) {
            return refuse("launcher", word, "words that hold no zero byte");
        }
        if let Some(program) = launcher.first_mut() {
            let Some(found) = find_program(program) else {
                return refuse("launcher", program, "a program on PATH, or the path of an executable file");
            };
            *program = found.into();
        }
        let name = self.name.clone().unwrap_or_else(|| module.clone());
        if name.is_empty() || name.contains(|letter: char| letter == '/' || letter.is_control()) {
            return refuse(
                "name",
                &name,
                "a name that is not empty and holds neither `/` nor a control character",
            );
        }
        // These numbers fit: checked above.
        let core = core::Config {
            size: self.size as u32,
            min_ready: min_ready as u32,
            in_flight: self.in_flight as u32,
            queue_bound: self.queue_bound,
            queue_bytes: self.queue_bytes,
            session_ttl: self.session_ttl,
            max_sessions: self.max_sessions,
        };
        // More would surely be refused: every worker is busy then, and the queue full.
        let most_entries = self.queue_bound.saturating_add(self.size * self.in_flight);
        let mut port = self.port.clone();
        port.module = module;
        port.launcher = launcher;
        port.workers = core.size;
        port.zygote = self.zygote;
        port.in_flight = core.in_flight;
        port.threads = self.threads as u32;
        port.host_functions = self.host.names();
        let preload = self.zygote.then(|| self.preload.clone());
        let defaults = CallDefaults {
            pool: name.clone(),
            call_timeout: self.call_timeout,
            checkout_timeout: self.checkout_timeout,
            max_frame_bytes: limit,
        };
        let shared = PoolShared::new(defaults, Inbox::new(most_entries, self.queue_bytes));
        Ok(Config {
            spawner: Spawner::new(Arc::new(port), preload, format!("{name}-zygote")),
            name,
            core,
            shutdown_timeout: self.shutdown_timeout,
            backoff: self.backoff,
            worker: worker::Settings {
                in_flight: self.in_flight,
                cancel_grace: self.cancel_grace,
                host_functions: self.host.build(BrokerRef::new(shared.clone()), limit),
            },
            declared: self.declared.as_slice().into(),
            hook_timeout: self.hook_timeout,
            shared,
        })
    }
}

fn is_module(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|part| {
            let mut letters = part.chars();
            letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
        })
}

fn is_variable(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    !bytes.is_empty() && !bytes.contains(&b'=') && !bytes.contains(&0)
}
