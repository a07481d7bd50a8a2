//! `//!` first, words that must not stay, and modules that are named alike.

use std::collections::BTreeMap;

use crate::tree::{File, Finding, everything, is_test, no_findings, rust_files};

/// Written apart, so that this list is no finding itself.
const BANNED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
/// Tests wait on an event.
const BANNED_IN_TESTS: [&str; 2] = [concat!("thread::", "sleep"), concat!("time::", "sleep(")];

fn check_opening(file: &File) -> Vec<Finding> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::new(&file.path, 1, "does not begin with `//!`")]
}

fn check_words(file: &File) -> Vec<Finding> {
    let is_test = is_test(&file.path) || file.path.starts_with("tests/");
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let words = BANNED.iter().chain(BANNED_IN_TESTS.iter().filter(|_| is_test));
        findings.extend(
            words
                .filter(|word| line.contains(*word))
                .map(|word| Finding::new(&file.path, number + 1, format!("`{word}` must not stay"))),
        );
    }
    findings
}

/// Siblings whose names differ only in case, underscores or a final `s`, and `mod.rs`.
fn check_names(files: &[File]) -> Vec<Finding> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for file in files {
        let plain = file.path.trim_end_matches(".rs");
        if plain.ends_with("/mod") {
            findings.push(Finding::new(&file.path, 1, "modules are `name.rs` + `name/`"));
        }
        let key = plain.to_lowercase().replace('_', "").trim_end_matches('s').to_owned();
        if let Some(other) = seen.insert(key, &file.path) {
            findings.push(Finding::new(&file.path, 1, format!("is named like {other}")));
        }
    }
    findings
}

fn sample(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let findings: Vec<Finding> = everything().iter().flat_map(check_opening).collect();
    no_findings(&findings, "`//!`: what it owns, what must hold, what happens when it is full or fails");
}

#[test]
fn a_file_without_an_opening_is_found() {
    assert_eq!(check_opening(&sample("src/a.rs", "use std::fmt;\n//! Late.")).len(), 1);
    assert_eq!(check_opening(&sample("src/a.rs", "//! What it is.\n")).len(), 0);
}

#[test]
fn no_banned_word_stays() {
    let findings: Vec<Finding> = everything().iter().flat_map(check_words).collect();
    no_findings(&findings, "finish it, or leave it out");
}

#[test]
fn a_banned_word_is_found() {
    for word in BANNED {
        assert_eq!(check_words(&sample("src/a.rs", &format!("fn f() {{ {word}"))).len(), 1, "{word}");
    }
    for word in BANNED_IN_TESTS {
        assert_eq!(check_words(&sample("tests/node/a.rs", word)).len(), 1, "{word}");
        assert_eq!(check_words(&sample("src/io/net.rs", word)).len(), 0, "{word}");
    }
}

#[test]
fn no_two_modules_are_named_alike() {
    no_findings(
        &check_names(&rust_files(&["src", "loadgen/src", "checker/src", "stub/src"])),
        "give each its own name",
    );
}

#[test]
fn modules_named_alike_are_found() {
    let pair = |a: &str, b: &str| check_names(&[sample(a, ""), sample(b, "")]).len();
    assert_eq!(pair("src/api/run.rs", "src/api/runs.rs"), 1);
    assert_eq!(pair("src/api/run_list.rs", "src/api/runlist.rs"), 1);
    assert_eq!(pair("src/model/run.rs", "src/engine/run.rs"), 0);
    assert_eq!(check_names(&[sample("src/api/mod.rs", "")]).len(), 1);
}
