//! `docs/errors.md` lists every error, and no other.

use std::collections::BTreeSet;

const DOCS: &str = include_str!("../../docs/errors.md");

/// Where public errors are declared.
const SOURCES: [&str; 6] = [
    include_str!("call.rs"),
    include_str!("config.rs"),
    include_str!("start.rs"),
    include_str!("../supervisor/error.rs"),
    include_str!("../pool/builder/start.rs"),
    include_str!("../pool/broker/errors.rs"),
];
/// What describes an error and is none.
const NO_ERRORS: [&str; 5] = ["Phase", "Direction", "StartPhase", "CallContext", "ReloadWorkers"];

/// The variants of each public enum that is an error, from the source's text.
fn declared() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut enums = Vec::new();
    for source in SOURCES {
        for part in source.split("\npub enum ").skip(1) {
            let (name, rest) = part.split_once(" {\n").expect("a body");
            let body = rest.split("\n}\n").next().expect("an end");
            let is_variant = |line: &&str| {
                line.starts_with("    ") && line.as_bytes().get(4).is_some_and(u8::is_ascii_uppercase)
            };
            let variant = |line: &'static str| {
                let line = &line[4..];
                &line[..line.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(line.len())]
            };
            if !NO_ERRORS.contains(&name) {
                enums.push((name, body.lines().filter(is_variant).map(variant).collect()));
            }
        }
    }
    enums
}

/// The names in backticks, each up to its fields.
fn named() -> BTreeSet<&'static str> {
    DOCS.split('`')
        .skip(1)
        .step_by(2)
        .map(|name| name.split([' ', '(', '{', '.']).next().unwrap_or(""))
        .collect()
}

#[test]
fn errors_in_the_code_are_all_in_the_documents() {
    let (declared, named) = (declared(), named());
    assert!(declared.len() >= 9 && declared.iter().all(|(_, variants)| variants.len() > 1), "{declared:?}");
    for (name, variants) in &declared {
        assert!(named.contains(name), "docs/errors.md does not name {name}");
        for variant in variants {
            assert!(named.contains(variant), "docs/errors.md does not list {name}::{variant}");
        }
    }
    for source in SOURCES {
        for part in source.split("\npub struct ").skip(1) {
            let name = part.split(|letter: char| !letter.is_alphanumeric()).next().expect("a name");
            assert!(NO_ERRORS.contains(&name) || named.contains(name), "docs/errors.md does not name {name}");
        }
    }
}

#[test]
fn errors_in_the_tables_are_all_in_the_code() {
    let known: BTreeSet<&str> =
        declared().into_iter().flat_map(|(name, variants)| variants.into_iter().chain([name])).collect();
    let structs: String = SOURCES.concat();
    for row in DOCS.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split('|').nth(1).expect("a first cell");
        for name in cell.split('`').skip(1).step_by(2) {
            let name = name.split([' ', '(', '{']).next().unwrap_or_default();
            let is_known = known.contains(name) || structs.contains(&format!("pub struct {name}"));
            assert!(is_known, "docs/errors.md lists {name}, which the code does not have");
        }
    }
}
