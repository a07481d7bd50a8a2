//! The last requests, for assertions about what was really sent. Bounded in number and bytes; the oldest go first. Credentials are
//! shown only by their last four letters.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::{Map, Value, json};

use crate::limits;

/// Headers whose value is nobody's business.
const SECRET: [&str; 3] = ["authorization", "x-api-key", "proxy-authorization"];

#[derive(Debug, Default)]
pub(crate) struct Kept {
    requests: VecDeque<Request>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Request {
    /// From 1, in the order of arrival.
    pub(crate) number: u64,
    /// Since the stub began to serve.
    pub(crate) at_us: u64,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) whole_bytes: usize,
}

impl Kept {
    /// Keeps a request; its body is copied, so that no larger buffer is held by it.
    pub(crate) fn add(&mut self, mut request: Request) {
        request.whole_bytes = request.body.len();
        let kept = request.body.get(..limits::KEPT_BODY_BYTES_MAX).unwrap_or(&request.body);
        request.body = Bytes::copy_from_slice(kept);
        self.bytes += request.body.len();
        self.requests.push_back(request);
        while self.requests.len() > limits::REQUESTS_KEPT_MAX || self.bytes > limits::KEPT_BYTES_MAX {
            let Some(oldest) = self.requests.pop_front() else { return };
            self.bytes -= oldest.body.len();
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
    fn shown(&self) -> Value {
        let mut headers = Map::new();
        for (name, value) in &self.headers {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = if SECRET.contains(&name.as_str()) { masked(&text) } else { text.into_owned() };
            headers.insert(name.as_str().to_owned(), text.into());
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

    fn request(number: u64, bytes: usize) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer sk-123456789".parse().unwrap());
        headers.insert("x-api-key", "short".parse().unwrap());
        let body = Bytes::from(vec![b'1'; bytes]);
        Request { number, at_us: 0, path: "/v1/messages".into(), headers, body, whole_bytes: 0 }
    }

    #[test]
    fn the_last_requests_are_shown_without_credentials() {
        let mut kept = Kept::default();
        for number in 1..=1_005 {
            kept.add(request(number, 1));
        }
        let shown = kept.shown(2);
        assert_eq!(shown["requests"][0]["number"], 1_004);
        assert_eq!(
            shown["requests"][1]["headers"],
            json!({"authorization": "Bearer ***6789", "x-api-key": "***"})
        );
        assert_eq!(shown["requests"][1]["body"], 1);
        assert_eq!(kept.shown(usize::MAX)["requests"].as_array().unwrap().len(), limits::REQUESTS_KEPT_MAX);
    }

    #[test]
    fn bodies_are_bounded_one_by_one_and_together() {
        let mut kept = Kept::default();
        for number in 0..100 {
            kept.add(request(number, 300 << 10));
        }
        let shown = kept.shown(100);
        assert_eq!(
            shown["requests"].as_array().unwrap().len(),
            limits::KEPT_BYTES_MAX / limits::KEPT_BODY_BYTES_MAX
        );
        assert_eq!(shown["requests"][0]["body_bytes"], 300 << 10);
        assert_eq!(shown["requests"][0]["body_text"].as_str().unwrap().len(), limits::KEPT_BODY_BYTES_MAX);
    }
}
