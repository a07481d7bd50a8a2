//! Documents as a stranger sends them. What compiles has a canonical form that compiles to the same, and its findings
//! point into the text.

use crate::compile::{Format, Options, compile, compile_canonical};

fn document(bytes: &[u8], format: Format) {
    let options = Options { name: Some("fuzzed".into()), ..Options::default() };
    let Ok(compiled) = compile(bytes, format, &options) else { return };
    let again = compile_canonical(compiled.canonical.as_bytes()).unwrap_or_else(|refused| {
        panic!("the canonical form is refused: {refused:?}\n{}", compiled.canonical)
    });
    assert_eq!(again.hash, compiled.hash, "{}\n{}", compiled.canonical, again.canonical);
    assert_eq!(again.ir.scopes.len(), compiled.ir.scopes.len());
}

pub(super) fn json(bytes: &[u8]) {
    document(bytes, Format::Json);
}

pub(super) fn yaml(bytes: &[u8]) {
    let _ = Format::detect(bytes);
    document(bytes, Format::Yaml);
}
