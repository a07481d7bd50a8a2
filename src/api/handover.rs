//! Streams whose connections leave the control core: from the head of their answer on they belong to the fanout core that
//! feeds them (docs/adr/0044).
//!
//! A request is read, admitted and answered here like any other. When the answer is a stream of events or a WebSocket, and nothing
//! else can be said on its connection (HTTP/1.1, a request without a body), the answer is noted instead of given, the connection is taken
//! apart before a byte of it is written, and what is left is the socket. Requests that a client sent behind that one are
//! dropped with the connection when the stream ends; it is told `connection: close`.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderName, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use super::respond::Body;
use super::socket::Socket;
use crate::wire::frame::chunked;
use crate::wire::stream::{Spoken, Subscription};

/// Can this be the last request of its connection? Older versions know no chunks.
pub(super) fn may_leave(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.body().is_end_stream()
}

/// The answer with which a connection leaves, as soon as there is one.
#[derive(Default)]
pub(super) struct Departures(RefCell<Option<Departure>>);

/// What goes with a connection.
pub(super) struct Departure {
    head: Bytes,
    spoken: Spoken,
    subscription: Subscription,
}

impl Departures {
    /// Gives an answer back, unless it is a stream: that is noted, and this never ends.
    pub(super) async fn note(&self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let departure = match body {
            Body::Stream(first, subscription) if parts.status == StatusCode::OK => {
                let head = head(&parts, first.as_deref().unwrap_or_default());
                Departure { head, spoken: Spoken::Events, subscription }
            }
            Body::Messages(opened) => {
                let (opener, subscription) = *opened;
                let mut head = lines(&parts, |_| true);
                head.extend_from_slice(b"\r\n");
                Departure { head: head.into(), spoken: Spoken::Messages(opener.into()), subscription }
            }
            body => return Response::from_parts(parts, body),
        };
        self.0.replace(Some(departure));
        std::future::pending().await
    }

    /// Is the connection to leave?
    pub(super) fn are_noted(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(super) fn take(&self) -> Option<Departure> {
        self.0.borrow_mut().take()
    }
}

impl Departure {
    /// Sends the connection to the core that feeds its stream, with what was read behind the request. One that cannot leave is
    /// closed: its client comes back.
    pub(super) fn leave(mut self, socket: Socket, rest: Bytes) {
        if let Spoken::Messages(opener) = &mut self.spoken {
            opener.rest = rest;
        }
        if let Ok(connection) = socket.depart() {
            self.subscription.hand_over(connection, self.head, self.spoken);
        }
    }
}

/// The head of an answer up to its last line (RFC 9112, 4), with those headers that are wanted.
fn lines(parts: &http::response::Parts, wanted: impl Fn(&HeaderName) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in parts.headers.iter().filter(|(name, _)| wanted(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The head of the answer that events follow, and the first chunk.
fn head(parts: &http::response::Parts, first: &[u8]) -> Bytes {
    let mut out = lines(parts, |name| name != CONNECTION && name != TRANSFER_ENCODING);
    out.extend_from_slice(b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    if !first.is_empty() {
        out.extend_from_slice(&chunked(first));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_how_the_stream_is_cut_and_that_nothing_follows() {
        let response = Response::builder()
            .header("content-type", "text/event-stream")
            .header("connection", "keep-alive")
            .body(())
            .unwrap();
        let head = head(&response.into_parts().0, b"retry: 1\n\n");
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\na\r\nretry: 1\n\n\r\n"
        );
    }
}
