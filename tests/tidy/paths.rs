//! Every path that a file names outside its tests: `use` trees, inline paths, paths inside macro calls.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

use crate::tree::{attributes_of, test_only};

/// A path as segments, made absolute: `crate`, then modules. Paths of other crates start with the crate's name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

impl Named {
    /// Whether the path begins with `prefix` (written with `::`).
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let wanted: Vec<&str> = prefix.split("::").collect();
        self.segments.len() >= wanted.len() && self.segments.iter().zip(wanted).all(|(a, b)| a == b)
    }

    /// As written in source.
    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// What a file names. `module` is the file's own path (`["engine", "route"]` for `src/engine/route.rs`).
pub(crate) fn paths(text: &str, module: &[String]) -> Vec<Named> {
    let file = syn::parse_file(text).expect("a file of the tree parses");
    let mut visitor = Paths { module: module.to_vec(), found: Vec::new() };
    visitor.visit_file(&file);
    visitor.found
}

/// The module that a file under `src/` is: `lib.rs` and binaries are the root.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("loadgen/").trim_start_matches("src/").trim_end_matches(".rs");
    if inner == "lib" || inner == "main" || inner.starts_with("bin/") {
        return Vec::new();
    }
    inner.split('/').map(str::to_owned).collect()
}

struct Paths {
    module: Vec<String>,
    found: Vec<Named>,
}

impl Paths {
    /// Adds a path with `self` and `super` resolved.
    fn add(&mut self, segments: &[String], line: usize) {
        let mut segments = segments.to_vec();
        if matches!(segments.first().map(String::as_str), Some("self" | "super")) {
            let mut base = self.module.clone();
            while let Some(first) = segments.first() {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(base.pop()),
                    _ => break,
                }
                segments.remove(0);
            }
            let mut whole = vec!["crate".to_owned()];
            whole.extend(base);
            whole.extend(segments);
            segments = whole;
        }
        self.found.push(Named { segments, line });
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(ident.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident), name.ident.span().start().line),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident), name.ident.span().start().line),
            syn::UseTree::Glob(glob) => self.add(before, glob.star_token.spans[0].start().line),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
        }
    }

    /// Macro calls are only tokens: any `a::b::c` in them counts as a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |at: usize| {
            let is = |at| matches!(trees.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
            is(at) && is(at + 1)
        };
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut segments = vec![first.to_string()];
                    while colons(at + 1) {
                        match trees.get(at + 3) {
                            Some(TokenTree::Ident(next)) => segments.push(next.to_string()),
                            Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Brace => break,
                            _ => break,
                        }
                        at += 3;
                    }
                    if segments.len() > 1 {
                        self.add(&segments, first.span().start().line);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if !test_only(attributes_of(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        self.add(&segments, line);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    /// Documentation and derives name nothing at run time.
    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}
}

#[test]
fn paths_are_found_in_trees_inline_in_macros_and_through_super() {
    let text = "use crate::{a, b::{c, self as d}};\nuse super::x::Y;\nfn f() { crate::e::g(); println!(\"{}\", crate::h::i); }\n\
                #[cfg(test)] mod tests { use crate::hidden; }\nmod inner { use super::super::z; }";
    let found: Vec<(String, usize)> =
        paths(text, &["m".into(), "n".into()]).iter().map(|p| (p.text(), p.line)).collect();
    for (path, line) in [
        ("crate::a", 1),
        ("crate::b::c", 1),
        ("crate::b::self", 1),
        ("crate::m::x::Y", 2),
        ("crate::e::g", 3),
        ("crate::h::i", 3),
        ("crate::m::z", 5),
    ] {
        assert!(found.contains(&(path.to_owned(), line)), "{path} at {line} is missing in {found:?}");
    }
    assert!(!found.iter().any(|(path, _)| path.contains("hidden")));
}
