//! The pure engine: `decide` evaluates, `apply` folds.

pub mod command;
