//! Answers: how a body, a problem and a stream become an HTTP response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use crate::wire;
use crate::wire::asked::Opener;
use crate::wire::problem::Problem;
use crate::wire::stream::Subscription;

/// Media type of a problem document.
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";

/// Body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// An event stream, begun with some bytes.
    Stream(Option<Bytes>, Subscription),
    /// None: messages follow, on what the connection is from then on.
    Messages(Box<(Opener, Subscription)>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Messages(_) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(first, subscription) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => subscription
                    .poll_next(context)
                    .map(|frame| frame.map(|frame| Ok(Frame::data(frame.sse().clone())))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Messages(_))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(..) | Self::Messages(_) => SizeHint::default(),
        }
    }
}

/// An answer with these bytes.
pub(super) fn bytes(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    let mut response = Response::new(Body::Whole((!body.is_empty()).then_some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer with this as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    bytes(status, "application/json", wire::to_json(value))
}

/// 304 for whoever knows this tag.
pub(super) fn not_modified(tag: &str) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    with(response, header::ETAG, tag)
}

/// Adds a header whose value we made; one that is no header value is left out.
pub(super) fn with(mut response: Response<Body>, name: HeaderName, value: impl AsRef<str>) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// An answer that is a problem.
pub(super) fn problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = bytes(status, PROBLEM_TYPE, wire::to_json(problem));
    if let Some(allow) = problem.allow {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if problem.code == "unsupported_encoding" {
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static(super::coding::TAKEN));
    }
    if problem.status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = problem.retry_after_ms {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.div_ceil(1_000)));
    }
    if problem.code == "handshake_invalid" {
        let version = HeaderValue::from_static(super::websocket::VERSION);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
    }
    if matches!(problem.status, 408 | 413) {
        // What is left of the request is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
