//! The listener, its connections, and the routes. One thread; when connections are as many as there may be, more wait.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::ask::Api;
use crate::body::Body;
use crate::call::{NoAnswer, authorized, call, whole_body};
use crate::state::State;
use crate::{Error, Options, anthropic, limits, openai};

/// Something that the owner wants to know or to have done.
pub(crate) type Command = Box<dyn FnOnce(&State) + Send>;

/// Models that are listed; any other is answered as well.
const MODELS: [&str; 6] = [
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
];

/// Serves on this thread until nobody holds the other end of `commands`.
pub(crate) fn run(
    options: Options,
    mut commands: UnboundedReceiver<Command>,
    ready: impl FnOnce(Result<SocketAddr, Error>),
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ready(Err(Error::Io(error))),
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let begun = listen(options.listen).map_err(Error::Io).and_then(|listener| {
            let address = listener.local_addr().map_err(Error::Io)?;
            let state = State::new(options).map_err(Error::Script)?;
            Ok((listener, address, Rc::new(state)))
        });
        let (listener, state) = match begun {
            Ok((listener, address, state)) => {
                ready(Ok(address));
                (listener, state)
            }
            Err(error) => return ready(Err(error)),
        };
        let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => command(&state),
                    None => return,
                },
                (accepted, place) = next => match accepted {
                    Ok((stream, _)) => drop(tokio::task::spawn_local(connection(stream, state.clone(), place))),
                    // Out of descriptors: some will be free soon.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    });
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::BACKLOG)
}

/// Requests of one connection; `place` is held as long as it is open.
async fn connection<P>(stream: TcpStream, state: Rc<State>, place: P) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| dispatch(state.clone(), request));
    let head = Duration::from_secs(limits::HEAD_SECONDS_MAX);
    // What went wrong was asked for, or is the caller's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(place);
}

async fn dispatch(state: Rc<State>, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/v1/chat/completions") => call(state, Api::Chat, request).await,
        (&Method::POST, "/v1/messages") => call(state, Api::Messages, request).await,
        (&Method::POST, "/v1/embeddings") => call(state, Api::Embeddings, request).await,
        (&Method::POST, "/v1/messages/count_tokens") => Ok(count_tokens(&state, request).await),
        (&Method::GET, "/v1/models") => Ok(models(&state, &request)),
        (&Method::GET, "/stats") => {
            Ok(json_answer(200, &state.stats(parameter(&request, "keys").unwrap_or(limits::KEYS_LISTED))))
        }
        (&Method::GET, "/requests") => {
            let limit = parameter(&request, "limit").unwrap_or(limits::REQUESTS_KEPT_MAX);
            Ok(json_answer(200, &state.kept.borrow().shown(limit)))
        }
        (&Method::POST, "/script") => Ok(script(&state, request).await),
        (&Method::POST, "/reset") => {
            state.reset(request.uri().query() == Some("keep=script"));
            Ok(json_answer(200, &json!({})))
        }
        (&Method::GET, "/health") => Ok(json_answer(200, &json!({}))),
        (method, _) => {
            let message = format!("Invalid URL ({method} {path})");
            Ok(problem(404, "invalid_request_error", &message))
        }
    }
}

fn parameter(request: &Request<Incoming>, name: &str) -> Option<usize> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}

async fn script(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (body, _place) = match whole_body(state, request.into_body()).await {
        Ok(whole) => whole,
        Err(refusal) => {
            return problem(refusal.status, "script", refusal.message.as_deref().unwrap_or_default());
        }
    };
    let read = serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string());
    match read.and_then(|script| state.replace_script(&script)) {
        Ok(()) => json_answer(200, &json!({"rules": state.script.borrow().counts()})),
        Err(what) => problem(400, "script", &what),
    }
}

async fn count_tokens(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let counted = match whole_body(state, body).await {
        Ok((body, _place)) => authorized(state, Api::Messages, &parts.headers).and_then(|()| {
            let request: Value = serde_json::from_slice(&body).unwrap_or_default();
            anthropic::read(&request, 0, true)
        }),
        Err(refusal) => Err(refusal),
    };
    match counted {
        Ok(ask) => {
            let tokens = ask.usage.input + ask.usage.cache_read + ask.usage.cache_write;
            json_answer(200, &json!({"input_tokens": tokens}))
        }
        Err(refusal) => answer(refusal.status, anthropic::error(&refusal, "", "req_0")),
    }
}

/// The list in the words of whoever's header the request has.
fn models(state: &State, request: &Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let api = if headers.contains_key("anthropic-version") { Api::Messages } else { Api::Chat };
    if let Err(refusal) = authorized(state, api, headers) {
        let text = if api == Api::Messages {
            anthropic::error(&refusal, "", "req_0")
        } else {
            openai::error(&refusal, "")
        };
        return answer(refusal.status, text);
    }
    let list: Vec<Value> = MODELS
        .iter()
        .map(|id| match api {
            Api::Messages => {
                json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
            }
            _ => json!({"id": id, "object": "model", "created": openai::CREATED, "owned_by": "stub"}),
        })
        .collect();
    let ends = (MODELS.first(), MODELS.last());
    json_answer(
        200,
        &match api {
            Api::Messages => json!({"data": list, "has_more": false, "first_id": ends.0, "last_id": ends.1}),
            _ => json!({"object": "list", "data": list}),
        },
    )
}

fn problem(status: u16, kind: &str, message: &str) -> Response<Body> {
    json_answer(status, &json!({"error": {"type": kind, "message": message, "param": null, "code": null}}))
}

fn json_answer(status: u16, value: &Value) -> Response<Body> {
    answer(status, value.to_string())
}

fn answer(status: u16, text: String) -> Response<Body> {
    let mut response = Response::new(Body::plain(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
