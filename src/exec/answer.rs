//! From an answer to a value: read under limits, decompressed under the same, judged by `expect`.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::limits;
use crate::model::{Class, Failure, Value};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// Reads a whole answer into `{status, headers, body}`.
///
/// # Errors
/// `answer_too_large`, `answer_invalid`; `connection_lost` when it ends early.
pub(super) async fn read(response: Response<Incoming>) -> Result<Value, Failure> {
    let (head, body) = response.into_parts();
    let bytes = bytes(&head.headers, body).await?;
    let headers = headers(&head.headers);
    let body = value_of(&head.headers, bytes)?;
    let status = Value::unsigned(u64::from(head.status.as_u16()));
    Ok(Value::map([("status", status), ("headers", headers), ("body", body)]))
}

/// Reads a body to its end, unpacked.
///
/// # Errors
/// As for [`read`].
pub(super) async fn bytes(headers: &HeaderMap, mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut unpacked = Unpacked::of(headers)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::transient("connection_lost", format!("the answer ended early: {error}"))
        })?;
        if let Some(data) = frame.data_ref() {
            unpacked.take(data)?;
        }
    }
    unpacked.finish()
}

/// By name in lower case; what came several times is joined (RFC 9110, 5.3). Cookies are kept from the log.
fn headers(headers: &HeaderMap) -> Value {
    let shown = |name: &&http::HeaderName| **name != header::SET_COOKIE;
    Value::map(headers.keys().filter(shown).map(|name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        (name.as_str(), Value::string(values.collect::<Vec<_>>().join(", ")))
    }))
}

fn value_of(headers: &HeaderMap, bytes: Vec<u8>) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || kind.ends_with("+json") {
        return Value::from_json(&bytes).map_err(|error| invalid(format!("its body is no JSON: {error}")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Value::string(text)),
        Err(error) => {
            let text = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            Ok(Value::map([("base64", Value::string(text))]))
        }
    }
}

fn invalid(why: String) -> Failure {
    Failure::fatal("answer_invalid", format!("the answer cannot be read: {why}"))
}

/// Takes the bytes of a body, packed or not, and stops at the limit.
enum Unpacked {
    Plain(Limited),
    Gzip(Box<flate2::write::MultiGzDecoder<Limited>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Limited>>),
}

/// Collects at most [`limits::HTTP_ANSWER_BYTES_MAX`] bytes.
#[derive(Default)]
struct Limited(Vec<u8>);

const OVER: &str = "over the limit";

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > limits::HTTP_ANSWER_BYTES_MAX {
            return Err(std::io::Error::other(OVER));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Window of the largest zstd frame that is unpacked (8 MiB, as RFC 8878 recommends).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

fn unpacking(error: &std::io::Error) -> Failure {
    if error.to_string().contains(OVER) {
        let most = limits::HTTP_ANSWER_BYTES_MAX;
        return Failure::fatal(
            "answer_too_large",
            format!("the answer has more than {most} bytes (limit http_answer_bytes_max)"),
        );
    }
    invalid(format!("its body cannot be unpacked: {error}"))
}

impl Unpacked {
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let coding =
            headers.get(header::CONTENT_ENCODING).map(|coding| coding.as_bytes().to_ascii_lowercase());
        match coding.as_deref() {
            None | Some(b"" | b"identity") => Ok(Self::Plain(Limited::default())),
            Some(b"gzip" | b"x-gzip") => {
                Ok(Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Limited::default()))))
            }
            Some(b"zstd") => {
                let decoder =
                    zstd::stream::write::Decoder::new(Limited::default()).and_then(|mut decoder| {
                        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                        Ok(decoder)
                    });
                decoder.map(|decoder| Self::Zstd(Box::new(decoder))).map_err(|error| unpacking(&error))
            }
            Some(other) => {
                Err(invalid(format!("its coding {:?} was not asked for", String::from_utf8_lossy(other))))
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let taken = match self {
            Self::Plain(plain) => plain.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
            Self::Zstd(decoder) => decoder.write_all(bytes),
        };
        taken.map_err(|error| unpacking(&error))
    }

    fn finish(self) -> Result<Vec<u8>, Failure> {
        let done = match self {
            Self::Plain(plain) => Ok(plain),
            Self::Gzip(decoder) => decoder.finish(),
            Self::Zstd(mut decoder) => decoder.flush().map(|()| decoder.into_inner()),
        };
        done.map(|limited| limited.0).map_err(|error| unpacking(&error))
    }
}

/// Is this status what the node expects? `expect`: a status, a class such as `2xx`, or a list of these; without it
/// everything below 400.
pub(super) fn is_expected(expect: Option<&Value>, status: u16) -> bool {
    match expect {
        None | Some(Value::Null) => status < 400,
        Some(Value::Int(one)) => i64::from(status) == *one,
        Some(Value::String(class)) => {
            let digit = class.strip_suffix("xx").or_else(|| class.strip_suffix("XX"));
            digit.and_then(|digit| digit.parse().ok()) == Some(status / 100)
        }
        Some(Value::List(items)) => items.iter().any(|item| is_expected(Some(item), status)),
        Some(_) => false,
    }
}

/// The failure that an unexpected status is. What says when to come back is heard (RFC 9110, 10.2.3).
pub(super) fn unexpected(answer: Value, status: StatusCode, headers: &HeaderMap) -> Failure {
    let class = match status.as_u16() {
        429 | 503 | 529 => Class::Recoverable,
        408 | 425 | 500 | 502 | 504 => Class::Transient,
        _ => Class::Fatal,
    };
    let code = match status.as_u16() {
        429 => "rate_limit",
        _ => "http_status",
    };
    let message = format!("the answer has status {}", status.as_u16());
    let mut details = vec![("answer", answer)];
    if let Some(after) = retry_after_ms(headers, SystemClock.now()) {
        details.push(("retry_after_ms", Value::unsigned(after)));
    }
    Failure { class, details: Value::map(details), ..Failure::fatal(code, message) }
}

/// When to come back: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); an hour at most.
pub(super) fn retry_after_ms(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str| {
        let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
        let limit = Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX);
        let after = Duration::try_from_secs_f64(seconds).unwrap_or(limit).min(limit);
        u64::try_from(after.as_millis()).ok()
    };
    let date = |text: &str| {
        let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let then = u64::try_from(then.as_millisecond()).unwrap_or_default();
        Some(then.saturating_sub(now.as_millis()))
    };
    let millis = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    let millis = millis.and_then(|millis| seconds(&(millis / 1_000.0).to_string()));
    let after = text(header::RETRY_AFTER.as_str());
    let after = millis.or_else(|| after.and_then(|text| seconds(text).or_else(|| date(text))))?;
    Some(after.min(limits::RETRY_AFTER_SECONDS_MAX * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_said_in_three_ways() {
        let expect = |text: &str| Value::from_json(text.as_bytes()).unwrap();
        assert!(is_expected(None, 204) && is_expected(None, 399) && !is_expected(None, 404));
        assert!(is_expected(Some(&expect("404")), 404) && !is_expected(Some(&expect("404")), 200));
        assert!(is_expected(Some(&expect("\"2xx\"")), 299) && !is_expected(Some(&expect("\"2xx\"")), 300));
        assert!(is_expected(Some(&expect("[200, \"4xx\"]")), 410) && !is_expected(Some(&expect("[]")), 200));
    }

    #[test]
    fn a_small_body_that_unpacks_to_a_large_one_is_not_unpacked() {
        let large = vec![0; limits::HTTP_ANSWER_BYTES_MAX + 1];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&large).unwrap();
        for (coding, packed) in
            [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(large.as_slice(), 19).unwrap())]
        {
            assert!(packed.len() < 8_192);
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
            let mut unpacked = Unpacked::of(&headers).unwrap();
            let taken = packed.chunks(100).try_for_each(|chunk| unpacked.take(chunk));
            let failure = taken.and_then(|()| unpacked.finish().map(drop)).unwrap_err();
            assert_eq!(&*failure.code, "answer_too_large", "{coding}: {}", failure.message);
        }
    }

    #[test]
    fn packed_bodies_come_out_whole_and_broken_ones_do_not() {
        let text = "wholly ordinary ".repeat(1_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        for (coding, packed) in
            [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(text.as_bytes(), 3).unwrap())]
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
            let unpack = |bytes: &[u8]| {
                let mut unpacked = Unpacked::of(&headers)?;
                bytes.chunks(7).try_for_each(|chunk| unpacked.take(chunk))?;
                unpacked.finish()
            };
            assert_eq!(unpack(&packed).unwrap(), text.as_bytes(), "{coding}");
            assert_eq!(&*unpack(b"no such thing").unwrap_err().code, "answer_invalid", "{coding}");
        }
    }
}
