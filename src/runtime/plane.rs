//! Each plane's loop on one page.

mod pushing;
pub(crate) mod runner;
