//! A request for a stream that comes from a fanout core: over QUIC, or on a WebSocket that asks for another one.
//!
//! Fanout cores judge nothing. What a client wants there is the same `GET` that it would send over HTTP, with the same headers, and
//! a control core answers it by the same code: rights, rates, limits and errors are the same on every transport.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Uri};

use super::problem::Problem;
use super::stream::Subscription;

/// The stream, or why there is none.
pub type Opened = Result<Subscription, Box<Problem>>;

/// See the module.
pub struct Asked {
    /// `GET` of a path of events.
    pub head: Parts,
    /// Where it came from.
    pub peer: IpAddr,
    /// Takes the answer, from another thread. Dropped unanswered when the control core ends.
    pub answer: Box<dyn FnOnce(Opened) + Send>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("uri", &self.head.uri).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Whoever opened a connection on which several streams are asked for, one after the other.
#[derive(Clone, Debug)]
pub struct Opener {
    /// What it reads.
    pub uri: Uri,
    /// What it said of itself, for each request: its token, its workspace.
    pub headers: HeaderMap,
    /// Where it came from.
    pub peer: IpAddr,
    /// What it has said already.
    pub rest: Bytes,
}

impl Opener {
    /// The `GET` that it would send for this.
    pub fn request(&self, uri: Uri) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.uri = uri;
        head.headers = self.headers.clone();
        head
    }
}

/// The path of the events of all runs.
pub const ALL: &str = "/v1/events";

/// Is a stream of events served at this path?
pub fn is_stream(path: &str) -> bool {
    path == ALL
        || path
            .strip_prefix("/v1/runs/")
            .and_then(|rest| rest.strip_suffix("/events"))
            .is_some_and(|run| !run.is_empty() && !run.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_are_streams() {
        for path in ["/v1/events", "/v1/runs/run_1/events"] {
            assert!(is_stream(path), "{path}");
        }
        for path in
            ["/v1/runs", "/v1/runs/events", "/v1/runs//events", "/v1/runs/a/b/events", "/v1/runs/a/timeline"]
        {
            assert!(!is_stream(path), "{path}");
        }
    }
}
