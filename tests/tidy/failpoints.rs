//! Failpoints: each one in the table is in the code, each one in the code is in the table, and people can read of it.

use std::collections::BTreeSet;

use crate::tree::{code_files, root};

const TABLE: &str = "src/failpoint.rs";
const PAGE: &str = "docs/testing.md";

/// Texts of the form `part::place` between quotes.
fn places(text: &str) -> BTreeSet<String> {
    let quoted = text.split('"').skip(1).step_by(2);
    let is_place = |text: &&str| {
        let named = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        text.split_once("::").is_some_and(|(part, place)| named(part) && named(place))
    };
    quoted.filter(is_place).map(str::to_owned).collect()
}

/// From the places that are passed in a text: the quoted ones of statements that name `failpoint::`.
fn passed(text: &str) -> BTreeSet<String> {
    let parts = text.match_indices("failpoint::").map(|(at, _)| text.get(at..).unwrap_or_default());
    let ends = |part: &str| part.find(';').or_else(|| part.find('{')).unwrap_or(part.len());
    parts.flat_map(|part| places(part.get(..ends(part)).unwrap_or_default())).collect()
}

#[test]
fn every_failpoint_is_in_the_table_in_the_code_and_on_the_page() {
    let table = std::fs::read_to_string(root().join(TABLE)).unwrap();
    let (table, mutants) = table.split_once("pub const MUTANTS").unwrap();
    let mutants = mutants.split_once("];").unwrap().0;
    let known = places(table);
    let code: BTreeSet<String> =
        code_files().iter().filter(|file| file.path != TABLE).flat_map(|file| passed(&file.text)).collect();
    assert_eq!(known, code, "{TABLE} and the code differ");
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    for name in &known {
        assert!(page.contains(&format!("`{name}`")), "{PAGE} does not name {name}");
    }
    for line in mutants.lines().filter(|line| line.trim_start().starts_with("(\"")) {
        let name = line.split('"').nth(1).unwrap();
        assert!(page.contains(&format!("`{name}`")), "{PAGE} does not name {name}");
    }
}

#[test]
fn places_are_found_in_code() {
    let text = r#"failpoint::pass("a::b"); let x = failpoint::io("c::d_e")?; "no::place"; failpoint::mutant("plain");
        failpoint::pass(if keyed { "f::g" } else { "h::i" });"#;
    let found: Vec<_> = passed(text).into_iter().collect();
    assert_eq!(found, ["a::b", "c::d_e", "f::g", "h::i"]);
}
