//! Pieces of an answer, each sent by itself: one buffer with cuts in it.

use bytes::Bytes;

#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What the next piece begins with; [`Frames::end`] ends it.
    pub(crate) buffer: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    pub(crate) fn end(&mut self) {
        self.ends.push(self.buffer.len());
    }

    /// Adds a whole piece.
    pub(crate) fn push(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.end();
    }

    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        let whole = Bytes::from(self.buffer);
        let mut from = 0;
        let piece = |end: &usize| whole.slice(std::mem::replace(&mut from, *end)..*end);
        self.ends.iter().map(piece).collect()
    }
}
