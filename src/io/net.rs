//! tokio: pinned current_thread cores.
