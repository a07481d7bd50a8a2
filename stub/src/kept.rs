//! The last requests, for assertions about what was really sent. Bounded in number and bytes; the oldest go first. Credentials are
//! shown only by their last four letters.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::http::request::Parts;
use serde_json::{Map, Value, json};

use crate::limits;

/// Headers whose value is nobody's business.
const SECRET: [&str; 3] = ["authorization", "x-api-key", "proxy-authorization"];

/// Of a path no more is kept.
const PATH_CHARS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    requests: VecDeque<Request>,
    bytes: usize,
}

#[derive(Debug)]
struct Request {
    number: u64,
    at_us: u64,
    path: String,
    /// Name and value by turns, each on a line of its own.
    headers: String,
    body: Bytes,
    whole_bytes: usize,
}

impl Kept {
    /// Keeps a request: its number from 1, and when it came. All is copied, so that no larger buffer is held by it.
    pub(crate) fn add(&mut self, number: u64, at_us: u64, parts: &Parts, body: &[u8]) {
        let kept = body.get(..limits::KEPT_BODY_BYTES_MAX).unwrap_or(body);
        let request = Request {
            number,
            at_us,
            path: parts.uri.path().chars().take(PATH_CHARS_MAX).collect(),
            headers: lines(&parts.headers),
            body: Bytes::copy_from_slice(kept),
            whole_bytes: body.len(),
        };
        self.bytes += request.bytes();
        self.requests.push_back(request);
        while self.requests.len() > limits::REQUESTS_KEPT_MAX || self.bytes > limits::KEPT_BYTES_MAX {
            let Some(oldest) = self.requests.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last requests, in the order of arrival.
    pub(crate) fn shown(&self, limit: usize) -> Value {
        let from = self.requests.len().saturating_sub(limit);
        let requests: Vec<Value> = self.requests.iter().skip(from).map(Request::shown).collect();
        json!({"requests": requests})
    }
}

impl Request {
    fn bytes(&self) -> usize {
        self.headers.len() + self.body.len()
    }

    fn shown(&self) -> Value {
        let mut headers = Map::new();
        let mut lines = self.headers.lines();
        while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
            headers.insert(name.to_owned(), value.into());
        }
        let mut shown =
            json!({"number": self.number, "at_us": self.at_us, "path": self.path, "headers": headers});
        let cut = self.body.len() < self.whole_bytes;
        let body = match serde_json::from_slice(&self.body) {
            Ok(value) if !cut => ("body", value),
            _ => ("body_text", String::from_utf8_lossy(&self.body).into()),
        };
        if let Some(members) = shown.as_object_mut() {
            members.insert(body.0.into(), body.1);
            if cut {
                members.insert("body_bytes".into(), self.whole_bytes.into());
            }
        }
        shown
    }
}

/// Headers as far as they fit, without what is nobody's business. A header's value has no line breaks.
fn lines(headers: &HeaderMap) -> String {
    let mut lines = String::with_capacity(256);
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        let text = if SECRET.contains(&name.as_str()) { masked(&text).into() } else { text };
        if lines.len() + name.as_str().len() + text.len() > limits::KEPT_HEADER_BYTES_MAX {
            break;
        }
        for line in [name.as_str(), &text] {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    lines
}

fn masked(value: &str) -> String {
    let (scheme, secret) = value
        .split_once(' ')
        .map_or((String::new(), value), |(scheme, secret)| (format!("{scheme} "), secret));
    let from = secret.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
    // Of a short one nothing is shown.
    let end = if secret.len() > 8 { secret.get(from..).unwrap_or_default() } else { "" };
    format!("{scheme}***{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(kept: &mut Kept, number: u64, bytes: usize) {
        let mut request = hyper::Request::builder().uri("/v1/messages?a=b");
        for (name, value) in [("authorization", "Bearer sk-123456789"), ("x-api-key", "short"), ("empty", "")]
        {
            request = request.header(name, value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        kept.add(number, 0, &parts, &vec![b'1'; bytes]);
    }

    #[test]
    fn the_last_requests_are_shown_without_credentials() {
        let mut kept = Kept::default();
        for number in 1..=1_005 {
            add(&mut kept, number, 1);
        }
        let shown = kept.shown(2);
        assert_eq!(shown["requests"][0]["number"], 1_004);
        assert_eq!(
            shown["requests"][1]["headers"],
            json!({"authorization": "Bearer ***6789", "x-api-key": "***", "empty": ""})
        );
        assert_eq!(shown["requests"][1]["body"], 1);
        assert_eq!(kept.shown(usize::MAX)["requests"].as_array().unwrap().len(), limits::REQUESTS_KEPT_MAX);
    }

    #[test]
    fn bodies_are_bounded_one_by_one_and_together() {
        let mut kept = Kept::default();
        for number in 0..100 {
            add(&mut kept, number, 300 << 10);
        }
        let shown = kept.shown(100);
        assert_eq!(
            shown["requests"].as_array().unwrap().len(),
            limits::KEPT_BYTES_MAX / (limits::KEPT_BODY_BYTES_MAX + 50)
        );
        assert_eq!(shown["requests"][0]["body_bytes"], 300 << 10);
        assert_eq!(shown["requests"][0]["body_text"].as_str().unwrap().len(), limits::KEPT_BODY_BYTES_MAX);
    }
}
