//! Each plane's loop on one page.

pub mod runner;
