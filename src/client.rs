//! A small client of our own API: typed where a program decides by it, JSON where a human reads it.
//!
//! One connection, used again; a broken one is replaced by the next request. A request is sent once: whether to send it
//! again is the caller's to decide, by [`Error::retryable`]. An event stream comes back by itself from where it was.

mod connect;
mod frames;
mod quic;
mod socket;
pub mod stream;
mod terminal;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use crate::io::trust;
use crate::limits;
use crate::wire::problem::Problem;

use connect::{Sender, Target};
pub use stream::{Events, Step, Streamed, Transport, Wanted};
pub use terminal::{line, pause};

/// Where a node listens when nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7400";
/// Bytes of an answer that are read: a page of large values.
const ANSWER_BYTES_MAX: usize = 16 * limits::VALUE_BYTES_MAX;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("{url:?} is no address of a node: http://HOST:PORT or https://HOST:PORT is expected ({why})")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What goes with every request cannot; it is not shown, as it may be secret.
    #[error("{what} has characters that cannot be sent; letters, digits and signs of ASCII are expected")]
    Header {
        /// What it is.
        what: &'static str,
    },
    /// A token would travel where others can read it.
    #[error(
        "the token is not sent to {url}: plain http to another machine shows it to everyone on the way; \
         use https://, or --allow-plain-token (AOB_ALLOW_PLAIN_TOKEN=true) where the way is safe"
    )]
    PlainToken {
        /// Where it was to go.
        url: String,
    },
    /// Whom to trust cannot be told.
    #[error("cannot trust {why}")]
    Trust {
        /// The file, and what is wrong with it.
        why: String,
    },
    /// Who answers cannot show that it is the node, or speaks no TLS. Nothing was sent.
    #[error(
        "TLS with {url}: {why}; the authority of the node's certificate can be named by --ca-file (AOB_CA_FILE)"
    )]
    Tls {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The node cannot be reached.
    #[error("no node answers at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        why: String,
    },
    /// The connection broke; whether the request was done is unknown.
    #[error("the connection to {url} broke: {why}")]
    Broken {
        /// Where.
        url: String,
        /// How.
        why: String,
    },
    /// The node says no.
    #[error("{}", shown(.0))]
    Refused(Box<Problem>),
    /// The answer is not what the API promises.
    #[error("the node's answer cannot be read: {0}")]
    Answer(String),
}

impl Error {
    /// Stable name of the error.
    pub fn code(&self) -> &str {
        match self {
            Self::Url { .. } => "invalid_url",
            Self::Header { .. } => "invalid_header",
            Self::PlainToken { .. } => "plain_token",
            Self::Trust { .. } => "ca_file_invalid",
            Self::Tls { .. } => "tls_failed",
            Self::Unreachable { .. } => "unreachable",
            Self::Broken { .. } => "connection_broken",
            Self::Refused(problem) => &problem.code,
            Self::Answer(_) => "unreadable_answer",
        }
    }

    /// May the same request be sent again without doing anything twice?
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.retryable,
            Self::Url { .. }
            | Self::Header { .. }
            | Self::PlainToken { .. }
            | Self::Trust { .. }
            | Self::Tls { .. }
            | Self::Broken { .. }
            | Self::Answer(_) => false,
        }
    }
}

fn shown(problem: &Problem) -> String {
    let mut text = format!("{} ({}, {})", problem.detail, problem.code, problem.status);
    for wrong in &problem.errors {
        let of = |member: &str| wrong.get(member).and_then(|value| value.as_str());
        let place = of("pointer").filter(|pointer| !pointer.is_empty()).unwrap_or("-");
        let said = of("message").or_else(|| of("detail")).unwrap_or("");
        let line = wrong.get("line").and_then(serde_json::Value::as_u64);
        let column = wrong.get("column").and_then(serde_json::Value::as_u64);
        match line.zip(column) {
            Some((line, column)) => text.push_str(&format!("\n  {line}:{column} {place}: {said}")),
            None => text.push_str(&format!("\n  {place}: {said}")),
        }
    }
    text
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Call {
    /// Reads `path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// Sends `body` of this media type to `path`.
    pub fn post(path: impl Into<String>, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", media_type.to_owned())];
        Self { method: Method::POST, path: path.into(), headers, body: body.into() }
    }

    /// Puts `body` of this media type at `path`.
    pub fn put(path: impl Into<String>, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PUT, ..Self::post(path, media_type, body) }
    }

    /// Changes what is at `path` by `body` of this media type.
    pub fn patch(path: impl Into<String>, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PATCH, ..Self::post(path, media_type, body) }
    }

    /// Takes away what is at `path`.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The client. Not for several threads: make one for each.
#[derive(Debug)]
pub struct Client {
    target: Target,
    /// The user knows that others can read a token on its way.
    plain_token: bool,
    /// Sent with every request; values that are secret do not show.
    headers: Vec<(&'static str, HeaderValue)>,
    connection: Option<Sender>,
}

impl Client {
    /// A client of the node at `url`, `http://HOST:PORT` or `https://HOST:PORT`. Nothing is sent yet.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::trusting(url, None)
    }

    /// As [`new`](Self::new); over TLS the certificates (PEM) of `ca_file` are trusted beside the system's.
    ///
    /// # Errors
    /// The address or the file cannot be used.
    pub fn trusting(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let target = Target::new(url, ca_file)?;
        Ok(Self { target, plain_token: false, headers: Vec::new(), connection: None })
    }

    /// A client of a node that shows this very certificate (PEM, leaf first): for a process that talks to itself.
    ///
    /// # Errors
    /// The address or the file cannot be used.
    pub fn pinned(url: &str, certificate: &Path) -> Result<Self, Error> {
        let mut client = Self::new(url)?;
        client.target.trust(trust::pinned_config(certificate).map_err(|why| Error::Trust { why })?);
        Ok(client)
    }

    /// Lets a token travel by plain HTTP to another machine: whoever is on the way can read it.
    #[must_use]
    pub fn allow_plain_token(mut self, allow: bool) -> Self {
        self.plain_token = allow;
        self
    }

    /// Shows this token with every request.
    ///
    /// # Errors
    /// It cannot stand in a header, or would go to another machine in the clear.
    pub fn with_token(self, token: &str) -> Result<Self, Error> {
        if !self.target.is_private() && !self.plain_token {
            return Err(Error::PlainToken { url: self.target.url });
        }
        let mut client = self.with_header("authorization", "the token", &format!("Bearer {token}"))?;
        if let Some((_, value)) = client.headers.last_mut() {
            value.set_sensitive(true);
        }
        Ok(client)
    }

    /// Works in this workspace.
    ///
    /// # Errors
    /// Its name cannot stand in a header.
    pub fn with_workspace(self, workspace: &str) -> Result<Self, Error> {
        self.with_header("aob-workspace", "the workspace's name", workspace)
    }

    fn with_header(mut self, name: &'static str, what: &'static str, value: &str) -> Result<Self, Error> {
        let usable = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let value = HeaderValue::from_str(value).ok().filter(|_| usable);
        self.headers.push((name, value.ok_or(Error::Header { what })?));
        Ok(self)
    }

    /// Another client of the same node, as the same user.
    #[must_use]
    pub fn another(&self) -> Self {
        let (target, headers) = (self.target.clone(), self.headers.clone());
        Self { target, plain_token: self.plain_token, headers, connection: None }
    }

    /// The node's address.
    pub fn url(&self) -> &str {
        &self.target.url
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// The node cannot be reached, or says no.
    pub async fn call(&mut self, call: Call) -> Result<(StatusCode, Bytes), Error> {
        let response = self.send(&call).await?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() { Ok((status, body)) } else { Err(refused(status, &body)) }
    }

    /// The headers of what is at `path`.
    ///
    /// # Errors
    /// The node cannot be reached, or says no.
    pub async fn head(&mut self, path: impl Into<String>) -> Result<http::HeaderMap, Error> {
        let response = self.send(&Call { method: Method::HEAD, ..Call::get(path) }).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() { Ok(headers) } else { Err(refused(status, b"")) }
    }

    /// Sends one request and reads the answer as JSON.
    ///
    /// # Errors
    /// The node cannot be reached, says no, or answers something else.
    pub async fn json<T: serde::de::DeserializeOwned>(&mut self, call: Call) -> Result<T, Error> {
        let (_, body) = self.call(call).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()))
    }

    /// The events of a run after number `after`, until the run ends.
    pub fn events(self, run_id: &str, after: u64) -> Events {
        self.events_over(Transport::Sse, run_id, after)
    }

    /// The same over a transport of the caller's choice.
    pub fn events_over(self, transport: Transport, run_id: &str, after: u64) -> Events {
        Events::new(self, transport, run_id.to_owned(), after)
    }

    pub(crate) async fn send(&mut self, call: &Call) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path.as_str())
            .header(header::HOST, &self.target.authority)
            .header(header::USER_AGENT, concat!("aob/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(*name, value.clone());
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(call.body.clone()))
            .map_err(|error| Error::Answer(format!("the request cannot be made: {error}")))?;
        let sender = self.connected().await?;
        let sent = sender.send_request(request).await;
        sent.map_err(|error| {
            self.connection = None;
            self.target.broken(&error)
        })
    }

    pub(crate) async fn body(&mut self, response: Response<Incoming>) -> Result<Bytes, Error> {
        match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => {
                self.connection = None;
                Err(Error::Broken { url: self.target.url.clone(), why: error.to_string() })
            }
        }
    }

    async fn connected(&mut self) -> Result<&mut Sender, Error> {
        let usable = match &mut self.connection {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.connection = Some(self.target.connect().await?);
        }
        self.connection.as_mut().ok_or_else(|| Error::Unreachable {
            url: self.target.url.clone(),
            why: String::from("no connection"),
        })
    }
}

/// How something that may be cut short ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// By itself.
    Done(T),
    /// It took too long.
    TimedOut,
    /// By Ctrl-C.
    Interrupted,
}

/// Waits for `work`, for so long, or until Ctrl-C.
pub async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Ended<T> {
    let late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process, which is as good.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        done = work => Ended::Done(done),
        () = late => Ended::TimedOut,
        () = interrupted => Ended::Interrupted,
    }
}

/// The problem in an answer; one is made up for an answer that holds none, or not all of it.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Error {
    Error::Refused(serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let mut problem =
            Problem::new(status.as_u16(), "unknown", format!("the node answered {status} {text}"));
        problem.retryable = matches!(status.as_u16(), 429 | 503);
        problem
    }))
}

/// Text that may stand in a path or a query as it is.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_before_anything_is_sent() {
        for (url, good) in [
            ("http://127.0.0.1:7400", true),
            ("http://localhost/", true),
            ("http://[::1]:7400", true),
            ("https://127.0.0.1", true),
            ("https://node.example:8443/", true),
            ("ftp://127.0.0.1", false),
            ("https://me@node.example", false),
            ("127.0.0.1:7400", false),
            ("http://x/y", false),
            ("", false),
        ] {
            assert_eq!(Client::new(url).is_ok(), good, "{url}");
        }
    }

    // F006
    #[test]
    fn a_token_is_not_sent_to_another_machine_in_the_clear() {
        for (url, kept) in [
            ("http://127.0.0.1:7400", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:7400", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost", true),
            ("https://node.example", true),
            ("http://node.example", false),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
            ("http://10.0.0.1", false),
            ("http://0.0.0.0:7400", false),
        ] {
            let client = || Client::new(url).unwrap();
            match client().with_token("s3cr3t") {
                Ok(_) => assert!(kept, "{url}"),
                Err(error) => {
                    assert!(!kept && error.code() == "plain_token", "{url}: {error}");
                    assert!(!error.to_string().contains("s3cr3t"), "{error}");
                }
            }
            assert!(client().allow_plain_token(true).with_token("s3cr3t").is_ok(), "{url}");
        }
    }

    #[test]
    fn an_answer_that_is_no_problem_document_becomes_one() {
        let Error::Refused(problem) = refused(StatusCode::BAD_GATEWAY, b"<html>") else { panic!() };
        assert_eq!((problem.status, &*problem.code), (502, "unknown"));
    }
}
