//! The Python interpreter of the tests, and modules for workers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of the active virtual environment, else `python3` on PATH.
///
/// # Panics
///
/// When no interpreter is found.
pub(crate) fn python() -> PathBuf {
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        let path = Path::new(&environment).join("bin/python3");
        assert!(path.exists(), "VIRTUAL_ENV is set, but there is no {}", path.display());
        return path;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("python3")).find(|python| python.is_file());
    found.unwrap_or_else(|| {
        panic!("the tests need Python 3: there is no python3 on PATH ({})", path.display())
    })
}

/// Writes the module `name` for a worker into a folder.
pub(crate) fn python_module(folder: &Path, name: &str, source: &str) -> PathBuf {
    let path = folder.join(format!("{name}.py"));
    // Rename is atomic: a restarting worker may import the module at any moment.
    let written = folder.join(format!("{name}.py.new"));
    fs::write(&written, source).expect("the module can be written");
    fs::rename(&written, &path).expect("the module can be put in its place");
    path
}

/// Runs all unittest files under `start`, imported from `top`.
///
/// # Errors
///
/// The output of Python when a test fails or no test exists.
pub(crate) fn unittest(top: &Path, start: &Path) -> Result<(), String> {
    unittest_with(&python(), top, start, "test*.py")
}

/// Runs the unittest files under `start` that match the pattern, with this interpreter.
///
/// # Errors
///
/// The output of Python when a test fails or no test exists.
pub(crate) fn unittest_with(python: &Path, top: &Path, start: &Path, names: &str) -> Result<(), String> {
    let output = Command::new(python)
        .env(
            "HATCHERY_TEST_IN_FLIGHT",
            if crate::IN_FLIGHT > 1 { crate::IN_FLIGHT.to_string() } else { "".into() },
        )
        .args(["-B", "-m", "unittest", "discover", "-s"])
        .arg(start)
        .arg("-t")
        .arg(top)
        .args(["-p", names])
        .output()
        .map_err(|error| format!("{} does not start: {error}", python.display()))?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("python3 -m unittest ended with {}:\n{said}", output.status));
    }
    // Before Python 3.12 an empty run succeeds.
    if said.contains("Ran 0 tests") {
        return Err(format!("no test under {}:\n{said}", start.display()));
    }
    Ok(())
}
