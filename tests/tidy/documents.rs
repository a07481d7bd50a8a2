//! Decisions are numbered once, and `docs/features.md` says which test proves which row of the ledger.
//!
//! A test names its rows in a comment above it or on its line: `// F110`, `// F220 F221`, `// F220..F222`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::tree::{File, Finding, equal_or_bless, everything, files, no_findings};

const FEATURES: &str = "docs/features.md";

/// `NNNN-title.md`, each number once, each with a heading.
fn check_decisions(files: &[File]) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u32>().is_err() {
            findings.push(Finding::new(&file.path, 1, "is not named NNNN-title.md"));
        } else if let Some(other) = seen.insert(number, &file.path) {
            findings.push(Finding::new(&file.path, 1, format!("has the number of {other}")));
        }
        if !file.text.starts_with("# ") {
            findings.push(Finding::new(&file.path, 1, "does not begin with a heading"));
        }
    }
    findings
}

/// Rows that a comment names; empty when it is about something else.
fn rows(comment: &str) -> Vec<u32> {
    let number = |word: &str| word.strip_prefix('F').filter(|digits| digits.len() == 3)?.parse::<u32>().ok();
    let mut rows = Vec::new();
    for word in comment.split([' ', ',', ':', ';', '.']).filter(|word| !word.is_empty()) {
        let Some(row) = number(word) else { break };
        rows.push(row);
    }
    let range = comment
        .split_whitespace()
        .next()
        .and_then(|word| word.trim_end_matches([',', ':', ';']).split_once(".."));
    match range.and_then(|(from, to)| Some(number(from)?..=number(to)?)) {
        Some(range) => range.collect(),
        None => rows,
    }
}

/// Row -> tests that name it, as `path: test`.
fn proofs(files: &[File]) -> BTreeMap<u32, BTreeSet<String>> {
    let mut proofs: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let mut pending: Vec<u32> = Vec::new();
        let mut last: Option<(usize, String)> = None;
        for line in file.text.lines() {
            let indent = line.len() - line.trim_start().len();
            let code = line.split("//").next().unwrap_or_default();
            let name = code.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
            // What stands in a module after a function is not about that function.
            let opens = code.trim_end().ends_with('{') && name.is_none();
            if last
                .as_ref()
                .is_some_and(|(at, _)| indent <= *at && (opens || code.trim_start().starts_with('}')))
            {
                last = None;
            }
            if let Some(name) = name {
                last = Some((indent, format!("{}: `{}`", file.path, name.trim())));
            }
            let comment =
                line.split_once("//").map(|(_, comment)| comment.trim_start_matches(['/', '!']).trim());
            let mut named = comment.map(rows).unwrap_or_default();
            // A comment inside a test is about that test, any other about the one that follows.
            let inside = last.as_ref().filter(|(at, _)| name.is_some() || indent > *at);
            if let Some((_, test)) = inside {
                if name.is_some() {
                    named.append(&mut pending);
                }
                for row in named {
                    proofs.entry(row).or_default().insert(test.clone());
                }
            } else {
                pending.extend(named);
            }
        }
    }
    proofs
}

fn table(proofs: &BTreeMap<u32, BTreeSet<String>>) -> String {
    let mut text = "# Which test proves which row of the ledger\n\n\
        Made from the `// F123` comments of tests by `AOB_TIDY_BLESS=1 cargo test --test tidy`; do not edit.\n\n\
        | row | proved by |\n| --- | --- |\n"
        .to_owned();
    for (row, tests) in proofs {
        let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
        let _ = writeln!(text, "| F{row:03} | {} |", tests.join("<br>"));
    }
    text
}

#[test]
fn decisions_are_numbered_once() {
    let decisions = files(&["docs/adr"], "md");
    assert!(!decisions.is_empty(), "docs/adr is empty");
    no_findings(&check_decisions(&decisions), "docs/adr/NNNN-title.md");
}

#[test]
fn two_decisions_with_one_number_are_found() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let found = check_decisions(&[
        file("docs/adr/0001-a.md", "# A\n"),
        file("docs/adr/0001-b.md", "# B\n"),
        file("docs/adr/two.md", "# C\n"),
        file("docs/adr/0003-d.md", "no heading"),
    ]);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn the_table_of_features_is_what_the_tests_say() {
    let files: Vec<File> =
        everything().into_iter().filter(|file| !file.path.starts_with("tests/tidy")).collect();
    equal_or_bless(FEATURES, &table(&proofs(&files)));
}

#[test]
fn rows_are_read_from_comments_above_and_beside_tests() {
    let text = "// F110\n#[test]\nfn a() {}\n#[test] // F220, F221: plans\nfn b() {}\n/// F300..F302\nfn c() {}\n\
                // see F999\nfn d() {\n    // F400\n}\nfn e() {}\nfn f() {}\nmod tests {\n    // F500\n    #[test]\n    fn g() {}\n}";
    let found = proofs(&[File { path: "x.rs".into(), text: text.into() }]);
    let rows: Vec<u32> = found.keys().copied().collect();
    assert_eq!(rows, [110, 220, 221, 300, 301, 302, 400, 500]);
    assert!(found[&400].contains("x.rs: `d`"));
    assert!(found[&221].contains("x.rs: `b`"));
    assert_eq!(found[&500].iter().collect::<Vec<_>>(), ["x.rs: `g`"], "not the function above the module");
    assert!(table(&found).contains("| F110 | x.rs: `a` |\n"));
}
