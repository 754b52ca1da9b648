//! The embedded Python package: what travels to the interpreter.

/// The stub: a worker is started as `PYTHON -c STUB NAME`. It reads the bootstrap from fd 0, so that the command line
/// shows none of our source.
pub(crate) const STUB: &str = include_str!("../../python/stub.py").trim_ascii_end();

/// Goes to a worker first, with its length and with the worker's descriptors; reads the package.
pub(crate) const BOOTSTRAP: &str = include_str!("../../python/bootstrap.py");

/// Every module of the package, and its source.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    ("hatchery", include_str!("../../python/hatchery/__init__.py")),
    ("hatchery.__main__", include_str!("../../python/hatchery/__main__.py")),
    ("hatchery._attachments", include_str!("../../python/hatchery/_attachments.py")),
    ("hatchery._start_marker", include_str!("../../python/hatchery/_start_marker.py")),
    ("hatchery._calls", include_str!("../../python/hatchery/_calls.py")),
    ("hatchery._children", include_str!("../../python/hatchery/_children.py")),
    ("hatchery._codecs", include_str!("../../python/hatchery/_codecs.py")),
    ("hatchery._descriptors", include_str!("../../python/hatchery/_descriptors.py")),
    ("hatchery._embedded", include_str!("../../python/hatchery/_embedded.py")),
    ("hatchery._environment", include_str!("../../python/hatchery/_environment.py")),
    ("hatchery._errors", include_str!("../../python/hatchery/_errors.py")),
    ("hatchery._functions", include_str!("../../python/hatchery/_functions.py")),
    ("hatchery._hooks", include_str!("../../python/hatchery/_hooks.py")),
    ("hatchery._host", include_str!("../../python/hatchery/_host.py")),
    ("hatchery._inbox", include_str!("../../python/hatchery/_inbox.py")),
    ("hatchery._interfaces", include_str!("../../python/hatchery/_interfaces.py")),
    ("hatchery._logs", include_str!("../../python/hatchery/_logs.py")),
    ("hatchery._loop", include_str!("../../python/hatchery/_loop.py")),
    ("hatchery._memfds", include_str!("../../python/hatchery/_memfds.py")),
    ("hatchery._serving", include_str!("../../python/hatchery/_serving.py")),
    ("hatchery._signals", include_str!("../../python/hatchery/_signals.py")),
    ("hatchery._stack", include_str!("../../python/hatchery/_stack.py")),
    ("hatchery._streams", include_str!("../../python/hatchery/_streams.py")),
    ("hatchery._threads", include_str!("../../python/hatchery/_threads.py")),
    ("hatchery._title", include_str!("../../python/hatchery/_title.py")),
    ("hatchery._tracker", include_str!("../../python/hatchery/_tracker.py")),
    ("hatchery._values", include_str!("../../python/hatchery/_values.py")),
    ("hatchery._watch", include_str!("../../python/hatchery/_watch.py")),
    ("hatchery._wire", include_str!("../../python/hatchery/_wire.py")),
    ("hatchery._worker", include_str!("../../python/hatchery/_worker.py")),
    ("hatchery._zygote", include_str!("../../python/hatchery/_zygote.py")),
];

/// The exit code of a worker whose Python is not the one that compiled the package.
pub(crate) const EXIT_WRONG_PACKAGE: i32 = 78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_holds_every_module_of_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/python/hatchery");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the sources are there")
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".py"))
            .collect();
        files.sort();
        let mut named: Vec<String> = SOURCES
            .iter()
            .map(|(name, _)| format!("{}.py", name.split_once('.').map_or("__init__", |(_, module)| module)))
            .collect();
        named.sort();
        assert_eq!(named, files);
    }
}
