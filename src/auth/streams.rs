//! How many streams each token has open, over all cores and transports.
//!
//! What must hold: a place is given back when the stream is dropped, wherever that happens. Full: the next stream of that token is
//! refused, and nobody else's.

#![expect(
    clippy::disallowed_types,
    reason = "one look for each stream that is opened or ends, away from the runners"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module. Clones are the same.
#[derive(Clone, Debug)]
pub struct Streams {
    open: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    most: usize,
}

/// One stream's place; dropped with it.
#[derive(Debug)]
pub struct Place {
    streams: Streams,
    token: Arc<str>,
}

impl Streams {
    /// With room for so many of each token.
    pub fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// Most that a token may have.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A place for one more stream of this token; `None` when it has all that it may.
    pub fn take(&self, token: &Arc<str>) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(token.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { streams: self.clone(), token: token.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_so_many_and_another_as_many() {
        let (streams, [one, other]) = (Streams::new(2), ["one", "other"].map(Arc::from));
        let places = [streams.take(&one), streams.take(&one)];
        assert!(places.iter().all(Option::is_some) && streams.take(&one).is_none());
        assert!(streams.take(&other).is_some());
        drop(places);
        assert!(streams.take(&one).is_some());
        assert!(streams.open.lock().unwrap().is_empty(), "who has none is forgotten");
    }
}
