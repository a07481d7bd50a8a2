//! The stable codes that the source raises.
//!
//! Codes are found by where they stand, not by what they look like: at the place of a parameter called `code` of any
//! function of ours, in a field `code`, in a `fn code`, bound by `let code`, and beside `"code"` in JSON. A place
//! whose code cannot be read off is a finding, so that no new way of raising one escapes.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::paths::module_of;
use crate::tree::{File, Finding, attributes_of, test_only};

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
pub(crate) fn codes(files: &[File]) -> (Codes, Vec<Finding>) {
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
