//! The frames of `aob/1` as a client reads and writes them (docs/formats/stream.md): bytes in, messages out, however they are cut.
//!
//! What the other side says is bounded before it is held: a frame announced longer than [`FRAME_BYTES_MAX`] ends the stream.

use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::RunId;
use crate::wire::problem::Problem;
use crate::wire::sse::Event;

/// Bytes of type and body of one frame.
pub(super) const FRAME_BYTES_MAX: usize = (16 << 20) + 64;

const EVENT: u8 = 0x01;
const ASIDE: u8 = 0x02;
const CLOSING: u8 = 0x03;
const REFUSED: u8 = 0x07;
const SUBSCRIBE: u8 = 0x10;

/// What a frame says.
#[derive(Debug)]
pub(super) enum Said {
    /// An event, or what is said without a number (its `id` is empty).
    Event(Event),
    /// There is no stream, and why.
    Refused(Box<Problem>),
}

/// Turns bytes into messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
}

/// `{"event","data"}`, as asides and the messages of a WebSocket are.
#[derive(Deserialize)]
pub(super) struct Named<'a> {
    #[serde(default)]
    id: String,
    event: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Named<'_> {
    /// As an event; the error says what is wrong.
    pub(super) fn read(text: &[u8]) -> Result<Event, String> {
        let named: Named<'_> = serde_json::from_slice(text).map_err(|error| format!("a message: {error}"))?;
        Ok(Event { id: named.id, event: named.event, data: named.data.get().to_owned() })
    }
}

impl Decoder {
    /// Reads on; what was said is added to `said`.
    ///
    /// # Errors
    /// A frame is longer than allowed, or not what it says it is.
    pub(super) fn feed(&mut self, bytes: &[u8], said: &mut Vec<Said>) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        while let Some((length, head)) = varint(&self.buffer) {
            let length = usize::try_from(length).ok().filter(|length| (1..=FRAME_BYTES_MAX).contains(length));
            let length =
                length.ok_or_else(|| format!("a frame of no byte or more than {FRAME_BYTES_MAX}"))?;
            if self.buffer.len() < head + length {
                break;
            }
            self.buffer.advance(head);
            let mut frame = self.buffer.split_to(length);
            let kind = frame.get_u8();
            said.extend(read(kind, &frame)?);
        }
        Ok(())
    }
}

fn read(kind: u8, body: &[u8]) -> Result<Option<Said>, String> {
    Ok(match kind {
        EVENT => Some(Said::Event(event(body).ok_or("an event that is none")?)),
        ASIDE => Some(Said::Event(Named::read(body)?)),
        CLOSING => {
            #[derive(Deserialize)]
            struct Closing {
                reason: String,
            }
            let closing: Closing = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let data = String::from_utf8_lossy(body).into_owned();
            Some(Said::Event(Event { id: String::new(), event: closing.reason, data }))
        }
        REFUSED => {
            let problem = serde_json::from_slice(body).map_err(|error| format!("a refusal: {error}"))?;
            Some(Said::Refused(problem))
        }
        // Heartbeats, what is said of the subscription, and what a later version adds.
        _ => None,
    })
}

fn event(body: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    let (run_id, rest) = body.split_first_chunk::<16>()?;
    let (seq, length) = varint(rest)?;
    let data = std::str::from_utf8(rest.get(length..)?).ok()?;
    let kind = serde_json::from_str::<Typed<'_>>(data).ok()?.kind.into_owned();
    let run_id = RunId::from_bytes(*run_id);
    Some(Event { id: format!("{run_id}:{seq}"), event: kind, data: data.to_owned() })
}

/// A number of RFC 9000, 16, and how many bytes it has.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let rest = bytes.get(1..length)?;
    let number = rest.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte));
    Some((number, length))
}

/// The wish for the events at `path`, with what stands in for the headers of a request.
pub(super) fn subscribe(path: &str, headers: &serde_json::Map<String, serde_json::Value>) -> Vec<u8> {
    let body = serde_json::json!({"version": 1, "path": path, "headers": headers}).to_string();
    let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
    // Four bytes hold a length under 2^30; no wish is longer.
    let mut frame = (length & 0x3fff_ffff | 0x8000_0000).to_be_bytes().to_vec();
    frame.push(SUBSCRIBE);
    frame.extend_from_slice(body.as_bytes());
    frame
}

#[cfg(test)]
mod tests;
