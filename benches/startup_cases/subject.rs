//! What is imported, and by which interpreter.

use std::path::PathBuf;

use hatchery::{Pool, PoolBuilder};

use crate::environment;

/// A module of `benches/startup_cases/python`.
pub(crate) struct Subject {
    /// Ends the cases' names.
    pub(crate) name: &'static str,
    pub(crate) module: &'static str,
    pub(crate) python: PathBuf,
}

impl Subject {
    pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/startup_cases/python");

    /// A module that imports nothing.
    pub(crate) fn bare() -> Subject {
        Subject { name: "bare", module: "bare_module", python: environment::real_interpreter() }
    }

    /// DSPy where it can be had, else a part of the standard library.
    pub(crate) fn heavy() -> Subject {
        match environment::with("bench-venv", &["dspy"]) {
            Ok(python) => Subject { name: "dspy", module: "dspy_module", python },
            Err(why) => {
                eprintln!("no DSPy ({why}): the cases import a part of the standard library instead");
                Subject { name: "stdlib", module: "stdlib_module", python: environment::real_interpreter() }
            }
        }
    }

    /// A pool of workers that serve it.
    pub(crate) fn pool(&self, workers: usize, zygote: bool) -> PoolBuilder {
        let pool = Pool::builder().module(self.module).path(Self::FOLDER).python(&self.python).size(workers);
        if zygote { pool.zygote() } else { pool }
    }
}
