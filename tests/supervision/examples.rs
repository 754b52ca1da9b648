//! The examples print what `examples/README.md` shows.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The first text after this heading.
fn shown(heading: &str) -> &'static str {
    let readme = include_str!("../../examples/README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, text) = section.split_once("```text\n").unwrap();
    text.split_once("```").unwrap().0
}

const EXAMPLES: [&str; 2] = ["strategies", "supervision_tree"];

/// The built examples, in the order of [`EXAMPLES`]: `cargo test --test supervision` builds none, so they are built here, with the
/// profile and in the target directory of this test.
///
/// # Errors
/// Why they cannot be built.
fn build() -> Result<Vec<PathBuf>, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    // TARGET/[TRIPLE/]PROFILE/deps/supervision-HASH
    let folders: Vec<_> = test.ancestors().skip(2).take(3).collect();
    let name = |folder: &Path| folder.file_name().map(OsStr::to_owned).unwrap_or_default();
    let profile = match name(folders[0]) {
        name if name == "debug" => "dev".into(),
        name => name,
    };
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--message-format=json", "--profile"]).arg(profile);
    build.args(EXAMPLES.iter().flat_map(|name| ["--example", name]));
    let is_target = |folder: &&Path| folder.join(".rustc_info.json").exists();
    if folders.get(1).is_some_and(is_target) {
        build.arg("--target-dir").arg(folders[1]);
    } else if folders.get(2).is_some_and(is_target) {
        build.arg("--target-dir").arg(folders[2]).arg("--target").arg(name(folders[1]));
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let built = build.output().map_err(|error| format!("cannot run {build:?}: {error}"))?;
    if !built.status.success() {
        return Err(format!("{build:?}: {}", String::from_utf8_lossy(&built.stderr)));
    }
    let messages: Vec<serde_json::Value> = built
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let program = |name: &&str| {
        let is_it = |message: &&serde_json::Value| message["target"]["name"] == **name;
        let message = messages.iter().filter(is_it).find_map(|message| message["executable"].as_str());
        message.map(PathBuf::from).ok_or_else(|| format!("{build:?} does not say where {name} is"))
    };
    EXAMPLES.iter().map(program).collect()
}

/// An example, ready to run. `None`, which is told, when it cannot be built; on CI (`CI` is set) that fails the test.
fn example(name: &str) -> Option<Command> {
    static BUILT: OnceLock<Result<Vec<PathBuf>, String>> = OnceLock::new();
    match BUILT.get_or_init(build) {
        Ok(programs) => {
            let number = EXAMPLES.iter().position(|known| *known == name).unwrap();
            Some(Command::new(&programs[number]))
        }
        Err(why) if std::env::var_os("CI").is_some() => panic!("the examples cannot be built: {why}"),
        Err(why) => {
            eprintln!("skipped: the examples cannot be built: {why}");
            None
        }
    }
}

#[test]
fn strategies() {
    let Some(mut example) = example("strategies") else { return };
    let output = example.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), shown("strategies"));
}

#[test]
fn supervision_tree() {
    let Some(mut example) = example("supervision_tree") else { return };
    let mut child = example.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut answer = |command: &str, last: &str| {
        writeln!(stdin, "{command}").unwrap();
        let mut text = String::new();
        for line in lines.by_ref() {
            text += &line;
            text += "\n";
            if line.contains(last) {
                return text;
            }
        }
        panic!("{command}: no {last:?} in\n{text}");
    };
    answer("", "quit");
    answer("help", "quit");
    let crash = shown("supervision_tree");
    assert_eq!(answer("crash shop/cart", crash.lines().last().unwrap()), crash);
    answer("add shop/wishlist", "app/shop/wishlist: started");
    answer("terminate shop/wishlist", "app/shop/wishlist: stopped");
    answer("restart shop/wishlist", "app/shop/wishlist: started");
    answer("stop report", "app/report: ended (incarnation 3): normal");
    answer("stop report", "error: the child is down");
    answer("tree", "report [worker] down, last exit: normal");
    answer("json", "\"path\":\"app/shop/wishlist\"");
    answer("dot", "\"app/shop\" -> \"app/shop/wishlist\"");
    answer("mermaid", "report<br>down");
    answer("quit", "app/database: stopped");
    assert!(child.wait().unwrap().success());
}
