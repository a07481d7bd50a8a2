//! The frames of `aob/1`, which QUIC connections and WebTransport sessions carry (`docs/formats/stream.md`).
//!
//! A frame is its length (a varint as in RFC 9000, 16), one byte that says what it is, and its body. What the server says about
//! events is encoded in [`frame`](super::frame), once for all who hear it; here is the rest. What a client says has at most
//! [`limits::QUIC_CONTROL_FRAME_BYTES_MAX`].

use std::collections::BTreeMap;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::limits;

/// The name of the protocol in the handshake (ALPN).
pub const ALPN: &[u8] = b"aob/1";
/// The version that `subscribe` and `subscribed` name.
pub const VERSION: u32 = 1;

/// What a frame is.
pub mod kind {
    /// An event: run id, `seq`, JSON.
    pub const EVENT: u8 = 0x01;
    /// What has no number.
    pub const ASIDE: u8 = 0x02;
    /// Why the stream ends.
    pub const CLOSING: u8 = 0x03;
    /// Nothing, said on an idle stream.
    pub const HEARTBEAT: u8 = 0x04;
    /// The subscription is open.
    pub const SUBSCRIBED: u8 = 0x06;
    /// There is none.
    pub const REFUSED: u8 = 0x07;
    /// What a client asks for.
    pub const SUBSCRIBE: u8 = 0x10;
}

/// With what a connection, or a WebTransport session, is closed, or a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Nothing is left to do.
    Done = 0,
    /// The node stops: come back, here or elsewhere.
    Stopping = 1,
    /// That was not the protocol.
    Malformed = 2,
    /// Nothing was asked for in time.
    Idle = 3,
    /// More than anybody needs.
    TooMuch = 4,
    /// The last words were not read in time.
    Slow = 5,
}

/// Headers of a subscription that are looked at.
const HEADERS: [&str; 3] = ["authorization", "aob-workspace", "last-event-id"];

/// What a client subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// [`VERSION`].
    pub version: u32,
    /// Path and query, as over HTTP.
    pub path: String,
    /// As over HTTP; others than [`HEADERS`] are passed over.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl Subscribe {
    /// From the body of a frame.
    ///
    /// # Errors
    /// 400 `invalid_subscribe`.
    pub fn parse(body: &[u8]) -> Result<Self, Box<Problem>> {
        let wish: Self = serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        if wish.version != VERSION {
            return Err(invalid(&format!("version {} is not spoken here, {VERSION} is", wish.version)));
        }
        Ok(wish)
    }

    /// The request that would have been sent over HTTP; headers that it does not have are taken from `others`.
    ///
    /// # Errors
    /// 400 `invalid_subscribe`.
    pub fn head(&self, others: &http::HeaderMap) -> Result<Parts, Box<Problem>> {
        let uri: Uri = self.path.parse().ok().filter(|uri: &Uri| uri.authority().is_none()).ok_or_else(|| {
            invalid("`path` is no path of HTTP; one such as /v1/runs/run_.../events?after=3 is expected")
        })?;
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.uri) = (Method::GET, uri);
        for name in HEADERS {
            let own = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let own = own.map(|(_, value)| HeaderValue::try_from(value));
            let value = own.transpose().map_err(|_| invalid(&format!("`{name}` is no value of a header")))?;
            if let Some(value) = value.or_else(|| others.get(name).cloned()) {
                head.headers.insert(HeaderName::from_static(name), value);
            }
        }
        Ok(head)
    }

    /// As a frame.
    pub fn frame(&self) -> Bytes {
        frame(kind::SUBSCRIBE, &[&super::to_json(self)])
    }
}

fn invalid(why: &str) -> Box<Problem> {
    Problem::new(400, "invalid_subscribe", format!("that is no `subscribe`: {why}"))
}

/// Tells a client that its subscription is open, and under which number its datagrams come.
pub fn subscribed(path: &str, stream: u64) -> Bytes {
    let body = serde_json::json!({"version": VERSION, "path": path, "stream": stream});
    frame(kind::SUBSCRIBED, &[body.to_string().as_bytes()])
}

/// Tells a client why it has no subscription.
pub fn refused(problem: &Problem) -> Bytes {
    frame(kind::REFUSED, &[&super::to_json(problem)])
}

/// A frame of this kind; its body is all the parts.
pub fn frame(kind: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length + 8);
    put_varint(&mut out, length as u64);
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

/// Appends a varint. What is over 2^62 - 1 cannot be said; nothing of ours is.
pub fn put_varint(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let [.., b6, b7] = bytes;
    match number {
        0..=0x3f => out.push(b7),
        0x40..=0x3fff => out.extend_from_slice(&[b6 | 0x40, b7]),
        0x4000..=0x3fff_ffff => {
            out.extend_from_slice(&(u32::try_from(number).unwrap_or(0) | 0x8000_0000).to_be_bytes());
        }
        _ => out.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The varint that these bytes begin with, and what follows; `None` when it is not whole.
pub fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1_usize << (bytes.first()? >> 6);
    let (head, rest) = bytes.split_at_checked(length)?;
    let number = head.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Some((number & (u64::MAX >> (66 - 8 * length.min(8))), rest))
}

/// What stands at the beginning of what a client has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A frame, and what follows it.
    Frame(u8, &'a [u8], &'a [u8]),
    /// Not whole yet.
    Part,
    /// A frame that is longer than any that a client has to say.
    TooLong,
}

/// Takes a frame of a client.
pub fn take_frame(bytes: &[u8]) -> Said<'_> {
    let Some((length, rest)) = take_varint(bytes) else { return Said::Part };
    let Ok(length) = usize::try_from(length) else { return Said::TooLong };
    if length > limits::QUIC_CONTROL_FRAME_BYTES_MAX || length == 0 {
        return Said::TooLong;
    }
    match rest.split_at_checked(length) {
        Some(([kind, body @ ..], rest)) => Said::Frame(*kind, body, rest),
        _ => Said::Part,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn varint(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, number);
        out
    }

    // RFC 9000, A.1
    #[test]
    fn varints_are_those_of_the_standard() {
        for (number, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            assert_eq!(varint(number), bytes);
            assert_eq!(take_varint(bytes), Some((number, &[][..])));
        }
        assert_eq!(take_varint(&[0x40, 0x25]), Some((37, &[][..])), "a longer form is allowed");
    }

    #[test]
    fn a_wish_becomes_the_request_it_would_have_been() {
        let body = br#"{"version":1,"path":"/v1/runs/run_1/events?after=3","headers":{"Authorization":"Bearer t","host":"evil"}}"#;
        let mut others = http::HeaderMap::new();
        others.insert("aob-workspace", HeaderValue::from_static("acme"));
        others.insert("authorization", HeaderValue::from_static("Bearer other"));
        others.insert("cookie", HeaderValue::from_static("x"));
        let head = Subscribe::parse(body).unwrap().head(&others).unwrap();
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::GET, "/v1/runs/run_1/events?after=3"));
        let headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("authorization", "Bearer t"), ("aob-workspace", "acme")]);
    }

    #[test]
    fn what_is_no_wish_is_refused_by_name() {
        for body in [&b"{}"[..], b"", b"[]", br#"{"version":2,"path":"/v1/events"}"#, br#"{"version":1,"path":1}"#] {
            assert_eq!(Subscribe::parse(body).unwrap_err().code, "invalid_subscribe");
        }
        for path in ["", "http://elsewhere/v1/events", "a b", "elsewhere:80"] {
            let wish = Subscribe { version: 1, path: path.to_owned(), ..Subscribe::default() };
            assert_eq!(wish.head(&http::HeaderMap::new()).unwrap_err().code, "invalid_subscribe", "{path}");
        }
        let headers = BTreeMap::from([(String::from("last-event-id"), String::from("a\r\nb: c"))]);
        let wish = Subscribe { version: 1, path: String::from("/v1/events"), headers };
        assert_eq!(wish.head(&http::HeaderMap::new()).unwrap_err().code, "invalid_subscribe");
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole_and_not_too_long() {
        let whole = Subscribe { version: 1, path: String::from("/v1/events"), ..Subscribe::default() }.frame();
        for end in 0..whole.len() {
            assert_eq!(take_frame(&whole[..end]), Said::Part, "{end}");
        }
        let Said::Frame(kind, body, rest) = take_frame(&whole) else { panic!() };
        assert_eq!((kind, rest), (kind::SUBSCRIBE, &[][..]));
        assert_eq!(Subscribe::parse(body).unwrap().path, "/v1/events");
        assert_eq!(take_frame(&varint(limits::QUIC_CONTROL_FRAME_BYTES_MAX as u64 + 1)), Said::TooLong);
        assert_eq!(take_frame(&varint((1 << 62) - 1)), Said::TooLong);
        assert_eq!(take_frame(&[0]), Said::TooLong, "there is no frame without a type");
    }

    proptest! {
        #[test]
        fn every_number_comes_back(number in 0_u64..1 << 62, rest in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = varint(number);
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(take_varint(&bytes), Some((number, rest.as_slice())));
        }

        #[test]
        fn any_bytes_are_taken_apart_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Said::Frame(_, body, rest) = take_frame(&bytes) {
                prop_assert!(body.len() + rest.len() < bytes.len());
            }
        }
    }
}
