//! Server-sent events (the HTML standard, 9.2.6), read as their bytes come. Pure.
//!
//! What must hold: however the bytes are cut, the same events come out. An event that is not over when the bytes are is
//! none. A line or an event over [`limits::MODEL_LINE_BYTES_MAX`] ends it.

use crate::limits;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; empty without one.
    pub(super) name: String,
    /// Its lines of data.
    pub(super) data: String,
}

/// A line, or an event, is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What has come of an event so far.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was a return: a line feed after it belongs to it.
    returned: bool,
    /// The first line is over, which may begin with a mark of byte order.
    begun: bool,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes bytes, and gives the events that they end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()?),
                _ if self.line.len() >= limits::MODEL_LINE_BYTES_MAX => return Err(TooLong),
                _ => self.line.push(*byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let first = !std::mem::replace(&mut self.begun, true);
        let text = if first { text.trim_start_matches('\u{feff}') } else { &text };
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // A comment, or a field for whoever connects again.
            _ => {}
        }
        if self.event.data.len() > limits::MODEL_LINE_BYTES_MAX { Err(TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        chunks.iter().flat_map(|chunk| parser.take(chunk).unwrap()).collect()
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (text, events) in [
            ("data: a\n\n", vec![event("", "a")]),
            ("\u{feff}data:a\r\rdata: b\r\n\r\n", vec![event("", "a"), event("", "b")]),
            ("event: x\ndata: a\ndata\ndata:  b\nid: 1\nretry: 5\n: hm\n\n", vec![event("x", "a\n\n b")]),
            ("event: x\n\ndata: a\n\n", vec![event("", "a")]),
            (": ping\n\n\n\ndata: ä€\n\n", vec![event("", "ä€")]),
            ("data: cut\n", vec![]),
            ("data: cut", vec![]),
            ("data\n\n", vec![event("", "")]),
        ] {
            assert_eq!(read(&[text.as_bytes()]), events, "{text:?}");
        }
        assert_eq!(read(&[b"data: \xff\n\n"]), [event("", "\u{fffd}")]);
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let mut parser = Parser::default();
        let part = vec![b'x'; 1 << 16];
        assert!((0..=16).any(|_| parser.take(&part) == Err(TooLong)));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1 << 16));
        assert!((0..=16).any(|_| parser.take(line.as_bytes()) == Err(TooLong)), "many lines of one event");
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_events_are_the_same(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "data: ", "event: ", "\n", "\r", "\r\n", "a", "ä€", ":", "data", " ", "\u{feff}", "{\"x\": 1}",
                ]),
                0..60,
            ),
            cuts in prop::collection::vec(0_usize..400, 0..20),
        ) {
            let bytes = parts.concat().into_bytes();
            let whole = read(&[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut chunks, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(read(&chunks), whole.clone());
            let each: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&each), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Parser::default().take(&bytes);
        }
    }
}
