//! Style as a test: who may use whom, what pure modules must not name, sizes, words, unused limits, stale tables.
//!
//! Every rule is a function from source text to findings, a test that runs it over the tree, and a test beside it
//! that shows it fail. Lists that may only shrink (`tests/tidy/*.txt`) and `docs/features.md` are rewritten by
//! `AOB_TIDY_BLESS=1 cargo test --test tidy`; without that a stale one is a failure.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "tidy/codes.rs"]
mod codes;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/failpoints.rs"]
mod failpoints;
#[path = "tidy/features.rs"]
mod features;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;
