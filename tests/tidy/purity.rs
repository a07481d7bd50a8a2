//! What pure modules must not name, who may name a runtime crate, and where `unsafe` may stand.

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::layers::owner;
use crate::paths::{module_of, paths};
use crate::tree::{File, Finding, attributes_of, code_files, no_findings, test_only};

/// Data in, data out.
const PURE: [&str; 7] = ["model", "expr", "ir", "compile", "engine", "replay", "schedule"];

/// Clocks, randomness, the world, and maps whose order differs between two replays.
const IMPURE_PATHS: [&str; 12] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "rand",
    "getrandom",
];
const IMPURE_NAMES: [&str; 5] = ["Instant", "SystemTime", "SystemClock", "HashMap", "HashSet"];

const RUNTIME_CRATES: [&str; 6] = ["glommio", "tokio", "hyper", "hyper_util", "socket2", "core_affinity"];

/// Who may name what of a runtime crate, and why. A prefix of a path; `*` is all of them.
const RUNTIME_ALLOWED: [(&str, &str, &str); 21] = [
    ("io", "*", "the one module that holds the runtimes"),
    ("loadgen", "tokio", "a program of its own"),
    ("api", "hyper", "protocol edge: requests and bodies"),
    ("api", "hyper_util", "protocol edge: requests and bodies"),
    ("api", "tokio", "protocol edge: socket types"),
    ("fanout", "hyper", "protocol edge: response bodies"),
    ("fanout", "tokio", "protocol edge: socket types"),
    ("wire", "tokio::io", "a connection that goes from one edge to the other"),
    ("exec", "*", "protocol edge: the only door that leads out"),
    ("client", "*", "protocol edge: the only user of connections"),
    ("resilience", "tokio::time", "for whoever builds on the library: a call that takes too long"),
    ("resilience", "tokio::sync", "the same: calls that wait in line"),
    ("store", "tokio::sync", "Redis: threads that block ask the one that talks to the server"),
    ("store", "tokio::time", "Redis: how long a server may be away"),
    ("runtime", "tokio::signal", "assembly: waits for SIGTERM and SIGINT"),
    ("runtime", "tokio::select", "assembly: waits for a signal, an ask or a thread's end"),
    ("runtime", "tokio::join", "assembly: a hub and the endpoint of its core"),
    ("runtime", "tokio::pin", "assembly: the same"),
    ("runtime", "tokio::sync", "assembly: the phase of the node can be watched"),
    ("bin", "tokio::runtime", "the client's main starts the one runtime it needs"),
    ("demo", "tokio::runtime", "a client beside the node, on a thread of its own"),
];

/// Files or folders that may hold `unsafe`.
const UNSAFE_ALLOWED: [&str; 3] = ["src/io.rs", "src/io/", "src/model/token"];

fn top(path: &str) -> String {
    module_of(path).first().cloned().unwrap_or_default()
}

fn check_pure(file: &File) -> Vec<Finding> {
    if !PURE.contains(&top(&file.path).as_str()) {
        return Vec::new();
    }
    let named = paths(&file.text, &module_of(&file.path)).into_iter().filter(|path| {
        IMPURE_PATHS.iter().chain(&RUNTIME_CRATES).any(|bad| path.starts_with(bad))
            || path.segments.iter().any(|segment| IMPURE_NAMES.contains(&segment.as_str()))
    });
    let mut findings: Vec<Finding> = named
        .map(|path| Finding::new(&file.path, path.line, format!("a pure module names `{}`", path.text())))
        .collect();
    let marks = marks(&file.text);
    findings.extend(
        marks.asynchronous.iter().map(|line| Finding::new(&file.path, *line, "a pure module has `async`")),
    );
    findings
}

fn check_runtime_crates(file: &File) -> Vec<Finding> {
    let own = owner(&file.path);
    let allowed = |path: &crate::paths::Named| {
        RUNTIME_ALLOWED
            .iter()
            .any(|(module, what, _)| *module == own && (*what == "*" || path.starts_with(what)))
    };
    paths(&file.text, &module_of(&file.path))
        .into_iter()
        .filter(|path| RUNTIME_CRATES.iter().any(|name| path.starts_with(name)) && !allowed(path))
        .map(|path| {
            Finding::new(&file.path, path.line, format!("`{own}` names the runtime crate `{}`", path.text()))
        })
        .collect()
}

fn check_unsafe(file: &File) -> Vec<Finding> {
    if UNSAFE_ALLOWED.iter().any(|place| file.path.starts_with(place)) {
        return Vec::new();
    }
    marks(&file.text)
        .unsafety
        .iter()
        .map(|line| Finding::new(&file.path, *line, "`unsafe` outside io and model/token"))
        .collect()
}

#[derive(Default)]
struct Marks {
    asynchronous: Vec<usize>,
    unsafety: Vec<usize>,
}

fn marks(text: &str) -> Marks {
    let mut marks = Marks::default();
    marks.visit_file(&syn::parse_file(text).expect("a file of the tree parses"));
    marks
}

impl<'a> Visit<'a> for Marks {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if !test_only(attributes_of(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        self.asynchronous.extend(signature.asyncness.map(|word| word.span.start().line));
        self.unsafety.extend(signature.unsafety.map(|word| word.span.start().line));
        syn::visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'a syn::ExprAsync) {
        self.asynchronous.push(block.async_token.span.start().line);
        syn::visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'a syn::ExprClosure) {
        self.asynchronous.extend(closure.asyncness.map(|word| word.span.start().line));
        syn::visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_unsafe(&mut self, block: &'a syn::ExprUnsafe) {
        self.unsafety.push(block.unsafe_token.span.start().line);
        syn::visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.unsafety.extend(item.unsafety.map(|_| item.span().start().line));
        syn::visit::visit_item_impl(self, item);
    }
}

fn sample(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

#[test]
fn pure_modules_have_no_clock_no_chance_no_world_and_no_async() {
    let findings: Vec<Finding> = code_files().iter().flat_map(check_pure).collect();
    no_findings(&findings, "pure modules take `now` and data, and return data");
}

#[test]
fn an_impure_line_in_a_pure_module_is_found() {
    for text in [
        "use std::time::Instant;",
        "use std::{collections::{BTreeMap, HashMap}, sync::Arc};",
        "fn f() { let _ = std::time::SystemTime::now(); }",
        "fn f() -> u64 { rand::random() }",
        "fn f() { let _ = std::fs::read(\"x\"); }",
        "async fn f() {}",
        "fn f() { let _ = async { 1 }; }",
        "use crate::time::SystemClock;",
        "fn f() { tokio::spawn(g()); }",
    ] {
        assert_eq!(check_pure(&sample("src/engine/x.rs", text)).len(), 1, "{text}");
        assert!(check_pure(&sample("src/io/x.rs", text)).is_empty(), "not pure: {text}");
    }
    assert!(
        check_pure(&sample("src/engine/x.rs", "use std::time::Duration; use ahash::AHashMap;")).is_empty()
    );
}

#[test]
fn runtime_crates_are_named_only_where_the_list_says() {
    let findings: Vec<Finding> = code_files().iter().flat_map(check_runtime_crates).collect();
    let list = RUNTIME_ALLOWED.map(|(module, what, why)| format!("  {module:<8} {what:<20} {why}"));
    no_findings(&findings, &format!("allowed:\n{}", list.join("\n")));
}

#[test]
fn a_runtime_crate_in_the_wrong_module_is_found() {
    let found = |path: &str, text: &str| check_runtime_crates(&sample(path, text)).len();
    assert_eq!(found("src/store/log.rs", "use glommio::io::DmaFile;"), 1);
    assert_eq!(found("src/runtime/plan.rs", "use tokio::net::TcpListener;"), 1);
    assert_eq!(found("src/runtime/shutdown.rs", "use tokio::signal::unix::signal;"), 0);
    assert_eq!(found("src/io/ring.rs", "use glommio::io::DmaFile;"), 0);
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let findings: Vec<Finding> = code_files().iter().flat_map(check_unsafe).collect();
    no_findings(&findings, "move it into `io` or `model/token`, or better, do without");
}

#[test]
fn unsafe_in_the_wrong_place_is_found() {
    for text in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "struct S; unsafe impl Send for S {}"] {
        assert_eq!(check_unsafe(&sample("src/engine.rs", text)).len(), 1, "{text}");
        assert_eq!(check_unsafe(&sample("src/io/ring.rs", text)).len(), 0, "{text}");
    }
}
