//! Every stable code that the source raises has a page in `docs/errors`, and no page is left over.
//!
//! Pages have one form, and the table and the index of them are what the folder holds. Pages whose code nothing raises
//! yet stand in `tests/tidy/codes_to_come.txt`, which may only shrink.

use std::collections::{BTreeMap, BTreeSet};

use crate::codes::codes;
use crate::tree::{File, Finding, code_files, equal_or_bless, files, no_findings, root};

/// Codes that stand at no parameter called `code`: how an event stream says why it ends.
const NAMED_OTHERWISE: [&str; 2] = ["resync", "slow_consumer"];
const TO_COME: &str = "tests/tidy/codes_to_come.txt";
const TABLE: &str = "src/catalogue/pages.rs";
const INDEX: &str = "docs/errors/README.md";

fn source() -> Vec<File> {
    code_files().into_iter().filter(|file| file.path.starts_with("src/")).collect()
}

fn pages() -> BTreeMap<String, File> {
    let pages = files(&["docs/errors"], "md").into_iter().filter(|file| file.path != INDEX);
    let code = |path: &str| path.trim_start_matches("docs/errors/").trim_end_matches(".md").to_owned();
    pages.map(|file| (code(&file.path), file)).collect()
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let (mut raised, unread) = codes(&source());
    no_findings(&unread, "codes are found by where they stand");
    for code in NAMED_OTHERWISE {
        let text = format!("\"{code}\"");
        let file = source().into_iter().find(|file| file.text.contains(&text));
        raised.insert(code.into(), (file.expect("a code named here stands in the source").path, 1));
    }
    let pages = pages();
    let missing: Vec<Finding> = raised
        .iter()
        .filter(|(code, _)| !pages.contains_key(*code))
        .map(|(code, (path, line))| Finding::new(path, *line, format!("docs/errors/{code}.md is missing")))
        .collect();
    no_findings(&missing, "write the page: title, facts, meaning, why, what to do, example");
    let place = root().join(TO_COME);
    let known = std::fs::read_to_string(&place).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().filter(|line| !line.starts_with('#')).collect();
    let unused: BTreeSet<&str> =
        pages.keys().map(String::as_str).filter(|code| !raised.contains_key(*code)).collect();
    let left_over: Vec<&&str> = unused.difference(&known).collect();
    assert!(left_over.is_empty(), "pages whose code nothing raises: {left_over:?}");
    if unused != known {
        let list: Vec<&str> = unused.into_iter().collect();
        let heading = "# Pages whose code nothing in the source raises by name: it comes with a part to come, or from outside.\n\
                       # May only shrink.";
        equal_or_bless(TO_COME, &format!("{heading}\n{}\n", list.join("\n")));
    }
}

#[test]
fn the_table_and_the_index_of_pages_are_what_the_folder_holds() {
    let pages = pages();
    let names: Vec<String> = pages.keys().map(|code| format!("    \"{code}\"\n")).collect();
    let place = root().join(TABLE);
    let text = std::fs::read_to_string(&place).unwrap_or_default();
    let (head, _) = text.split_once("pages! {\n").expect("the table has a list of codes");
    equal_or_bless(TABLE, &format!("{head}pages! {{\n{}}};\n", names.concat()));
    let mut areas: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (code, file) in &pages {
        areas.entry(fact(&file.text, "area").unwrap_or_default().to_owned()).or_default().push(code);
    }
    let mut index = "# Codes\n\nEvery error, failure and warning has a stable code; `aob explain CODE` prints its page.\n\
        Made by `AOB_TIDY_BLESS=1 cargo test --test tidy`; do not edit.\n"
        .to_owned();
    for (area, codes) in areas {
        index.push_str(&format!("\n## {area}\n\n"));
        for code in codes {
            index.push_str(&format!("- [{code}]({code}.md)\n"));
        }
    }
    equal_or_bless(INDEX, &index);
}

/// A row of the facts.
fn fact<'t>(page: &'t str, name: &str) -> Option<&'t str> {
    let start = format!("| {name} | ");
    page.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(" |"))
}

const FACTS: [&str; 6] = ["area", "raised by", "class", "retryable", "status", "limit"];

/// What a page lacks.
fn check_page(code: &str, file: &File, limits: &str) -> Vec<Finding> {
    let finding = |what: String| Finding::new(&file.path, 1, what);
    let mut findings = Vec::new();
    if !file.text.starts_with(&format!("# {code}\n\n| fact | value |\n")) {
        findings.push(finding("does not begin with its code and its facts".into()));
    }
    let lacks = FACTS.iter().filter(|name| fact(&file.text, name).is_none_or(str::is_empty));
    findings.extend(lacks.map(|name| finding(format!("has no fact `{name}`"))));
    for part in ["\n**What to do.** ", "\n**Example.**\n"] {
        if !file.text.contains(part) {
            findings.push(finding(format!("has no {}", part.trim())));
        }
    }
    let class = fact(&file.text, "class").unwrap_or_default();
    if !["transient", "recoverable", "fatal", "-"].contains(&class) {
        findings.push(finding(format!("has the class {class}")));
    }
    if class == "fatal" && fact(&file.text, "retryable") != Some("no") {
        findings.push(finding("is fatal and may be tried again".into()));
    }
    for limit in fact(&file.text, "limit").unwrap_or_default().split('`').skip(1).step_by(2) {
        let constant = format!("pub const {}:", limit.to_uppercase());
        if limit != "limit" && !limits.contains(&constant) {
            findings.push(finding(format!("names the limit {limit}, which src/limits.rs does not have")));
        }
    }
    findings
}

#[test]
fn every_page_has_the_same_form() {
    let limits = ["src/limits.rs", "src/limits/streams.rs"];
    let limits: String =
        limits.iter().map(|path| std::fs::read_to_string(root().join(path)).unwrap()).collect();
    let findings: Vec<Finding> =
        pages().iter().flat_map(|(code, file)| check_page(code, file, &limits)).collect();
    no_findings(&findings, "see docs/errors/unknown_key.md");
}

#[test]
fn a_page_that_lacks_something_is_found() {
    let file = |text: &str| File { path: "docs/errors/a.md".into(), text: text.into() };
    let right = "# a\n\n| fact | value |\n| --- | --- |\n| area | x |\n| raised by | x |\n| class | fatal |\n| retryable | no |\n\
                 | status | - |\n| limit | `nodes_max` |\n\nIt.\n\n**What to do.** That.\n\n**Example.**\n\nx\n";
    let limits = "pub const NODES_MAX: usize = 1;";
    assert_eq!(check_page("a", &file(right), limits), []);
    for (from, to) in [
        ("# a", "# b"),
        ("| area | x |\n", ""),
        ("| fatal |", "| deadly |"),
        ("| retryable | no |", "| retryable | yes |"),
        ("`nodes_max`", "`nodes_min`"),
        ("**What to do.**", "Do"),
        ("**Example.**", "See"),
    ] {
        assert_eq!(check_page("a", &file(&right.replace(from, to)), limits).len(), 1, "{from}");
    }
}
