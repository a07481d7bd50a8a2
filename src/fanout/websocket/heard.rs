//! What the client says on a WebSocket, and the control frames with which it is answered: tungstenite, between bytes that came
//! and bytes that go. It checks masks, lengths, fragments, UTF-8 and the order of closing; this only counts.
//!
//! Full: a message over [`limits::WEBSOCKET_MESSAGE_BYTES_MAX`], or cut into so small fragments that it is eight times that on the
//! wire, is [`Broken`] with 1009; more than [`limits::WEBSOCKET_MESSAGES_PER_SECOND_MAX`] messages with 1008.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::limits;

/// Bytes on the wire of one message, its fragments' headers counted.
const WIRE_BYTES_MAX: usize = 8 * limits::WEBSOCKET_MESSAGE_BYTES_MAX;
/// Bytes of the header and the mask of a control frame.
const CONTROL_HEADER_BYTES: usize = 6;
/// Bytes for which there is room from the beginning: clients say little.
const BUFFER_BYTES: usize = 256;

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A text message.
    Text(String),
    /// A ping, which is answered, or a pong.
    Alive,
    /// It closes, or answers a close.
    Close,
}

/// It broke the rules: with this code the connection is closed, for this reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) u16, pub(super) &'static str);

/// See the module.
#[derive(Debug)]
pub(super) struct Heard {
    context: WebSocketContext,
    wire: Wire,
    /// Bytes since the last whole message.
    unfinished_bytes: usize,
    messages: u32,
    /// Since when they are counted.
    since: Instant,
}

impl Heard {
    /// After the handshake, behind which this was said already.
    pub(super) fn new(rest: &[u8]) -> Self {
        let most = Some(limits::WEBSOCKET_MESSAGE_BYTES_MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(most)
            .max_frame_size(most);
        let context = WebSocketContext::new(Role::Server, Some(config));
        let mut heard =
            Self { context, wire: Wire::default(), unfinished_bytes: 0, messages: 0, since: Instant::now() };
        heard.take(rest);
        heard
    }

    /// Bytes that came.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.unfinished_bytes += bytes.len();
        self.wire.incoming.extend_from_slice(bytes);
    }

    /// The next thing that was said; `None` until more comes.
    pub(super) fn next(&mut self) -> Result<Option<Said>, Broken> {
        let message = match self.context.read(&mut self.wire) {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                let endless = self.unfinished_bytes > WIRE_BYTES_MAX;
                return if endless { Err(Broken(1009, "websocket_message_bytes_max")) } else { Ok(None) };
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(Some(Said::Close)),
            Err(Error::Capacity(_)) => return Err(Broken(1009, "websocket_message_bytes_max")),
            Err(Error::Utf8(_)) => return Err(Broken(1007, "not_utf8")),
            Err(_) => return Err(Broken(1002, "protocol_error")),
        };
        // What it is answered with comes before whatever is said next.
        self.flush();
        self.count()?;
        match message {
            Message::Text(text) => {
                // What came behind it in the same piece is counted with the next one.
                self.unfinished_bytes = self.wire.incoming.len();
                Ok(Some(Said::Text(text.as_str().to_owned())))
            }
            Message::Ping(payload) | Message::Pong(payload) => {
                let bytes = CONTROL_HEADER_BYTES + payload.len();
                self.unfinished_bytes = self.unfinished_bytes.saturating_sub(bytes);
                Ok(Some(Said::Alive))
            }
            Message::Close(_) => Ok(Some(Said::Close)),
            Message::Binary(_) => Err(Broken(1003, "text is expected")),
            Message::Frame(_) => Err(Broken(1002, "protocol_error")),
        }
    }

    fn count(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.messages) = (now, 0);
        }
        self.messages += 1;
        if self.messages > limits::WEBSOCKET_MESSAGES_PER_SECOND_MAX {
            return Err(Broken(1008, "websocket_messages_per_second_max"));
        }
        Ok(())
    }

    /// Asks whether the client is there.
    pub(super) fn ping(&mut self) {
        // What does not go to a closed connection need not.
        let _ = self.context.write(&mut self.wire, Message::Ping(Bytes::new()));
    }

    /// Says that it ends; nothing but the client's own close is heard after that.
    pub(super) fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let _ = self.context.close(&mut self.wire, Some(frame));
    }

    /// What goes to the client now.
    pub(super) fn answers(&mut self) -> Bytes {
        std::mem::take(&mut self.wire.outgoing).into()
    }

    fn flush(&mut self) {
        // An error is the end, and comes again with the next read.
        let _ = self.context.flush(&mut self.wire);
    }
}

/// What tungstenite takes for the connection.
#[derive(Debug, Default)]
struct Wire {
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = space.len().min(self.incoming.len());
        self.incoming.copy_to_slice(space.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame as a client masks it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..126 => out.push(0x80 | short as u8),
            long => out.extend_from_slice(&[0xfe, (long >> 8) as u8, long as u8]),
        }
        out.extend_from_slice(&[1, 2, 3, 4]);
        out.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn all(heard: &mut Heard) -> Result<Vec<Said>, Broken> {
        std::iter::from_fn(|| heard.next().transpose()).take(1_000).collect()
    }

    #[test]
    fn messages_are_heard_however_they_are_cut_and_pings_answered() {
        let bytes = [
            frame(0x01, b"ab"),
            frame(0x89, b"there?"),
            frame(0x00, b""),
            frame(0x80, b"c"),
            frame(0x81, "\u{e9}".as_bytes()),
        ]
        .concat();
        for size in [1, 2, 5, 100] {
            let mut heard = Heard::new(b"");
            let mut said = Vec::new();
            for piece in bytes.chunks(size) {
                heard.take(piece);
                said.extend(all(&mut heard).unwrap());
            }
            assert_eq!(said, [Said::Alive, Said::Text("abc".into()), Said::Text("\u{e9}".into())]);
            assert_eq!(heard.answers(), [&[0x8a, 6][..], b"there?"].concat());
        }
    }

    #[test]
    fn who_breaks_the_rules_is_told_which() {
        let long = limits::WEBSOCKET_MESSAGE_BYTES_MAX;
        let fragments = [frame(0x01, b"x"), frame(0x00, b"").repeat(WIRE_BYTES_MAX / 6 + 1)].concat();
        for (bytes, code) in [
            (vec![0x81, 1, b'x'], 1002),
            (frame(0xc1, b"x"), 1002),
            (frame(0x83, b"x"), 1002),
            (frame(0x80, b"x"), 1002),
            (frame(0x89, &[b'x'; 126]), 1002),
            (frame(0x09, b""), 1002),
            ([frame(0x01, b"x"), frame(0x81, b"x")].concat(), 1002),
            (frame(0x88, b"x"), 1002),
            (frame(0x82, b"x"), 1003),
            (frame(0x81, b"\xff"), 1007),
            (frame(0x88, b"\x03\xe8\xff"), 1007),
            ([&[0x81, 0xff, 0x7f][..], &[0xff; 11]].concat(), 1009),
            ([&[0x81, 0xff][..], &[0xff; 12]].concat(), 1009),
            (frame(0x81, &vec![b'x'; long + 1]), 1009),
            ([frame(0x01, &vec![b'x'; long]), frame(0x80, b"x")].concat(), 1009),
            (fragments, 1009),
            (frame(0x89, b"").repeat(60), 1008),
            (frame(0x8a, b"").repeat(60), 1008),
            (frame(0x81, b"").repeat(60), 1008),
        ] {
            let mut heard = Heard::new(&bytes);
            let Broken(found, _) = all(&mut heard).unwrap_err();
            assert_eq!(found, code, "{:x?}", &bytes[..bytes.len().min(16)]);
            let _ = heard.answers();
            heard.close(found, "bad");
            assert_eq!(heard.answers(), [&[0x88, 5][..], &code.to_be_bytes(), b"bad"].concat());
        }
    }

    #[test]
    fn a_close_is_answered_with_the_same_code_and_is_the_last() {
        let mut heard = Heard::new(&[frame(0x88, b"\x03\xe8bye"), frame(0x81, b"more")].concat());
        assert_eq!(heard.next(), Ok(Some(Said::Close)));
        assert_eq!(heard.answers(), [&[0x88, 5][..], b"\x03\xe8bye"].concat());
        assert_eq!(heard.next(), Ok(Some(Said::Close)));
    }

    #[test]
    fn a_whole_message_may_be_as_long_as_is_said() {
        let payload = vec![b'x'; limits::WEBSOCKET_MESSAGE_BYTES_MAX];
        let mut heard = Heard::new(&frame(0x81, &payload));
        assert_eq!(heard.next(), Ok(Some(Said::Text(String::from_utf8(payload).unwrap()))));
    }
}
