//! Events over a WebSocket, `aob.v1` (docs/formats/stream.md). Pings are answered while it is read.

use std::pin::Pin;

use futures_util::Stream as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::connect::Io;
use super::frames::{FRAME_BYTES_MAX, Named};
use super::{Client, Error, refused};
use crate::wire::sse::Event;

/// An open stream.
pub(super) struct Source(WebSocketStream<Box<dyn Io>>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebSocket")
    }
}

/// Opens the stream at `path`.
pub(super) async fn open(client: &Client, path: &str) -> Result<Source, Error> {
    let target = &client.target;
    let unsent =
        |error: &dyn std::fmt::Display| Error::Answer(format!("the request cannot be made: {error}"));
    let mut request =
        format!("ws://{}{path}", target.authority).into_client_request().map_err(|error| unsent(&error))?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", http::HeaderValue::from_static("aob.v1"));
    for (name, value) in &client.headers {
        headers.insert(*name, value.clone());
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(2 * FRAME_BYTES_MAX))
        .max_frame_size(Some(2 * FRAME_BYTES_MAX));
    let connection = target.dial().await?;
    let shaken = target.in_time(async {
        client_async_with_config(request, connection, Some(config)).await.map_err(|error| match error {
            tungstenite::Error::Http(answer) => {
                // The node says no; what it sent of the reason is here already, or is not waited for.
                let body = answer.body().clone().unwrap_or_default();
                refused(answer.status(), &body)
            }
            error => Error::Broken { url: target.url.clone(), why: error.to_string() },
        })
    });
    Ok(Source(shaken.await?.0))
}

impl Source {
    /// The next message; `None` for one that says nothing to the caller.
    pub(super) async fn read(&mut self, broken: impl Fn(&str) -> Error) -> Result<Option<Event>, Error> {
        let next = std::future::poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await;
        match next {
            Some(Ok(Message::Text(text))) => Named::read(text.as_bytes()).map(Some).map_err(Error::Answer),
            Some(Ok(Message::Close(Some(frame)))) => {
                Err(broken(&format!("it was closed: {} {}", u16::from(frame.code), frame.reason)))
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(broken(&error.to_string())),
            None => Err(broken("it ended before the run did")),
        }
    }
}
