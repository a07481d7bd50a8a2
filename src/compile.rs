//! From text to IR: reads a workflow in any spelling, checks it, lowers it.
