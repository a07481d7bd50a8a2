//! What a request says, checked before anything is done with it: its head, its parameters, its body.
//!
//! Every refusal names the place and, where there is one, the limit. A body is refused by its `Content-Length` before
//! a byte of it is read, else while it is read; nothing larger than the limit is ever held.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};

use super::coding;
use crate::limits;
use crate::model::RunId;
use crate::wire::did_you_mean;
use crate::wire::problem::Problem;

type Refused = Box<Problem>;

/// The body of a request, as it comes.
pub(super) enum Incoming {
    /// From a client's connection.
    Wire(hyper::body::Incoming),
    /// There is none: the request came from within ([`super::asked`]).
    None,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Wire(body) => Pin::new(body).poll_frame(context),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(body) => body.size_hint(),
            Self::None => SizeHint::with_exact(0),
        }
    }
}

/// The whole body.
pub(super) async fn body(head: &Parts, body: Incoming) -> Result<Bytes, Refused> {
    let announced = body.size_hint().lower();
    if announced > limits::REQUEST_BODY_BYTES_MAX as u64 {
        return Err(too_large(format!("a body of {announced} bytes is announced")));
    }
    coding::check(&head.headers)?;
    let within = Duration::from_secs(limits::REQUEST_BODY_SECONDS_MAX);
    match tokio::time::timeout(within, collect(body)).await {
        Ok(result) => coding::unpacked(&head.headers, result?).await,
        Err(_) => Err(Problem::new(
            408,
            "body_timeout",
            format!("the body did not arrive within {} s", limits::REQUEST_BODY_SECONDS_MAX),
        )
        .limit("request_body_seconds_max")),
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, Refused> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(400, "body_broken", format!("the body ended before its end: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let read = first.len() + rest.len() + data.len();
        if read > limits::REQUEST_BODY_BYTES_MAX {
            return Err(too_large(format!("a body of at least {read} bytes was sent")));
        }
        // Nearly every body comes in one piece and is not copied.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

fn too_large(detail: String) -> Refused {
    Problem::new(
        413,
        "body_too_large",
        format!("{detail}; at most {} are read", limits::REQUEST_BODY_BYTES_MAX),
    )
    .limit("request_body_bytes_max")
}

/// Refuses a body that is not announced as JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Refused> {
    match media_type(headers) {
        Some("application/json") => Ok(()),
        other => Err(unsupported(other, "application/json")),
    }
}

/// The media type of the body, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// 415 with what is understood.
pub(super) fn unsupported(found: Option<&str>, understood: &str) -> Refused {
    let found =
        found.map_or_else(|| String::from("no Content-Type"), |found| format!("Content-Type {found:?}"));
    Problem::new(415, "unsupported_media_type", format!("{found}; {understood} is understood here"))
}

/// Refuses a client that does not take `kind`.
pub(super) fn require_accept(headers: &HeaderMap, kind: &str) -> Result<(), Refused> {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let family = kind.split('/').next().unwrap_or(kind);
    let fits = |range: &str| {
        let range = range.split(';').next().unwrap_or(range).trim();
        range == kind || range == "*/*" || range.strip_suffix("/*") == Some(family)
    };
    if values.any(|value| value.to_str().is_ok_and(|value| value.split(',').any(fits))) {
        return Ok(());
    }
    Err(Problem::new(
        406,
        "not_acceptable",
        format!("this is served as {kind} only, which Accept does not allow"),
    ))
}

/// The one of these media types that the caller likes best; the first of those it likes alike, and without `Accept`.
pub(super) fn preferred(headers: &HeaderMap, kinds: &[&'static str]) -> Result<&'static str, Refused> {
    let ranges: Vec<(&str, u16)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
            let weight = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
            // In thousandths; one that cannot be read counts as none.
            let weight = weight.and_then(|weight| weight.trim().parse::<f32>().ok()).unwrap_or(1.0);
            (range.trim(), (weight.clamp(0.0, 1.0) * 1_000.0) as u16)
        })
        .collect();
    if ranges.is_empty() {
        return kinds.first().copied().ok_or_else(|| Problem::new(500, "internal", "nothing is served here"));
    }
    // The most specific range that fits a kind says how much it is liked (RFC 9110, section 12.5.1).
    let liked = |kind: &str| {
        let family = kind.split('/').next().unwrap_or(kind);
        let fits = |range: &str| match range {
            _ if range == kind => 3,
            "*/*" => 1,
            _ if range.strip_suffix("/*") == Some(family) => 2,
            _ => 0,
        };
        let all = ranges.iter().map(|(range, weight)| (fits(range), *weight));
        all.filter(|(fit, _)| *fit > 0).max_by_key(|(fit, _)| *fit).map_or(0, |(_, weight)| weight)
    };
    let mut best: Option<(&'static str, u16)> = None;
    for kind in kinds {
        let weight = liked(kind);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((*kind, weight));
        }
    }
    best.map(|(kind, _)| kind).ok_or_else(|| {
        let detail = format!("this is served as {}, none of which Accept allows", kinds.join(", "));
        Problem::new(406, "not_acceptable", detail)
    })
}

/// The caller's key for a start: 1 to 255 visible ASCII characters.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Refused> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.as_bytes();
    let visible = key.iter().all(|byte| (0x21..=0x7e).contains(byte));
    if values.next().is_some() || key.is_empty() || !visible || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX
    {
        return Err(Problem::new(
            400,
            "invalid_idempotency_key",
            format!(
                "Idempotency-Key must be one header of 1 to {} visible ASCII characters",
                limits::IDEMPOTENCY_KEY_BYTES_MAX
            ),
        )
        .limit("idempotency_key_bytes_max"));
    }
    Ok(Some(key))
}

/// Seconds of `Prefer: wait=N`, at most `wait_seconds_max`. What is not understood is ignored, as RFC 7240 asks.
pub(super) fn prefer_wait(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.trim().strip_prefix("wait="))
        .find_map(|seconds| seconds.trim_matches('"').parse::<u64>().ok())
        .map(|seconds| seconds.min(limits::WAIT_SECONDS_MAX))
}

/// Reads a run's id from a path.
pub(super) fn run_id(text: &str) -> Result<RunId, Refused> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(64).collect();
        Problem::new(400, "invalid_run_id", format!("{text:?} is {error}"))
    })
}

/// Decodes `%41`. `None` when it is broken or not UTF-8.
pub(super) fn percent_decoded(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The parameters of a request, in the order of `known`; any other is refused.
pub(super) fn parameters<const N: usize>(
    head: &Parts,
    known: [&'static str; N],
) -> Result<[Option<String>; N], Refused> {
    let mut found = [const { None }; N];
    for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let broken = || {
            Problem::new(400, "invalid_parameter", format!("parameter {name:?} is not percent-encoded UTF-8"))
        };
        let name = percent_decoded(name, true).ok_or_else(broken)?;
        let value = percent_decoded(value, true).ok_or_else(broken)?;
        let Some(slot) =
            known.iter().zip(&mut found).find_map(|(known, slot)| (*known == name).then_some(slot))
        else {
            return Err(Problem::new(400, "unknown_parameter", unknown("parameter", &name, &known)));
        };
        if slot.replace(value.into_owned()).is_some() {
            return Err(Problem::new(400, "invalid_parameter", format!("parameter {name:?} stands twice")));
        }
    }
    Ok(found)
}

/// A page size.
pub(super) fn page_limit(text: Option<&str>) -> Result<usize, Refused> {
    let Some(text) = text else { return Ok(limits::PAGE_ROWS_DEFAULT) };
    text.parse().ok().filter(|rows| (1..=limits::PAGE_ROWS_MAX).contains(rows)).ok_or_else(|| {
        Problem::new(
            400,
            "invalid_parameter",
            format!(
                "parameter \"limit\" is {text:?}; a number from 1 to {} is expected",
                limits::PAGE_ROWS_MAX
            ),
        )
        .limit("page_rows_max")
    })
}

pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match did_you_mean(name, known) {
        Some(near) => format!("unknown {what} {name:?}; did you mean {near:?}?"),
        None => format!("unknown {what} {name:?}; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(percent_decoded("a%20b+c", false).unwrap(), "a b+c");
        assert_eq!(percent_decoded("a+b", true).unwrap(), "a b");
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decoded(broken, false), None, "{broken}");
        }
    }

    #[test]
    fn wait_is_found_among_preferences_and_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!(prefer_wait(&headers), None);
        headers.insert("prefer", "respond-async, wait=7;x=y".parse().unwrap());
        assert_eq!(prefer_wait(&headers), Some(7));
        headers.insert("prefer", "wait=99999".parse().unwrap());
        assert_eq!(prefer_wait(&headers), Some(limits::WAIT_SECONDS_MAX));
        headers.insert("prefer", "wait=soon".parse().unwrap());
        assert_eq!(prefer_wait(&headers), None);
    }
}
