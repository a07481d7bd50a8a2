//! The frames of `aob/1` as a client reads and writes them (docs/formats/stream.md): bytes in, messages out, however they are cut.
//!
//! What the other side says is bounded before it is held: a frame announced longer than [`FRAME_BYTES_MAX`] ends the stream.

use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::RunId;
use crate::wire::problem::Problem;
use crate::wire::quic::{kind, take_varint};
use crate::wire::sse::Event;

/// Bytes of type and body of one frame.
pub(super) const FRAME_BYTES_MAX: usize = (16 << 20) + 64;

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
        while let Some((length, rest)) = take_varint(&self.buffer) {
            let head = self.buffer.len() - rest.len();
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

fn read(frame: u8, body: &[u8]) -> Result<Option<Said>, String> {
    Ok(match frame {
        kind::EVENT => Some(Said::Event(event(body).ok_or("an event that is none")?)),
        kind::ASIDE => Some(Said::Event(Named::read(body)?)),
        kind::CLOSING => {
            #[derive(Deserialize)]
            struct Closing {
                reason: String,
            }
            let closing: Closing = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let data = String::from_utf8_lossy(body).into_owned();
            Some(Said::Event(Event { id: String::new(), event: closing.reason, data }))
        }
        kind::REFUSED => {
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
    let (seq, data) = take_varint(rest)?;
    let data = std::str::from_utf8(data).ok()?;
    let kind = serde_json::from_str::<Typed<'_>>(data).ok()?.kind.into_owned();
    let run_id = RunId::from_bytes(*run_id);
    Some(Event { id: format!("{run_id}:{seq}"), event: kind, data: data.to_owned() })
}

#[cfg(test)]
mod tests;
