//! How long files and functions may get. What is longer today stands in `tests/tidy/ratchet.txt` and may only shrink.
//!
//! Counted are lines that are neither blank nor only comment; tests do not count. A file of more than 500 such lines,
//! or a function of more than 120, is not allowed even by the ratchet.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::tree::{
    File, Finding, attributes_of, blessing, code_files, no_findings, root, rust_files, test_only,
};

const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_HARD: usize = 120;
const FILE_LINES_MAX: usize = 400;
const FILE_LINES_HARD: usize = 500;
const RATCHET: &str = "tests/tidy/ratchet.txt";

/// What is over the soft limit: `path` or `path::function`, and its lines.
type Sizes = BTreeMap<String, usize>;

struct Measure<'a> {
    code: &'a [bool],
    tests: Vec<(usize, usize)>,
    functions: Vec<(String, usize, usize)>,
}

impl Measure<'_> {
    fn lines(&self, from: usize, to: usize) -> usize {
        (from..=to).filter(|line| self.code.get(line - 1).copied().unwrap_or(false)).count()
    }

    fn function(&mut self, name: &syn::Ident, from: usize, to: usize) {
        self.functions.push((name.to_string(), from, self.lines(from, to)));
    }
}

impl<'a> Visit<'a> for Measure<'_> {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if test_only(attributes_of(item)) {
            self.tests.push((item.span().start().line, item.span().end().line));
        } else {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig.ident, item.sig.span().start().line, item.block.span().end().line);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig.ident, item.sig.span().start().line, item.block.span().end().line);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// Sizes of a file and its functions, by line number of where they begin.
fn measure(file: &File) -> Vec<(String, usize, usize)> {
    let code: Vec<bool> =
        file.text.lines().map(str::trim).map(|line| !line.is_empty() && !line.starts_with("//")).collect();
    let mut measure = Measure { code: &code, tests: Vec::new(), functions: Vec::new() };
    measure.visit_file(&syn::parse_file(&file.text).expect("a file of the tree parses"));
    let all = measure.lines(1, code.len().max(1));
    let tests: usize = measure.tests.iter().map(|(from, to)| measure.lines(*from, *to)).sum();
    let mut sizes = vec![(file.path.clone(), 1, all - tests)];
    let functions = measure.functions.into_iter();
    sizes.extend(functions.map(|(name, at, lines)| (format!("{}::{name}", file.path), at, lines)));
    sizes
}

fn over_soft_limit(name: &str, lines: usize) -> bool {
    lines > if name.contains("::") { FUNCTION_LINES_MAX } else { FILE_LINES_MAX }
}

/// Findings, and what the ratchet should hold.
fn check(files: &[File], ratchet: &Sizes) -> (Vec<Finding>, Sizes) {
    let mut findings = Vec::new();
    let mut wanted = Sizes::new();
    for (name, line, lines) in files.iter().flat_map(measure) {
        let path = name.split("::").next().unwrap_or(&name).to_owned();
        let hard = if name.contains("::") { FUNCTION_LINES_HARD } else { FILE_LINES_HARD };
        if lines > hard {
            findings.push(Finding::new(&path, line, format!("{name} has {lines} lines; {hard} is the end")));
        } else if over_soft_limit(&name, lines) {
            match ratchet.get(&name) {
                Some(max) if lines <= *max => {
                    let kept = wanted.entry(name).or_default();
                    *kept = lines.max(*kept);
                }
                Some(max) => findings.push(Finding::new(
                    &path,
                    line,
                    format!("{name} grew from {max} to {lines} lines"),
                )),
                None => findings.push(Finding::new(&path, line, format!("{name} has {lines} lines"))),
            }
        }
    }
    (findings, wanted)
}

fn read(text: &str) -> Sizes {
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    rows.map(|(name, lines)| (name.to_owned(), lines.parse().expect("`path lines` in the ratchet"))).collect()
}

fn write(sizes: &Sizes) -> String {
    let mut text = "# Longer than the soft limit (file 400, function 70). May only shrink.\n".to_owned();
    for (name, lines) in sizes {
        let _ = writeln!(text, "{name} {lines}");
    }
    text
}

#[test]
fn files_and_functions_stay_short() {
    let mut files = code_files();
    files.extend(rust_files(&["checker/src", "stub/src"]));
    let place = root().join(RATCHET);
    let ratchet = read(&std::fs::read_to_string(&place).unwrap_or_default());
    let (findings, wanted) = check(&files, &ratchet);
    no_findings(&findings, &format!("split it; {RATCHET} takes no new entries"));
    if wanted != ratchet {
        assert!(blessing(), "{RATCHET} can shrink: AOB_TIDY_BLESS=1 cargo test --test tidy");
        std::fs::write(place, write(&wanted)).unwrap();
    }
}

#[test]
fn a_long_function_or_file_is_found_and_a_ratchet_only_shrinks() {
    let body = "    f();\n".repeat(80);
    let file = |text: String| [File { path: "src/x.rs".into(), text }];
    let long_function =
        file(format!("//! X.\nfn long() {{\n{body}}}\n#[cfg(test)]\nmod tests {{ fn t() {{\n{body}}} }}\n"));
    let found = |files: &[File], ratchet: &str| check(files, &read(ratchet));
    assert_eq!(found(&long_function, "").0.len(), 1);
    assert_eq!(
        found(&long_function, "src/x.rs::long 81").0[0].what,
        "src/x.rs::long grew from 81 to 82 lines"
    );
    let (findings, wanted) = found(&long_function, "src/x.rs::long 99");
    assert_eq!((findings.len(), write(&wanted).lines().last()), (0, Some("src/x.rs::long 82")));
    let long_file = file("const X: u8 = 1;\n\n// only words\n".repeat(401));
    assert_eq!(found(&long_file, "").0[0].what, "src/x.rs has 401 lines");
    assert!(found(&file("const X: u8 = 1;\n".repeat(501)), "src/x.rs 600").0[0].what.contains("is the end"));
}
