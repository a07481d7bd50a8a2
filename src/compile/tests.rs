//! What the language must accept and refuse.

mod broken;
mod cost;
mod generated;
mod kinds;
mod meaning;
mod spellings;

use super::*;

fn yaml(text: &str) -> Result<Compiled, Diagnostics> {
    compile(text.as_bytes(), Format::Yaml, &Options::default())
}

fn json(text: &str) -> Result<Compiled, Diagnostics> {
    compile(text.as_bytes(), Format::Json, &Options::default())
}

/// Compiles, and compiles the canonical text again: it must mean the same.
fn good(text: &str) -> Compiled {
    let compiled = yaml(text).unwrap_or_else(|refused| panic!("{text}\n{refused}"));
    let again = compile_canonical(compiled.canonical.as_bytes())
        .unwrap_or_else(|refused| panic!("{}\n{refused}", compiled.canonical));
    assert_eq!(again.hash, compiled.hash, "{}\n{}", compiled.canonical, again.canonical);
    assert_eq!(format!("{:?}", again.ir), format!("{:?}", compiled.ir));
    assert_eq!(again.document, compiled.document);
    compiled
}
