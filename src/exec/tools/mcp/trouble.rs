//! What went wrong on a connection, told where its bytes are counted and asked where its calls fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::limits;

/// Stands in every error about a message that was longer than any may be.
pub(super) const TOO_LARGE: &str = "limit tool_server_message_bytes_max";

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    too_large: AtomicBool,
    flooded: AtomicBool,
    list_changed: AtomicBool,
    /// Bytes since a call began.
    unasked: AtomicU64,
}

impl Trouble {
    /// A call begins: what comes now may be its answer.
    pub(super) fn begin(&self) {
        self.unasked.store(0, Ordering::Relaxed);
    }

    /// So many bytes came. False: they were too many.
    pub(super) fn came(&self, bytes: usize) -> bool {
        let all = self.unasked.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        let fits = all <= limits::TOOL_SERVER_UNASKED_BYTES_MAX as u64;
        if !fits {
            self.flooded.store(true, Ordering::Relaxed);
        }
        fits
    }

    /// A message was longer than any may be.
    pub(super) fn was_too_large(&self) {
        self.too_large.store(true, Ordering::Relaxed);
    }

    pub(super) fn list_changed(&self) {
        self.list_changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_list_changed(&self) -> bool {
        self.list_changed.swap(false, Ordering::Relaxed)
    }

    /// Why the connection was cut, when we did it. On one that lives on (of a service) it is told once: to the call whose answer
    /// it was.
    pub(super) fn why(&self, closed: bool) -> Option<String> {
        let (large, most) = (limits::TOOL_SERVER_MESSAGE_BYTES_MAX, limits::TOOL_SERVER_UNASKED_BYTES_MAX);
        if self.too_large.fetch_and(closed, Ordering::Relaxed) {
            return Some(format!("a message had more than {large} bytes ({TOO_LARGE})"));
        }
        let flooded = self.flooded.fetch_and(closed, Ordering::Relaxed);
        flooded
            .then(|| format!("it sent more than {most} bytes unasked (limit tool_server_unasked_bytes_max)"))
    }
}

/// An error with what is behind it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next.filter(|_| text.len() < 4_096) {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}
