//! Every bound in `src/limits.rs` and its parts is enforced somewhere: its name stands in code outside of them.
//!
//! Bounds whose user does not exist yet stand in `tests/tidy/unused_limits.txt`, which may only shrink.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};

use crate::tree::{File, blessing, root, rust_files};

const LIST: &str = "tests/tidy/unused_limits.txt";

fn constants(text: &str) -> BTreeSet<String> {
    let file = syn::parse_file(text).expect("limits.rs parses");
    let names = file.items.into_iter().filter_map(|item| match item {
        syn::Item::Const(item) if item.ident != "_" => Some(item.ident.to_string()),
        _ => None,
    });
    names.collect()
}

/// Identifiers of a text, comments left out.
fn identifiers(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for tree in tokens {
        match tree {
            TokenTree::Ident(ident) => drop(found.insert(ident.to_string())),
            TokenTree::Group(group) => identifiers(group.stream(), found),
            _ => {}
        }
    }
}

fn unused(limits: &str, others: &[File]) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for file in others {
        identifiers(file.text.parse().expect("a file of the tree is tokens"), &mut used);
    }
    constants(limits).difference(&used).cloned().collect()
}

#[test]
fn every_limit_is_used() {
    let (limits, others): (Vec<File>, Vec<File>) =
        rust_files(&["src"]).into_iter().partition(|file| file.path.starts_with("src/limits"));
    let limits: String = limits.iter().map(|file| file.text.replace("//!", "//")).collect();
    let unused = unused(&limits, &others);
    let place = root().join(LIST);
    let known = std::fs::read_to_string(&place).unwrap_or_default();
    let known: BTreeSet<String> =
        known.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let new: Vec<&String> = unused.difference(&known).collect();
    assert!(new.is_empty(), "limits that nothing enforces: {new:?}");
    if unused != known {
        assert!(blessing(), "{LIST} can shrink: AOB_TIDY_BLESS=1 cargo test --test tidy");
        let names: Vec<String> = unused.into_iter().collect();
        let text =
            format!("# Limits whose user does not exist yet. May only shrink.\n{}\n", names.join("\n"));
        std::fs::write(place, text.replace("\n\n", "\n")).unwrap();
    }
}

#[test]
fn a_limit_that_only_a_comment_names_is_found() {
    let others =
        [File { path: "src/a.rs".into(), text: "// B_MAX\nconst X: u32 = crate::limits::A_MAX;".into() }];
    let limits = "pub const A_MAX: u32 = 1; pub const B_MAX: u32 = 2; const _: () = assert!(A_MAX < B_MAX);";
    assert_eq!(unused(limits, &others).into_iter().collect::<Vec<_>>(), ["B_MAX"]);
}
