//! One call to a provider: from an ask to the bytes on the wire, and from what comes back to an answer.
//!
//! What must hold: the credential is read here and put into one header; nothing that leaves this file holds it. The whole call
//! has a time, and so has each wait for more of a streamed answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use url::Url;

use super::events::Parser;
use super::hearing::Hearing;
use super::prompt::Json;
use super::reply::{Judge, Raw, invalid};
use super::settings::Kind;
use super::{Job, anthropic, embeddings, estimate, openai, refusal};
use crate::exec::connect::Connector;
use crate::exec::secret::{Redactor, Secrets};
use crate::exec::{answer, idempotency_key, request, traceparent};
use crate::limits;
use crate::model::agent::Answer;
use crate::model::{Failure, Workspace};
use crate::time::{Clock as _, SystemClock};

/// Makes calls.
pub(super) struct Caller {
    connector: Connector,
    secrets: Secrets,
}

impl Caller {
    pub(super) fn new(connector: Connector, secrets: Secrets) -> Self {
        Self { connector, secrets }
    }

    /// One attempt, when there is room for it and its model is not left alone.
    pub(super) async fn attempt(&self, job: &Job) -> Result<Answer, Failure> {
        job.entry.guarded(|| self.once(job)).await
    }

    async fn once(&self, job: &Job) -> Result<Answer, Failure> {
        let provider = &job.entry.model.provider;
        let mut redactor = Redactor::default();
        let outcome = tokio::time::timeout(provider.timeout, self.exchange(job, &mut redactor)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(late(job, provider.timeout, "a whole answer")));
        outcome.map_err(|failure| refusal::fit(failure, &redactor))
    }

    async fn exchange(&self, job: &Job, redactor: &mut Redactor) -> Result<Answer, Failure> {
        let began_us = SystemClock.monotonic_us();
        let model = &job.entry.model;
        let provider = &*model.provider;
        let written = estimate::write(model, &job.ask, &job.tools)?;
        let url = provider.endpoint(embeddings::is_wanted(&job.ask));
        let target = request::target(&url)?;
        let headers = self.headers(job, &url, redactor)?;
        let mut request = Request::new(Full::new(Bytes::from(written.body)));
        *request.method_mut() = Method::POST;
        // A parsed URL is made of what a URI is made of.
        *request.uri_mut() = url.path().parse().unwrap_or_else(|_| http::Uri::from_static("/"));
        *request.headers_mut() = headers;
        let (sender, response) = self.connector.exchange(&target, request).await?;
        let mut hearing = Hearing { deltas: job.deltas.as_ref(), redactor, pending: String::new() };
        let (raw, at_end) = read(job, response, &mut hearing).await?;
        hearing.end();
        if at_end {
            self.connector.keep(target, sender);
        }
        let took_ms = SystemClock.monotonic_us().saturating_sub(began_us) / 1_000;
        let judge = Judge { model, tools: &job.tools, quote: &job.quote, bound: written.bound, redactor };
        judge.answer(raw, took_ms)
    }

    /// The workspace's own secret of this name, else the node's.
    fn secret(&self, job: &Job, name: &str) -> Result<String, Failure> {
        let workspace = Workspace::of(&job.name.workflow);
        let own = self.secrets.get(workspace.name(), name).ok();
        own.map_or_else(|| self.secrets.get(Workspace::DEFAULT_NAME, name), Ok)
    }

    fn headers(&self, job: &Job, url: &Url, redactor: &mut Redactor) -> Result<HeaderMap, Failure> {
        let provider = &job.entry.model.provider;
        let mut headers = HeaderMap::new();
        for (name, value) in named(job, url) {
            let value = plain(name.as_str(), &value)?;
            headers.insert(name, value);
        }
        if let Some(credential) = &provider.credential {
            let secret = self.secret(job, credential)?;
            redactor.add(&secret);
            let (name, value) = match provider.kind {
                Kind::OpenAi => (header::AUTHORIZATION, format!("Bearer {secret}")),
                Kind::Anthropic => (HeaderName::from_static("x-api-key"), secret),
            };
            headers.insert(name.clone(), sensitive(name.as_str(), &value)?);
        }
        for (name, written) in &provider.headers {
            let value = self.filled(job, written, redactor)?;
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Failure::fatal("model_request_invalid", format!("{name:?} is no header")))?;
            headers.insert(header, sensitive(name, &value)?);
        }
        Ok(headers)
    }

    /// A header of the configuration, with the secrets that it names.
    fn filled(&self, job: &Job, written: &str, redactor: &mut Redactor) -> Result<String, Failure> {
        let mut filled = String::new();
        let mut rest = written;
        while let Some((before, after)) = rest.split_once("${secret:") {
            let Some((name, behind)) = after.split_once('}') else { break };
            let secret = self.secret(job, name)?;
            redactor.add(&secret);
            filled.push_str(before);
            filled.push_str(&secret);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The names of a call, and what is asked for.
fn named(job: &Job, url: &Url) -> Vec<(HeaderName, String)> {
    let name = &job.name;
    let provider = &job.entry.model.provider;
    let own = HeaderName::from_static;
    let host = url.host_str().unwrap_or_default();
    let key = idempotency_key(name.run_id, &name.place);
    // A stream is read as it comes; unpacking it would hold its pieces back.
    let (accept, coding) = match provider.stream && !embeddings::is_wanted(&job.ask) {
        true => ("text/event-stream, application/json", "identity"),
        false => ("application/json", "gzip, zstd"),
    };
    let mut headers = vec![
        (header::HOST, url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))),
        (header::CONTENT_TYPE, "application/json".into()),
        (header::ACCEPT, accept.into()),
        (header::ACCEPT_ENCODING, coding.into()),
        (header::USER_AGENT, concat!("aob/", env!("CARGO_PKG_VERSION")).into()),
        (own("idempotency-key"), format!("{key}-{}", name.turn)),
        (own("traceparent"), traceparent(name.run_id, name.seq)),
        (own("aob-run-id"), name.run_id.to_string()),
        (own("aob-attempt"), name.attempt.to_string()),
        (own("aob-epoch"), name.epoch.to_string()),
    ];
    if provider.kind == Kind::Anthropic {
        headers.push((own("anthropic-version"), anthropic::VERSION.into()));
    }
    headers
}

fn plain(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    let wrong = |_| Failure::fatal("model_request_invalid", format!("the header {name} cannot be sent"));
    HeaderValue::from_str(value).map_err(wrong)
}

fn sensitive(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    let mut value = plain(name, value)?;
    value.set_sensitive(true);
    Ok(value)
}

fn late(job: &Job, after: Duration, what: &str) -> Failure {
    let model = &job.entry.model;
    let message = format!("{} of {} gave no {what} within {after:?}", model.name, model.provider.name);
    Failure::transient("timeout", message)
}

/// Reads what comes back; whether the connection is at its end and can be used again.
async fn read(
    job: &Job,
    response: Response<Incoming>,
    hearing: &mut Hearing<'_>,
) -> Result<(Raw, bool), Failure> {
    let (head, body) = response.into_parts();
    let provider = &*job.entry.model.provider;
    if !head.status.is_success() {
        let words = beginning(body).await;
        return Err(refusal::of(head.status, &head.headers, &words, SystemClock.now()));
    }
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "text/event-stream" && !embeddings::is_wanted(&job.ask) {
        let coding = head.headers.get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| coding.as_bytes() != b"identity") {
            return Err(invalid("it is packed, and streamed"));
        }
        return streamed(job, body, hearing).await;
    }
    let bytes = answer::bytes(&head.headers, body).await.map_err(|failure| match &*failure.code {
        "answer_invalid" => invalid(&failure.message),
        _ => failure,
    })?;
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(&format!("it is no JSON ({error}), and its type is {kind:?}")))?;
    if embeddings::is_wanted(&job.ask) {
        return Ok((embeddings::read(&job.ask, &json)?, true));
    }
    let raw = match provider.kind {
        Kind::OpenAi => openai::read(&json)?,
        Kind::Anthropic => anthropic::read(&json)?,
    };
    hearing.hear(&raw.text);
    Ok((raw, true))
}

/// As much of a refusal as is looked at. What it lacks changes nothing: its status is known.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
        let room = limits::MODEL_REFUSAL_BYTES_MAX.saturating_sub(bytes.len());
        bytes.extend(data.iter().take(room));
        if data.len() >= room {
            break;
        }
    }
    bytes
}

async fn streamed(job: &Job, mut body: Incoming, hearing: &mut Hearing<'_>) -> Result<(Raw, bool), Failure> {
    let provider = &*job.entry.model.provider;
    let (mut parser, mut raw, mut total) = (Parser::default(), Raw::default(), 0_usize);
    while !raw.over {
        let frame = tokio::time::timeout(provider.idle_timeout, body.frame()).await;
        let frame = match frame.map_err(|_| late(job, provider.idle_timeout, "more of its answer"))? {
            None => break,
            Some(Err(error)) => {
                let message = format!("the answer ended early: {error}");
                return Err(Failure::transient("connection_lost", message));
            }
            Some(Ok(frame)) => frame,
        };
        let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
        total = total.saturating_add(data.len());
        let most = limits::MODEL_STREAM_BYTES_MAX;
        if total > most {
            let message =
                format!("the streamed answer has more than {most} bytes (limit model_stream_bytes_max)");
            return Err(Failure::fatal("answer_too_large", message));
        }
        let events = parser.take(data).map_err(|_| {
            let most = limits::MODEL_LINE_BYTES_MAX;
            invalid(&format!("one of its events has more than {most} bytes (limit model_line_bytes_max)"))
        })?;
        for event in events {
            let piece = match provider.kind {
                Kind::OpenAi => openai::take(&mut raw, &event)?,
                Kind::Anthropic => anthropic::take(&mut raw, &event)?,
            };
            hearing.hear(&piece);
        }
    }
    // Some OpenAI-compatible servers end without a word; whoever said why it ends has said all.
    raw.over |= provider.kind == Kind::OpenAi && raw.stop.is_some();
    let end = Duration::from_millis(limits::MODEL_STREAM_END_MILLIS);
    let at_end = matches!(tokio::time::timeout(end, body.frame()).await, Ok(None));
    Ok((raw, at_end))
}
