//! A call of a model from its first byte to its last: read, held to the rules of its API, looked up in the script, answered.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use crate::account::Tally;
use crate::ask::{Api, Ask};
use crate::behaviour::{Behaviour, Fault, Refusal, UsageRule};
use crate::body::{Body, Ending};
use crate::embeddings::Texts;
use crate::frames::Frames;
use crate::hash::Hash;
use crate::reply::{Reply, Stop, decide, reply};
use crate::state::State;
use crate::{anthropic, embeddings, limits, openai};

/// The connection closes without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no answer was asked for")
    }
}

impl std::error::Error for NoAnswer {}

/// Bytes of one piece of a plain answer that comes slowly.
const PIECE_BYTES: usize = 64;
/// What an endless answer repeats.
const FILLER: &str = "amber basin cedar delta ";
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>\n";

/// What was read of a call.
struct Question {
    ask: Ask,
    texts: Option<Texts>,
}

/// Answers a call.
pub(crate) async fn call(
    state: Rc<State>,
    api: Api,
    request: Request<Incoming>,
) -> Result<Response<Body>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let number = state.next_number();
    let request_id = format!("req_{number:012}");
    let mut question = match read(&state, api, number, (&parts, body)).await {
        Ok(question) => question,
        Err(refusal) => {
            let tally = Tally::begin(&state.account, "(unread)", &parts.headers);
            return Ok(refused(&Ask { api, ..Ask::default() }, &refusal, &request_id, tally));
        }
    };
    let mut tally = Tally::begin(&state.account, &question.ask.model, &parts.headers);
    let rule = state.script.borrow_mut().pick(&question.ask, &parts.headers);
    let decided = match question.texts {
        Some(_) => Ok(rule.as_deref().cloned().unwrap_or_default()),
        None => decide(&question.ask, rule.as_deref()),
    };
    question.ask.forget_texts();
    let delay_ms = state.options.latency_ms + decided.as_ref().map_or(0, |behaviour| behaviour.delay_ms);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let ask = &question.ask;
    let behaviour = match decided {
        Ok(behaviour) => behaviour,
        Err(refusal) => return Ok(refused(ask, &refusal, &request_id, tally)),
    };
    let broken = behaviour.stream_error.filter(|_| !ask.stream).map(Refusal::new);
    if behaviour.fault == Some(Fault::NoAnswer) {
        return Err(NoAnswer);
    }
    if let Some(refusal) = behaviour.refusal.as_ref().or(broken.as_ref()) {
        return Ok(refused(ask, refusal, &request_id, tally));
    }
    let (kind, text) = match behaviour.fault {
        Some(Fault::Html) => ("text/html; charset=utf-8", HTML),
        Some(Fault::Empty) => ("application/json", ""),
        _ => return Ok(answered(&question, &behaviour, &request_id, tally)),
    };
    tally.answers(200, None);
    let body = Body::new(vec![Bytes::from_static(text.as_bytes())], Ending::Whole, Duration::ZERO, tally);
    Ok(response(ask.api, StatusCode::OK, kind, &request_id, body))
}

async fn read(
    state: &State,
    api: Api,
    number: u64,
    (parts, body): (&Parts, Incoming),
) -> Result<Question, Refusal> {
    let (body, _place) = whole_body(state, body).await?;
    state.kept.borrow_mut().add(number, state.age_us(), parts, &body);
    authorized(state, api, &parts.headers)?;
    let request: Value = serde_json::from_slice(&body).map_err(|error| {
        Refusal::invalid(format!("We could not parse the JSON body of your request: {error}"))
    })?;
    let hash = Hash::new().with(&body).value();
    match api {
        Api::Chat => Ok(Question { ask: openai::read(&request, hash)?, texts: None }),
        Api::Messages => Ok(Question { ask: anthropic::read(&request, hash, false)?, texts: None }),
        Api::Embeddings => {
            embeddings::read(&request, hash).map(|(ask, texts)| Question { ask, texts: Some(texts) })
        }
    }
}

/// A body within bounds of size and time. A large one has a place, to be held until it is understood.
pub(crate) async fn whole_body(
    state: &State,
    body: Incoming,
) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refusal> {
    let too_large = |why: &dyn std::fmt::Display| {
        let message = format!("stub: the body may have {} bytes: {why}", limits::BODY_BYTES_MAX);
        Refusal { status: 413, message: Some(message), ..Refusal::default() }
    };
    if body.size_hint().lower() > limits::BODY_BYTES_MAX as u64 {
        return Err(too_large(&"content-length says more"));
    }
    let large = body.size_hint().exact().is_none_or(|bytes| bytes > limits::LARGE_BODY_BYTES);
    let place = if large { state.large_bodies.acquire().await.ok() } else { None };
    let limited = Limited::new(body, limits::BODY_BYTES_MAX).collect();
    match tokio::time::timeout(Duration::from_secs(limits::BODY_SECONDS_MAX), limited).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), place)),
        Ok(Err(error)) => Err(too_large(&error)),
        Err(_) => Err(Refusal {
            status: 408,
            message: Some("the body did not arrive".into()),
            ..Refusal::default()
        }),
    }
}

/// Whether a caller shows the key that the stub was told to look for.
pub(crate) fn authorized(state: &State, api: Api, headers: &HeaderMap) -> Result<(), Refusal> {
    let shown = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if api == Api::Messages {
        let Some(key) = &state.options.anthropic_key else { return Ok(()) };
        if shown("x-api-key") != Some(key) {
            let message = shown("x-api-key").is_none().then(|| "x-api-key header is required".into());
            return Err(Refusal { status: 401, message, ..Refusal::default() });
        }
        return match shown("anthropic-version") {
            Some("2023-06-01" | "2023-01-01") => Ok(()),
            Some(other) => {
                Err(Refusal::invalid(format!("anthropic-version: \"{other}\" is not a valid version")))
            }
            None => Err(Refusal::invalid("anthropic-version: header is required")),
        };
    }
    let Some(key) = &state.options.openai_key else { return Ok(()) };
    if shown("authorization").and_then(|value| value.strip_prefix("Bearer ")) == Some(key) {
        return Ok(());
    }
    Err(Refusal::new(401))
}

fn refused(ask: &Ask, refusal: &Refusal, request_id: &str, mut tally: Tally) -> Response<Body> {
    tally.answers(refusal.status, None);
    let text = match ask.api {
        Api::Messages => anthropic::error(refusal, &ask.model, request_id),
        Api::Chat | Api::Embeddings => openai::error(refusal, &ask.model),
    };
    let body = Body::new(vec![Bytes::from(text)], Ending::Whole, Duration::ZERO, tally);
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response(ask.api, status, "application/json", request_id, body);
    if let Some(value) = refusal.retry_after.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

fn response(
    api: Api,
    status: StatusCode,
    kind: &'static str,
    request_id: &str,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(if api == Api::Messages { "request-id" } else { "x-request-id" }, value);
    }
    response
}

fn answered(
    question: &Question,
    behaviour: &Behaviour,
    request_id: &str,
    mut tally: Tally,
) -> Response<Body> {
    let ask = &question.ask;
    let reply =
        if behaviour.fault == Some(Fault::Endless) { filled(ask, behaviour) } else { reply(ask, behaviour) };
    let pause = Duration::from_millis(behaviour.chunk_delay_ms);
    let streamed = ask.stream && question.texts.is_none();
    let pieces = match &question.texts {
        Some(texts) => {
            let cost = match behaviour.usage {
                UsageRule::Given(given) => given,
                UsageRule::Counted | UsageRule::Missing => ask.usage,
            };
            tally.answers(200, Some(cost));
            let said = Some(&cost).filter(|_| behaviour.usage != UsageRule::Missing);
            in_pieces(embeddings::whole(ask, texts, said), pause)
        }
        None => {
            tally.answers(200, Some(reply.cost));
            if streamed { frames(ask, &reply).into_pieces() } else { in_pieces(whole(ask, &reply), pause) }
        }
    };
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    let (pieces, ending, length) = match behaviour.fault {
        _ if streamed && behaviour.stream_error.is_some() => {
            (with_error(pieces, ask, behaviour, request_id), Ending::Short, None)
        }
        Some(Fault::Truncated) => (first(pieces, bytes / 2), Ending::Short, None),
        Some(Fault::Closed) => (first(pieces, bytes / 2), Ending::Closed, (!streamed).then_some(bytes)),
        Some(Fault::LongerLength) => (pieces, Ending::Closed, Some(bytes + 16)),
        Some(Fault::ShorterLength) => (pieces, Ending::Short, Some(bytes / 2)),
        Some(Fault::Endless) => (endless(pieces, ask, streamed), Ending::Never, None),
        _ => (pieces, Ending::Whole, None),
    };
    let mut body = Body::new(pieces, ending, pause, tally);
    if streamed || length.is_some() {
        body = body.chunked();
    }
    let kind = if streamed { "text/event-stream; charset=utf-8" } else { "application/json" };
    let mut response = response(ask.api, StatusCode::OK, kind, request_id, body);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn whole(ask: &Ask, reply: &Reply) -> Vec<u8> {
    if ask.api == Api::Messages { anthropic::whole(ask, reply) } else { openai::whole(ask, reply) }
}

fn frames(ask: &Ask, reply: &Reply) -> Frames {
    if ask.api == Api::Messages {
        anthropic::frames(ask, reply)
    } else {
        openai::Stream::new(ask).frames(ask, reply)
    }
}

/// In one piece, unless it is to come slowly.
fn in_pieces(bytes: Vec<u8>, pause: Duration) -> Vec<Bytes> {
    let bytes = Bytes::from(bytes);
    if pause.is_zero() {
        return vec![bytes];
    }
    let ends = (PIECE_BYTES..).step_by(PIECE_BYTES).map(|end| end.min(bytes.len()));
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    starts.zip(ends).map(|(start, end)| bytes.slice(start..end)).collect()
}

/// The first so many bytes.
fn first(pieces: Vec<Bytes>, mut bytes: usize) -> Vec<Bytes> {
    let mut kept = Vec::new();
    for mut piece in pieces {
        piece.truncate(bytes);
        bytes -= piece.len();
        kept.push(piece);
    }
    kept
}

/// The first half of a stream, and an error in place of the rest.
fn with_error(mut pieces: Vec<Bytes>, ask: &Ask, behaviour: &Behaviour, request_id: &str) -> Vec<Bytes> {
    let refusal = Refusal::new(behaviour.stream_error.unwrap_or(500));
    pieces.truncate(pieces.len() / 2);
    pieces.push(Bytes::from(match ask.api {
        Api::Messages => {
            format!("event: error\ndata: {}\n\n", anthropic::error(&refusal, &ask.model, request_id))
        }
        Api::Chat | Api::Embeddings => format!("data: {}\n\n", openai::error(&refusal, &ask.model)),
    }));
    pieces
}

/// The beginning of an answer that never ends.
fn filled(ask: &Ask, behaviour: &Behaviour) -> Reply {
    let mut reply = reply(ask, behaviour);
    reply.calls.clear();
    (reply.text, reply.stop, reply.chunk_chars) = (Some(FILLER.to_owned()), Stop::End, FILLER.len());
    reply
}

/// Everything up to the filler, which is the last piece and comes again and again.
fn endless(mut pieces: Vec<Bytes>, ask: &Ask, streamed: bool) -> Vec<Bytes> {
    if streamed {
        let is_filler = |piece: &Bytes| piece.windows(FILLER.len()).any(|part| part == FILLER.as_bytes());
        let end = pieces.iter().position(is_filler).map_or(pieces.len(), |at| at + 1);
        pieces.truncate(end);
        return pieces;
    }
    let whole: Vec<u8> = pieces.concat();
    let text = String::from_utf8_lossy(&whole);
    let start = if ask.api == Api::Messages { r#""text":""# } else { r#""content":""# };
    let head = text.split_once(start).map_or_else(|| text.to_string(), |(head, _)| format!("{head}{start}"));
    vec![Bytes::from(head), Bytes::from_static(FILLER.as_bytes())]
}
