//! What is fuzzed: each target takes bytes from a stranger and panics when something does not hold.
//!
//! Part of the library in its tests and under `cfg(fuzzing)`, so that the same functions are called by libFuzzer
//! (`fuzz/run`) and, where there is no nightly compiler, by the short runner in the test suite. What a fuzzer found
//! stands in `fuzz/regressions/TARGET/NAME` and is run by every test run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "this is a test, and compiled into nothing else"
)]

mod bundle;
mod documents;
mod journal;
#[cfg(test)]
mod runner;
mod seeds;
mod texts;

pub use seeds::seeds;

/// A target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("recovery", journal::recovery),
    ("frame", journal::frame),
    ("burst", journal::burst),
    ("bundle", bundle::bundle),
    ("token", journal::token),
    ("document_json", documents::json),
    ("document_yaml", documents::yaml),
    ("expression", texts::expression),
    ("template", texts::template),
    ("bodies", crate::api::fuzzed::bodies),
    ("parameters", crate::api::fuzzed::parameters),
    ("names", texts::names),
    ("stream", texts::stream),
];

/// A target by its name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> fn(&[u8]) {
    let names = || TARGETS.map(|(name, _)| name).join(" ");
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no target {name:?}; there are {}", names())).1
}
