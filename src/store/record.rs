//! How events of a run lie in a frame of the journal.
