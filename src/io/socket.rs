//! Socket options and listeners.
