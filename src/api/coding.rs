//! Content codings: answers are packed for whoever takes that, bodies of requests are unpacked under their limit.
//!
//! Only whole answers of text are packed, and only when it pays: above [`limits::PACKED_BYTES_MIN`], below
//! [`limits::PACKED_BYTES_MAX`], and when less comes out. Streams never are. What takes long is done away from the core's
//! thread. A packed answer is another representation, so its tag says so (`"12"`, `"12-gzip"`), and caches are told.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::respond::Body;
use super::services::blocking;
use crate::limits;
use crate::wire::problem::Problem;

/// The codings that are known, those that are rather used first.
const CODINGS: [Coding; 2] = [Coding::Zstd, Coding::Gzip];
/// What a client may send, for `Accept-Encoding` in a refusal.
pub(super) const TAKEN: &str = "zstd, gzip";
/// Window of the largest zstd frame that is unpacked (8 MiB, as RFC 8878 recommends).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn pack(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::stream::encode_all(bytes, 1),
            Self::Gzip => {
                let room = Vec::with_capacity(bytes.len() / 4);
                let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

/// An entity tag's text without the coding it was sent with.
pub(super) fn uncoded(opaque: &str) -> &str {
    let coded = |coding: &Coding| opaque.strip_suffix(coding.name())?.strip_suffix('-');
    CODINGS.iter().find_map(coded).unwrap_or(opaque)
}

/// Is it an answer that [`packed`] has something to say about? Most are too small.
pub(super) fn concerns(response: &Response<Body>) -> bool {
    if response.headers().get(header::CACHE_CONTROL).is_some_and(no_transform) {
        return false;
    }
    let large =
        matches!(response.body(), Body::Whole(Some(bytes)) if bytes.len() >= limits::PACKED_BYTES_MIN);
    large && is_text(response.headers()) || response.status() == StatusCode::NOT_MODIFIED
}

/// Is the answer to be sent as it is?
fn no_transform(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.split(',').any(|part| part.trim() == "no-transform"))
}

/// Packs an answer, if the client takes that and it pays.
pub(super) async fn packed(asked: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::NOT_MODIFIED {
        vary(&mut head.headers);
        return Response::from_parts(head, body);
    }
    let bytes = match body {
        Body::Whole(Some(bytes)) => bytes,
        body => return Response::from_parts(head, body),
    };
    vary(&mut head.headers);
    let coding = accepted(asked).filter(|_| bytes.len() <= limits::PACKED_BYTES_MAX);
    let Some(coding) = coding else { return Response::from_parts(head, Body::Whole(Some(bytes))) };
    let done = if bytes.len() <= limits::PACKED_AT_ONCE_BYTES_MAX {
        coding.pack(&bytes).ok()
    } else {
        let copy = bytes.clone();
        blocking(move || coding.pack(&copy).ok()).await.ok().flatten()
    };
    let Some(done) = done.filter(|done| done.len() < bytes.len()) else {
        return Response::from_parts(head, Body::Whole(Some(bytes)));
    };
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    let tag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()?.strip_suffix('"'));
    if let Some(Ok(tag)) = tag.map(|tag| HeaderValue::try_from(format!("{tag}-{}\"", coding.name()))) {
        head.headers.insert(header::ETAG, tag);
    }
    Response::from_parts(head, Body::Whole(Some(Bytes::from(done))))
}

fn vary(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
}

/// Is the body text of some kind that is not coded yet?
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    !headers.contains_key(header::CONTENT_ENCODING)
        && kind != "text/event-stream"
        && (kind.starts_with("text/") || kind.contains("json") || kind.ends_with("openmetrics-text"))
}

/// The known coding that the client likes best; `None` when it is served best without any (RFC 9110, 12.5.3).
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let mut weights = [None; CODINGS.len()];
    let (mut others, mut identity) = (None, None);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for entry in values.flat_map(|value| value.split(',')) {
        let mut parts = entry.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let weight =
            parts.find_map(|part| part.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
        // A weight that is none counts as "not at all".
        let weight = weight.map_or(1_000, weight_of);
        if name == "*" {
            others = Some(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else {
            let slot = CODINGS.iter().zip(&mut weights).find(|(coding, _)| {
                name.eq_ignore_ascii_case(coding.name()) || (**coding == Coding::Gzip && name == "x-gzip")
            });
            if let Some((_, slot)) = slot {
                *slot = Some(weight);
            }
        }
    }
    let weighed =
        CODINGS.iter().zip(weights).map(|(coding, weight)| (*coding, weight.or(others).unwrap_or(0)));
    // The first of the best: `max_by_key` would take the last.
    let (coding, weight) = weighed.rev().max_by_key(|(_, weight)| *weight)?;
    (weight > 0 && weight >= identity.unwrap_or(0)).then_some(coding)
}

/// Thousandths; at most three decimals count.
fn weight_of(text: &str) -> u32 {
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let decimals: u32 = format!("{decimals:0<3}").get(..3).and_then(|text| text.parse().ok()).unwrap_or(0);
    match whole {
        "0" => decimals,
        "1" => 1_000,
        _ => 0,
    }
}

/// The body of a request as it was before it was packed.
///
/// # Errors
/// 415 for codings that are not known, 413 when more comes out than may be sent, 400 when it does not unpack.
pub(super) async fn unpacked(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, Box<Problem>> {
    let Some(coding) = sent(headers)? else { return Ok(bytes) };
    blocking(move || unpack(coding, &bytes)).await?.map(Bytes::from)
}

/// The coding of a request's body.
fn sent(headers: &HeaderMap) -> Result<Option<Coding>, Box<Problem>> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    match name.as_str() {
        _ if values.next().is_some() => {}
        "identity" => return Ok(None),
        "gzip" | "x-gzip" => return Ok(Some(Coding::Gzip)),
        "zstd" => return Ok(Some(Coding::Zstd)),
        _ => {}
    }
    let name: String = name.chars().take(64).collect();
    let detail = format!("a body with Content-Encoding {name:?}; one of {TAKEN}, or none, is understood");
    Err(Problem::new(415, "unsupported_encoding", detail))
}

/// Checks what a body will need before any of it is read.
///
/// # Errors
/// As for [`unpacked`], as far as the head tells.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Box<Problem>> {
    sent(headers).map(|_| ())
}

pub(super) fn unpack(coding: Coding, bytes: &[u8]) -> Result<Vec<u8>, Box<Problem>> {
    let most = limits::REQUEST_BODY_BYTES_MAX;
    let mut whole = Vec::new();
    let read = match coding {
        Coding::Gzip => {
            flate2::read::MultiGzDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut whole)
        }
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            decoder.take(most as u64 + 1).read_to_end(&mut whole)
        }),
    };
    if whole.len() > most {
        let detail =
            format!("a body that unpacks to more than {most} bytes was sent; at most {most} are read");
        return Err(Problem::new(413, "body_too_large", detail).limit("request_body_bytes_max"));
    }
    match read {
        Ok(_) => Ok(whole),
        Err(error) => {
            let detail = format!("the body cannot be unpacked as {}: {error}", coding.name());
            Err(Problem::new(400, "body_broken", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_is_taken_is_used() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            accepted(&headers)
        };
        assert_eq!(accepted(&HeaderMap::new()), None);
        for (text, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("zstd, gzip, br", Some(Coding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0.001", Some(Coding::Gzip)),
            ("X-GZIP", None),
            ("x-gzip, GZip;Q=0.5", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*, zstd;q=0", Some(Coding::Gzip)),
            ("*;q=0", None),
            ("gzip;q=0, zstd;q=0.000", None),
            ("gzip;q=0.2, identity", None),
            ("identity;q=0.5, zstd", Some(Coding::Zstd)),
            ("br, deflate", None),
            ("gzip;q=much", None),
            ("", None),
        ] {
            assert_eq!(with(text), coding, "{text}");
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_what_is_broken_refused() {
        let text = b"{\"a\": 1}".repeat(100);
        for coding in CODINGS {
            let packed = coding.pack(&text).unwrap();
            assert_eq!(unpack(coding, &packed).unwrap(), text);
            assert_eq!(unpack(coding, &packed[..packed.len() - 3]).unwrap_err().code, "body_broken");
            assert_eq!(unpack(coding, b"{}").unwrap_err().code, "body_broken");
            let bomb = coding.pack(&vec![0; limits::REQUEST_BODY_BYTES_MAX + 1]).unwrap();
            assert!(bomb.len() < 64 << 10);
            assert_eq!(unpack(coding, &bomb).unwrap_err().code, "body_too_large");
            let most = coding.pack(&vec![0; limits::REQUEST_BODY_BYTES_MAX]).unwrap();
            assert_eq!(unpack(coding, &most).unwrap().len(), limits::REQUEST_BODY_BYTES_MAX);
        }
        assert_eq!(
            (uncoded("12-gzip"), uncoded("12-zstd"), uncoded("12-br"), uncoded("-gzip")),
            ("12", "12", "12-br", "")
        );
    }
}
