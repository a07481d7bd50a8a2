//! A tool server that is reached over streamable HTTP. Requests go through the node's own connector, so every address is checked
//! before it is connected to; redirects are not followed, and no stream is kept open that no call waits for.
//!
//! The SDK wants a client whose futures may move between threads; connections of ours may not. So a client is a queue, and what
//! serves it stays on the tools' thread.

#![expect(
    clippy::disallowed_types,
    reason = "the SDK hands headers over in a HashMap; their order is never seen"
)]

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::SseRetryPolicy;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use tokio::sync::{mpsc, oneshot};

use super::trouble::{TOO_LARGE, Trouble};
use super::{At, McpServer};
use crate::exec::connect::{Sender, Target};
use crate::exec::request;
use crate::limits;
use crate::model::Failure;

/// Requests that wait to be sent. The SDK sends no more at once than it is told.
const QUEUE: usize = 16;
/// Pieces of a body that wait to be read.
const PIECES: usize = 4;
/// The most of an error's body that is told.
const ERROR_BYTES_MAX: usize = 4 << 10;
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

type Events = Pin<Box<dyn Stream<Item = Result<Sse, SseError>> + Send>>;
type Error = StreamableHttpError<WebError>;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WebError(String);

/// A request, and where its answer goes.
struct Job {
    request: Request<Full<Bytes>>,
    reply: oneshot::Sender<Result<Answer, WebError>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: mpsc::Receiver<io::Result<Bytes>>,
}

/// A stream that broke is not taken up again: the call it was of has failed.
#[derive(Debug)]
struct Never;

impl SseRetryPolicy for Never {
    fn retry(&self, _current_times: usize) -> Option<std::time::Duration> {
        None
    }
}

/// The client that the SDK is given.
#[derive(Clone)]
pub(super) struct Web {
    jobs: mpsc::Sender<Job>,
    trouble: Arc<Trouble>,
}

/// What the SDK speaks through.
pub(super) fn transport(
    url: &str,
    server: Rc<McpServer>,
    trouble: Arc<Trouble>,
) -> StreamableHttpClientTransport<Web> {
    let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
    crate::io::spawn_local(async move {
        while let Some(mut job) = waiting.recv().await {
            let server = server.clone();
            crate::io::spawn_local(async move {
                tokio::select! {
                    answer = exchange(&server, job.request) => drop(job.reply.send(answer)),
                    () = job.reply.closed() => {}
                }
            });
        }
    });
    let mut config = StreamableHttpClientTransportConfig::with_uri(url).max_concurrent_requests(QUEUE);
    config.retry_config = Arc::new(Never);
    StreamableHttpClientTransport::with_client(Web { jobs, trouble }, config)
}

fn failed(failure: &Failure) -> WebError {
    WebError(failure.to_string())
}

/// Sends a request, and passes its answer on as it comes.
async fn exchange(server: &McpServer, mut request: Request<Full<Bytes>>) -> Result<Answer, WebError> {
    let At::Url { url, headers } = &server.server.at else { return Err(WebError("it has no url".into())) };
    let url = request::parse(url).map_err(|failure| failed(&failure))?;
    let target = request::target(&url).map_err(|failure| failed(&failure))?;
    let invalid = |name: &str| WebError(format!("the header {name} of its configuration cannot be sent"));
    for (name, value) in server.put_all(headers).map_err(|failure| failed(&failure))? {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(&name))?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| invalid(&name))?;
        value.set_sensitive(true);
        request.headers_mut().insert(header, value);
    }
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    *request.uri_mut() = path.parse().map_err(|_| WebError("its url cannot be sent".into()))?;
    let host = url.host_str().unwrap_or(&target.host);
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let host = HeaderValue::from_str(&host).map_err(|_| invalid("host"))?;
    request.headers_mut().insert(header::HOST, host);
    let (sender, response) = send(server, &target, request).await?;
    let (head, body) = response.into_parts();
    let (pieces, reader) = mpsc::channel(PIECES);
    let server = server.context.connector.clone();
    crate::io::spawn_local(async move {
        if pump(body, &pieces).await {
            server.keep(target, sender);
        }
    });
    Ok(Answer { status: head.status, headers: head.headers, body: reader })
}

/// On a connection that was kept if one takes it.
async fn send(
    server: &McpServer,
    target: &Target,
    mut request: Request<Full<Bytes>>,
) -> Result<(Sender, http::Response<Incoming>), WebError> {
    let lost = |error: hyper::Error| {
        WebError(format!("the connection to {}:{} broke: {error}", target.host, target.port))
    };
    let connector = &server.context.connector;
    while let Some(mut sender) = connector.kept(target) {
        match sender.try_send_request(request).await {
            Ok(response) => return Ok((sender, response)),
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(lost(error.into_error())),
            },
        }
    }
    let mut sender = connector.connect(target).await.map_err(|failure| failed(&failure))?;
    let response = sender.send_request(request).await.map_err(lost)?;
    Ok((sender, response))
}

/// Passes a body on. True when it came to its end.
async fn pump(mut body: Incoming, pieces: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    loop {
        // Nobody reads on: the connection is closed with the body.
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = pieces.closed() => return false,
        };
        let piece = match frame {
            None => return true,
            Some(Ok(frame)) => frame.into_data().map(Ok).unwrap_or_else(|_| Ok(Bytes::new())),
            Some(Err(error)) => Err(io::Error::other(error)),
        };
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            return false;
        }
    }
}

/// A body in pieces, none of whose events, nor all of it, is longer than it may be.
struct Bounded {
    body: mpsc::Receiver<io::Result<Bytes>>,
    trouble: Arc<Trouble>,
    event_bytes: usize,
    ended: bool,
}

impl Bounded {
    fn new(body: mpsc::Receiver<io::Result<Bytes>>, trouble: Arc<Trouble>) -> Self {
        Self { body, trouble, event_bytes: 0, ended: false }
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        let piece = self.body.recv().await?;
        let Ok(bytes) = &piece else {
            self.ended = true;
            return Some(piece);
        };
        // An empty line ends an event. One that is cut in two is seen one event later.
        let ends = |pair: &[u8]| pair == b"\n\n" || pair == b"\r\r" || pair == b"\n\r";
        let after = bytes.windows(2).rposition(ends).map(|at| bytes.len() - at);
        self.event_bytes = after.unwrap_or_else(|| self.event_bytes.saturating_add(bytes.len()));
        let long = self.event_bytes > limits::TOOL_SERVER_MESSAGE_BYTES_MAX
            || bytes.len() > limits::TOOL_SERVER_MESSAGE_BYTES_MAX;
        if long {
            self.trouble.was_too_large();
        }
        if long || !self.trouble.came(bytes.len()) {
            self.ended = true;
            return Some(Err(io::Error::other(if long { TOO_LARGE } else { "it sends more than is taken" })));
        }
        Some(piece)
    }

    async fn whole(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece?);
            if all.len() >= most {
                break;
            }
        }
        Ok(all)
    }

    fn events(self) -> Events {
        let pieces = unfold(self, |mut bounded| async move { Some((bounded.next().await?, bounded)) });
        Box::pin(SseStream::from_bytes_stream(Box::pin(pieces)))
    }
}

/// Is this request's answer the one that tells the eras apart? A refusal of any form is one then.
fn discovers(message: &ClientJsonRpcMessage) -> Option<rmcp::model::RequestId> {
    match message {
        ClientJsonRpcMessage::Request(asked)
            if matches!(asked.request, ClientRequest::DiscoverRequest(_)) =>
        {
            Some(asked.id.clone())
        }
        _ => None,
    }
}

impl Web {
    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || StreamableHttpError::TransportChannelClosed;
        self.jobs.send(Job { request, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(StreamableHttpError::Client)
    }

    fn request(
        method: Method,
        body: Bytes,
        session: Option<&str>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let own = [
            (header::CONTENT_TYPE, JSON),
            (header::ACCEPT, "application/json, text/event-stream"),
            (header::USER_AGENT, concat!("aob/", env!("CARGO_PKG_VERSION"))),
        ];
        let all = request.headers_mut();
        all.extend(own.map(|(name, value)| (name, HeaderValue::from_static(value))));
        all.extend(headers);
        if let Some(Ok(session)) = session.map(HeaderValue::from_str) {
            all.insert(SESSION, session);
        }
        request
    }

    async fn turned_down(
        &self,
        message: &ClientJsonRpcMessage,
        answer: Answer,
        in_session: bool,
    ) -> Result<StreamableHttpPostResponse, Error> {
        let status = answer.status;
        if status == StatusCode::NOT_FOUND && in_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let body =
            Bounded::new(answer.body, self.trouble.clone()).whole(ERROR_BYTES_MAX).await.unwrap_or_default();
        let told = serde_json::from_slice::<ServerJsonRpcMessage>(&body).ok();
        let told = told.and_then(|told| match told {
            JsonRpcMessage::Error(error) => Some(error),
            _ => None,
        });
        let closed = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if let Some(id) = discovers(message).filter(|_| status.is_client_error() && !closed) {
            let error = told.map_or_else(
                || ErrorData::invalid_request(format!("HTTP {status}"), None),
                |told| told.error,
            );
            return Ok(StreamableHttpPostResponse::Json(ServerJsonRpcMessage::error(error, Some(id)), None));
        }
        if let Some(error) = told.filter(|_| !closed) {
            return Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), None));
        }
        let text = String::from_utf8_lossy(&body);
        // Whoever tells it takes secrets out, and then cuts it: a cut here could leave a part of one.
        Err(StreamableHttpError::UnexpectedServerResponse(format!("HTTP {status}: {}", text.trim()).into()))
    }
}

impl StreamableHttpClient for Web {
    type Error = WebError;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Error> {
        let body = serde_json::to_vec(&message)?;
        let request = Self::request(Method::POST, body.into(), session_id.as_deref(), custom_headers);
        let answer = self.ask(request).await?;
        if !answer.status.is_success() {
            return self.turned_down(&message, answer, session_id.is_some()).await;
        }
        let waits = matches!(message, ClientJsonRpcMessage::Request(_));
        if !waits || matches!(answer.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        let session = answer.headers.get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind =
            kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
        let mut body = Bounded::new(answer.body, self.trouble.clone());
        match &*kind {
            EVENTS => Ok(StreamableHttpPostResponse::Sse(body.events(), session)),
            JSON => {
                let bytes = body.whole(usize::MAX).await?;
                let message = serde_json::from_slice(&bytes)?;
                Ok(StreamableHttpPostResponse::Json(message, session))
            }
            _ => Err(StreamableHttpError::UnexpectedContentType(Some(kind))),
        }
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Error> {
        let request = Self::request(Method::DELETE, Bytes::new(), Some(&session_id), custom_headers);
        self.ask(request).await.map(drop)
    }

    /// None is opened: nothing that a server says unasked is wanted.
    async fn get_stream(
        &self,
        _uri: Arc<str>,
        _session_id: Option<Arc<str>>,
        _last_event_id: Option<String>,
        _auth_header: Option<String>,
        _custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Error> {
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}
