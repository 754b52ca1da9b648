//! The examples print what `examples/README.md` shows.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use crate::built;

/// The first text after this heading.
fn shown(heading: &str) -> &'static str {
    let readme = include_str!("../../examples/README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, text) = section.split_once("```text\n").unwrap();
    text.split_once("```").unwrap().0
}

/// An example, ready to run. `None`, which is told, when it cannot be built.
fn example(name: &str) -> Option<Command> {
    built::build(&["strategies", "supervision_tree"]).then(|| Command::new(built::example(name)))
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
