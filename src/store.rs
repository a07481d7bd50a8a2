//! Where state is kept: traits that say what durable obliges, and the embedded back end.

pub mod record;
