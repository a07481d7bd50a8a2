//! Each plane's loop on one page.

pub(crate) mod runner;
