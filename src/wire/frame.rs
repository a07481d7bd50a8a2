//! One thing that is said on a stream, encoded once for each way of saying it and shared by everybody who hears it.
//!
//! An encoding is made when the first subscriber of its transport needs it. The JSON of an event is the same, byte for byte, on
//! every transport and in the timeline.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::event::Row;
use super::filter::Filter;
use super::quic::{self, kind};
use crate::model::{RunId, Seq};

/// A piece of an answer: what may be lost.
const DELTA: &str = "node.delta";

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Frame(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    said: Said,
    /// Path of the node it is about.
    node: Option<Box<str>>,
    ends_run: bool,
    /// Empty for a heartbeat.
    json: Bytes,
    sse: OnceLock<Bytes>,
    chunk: OnceLock<Bytes>,
    message: OnceLock<Bytes>,
    quic: OnceLock<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An event, by its number in the run.
    Event(RunId, Seq, &'static str),
    /// Something without a number, which is never sent again.
    Aside(&'static str),
    /// Why the stream ends.
    Closing(&'static str),
    Heartbeat,
}

impl Frame {
    /// An event of a run.
    pub fn event(run_id: RunId, row: &Row<'_>) -> Self {
        let said = Said::Event(run_id, row.seq, row.body.type_name());
        Self::new(said, super::to_json(row).into(), (row.node, row.body.ends_run()))
    }

    /// A piece of a model's answer as it comes (`node.delta`). It has no id: it is never sent again, and what it is a piece of
    /// is, as `model.answered`.
    pub fn delta(node: &str, turn: u32, text: &str) -> Self {
        let data = serde_json::json!({"type": "node.delta", "node": node, "turn": turn, "text": text});
        Self::new(Said::Aside(DELTA), data.to_string().into(), (Some(node), false))
    }

    /// Why a stream ends before the run does. It has no id: a client comes back from where it was.
    pub fn closing(reason: &'static str, run_id: RunId, seq: Seq) -> Self {
        let data = format!("{{\"reason\":\"{reason}\",\"seq\":{seq},\"run\":\"/v1/runs/{run_id}\"}}");
        Self::new(Said::Closing(reason), data.into(), (None, false))
    }

    /// Why a stream of many runs ends.
    pub fn parting(reason: &'static str) -> Self {
        let data = format!("{{\"reason\":\"{reason}\",\"runs\":\"/v1/runs\"}}");
        Self::new(Said::Closing(reason), data.into(), (None, false))
    }

    /// From here on a stream of many runs has all that happens.
    pub fn live() -> Self {
        Self::new(Said::Aside("live"), Bytes::from_static(b"{}"), (None, false))
    }

    /// Said on an idle stream.
    pub fn heartbeat() -> Self {
        Self::new(Said::Heartbeat, Bytes::new(), (None, false))
    }

    fn new(said: Said, json: Bytes, (node, ends_run): (Option<&str>, bool)) -> Self {
        let node = node.map(Box::from);
        let (sse, chunk, message, quic) = Default::default();
        Self(Arc::new(Encoded { said, node, ends_run, json, sse, chunk, message, quic }))
    }

    /// Is it an event, or a piece of an answer, that this filter keeps from its reader?
    pub fn is_kept_back(&self, filter: &Filter) -> bool {
        let Encoded { said, node, ends_run, .. } = &*self.0;
        match said {
            Said::Event(_, _, kind) => !filter.passes(kind, node.as_deref(), *ends_run),
            Said::Aside(kind @ DELTA) => !filter.passes(kind, node.as_deref(), false),
            Said::Aside(_) | Said::Closing(_) | Said::Heartbeat => false,
        }
    }

    /// Is it the first event that a run brings forth itself? A fork begins with those of the run that it was made from.
    pub fn begins_run(&self) -> bool {
        matches!(self.0.said, Said::Event(_, 1, _) | Said::Event(_, _, "run.forked"))
    }

    /// What it counts for in a subscriber's buffer: about what is sent of it, whatever the transport.
    pub fn size_bytes(&self) -> usize {
        64 + self.0.json.len()
    }

    /// As a server-sent event.
    pub fn sse(&self) -> &Bytes {
        self.0.sse.get_or_init(|| self.encode_sse().into())
    }

    /// As a server-sent event in a chunk of HTTP/1.1 (RFC 9112, 7.1).
    pub fn chunk(&self) -> &Bytes {
        self.0.chunk.get_or_init(|| chunked(&self.encode_sse()))
    }

    /// As a text message to a WebSocket, whole with its header; `None` for a heartbeat, which is a ping there.
    pub fn message(&self) -> Option<&Bytes> {
        (self.0.said != Said::Heartbeat).then(|| self.0.message.get_or_init(|| self.encode_message()))
    }

    /// How the stream ends when this is the last that was said on it: with its run, or for this reason.
    pub fn end(&self) -> Option<&'static str> {
        match self.0.said {
            Said::Event(_, _, "run.completed" | "run.failed" | "run.cancelled") => Some("ended"),
            Said::Closing(reason) => Some(reason),
            _ => None,
        }
    }

    fn encode_message(&self) -> Bytes {
        let (before, kind) = match self.0.said {
            Said::Event(run_id, seq, kind) => (format!("{{\"id\":\"{run_id}:{seq}\",\"event\":\""), kind),
            Said::Aside(kind) | Said::Closing(kind) => (String::from("{\"event\":\""), kind),
            Said::Heartbeat => return Bytes::new(),
        };
        text(&[before.as_bytes(), kind.as_bytes(), b"\",\"data\":", &self.0.json, b"}"])
    }

    /// As a frame of `aob/1`.
    pub fn quic(&self) -> &Bytes {
        self.0.quic.get_or_init(|| match self.0.said {
            Said::Heartbeat => quic::frame(kind::HEARTBEAT, &[]),
            Said::Event(run_id, seq, _) => {
                let mut number = Vec::with_capacity(8);
                quic::put_varint(&mut number, seq);
                quic::frame(kind::EVENT, &[run_id.as_bytes(), &number, &self.0.json])
            }
            Said::Aside(name) => quic::frame(
                kind::ASIDE,
                &[b"{\"event\":\"", name.as_bytes(), b"\",\"data\":", &self.0.json, b"}"],
            ),
            Said::Closing(_) => quic::frame(kind::CLOSING, &[&self.0.json]),
        })
    }

    /// As a datagram of `aob/1`, for the subscription with this number; `None` for what must not be lost.
    pub fn datagram(&self, subscription: u64) -> Option<Bytes> {
        let Said::Aside(DELTA) = self.0.said else { return None };
        let (_, rest) = quic::take_varint(self.quic())?;
        let mut out = Vec::with_capacity(8 + rest.len());
        quic::put_varint(&mut out, subscription);
        out.extend_from_slice(rest);
        Some(out.into())
    }

    fn encode_sse(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.0.json.len());
        match self.0.said {
            Said::Heartbeat => return super::sse::HEARTBEAT.to_vec(),
            Said::Event(run_id, seq, kind) => {
                out.extend_from_slice(format!("id: {run_id}:{seq}\nevent: {kind}\ndata: ").as_bytes());
            }
            Said::Aside(kind) | Said::Closing(kind) => {
                out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes())
            }
        }
        out.extend_from_slice(&self.0.json);
        out.extend_from_slice(b"\n\n");
        out
    }
}

/// Bytes as one chunk; what is empty would end the body.
pub fn chunked(bytes: &[u8]) -> Bytes {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// These bytes, which are UTF-8, as one text message from a server (RFC 6455, 5.2): servers mask nothing, so it is the same for
/// everybody.
pub fn text(parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 10);
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    // What is written to a vector is written.
    let _ = header.format(length as u64, &mut out);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_encoded_once_and_chunks_hold_the_same() {
        let run_id: RunId = "run_018bcfe568007fffbfffffffffffffff".parse().unwrap();
        let frame = Frame::closing("resync", run_id, 7);
        assert_eq!(
            frame.sse(),
            "event: resync\ndata: {\"reason\":\"resync\",\"seq\":7,\"run\":\"/v1/runs/run_018bcfe568007fffbfffffffffffffff\"}\n\n"
        );
        let again = frame.clone();
        assert_eq!(frame.sse().as_ptr(), again.sse().as_ptr());
        let chunk = String::from_utf8(frame.chunk().to_vec()).unwrap();
        let (length, rest) = chunk.split_once("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(length, 16).unwrap(), frame.sse().len());
        assert_eq!(rest.strip_suffix("\r\n").unwrap().as_bytes(), frame.sse());
        assert_eq!(Frame::heartbeat().sse(), ": hb\n\n");
        let message = frame.message().unwrap();
        let object = "{\"event\":\"resync\",\"data\":{\"reason\":\"resync\",\"seq\":7,\"run\":\"/v1/runs/run_018bcfe568007fffbfffffffffffffff\"}}";
        assert_eq!(message.split_at(2), (&[0x81, object.len() as u8][..], object.as_bytes()));
        assert_eq!(message.as_ptr(), again.message().unwrap().as_ptr());
        assert_eq!(
            (frame.end(), Frame::heartbeat().message(), Frame::heartbeat().end()),
            (Some("resync"), None, None)
        );
    }

    #[test]
    fn long_messages_have_long_headers() {
        for (length, header) in [
            (125, &[0x81, 125][..]),
            (126, &[0x81, 126, 0, 126]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let message = text(&[&vec![b'x'; length]]);
            assert_eq!((message.get(..header.len()), message.len()), (Some(header), header.len() + length));
        }
    }

    // F240: the vectors were made by another program, from the document.
    #[test]
    fn frames_are_those_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/stream/frames.json")).unwrap();
        let run_id: RunId = "run_018bcfe568007fffbfffffffffffffff".parse().unwrap();
        let delta = Frame::delta("ask", 1, "Hel");
        for vector in vectors.as_array().unwrap() {
            let json = Bytes::from(vector["json"].as_str().unwrap_or_default().to_owned());
            let made = match vector["name"].as_str().unwrap() {
                "event" | "large event" => {
                    let seq = vector["seq"].as_u64().unwrap();
                    Frame::new(Said::Event(run_id, seq, "node.completed"), json, (None, false)).quic().clone()
                }
                "aside" => delta.quic().clone(),
                "aside as a datagram of subscription 70" => delta.datagram(70).unwrap(),
                "closing" => Frame::closing("slow_consumer", run_id, 3).quic().clone(),
                "heartbeat" => Frame::heartbeat().quic().clone(),
                "subscribed" => quic::subscribed(&format!("/v1/runs/{run_id}/events?after=3"), 1),
                "subscribe" => quic::Subscribe::parse(&json).unwrap().frame(),
                other => panic!("{other}"),
            };
            let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, vector["hex"].as_str().unwrap(), "{}", vector["name"]);
        }
        assert_eq!(Frame::heartbeat().datagram(1), None, "only what may be lost is a datagram");
    }
}
