//! The source tree as the rules see it: files by path, findings by place.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file: its path from the root of the project, with `/`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A broken rule and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }
}

/// The root of the project. Asked when run, not when built: clones may share a target directory.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Rust files under `folders`, in order of their paths.
pub(crate) fn rust_files(folders: &[&str]) -> Vec<File> {
    files(folders, "rs")
}

/// What is built into the programs: tests that stand in files of their own are left out.
pub(crate) fn code_files() -> Vec<File> {
    let files = rust_files(&["src", "loadgen/src"]);
    files.into_iter().filter(|file| !is_test(&file.path)).collect()
}

/// Whether a file under `src` holds tests only (`name/tests.rs`, `name/tests/`), by its name.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Files with this extension under `folders`, in order of their paths.
pub(crate) fn files(folders: &[&str], extension: &str) -> Vec<File> {
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), extension, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<File>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(File { path: name, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

/// Everything Rust that is ours.
pub(crate) fn everything() -> Vec<File> {
    let files = rust_files(&["src", "loadgen/src", "loadgen/tests", "checker", "stub", "tests"]);
    assert!(files.len() > 20, "the walk found only {} files", files.len());
    files
}

/// Fails with the findings, one a line, and a word of help.
pub(crate) fn no_findings(findings: &[Finding], help: &str) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} broken:\n{}\n\n{help}", findings.len(), lines.join("\n"));
}

/// Whether stale lists are to be rewritten.
pub(crate) fn blessing() -> bool {
    std::env::var("AOB_TIDY_BLESS").is_ok_and(|value| value == "1")
}

/// Compares a generated file with the one in the tree, or writes it when blessing.
pub(crate) fn equal_or_bless(path: &str, wanted: &str) {
    let place = root().join(path);
    let found = std::fs::read_to_string(&place).unwrap_or_default();
    if found == wanted {
        return;
    }
    assert!(blessing(), "{path} is stale; run: AOB_TIDY_BLESS=1 cargo test --test tidy\n\nwanted:\n{wanted}");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, wanted).unwrap();
}

/// Whether an item is compiled for tests only.
pub(crate) fn test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let text = list.tokens.to_string();
            text == "test" || (text.starts_with("all") && text.contains("test") && !text.contains("not"))
        }
        _ => false,
    })
}

/// Attributes of an item, whatever it is.
pub(crate) fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

#[test]
fn files_of_tests_are_told_by_their_names() {
    assert!(is_test("src/expr/tests.rs") && is_test("src/expr/tests/table.rs"));
    assert!(!is_test("src/expr/latests.rs") && !is_test("src/expr.rs"));
}

#[test]
fn items_for_tests_are_told_from_others() {
    let file = syn::parse_file(
        "#[cfg(test)] mod a {} #[cfg(not(test))] mod b {} mod c {} #[test] fn d() {} #[cfg(all(test, unix))] fn e() {}",
    )
    .unwrap();
    let found: Vec<bool> = file.items.iter().map(|item| test_only(attributes_of(item))).collect();
    assert_eq!(found, [true, false, false, true, true]);
}
