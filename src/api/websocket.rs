//! The handshake of a WebSocket (RFC 6455, 4; over HTTP/2 RFC 8441): a request for a stream like any other, judged like any other,
//! whose answer says that messages follow.
//!
//! [`offered`] looks at a request before anybody else does, and makes a `GET` with a token of it; [`check`] judges what only a
//! handshake has; [`accept`] turns the answer, when it is a stream, into the one that a WebSocket begins with. What is refused is
//! answered with its problem and no switch of protocols.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::respond::Body;
use super::services::Services;
use crate::wire::asked::{Opener, is_stream};
use crate::wire::problem::Problem;

/// The one subprotocol that is spoken.
const SUBPROTOCOL: &str = "aob.v1";
/// Before a token among the subprotocols: a browser can set no header.
const BEARER: &str = "bearer.";
/// The version of RFC 6455.
pub(super) const VERSION: &str = "13";

/// A request that asks for a WebSocket, noted on its head.
#[derive(Clone, Debug)]
struct Handshake {
    /// What is answered to its key; over HTTP/2 there is none.
    accept: Option<HeaderValue>,
    /// What is wrong with it.
    fault: Option<&'static str>,
}

/// Notes whether a request asks for a WebSocket at a place that has them; then it is a `GET`, with the token that it brought.
/// Elsewhere an upgrade is not looked at, as HTTP has it.
pub(super) fn offered(head: &mut Parts, has_body: bool) {
    if !is_stream(head.uri.path()) {
        return;
    }
    let accept = match head.version {
        Version::HTTP_11
            if head.method == Method::GET && has(&head.headers, header::UPGRADE, "websocket") =>
        {
            accepted(&head.headers).map(Some)
        }
        Version::HTTP_2 if head.extensions.get::<Protocol>().is_some_and(|it| it.as_str() == "websocket") => {
            head.method = Method::GET;
            Ok(None)
        }
        _ => return,
    };
    let version = head.headers.get(header::SEC_WEBSOCKET_VERSION);
    let fault = match &accept {
        _ if has_body => Some("a handshake has no body"),
        _ if version.is_none_or(|version| version != VERSION) => {
            Some("Sec-WebSocket-Version: 13 is expected")
        }
        Err(fault) => Some(*fault),
        Ok(_) if !has(&head.headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) => {
            Some("Sec-WebSocket-Protocol must offer aob.v1")
        }
        Ok(_) => None,
    };
    if let Some(token) = token(&head.headers) {
        head.headers.insert(header::AUTHORIZATION, token);
    }
    head.extensions.insert(Handshake { accept: accept.ok().flatten(), fault });
}

/// What is answered to the key of a handshake over HTTP/1.1.
fn accepted(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    if !has(headers, header::CONNECTION, "upgrade") {
        return Err("Connection: Upgrade is expected");
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let sixteen = |key: &&HeaderValue| STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16);
    let key = keys.next().filter(sixteen).filter(|_| keys.next().is_none());
    let key = key.ok_or("one Sec-WebSocket-Key of 16 bytes in base64 is expected")?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| "the key cannot be answered")
}

/// Is `word` one of the words of this header?
fn has(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    words(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The token among the subprotocols, as a header; `None` when there is such a header already.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let token = words(headers, header::SEC_WEBSOCKET_PROTOCOL).find_map(|word| word.strip_prefix(BEARER))?;
    HeaderValue::try_from(format!("Bearer {token}")).ok()
}

/// Judges what only a handshake has: its page, then its form.
pub(super) fn check(services: &Services, head: &Parts) -> Result<(), Box<Problem>> {
    let Some(Handshake { fault, .. }) = head.extensions.get() else { return Ok(()) };
    let host = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let asked = head.uri.authority().map(http::uri::Authority::as_str).or_else(host);
    services.door.origins.check(&head.headers, asked)?;
    fault.map_or(Ok(()), |fault| Err(Problem::new(400, "handshake_invalid", fault)))
}

/// The answer to a handshake whose stream is open; any other answer stays as it is.
pub(super) fn accept(head: &Parts, peer: IpAddr, response: Response<Body>) -> Response<Body> {
    let Some(Handshake { accept, .. }) = head.extensions.get() else { return response };
    let subscription = match response.into_parts() {
        (_, Body::Stream(_, subscription)) => subscription,
        (parts, body) => return Response::from_parts(parts, body),
    };
    let opener = Opener { uri: path(head), headers: own(&head.headers), peer, rest: Bytes::new() };
    let mut response = Response::new(Body::Messages(Box::new((opener, subscription))));
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(accept) = accept {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    response
}

/// What is read, without the host that was asked.
fn path(head: &Parts) -> http::Uri {
    head.uri.path_and_query().map_or_else(|| head.uri.clone(), |path| path.clone().into())
}

/// What a client said of itself, without what was about this one request.
fn own(headers: &HeaderMap) -> HeaderMap {
    const NOT: [HeaderName; 9] = [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::ACCEPT,
        HeaderName::from_static("last-event-id"),
        super::REQUEST_ID,
    ];
    let mut own = headers.clone();
    for name in &NOT {
        own.remove(name);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(change: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/v1/runs/run_1/events?after=1").body(()).unwrap();
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "aob.v1, bearer.aob_t"),
        ];
        for (name, value) in usual.iter().chain(change) {
            request
                .headers_mut()
                .insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn noted(mut head: Parts, has_body: bool) -> (Parts, Option<Handshake>) {
        offered(&mut head, has_body);
        let handshake = head.extensions.get().cloned();
        (head, handshake)
    }

    #[test]
    fn a_handshake_is_known_and_brings_its_token() {
        let (head, handshake) = noted(head(&[]), false);
        let handshake = handshake.unwrap();
        assert_eq!(handshake.fault, None);
        // The example of RFC 6455, 1.3.
        assert_eq!(handshake.accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(head.headers[header::AUTHORIZATION], "Bearer aob_t");
        let own = own(&head.headers);
        assert_eq!(own.keys().collect::<Vec<_>>(), ["authorization"]);
    }

    #[test]
    fn a_token_of_its_own_goes_before_that_among_the_protocols() {
        let (head, _) = noted(head(&[("authorization", "Bearer aob_own")]), false);
        assert_eq!(
            head.headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>(),
            ["Bearer aob_own"]
        );
    }

    #[test]
    fn what_is_wrong_with_a_handshake_is_said() {
        for (change, fault) in [
            (("connection", "keep-alive"), "Connection"),
            (("sec-websocket-version", "8"), "Sec-WebSocket-Version"),
            (("sec-websocket-key", "dGhl"), "Sec-WebSocket-Key"),
            (("sec-websocket-key", "?"), "Sec-WebSocket-Key"),
            (("sec-websocket-protocol", "bearer.aob_t"), "aob.v1"),
        ] {
            let found = noted(head(&[change]), false).1.unwrap().fault.unwrap();
            assert!(found.contains(fault), "{change:?}: {found}");
        }
        assert!(noted(head(&[]), true).1.unwrap().fault.unwrap().contains("body"));
    }

    #[test]
    fn other_requests_are_left_alone() {
        let mut elsewhere = head(&[]);
        elsewhere.uri = "/v1/runs".parse().unwrap();
        let mut old = head(&[]);
        old.version = Version::HTTP_10;
        let mut post = head(&[]);
        post.method = Method::POST;
        for other in [elsewhere, old, post, head(&[("upgrade", "h2c")])] {
            let (head, handshake) = noted(other, false);
            assert!(handshake.is_none() && !head.headers.contains_key(header::AUTHORIZATION));
        }
    }
}
