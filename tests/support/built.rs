//! Builds the examples for the suites that run them, because `cargo test --test NAME` builds no examples.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Builds these examples once, with the profile and target directory of this test. Each suite names all examples that it
/// runs. When the build fails, returns false and prints why; in CI (`CI` is set) it fails the test.
pub(crate) fn build(names: &[&str]) -> bool {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    match BUILT.get_or_init(|| try_build(names)) {
        Ok(()) => true,
        Err(why) if std::env::var_os("CI").is_some() => panic!("the examples cannot be built: {why}"),
        Err(why) => {
            eprintln!("skipped: the examples cannot be built: {why}");
            false
        }
    }
}

/// The path of a built example.
pub(crate) fn example(name: &str) -> PathBuf {
    folder().join("examples").join(name)
}

/// `TARGET/[TRIPLE/]PROFILE`; the test is in its `deps`.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test binary");
    test.ancestors().nth(2).expect("it is in deps/").to_owned()
}

fn try_build(names: &[&str]) -> Result<(), String> {
    let folder = folder();
    let above: Vec<_> = folder.ancestors().skip(1).take(2).collect();
    let name = |folder: &Path| folder.file_name().map(OsStr::to_owned).unwrap_or_default();
    let profile = match name(&folder) {
        name if name == "debug" => "dev".into(),
        name => name,
    };
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--profile"]).arg(profile);
    build.args(names.iter().flat_map(|name| ["--example", name]));
    let is_target = |folder: &&Path| folder.join(".rustc_info.json").exists();
    if above.first().is_some_and(is_target) {
        build.arg("--target-dir").arg(above[0]);
    } else if above.get(1).is_some_and(is_target) {
        build.arg("--target-dir").arg(above[1]).arg("--target").arg(name(above[0]));
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let built = build.output().map_err(|error| format!("cannot run {build:?}: {error}"))?;
    if !built.status.success() {
        return Err(format!("{build:?}: {}", String::from_utf8_lossy(&built.stderr)));
    }
    match names.iter().find(|name| !example(name).exists()) {
        Some(name) => Err(format!("{build:?} does not make {}", example(name).display())),
        None => Ok(()),
    }
}
