//! Virtual environments for what a bench imports, made under target/ by its first run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The interpreter of the environment of this name, in which these packages can be imported.
///
/// # Errors
/// Why there is none.
pub(crate) fn with(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // target/release/deps/...
    let target = program.ancestors().nth(3).ok_or("this program lies nowhere")?;
    let environment = target.join(name);
    let python = environment.join("bin/python3");
    if imports(&python, packages) {
        return Ok(python);
    }
    let named = packages.join(" and ");
    eprintln!("making {} with {named}, once; this may take a minute or two", environment.display());
    run(Command::new(real_interpreter()).args(["-m", "venv"]).arg(&environment))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(install).args(packages))?;
    if imports(&python, packages) {
        Ok(python)
    } else {
        Err("it was installed, but cannot be imported".into())
    }
}

fn imports(python: &Path, packages: &[&str]) -> bool {
    let code = format!("import {}", packages.join(", "));
    let import = Command::new(python).args(["-c", &code]).stderr(Stdio::null()).status();
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
pub(crate) fn real_interpreter() -> PathBuf {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("there is a python3 on PATH");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
}
