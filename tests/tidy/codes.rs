//! Every stable code that the source raises has a page in `docs/errors`, and no page is left over.
//!
//! Codes are found by where they stand, not by what they look like: at the place of a parameter called `code` of any
//! function of ours, in a field `code`, in a `fn code`, bound by `let code`, and beside `"code"` in JSON. A place
//! whose code cannot be read off is a finding, so that no new way of raising one escapes. Pages whose code nothing
//! raises yet stand in `tests/tidy/codes_to_come.txt`, which may only shrink.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::paths::module_of;
use crate::tree::{
    File, Finding, attributes_of, code_files, equal_or_bless, files, no_findings, root, test_only,
};

/// Words that a text must not be to count as a code.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Where functions of ours take a code, and what constants of text are called.
#[derive(Default)]
struct Known {
    /// `module name` of a free function (of that first module), `Type::name`, or `.name` of a method -> position of the code, `self` not counted.
    carriers: BTreeMap<String, usize>,
    /// (first module, name) -> text.
    constants: BTreeMap<(String, String), String>,
}

/// A code and the first place that raises it.
pub(crate) type Codes = BTreeMap<String, (String, usize)>;

struct Declarations<'k> {
    known: &'k mut Known,
    module: String,
    of: Option<String>,
}

impl Declarations<'_> {
    fn function(&mut self, signature: &syn::Signature) {
        let typed = signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Typed(typed) => Some(typed),
            syn::FnArg::Receiver(_) => None,
        });
        let at = typed.enumerate().find_map(|(at, typed)| {
            let named = matches!(&*typed.pat, syn::Pat::Ident(ident) if ident.ident == "code");
            (named && is_text(&typed.ty)).then_some(at)
        });
        let Some(at) = at else { return };
        let name = &signature.ident;
        let key = match (&self.of, signature.receiver()) {
            (_, Some(_)) => format!(".{name}"),
            (Some(of), None) => format!("{of}::{name}"),
            (None, None) => format!("{} {name}", self.module),
        };
        self.known.carriers.insert(key, at);
    }
}

/// `&str`, with whatever lifetime.
fn is_text(ty: &syn::Type) -> bool {
    let syn::Type::Reference(reference) = ty else { return false };
    matches!(&*reference.elem, syn::Type::Path(path) if path.path.is_ident("str"))
}

fn self_name(item: &syn::ItemImpl) -> Option<String> {
    match &*item.self_ty {
        syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

impl<'a> Visit<'a> for Declarations<'_> {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if !test_only(attributes_of(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let before = std::mem::replace(&mut self.of, self_name(item));
        syn::visit::visit_item_impl(self, item);
        self.of = before;
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        self.function(signature);
    }

    fn visit_item_const(&mut self, item: &'a syn::ItemConst) {
        if let Some(text) = literal(&item.expr) {
            self.known.constants.insert((self.module.clone(), item.ident.to_string()), text);
        }
    }
}

fn literal(expr: &syn::Expr) -> Option<String> {
    match expr {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

struct Uses<'k> {
    known: &'k Known,
    path: &'k str,
    module: String,
    of: Option<String>,
    codes: Codes,
    unread: Vec<Finding>,
}

impl Uses<'_> {
    fn add(&mut self, code: String, line: usize) {
        if is_code(&code) {
            self.codes.entry(code).or_insert_with(|| (self.path.to_owned(), line));
        }
    }

    /// What an expression at the place of a code can be. `strict`: one that cannot be read off is a finding.
    fn value(&mut self, expr: &syn::Expr, strict: bool) {
        use syn::Expr;
        use syn::spanned::Spanned as _;
        let line = expr.span().start().line;
        match expr {
            Expr::Lit(_) => {
                if let Some(text) = literal(expr) {
                    self.add(text, line);
                }
            }
            Expr::Path(path) => {
                let last = path.path.segments.last().map(|segment| segment.ident.to_string());
                let last = last.unwrap_or_default();
                match self.known.constants.get(&(self.module.clone(), last.clone())) {
                    Some(text) => self.add(text.clone(), line),
                    None if last == "code" || !strict => {}
                    None => self.cannot_read(line),
                }
            }
            Expr::Field(field) if matches!(&field.member, syn::Member::Named(name) if name == "code") => {}
            Expr::MethodCall(call) if call.method == "code" => {}
            Expr::MethodCall(call) => self.value(&call.receiver, strict),
            Expr::Call(call) if call.args.len() == 1 => {
                call.args.iter().for_each(|inner| self.value(inner, strict));
            }
            Expr::Reference(inner) => self.value(&inner.expr, strict),
            Expr::Unary(inner) => self.value(&inner.expr, strict),
            Expr::Paren(inner) => self.value(&inner.expr, strict),
            Expr::If(branch) => {
                self.block(&branch.then_branch, strict);
                if let Some((_, other)) = &branch.else_branch {
                    self.value(other, strict);
                }
            }
            Expr::Match(arms) => arms.arms.iter().for_each(|arm| self.value(&arm.body, strict)),
            Expr::Block(block) => self.block(&block.block, strict),
            Expr::Tuple(tuple) => {
                if let Some(first) = tuple.elems.first() {
                    self.value(first, false);
                }
            }
            _ if strict => self.cannot_read(line),
            _ => {}
        }
    }

    fn block(&mut self, block: &syn::Block, strict: bool) {
        if let Some(syn::Stmt::Expr(expr, None)) = block.stmts.last() {
            self.value(expr, strict);
        }
    }

    fn cannot_read(&mut self, line: usize) {
        self.unread.push(Finding::new(
            self.path,
            line,
            "a code that cannot be read off; give it as a literal",
        ));
    }

    fn argument(&mut self, key: &str, arguments: &syn::punctuated::Punctuated<syn::Expr, syn::Token![,]>) {
        let Some(at) = self.known.carriers.get(key) else { return };
        if let Some(argument) = arguments.iter().nth(*at) {
            self.value(argument, true);
        }
    }

    /// `Err((code, ...))`: how a code travels to where it is reported.
    fn refused(&mut self, name: &str, call: &syn::ExprCall) {
        if let (true, Some(syn::Expr::Tuple(tuple))) = (name == "Err", call.args.first())
            && let Some(first) = tuple.elems.first()
        {
            self.value(first, false);
        }
    }

    /// `"code": "text"` in a macro call.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(name) if name.to_string() == "\"code\"" => {
                    if let Some(TokenTree::Literal(text)) = trees.get(at + 2) {
                        self.add(text.to_string().trim_matches('"').to_owned(), text.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Uses<'_> {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if !test_only(attributes_of(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let before = std::mem::replace(&mut self.of, self_name(item));
        syn::visit::visit_item_impl(self, item);
        self.of = before;
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if item.sig.ident == "code" {
            self.block(&item.block, false);
        }
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_call(&mut self, call: &'a syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            let names: Vec<String> =
                path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let name = names.last().cloned().unwrap_or_default();
            let of = names.len().checked_sub(2).and_then(|at| names.get(at)).map(String::as_str);
            let of = if of == Some("Self") { self.of.as_deref() } else { of };
            match of.filter(|of| of.starts_with(char::is_uppercase)) {
                // Several types are called `Error`; one of another module is not ours to read.
                Some(of) => {
                    let key = format!("{of}::{name}");
                    let other =
                        of == "Error" && (self.module != "expr" || names.first().is_some_and(|n| n == "std"));
                    if !other {
                        self.argument(&key, &call.args);
                    }
                }
                None => self.argument(&format!("{} {name}", self.module), &call.args),
            }
            self.refused(&name, call);
        }
        syn::visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        self.argument(&format!(".{}", call.method), &call.args);
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_field_value(&mut self, field: &'a syn::FieldValue) {
        if matches!(&field.member, syn::Member::Named(name) if name == "code") {
            self.value(&field.expr, false);
        }
        syn::visit::visit_field_value(self, field);
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        let first = match &local.pat {
            syn::Pat::Tuple(tuple) => tuple.elems.first(),
            other => Some(other),
        };
        if matches!(first, Some(syn::Pat::Ident(ident)) if ident.ident == "code")
            && let Some(init) = &local.init
        {
            self.value(&init.expr, false);
        }
        syn::visit::visit_local(self, local);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.tokens(item.tokens.clone());
    }
}

/// Every code that these files raise, and the places where one cannot be read off.
fn codes(files: &[File]) -> (Codes, Vec<Finding>) {
    let parsed: Vec<(String, &str, syn::File)> = files
        .iter()
        .map(|file| {
            let module = module_of(&file.path).first().cloned().unwrap_or_default();
            (module, file.path.as_str(), syn::parse_file(&file.text).expect("a file of the tree parses"))
        })
        .collect();
    let mut known = Known::default();
    for (module, _, file) in &parsed {
        Declarations { known: &mut known, module: module.clone(), of: None }.visit_file(file);
    }
    let (mut all, mut unread) = (Codes::new(), Vec::new());
    for (module, path, file) in &parsed {
        let mut uses = Uses {
            known: &known,
            path,
            module: module.clone(),
            of: None,
            codes: Codes::new(),
            unread: Vec::new(),
        };
        uses.visit_file(file);
        for (code, place) in uses.codes {
            all.entry(code).or_insert(place);
        }
        unread.extend(uses.unread);
    }
    (all, unread)
}

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
    let limits = std::fs::read_to_string(root().join("src/limits.rs")).unwrap();
    let findings: Vec<Finding> =
        pages().iter().flat_map(|(code, file)| check_page(code, file, &limits)).collect();
    no_findings(&findings, "see docs/errors/unknown_key.md");
}

#[test]
fn codes_are_found_wherever_they_are_raised() {
    let text = r#"
        fn refuse(at: u32, code: &'static str) {}
        impl Failure { fn fatal(code: &str, m: &str) -> Self { Self { code: code.into() } } }
        impl Findings { fn error(&mut self, code: &'static str) {} }
        const NAMED: &str = "from_a_constant";
        impl Error { pub fn code(&self) -> &'static str { match self { Self::A => "from_a_match", Self::B => { "from_a_block" } } } }
        fn f(x: &mut Findings, other: &'static str) {
            refuse(1, "from_a_function");
            Failure::fatal(if true { "from_an_if" } else { "from_an_else" }, "no code");
            x.error("from_a_method");
            x.error(NAMED);
            x.error(error.code());
            let (code, message) = if true { ("from_a_tuple", 1) } else { ("from_another", 2) };
            let problem = Problem { code: "from_a_field", detail: "no code" };
            json!({"code": "from_json", "x": "no_code"});
            let refused: Result<(), _> = Err(("from_an_err", 1));
            x.error(other);
        }
        #[cfg(test)] mod tests { fn g() { refuse(1, "from_a_test"); } }
    "#;
    let (found, unread) = codes(&[File { path: "src/a.rs".into(), text: text.into() }]);
    let found: Vec<&str> = found.keys().map(String::as_str).collect();
    let mut expected = [
        "from_a_constant",
        "from_a_match",
        "from_a_block",
        "from_a_function",
        "from_an_if",
        "from_an_else",
        "from_a_method",
        "from_a_tuple",
        "from_another",
        "from_a_field",
        "from_json",
        "from_an_err",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(unread.len(), 1, "what cannot be read off is a finding: {unread:?}");
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
