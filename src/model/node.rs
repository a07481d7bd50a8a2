//! Kinds of nodes and their settings, as written.
