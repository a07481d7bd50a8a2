//! Server-sent events: what is said around the events, and the decoder that reads them.
//!
//! What is written is a [`Frame`](super::frame::Frame)'s. The decoder follows the WHATWG rules for what we use of
//! them (`id`, `event`, `data`, `retry`, comments, all three line ends) and bounds what it holds.

use crate::limits;
use crate::model::{RunId, Seq};

/// Said first on every stream: how long a client waits before it comes back.
pub const RETRY: &[u8] = b"retry: 2000\n\n";
/// Said on an idle stream.
pub const HEARTBEAT: &[u8] = b": hb\n\n";

/// `run_id:seq`, as in `id` and `Last-Event-ID`.
pub fn parse_event_id(text: &str) -> Option<(RunId, Seq)> {
    let (run_id, seq) = text.rsplit_once(':')?;
    Some((run_id.parse().ok()?, seq.parse().ok()?))
}

/// One event read from a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last id seen on the stream.
    pub id: String,
    /// Its type; `message` when not said.
    pub event: String,
    /// Its data; lines are joined by newlines.
    pub data: String,
}

/// The stream broke a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a streamed event of more than {max} bytes (limit value_bytes_max)")]
pub struct TooLong {
    /// How much is allowed.
    pub max: usize,
}

/// Turns bytes into events, however the bytes are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    after_return: bool,
    started: bool,
    id: String,
    event: String,
    data: String,
    retry_ms: Option<u64>,
}

/// Bytes of one event a client holds: a value and what stands around it.
const EVENT_BYTES_MAX: usize = 2 * limits::VALUE_BYTES_MAX;

impl Decoder {
    /// Reads on; finished events are added to `events`.
    ///
    /// # Errors
    /// One event is longer than twice `value_bytes_max`.
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return)
                && let Some(behind) = rest.strip_prefix(b"\n")
            {
                rest = behind;
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.data.len() + piece.len() > EVENT_BYTES_MAX {
                return Err(TooLong { max: EVENT_BYTES_MAX });
            }
            self.line.extend_from_slice(piece);
            let Some((end, behind)) = behind.split_first() else { break };
            self.after_return = *end == b'\r';
            self.end_line(events);
            rest = behind;
        }
        Ok(())
    }

    /// How long the server asks to wait before coming back, milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// The last id of a finished event.
    pub fn last_id(&self) -> &str {
        &self.id
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let mut line = std::mem::take(&mut self.line);
        self.read_line(&line, events);
        line.clear();
        self.line = line;
    }

    fn read_line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let text = String::from_utf8_lossy(line);
        let text = if self.started { &*text } else { text.trim_start_matches('\u{feff}') };
        self.started = true;
        if text.is_empty() {
            self.dispatch(events);
            return;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.event),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            _ => {}
        }
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        data.pop();
        let event = if event.is_empty() { String::from("message") } else { event };
        events.push(Event { id: self.id.clone(), event, data });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::event::Row;
    use super::super::frame::Frame;
    use super::*;
    use crate::model::EventBody;
    use crate::time::Timestamp;

    fn run_id() -> RunId {
        "run_018bcfe568007fffbfffffffffffffff".parse().unwrap()
    }

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.feed(chunk, &mut events).unwrap();
        }
        events
    }

    #[test]
    fn our_own_frames_are_read_back() {
        let body = EventBody::RunCancelled { reason: "a\nb: \"c\"".into() };
        let row = Row { seq: 9, at: Timestamp::from_micros(0), node: None, body: &body };
        let bytes = [
            RETRY,
            HEARTBEAT,
            Frame::event(run_id(), &row).sse(),
            Frame::closing("slow_consumer", run_id(), 9).sse(),
        ]
        .concat();
        let events = decode(&[&bytes]);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].event, "run.cancelled");
        assert_eq!(parse_event_id(&events[0].id), Some((run_id(), 9)));
        let data: serde_json::Value = serde_json::from_str(&events[0].data).unwrap();
        assert_eq!(data["reason"], "a\nb: \"c\"");
        // A closing frame has no id of its own, so the last one stands.
        assert_eq!((events[1].event.as_str(), &events[1].id), ("slow_consumer", &events[0].id));
    }

    #[test]
    fn all_line_ends_comments_and_many_data_lines_are_understood() {
        let text = "\u{feff}: hello\r\nretry: 10\r\ndata: a\r\ndata:b\r\n\r\nevent: x\rid: 1\rdata\r\rdata: c\n\ndata: cut";
        let events = decode(&[text.as_bytes()]);
        let seen: Vec<_> =
            events.iter().map(|e| (e.event.as_str(), e.id.as_str(), e.data.as_str())).collect();
        assert_eq!(seen, [("message", "", "a\nb"), ("x", "1", ""), ("message", "1", "c")]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; EVENT_BYTES_MAX / 2];
        let results: Vec<_> = (0..3).map(|_| decoder.feed(&chunk, &mut Vec::new()).is_ok()).collect();
        assert_eq!(results, [true, true, false]);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(id: [0-9]{1,3}|data: [a-z]{0,5}|event: e|: c|)(\r\n|\n|\r)", n in 1usize..20, cut in 1usize..7) {
            let bytes = text.repeat(n).into_bytes();
            let cut: Vec<_> = bytes.chunks(cut).collect();
            prop_assert_eq!(decode(&[&bytes]), decode(&cut));
        }
    }
}
