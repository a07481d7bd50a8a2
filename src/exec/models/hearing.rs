//! Text of an answer as it comes, for whoever listens. It is for eyes: never recorded, never replayed.
//!
//! What must hold: a listener that is slow or gone holds nothing up, it misses pieces; no secret passes, in no pieces.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::exec::secret::Redactor;
use crate::limits;

/// Where pieces of an answer go.
#[derive(Clone, Debug)]
pub struct Deltas(mpsc::Sender<Arc<str>>);

impl Deltas {
    /// Where pieces go, and where they come out. At most [`limits::MODEL_DELTAS_MAX`] wait; further ones are left out.
    pub fn channel() -> (Self, mpsc::Receiver<Arc<str>>) {
        let (pieces, heard) = mpsc::channel(limits::MODEL_DELTAS_MAX);
        (Self(pieces), heard)
    }
}

/// One answer being listened to.
pub(super) struct Hearing<'a> {
    pub(super) deltas: Option<&'a Deltas>,
    pub(super) redactor: &'a Redactor,
    /// What may be the beginning of a secret.
    pub(super) pending: String,
}

impl Hearing<'_> {
    /// More of the text.
    pub(super) fn hear(&mut self, piece: &str) {
        if self.deltas.is_none() || piece.is_empty() {
            return;
        }
        self.pending.push_str(piece);
        let rest = self.pending.split_off(self.redactor.settled(&self.pending));
        self.tell(rest);
    }

    /// There is no more.
    pub(super) fn end(&mut self) {
        self.tell(String::new());
    }

    fn tell(&mut self, rest: String) {
        let text = std::mem::replace(&mut self.pending, rest);
        if let (Some(deltas), false) = (self.deltas, text.is_empty()) {
            // Full, or nobody there: it is left out.
            let _ = deltas.0.try_send(self.redactor.text(&text).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F411
    #[test]
    fn a_listener_hears_all_but_secrets_and_one_that_is_slow_misses_some() {
        let mut redactor = Redactor::default();
        redactor.add("cAnary-77");
        let (deltas, mut heard) = Deltas::channel();
        let mut hearing = Hearing { deltas: Some(&deltas), redactor: &redactor, pending: String::new() };
        for piece in ["It is c", "An", "ary-7", "7, is it", " c"] {
            hearing.hear(piece);
        }
        hearing.end();
        let mut text = String::new();
        while let Ok(piece) = heard.try_recv() {
            text.push_str(&piece);
        }
        assert_eq!(text, "It is [redacted], is it c");
        for _ in 0..2 * limits::MODEL_DELTAS_MAX {
            hearing.hear("x");
        }
        let kept = std::iter::from_fn(|| heard.try_recv().ok()).count();
        assert_eq!(kept, limits::MODEL_DELTAS_MAX);
        drop(heard);
        hearing.hear("nobody is there");
    }
}
