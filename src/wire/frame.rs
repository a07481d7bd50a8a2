//! One thing that is said on a stream, encoded once for each way of saying it and shared by everybody who hears it.
//!
//! An encoding is made when the first subscriber of its transport needs it. The JSON of an event is the same, byte for byte, on
//! every transport and in the timeline.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::event::Row;
use super::quic::{self, kind};
use crate::model::{RunId, Seq};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Frame(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    said: Said,
    /// Empty for a heartbeat.
    json: Bytes,
    sse: OnceLock<Bytes>,
    chunk: OnceLock<Bytes>,
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
        Self::new(Said::Event(run_id, row.seq, row.body.type_name()), super::to_json(row).into())
    }

    /// A piece of a model's answer as it comes (`node.delta`). It has no id: it is never sent again, and what it is a piece of
    /// is, as `model.answered`.
    pub fn delta(node: &str, turn: u32, text: &str) -> Self {
        let data = serde_json::json!({"type": "node.delta", "node": node, "turn": turn, "text": text});
        Self::new(Said::Aside("node.delta"), data.to_string().into())
    }

    /// Why a stream ends before the run does. It has no id: a client comes back from where it was.
    pub fn closing(reason: &'static str, run_id: RunId, seq: Seq) -> Self {
        let data = format!("{{\"reason\":\"{reason}\",\"seq\":{seq},\"run\":\"/v1/runs/{run_id}\"}}");
        Self::new(Said::Closing(reason), data.into())
    }

    /// Said on an idle stream.
    pub fn heartbeat() -> Self {
        Self::new(Said::Heartbeat, Bytes::new())
    }

    fn new(said: Said, json: Bytes) -> Self {
        Self(Arc::new(Encoded { said, json, sse: OnceLock::new(), chunk: OnceLock::new(), quic: OnceLock::new() }))
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

    /// As a frame of `aob/1`.
    pub fn quic(&self) -> &Bytes {
        self.0.quic.get_or_init(|| match self.0.said {
            Said::Heartbeat => quic::frame(kind::HEARTBEAT, &[]),
            Said::Event(run_id, seq, _) => {
                let mut number = Vec::with_capacity(8);
                quic::put_varint(&mut number, seq);
                quic::frame(kind::EVENT, &[run_id.as_bytes(), &number, &self.0.json])
            }
            Said::Aside(name) => {
                quic::frame(kind::ASIDE, &[b"{\"event\":\"", name.as_bytes(), b"\",\"data\":", &self.0.json, b"}"])
            }
            Said::Closing(_) => quic::frame(kind::CLOSING, &[&self.0.json]),
        })
    }

    /// As a datagram of `aob/1`, for the subscription with this number; `None` for what must not be lost.
    pub fn datagram(&self, subscription: u64) -> Option<Bytes> {
        let Said::Aside(_) = self.0.said else { return None };
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
            Said::Aside(kind) | Said::Closing(kind) => out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes()),
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
    }
}
