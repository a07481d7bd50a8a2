//! The world behind small functions. The only module that names a runtime crate (protocol edges name socket types).

pub mod file;
pub mod net;
pub mod ring;
pub mod socket;
