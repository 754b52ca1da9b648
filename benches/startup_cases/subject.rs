//! What is imported, and by which interpreter.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hatchery::{Pool, PoolBuilder};

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
        Subject { name: "bare", module: "bare_module", python: real_interpreter() }
    }

    /// DSPy where it can be had, else a part of the standard library.
    pub(crate) fn heavy() -> Subject {
        match dspy_environment() {
            Ok(python) => Subject { name: "dspy", module: "dspy_module", python },
            Err(why) => {
                eprintln!("no DSPy ({why}): the cases import a part of the standard library instead");
                Subject { name: "stdlib", module: "stdlib_module", python: real_interpreter() }
            }
        }
    }

    /// A pool of workers that serve it.
    pub(crate) fn pool(&self, workers: usize, zygote: bool) -> PoolBuilder {
        let pool = Pool::builder().module(self.module).path(Self::FOLDER).python(&self.python).size(workers);
        if zygote { pool.zygote() } else { pool }
    }
}

/// The interpreter of a virtual environment with DSPy, made under target/ by the first run.
fn dspy_environment() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // target/release/deps/startup-...
    let target = program.ancestors().nth(3).ok_or("this program lies nowhere")?;
    let environment = target.join("bench-venv");
    let python = environment.join("bin/python3");
    if imports_dspy(&python) {
        return Ok(python);
    }
    eprintln!("making {} with DSPy, once; this takes a minute or two", environment.display());
    run(Command::new(real_interpreter()).args(["-m", "venv"]).arg(&environment))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "dspy"];
    run(Command::new(&python).args(install))?;
    if imports_dspy(&python) { Ok(python) } else { Err("it was installed, but cannot be imported".into()) }
}

fn imports_dspy(python: &Path) -> bool {
    let import = Command::new(python).args(["-c", "import dspy"]).stderr(Stdio::null()).status();
    import.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.lines().last().unwrap_or("it failed")))
}

/// The interpreter itself: a `python3` on PATH may be a script that looks for it (pyenv).
fn real_interpreter() -> PathBuf {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("there is a python3 on PATH");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
}
