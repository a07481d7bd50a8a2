//! The events of one run, in order, each once, however often the connection breaks.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Call, Client, Error, percent_encoded, refused};
use crate::wire::sse::{Decoder, Event, parse_event_id};

/// Attempts to come back that fail in a row before the stream gives up.
const RETRIES_MAX: u32 = 10;
/// Milliseconds before coming back when the node said nothing else.
const RETRY_MS: u64 = 2_000;

/// What comes from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// An event; `data` is a row of the timeline.
    Event(Event),
    /// The stream broke or was closed and is being taken up again.
    Reconnecting {
        /// Why, for a human.
        why: String,
    },
}

/// Which events are wanted. By default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Paths of nodes; none: all events.
    pub nodes: Vec<String>,
    /// Types of events, or their beginnings with a `*`.
    pub kinds: Vec<String>,
    /// From this level on; one at most.
    pub level: Vec<String>,
}

/// What became of a wait for the next event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something came.
    Streamed(Streamed),
    /// Nothing came for as long as was asked.
    Quiet,
    /// The run has ended.
    Ended,
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    client: Client,
    run_id: String,
    /// What else the path says: which events are wanted.
    query: String,
    cursor: u64,
    body: Option<Incoming>,
    decoder: Decoder,
    ready: VecDeque<Event>,
    failures: u32,
    retry_ms: u64,
    ended: bool,
}

impl Events {
    pub(super) fn new(client: Client, run_id: String, after: u64) -> Self {
        Self {
            client,
            run_id,
            query: String::new(),
            cursor: after,
            body: None,
            decoder: Decoder::default(),
            ready: VecDeque::new(),
            failures: 0,
            retry_ms: RETRY_MS,
            ended: false,
        }
    }

    /// Only events of this node, of these kinds, from this level on; and always the last one of the run.
    #[must_use]
    pub fn only(mut self, wanted: &Wanted) -> Self {
        let named = |name: &str, texts: &[String]| {
            texts.iter().map(|text| format!("{name}={}", percent_encoded(text))).collect::<Vec<_>>()
        };
        let parts =
            [named("node", &wanted.nodes), named("kind", &wanted.kinds), named("level", &wanted.level)];
        let parts = parts.concat();
        if !parts.is_empty() {
            self.query = format!("?{}", parts.join("&"));
        }
        self
    }

    /// The next event; `None` once the run has ended.
    ///
    /// # Errors
    /// The node says no, or cannot be reached ten times in a row.
    pub async fn next(&mut self) -> Result<Option<Streamed>, Error> {
        loop {
            match self.step(None).await? {
                Step::Streamed(streamed) => return Ok(Some(streamed)),
                Step::Ended => return Ok(None),
                Step::Quiet => {}
            }
        }
    }

    /// As [`Self::next`], but comes back once nothing has come for `quiet`, so that a display can go on.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn step_within(&mut self, quiet: Duration) -> Result<Step, Error> {
        self.step(Some(quiet)).await
    }

    async fn step(&mut self, quiet: Option<Duration>) -> Result<Step, Error> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(streamed) = self.take(event) {
                    return Ok(Step::Streamed(streamed));
                }
            }
            if self.ended {
                return Ok(Step::Ended);
            }
            match self.read(quiet).await {
                Ok(true) => {}
                Ok(false) => return Ok(Step::Quiet),
                Err(error @ Error::Refused(_)) if !error.retryable() => return Err(error),
                Err(error) => {
                    self.body = None;
                    self.failures += 1;
                    if self.failures > RETRIES_MAX {
                        return Err(error);
                    }
                    return Ok(Step::Streamed(Streamed::Reconnecting { why: error.to_string() }));
                }
            }
        }
    }

    /// Reads on, opening the stream when it is not open; `false` when nothing came for so long.
    async fn read(&mut self, quiet: Option<Duration>) -> Result<bool, Error> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                if self.failures > 0 {
                    tokio::time::sleep(Duration::from_millis(self.retry_ms)).await;
                }
                let opened = self.open().await?;
                self.body.insert(opened)
            }
        };
        // Only the wait for the next frame of an open stream may be left and taken up again.
        let frame = match quiet {
            Some(quiet) => match tokio::time::timeout(quiet, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(false),
            },
            None => body.frame().await,
        };
        let Some(frame) = frame else {
            return Err(self.broken("it ended before the run did"));
        };
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        let mut events = Vec::new();
        self.decoder.feed(&data, &mut events).map_err(|error| Error::Answer(error.to_string()))?;
        self.retry_ms = self.decoder.retry_ms().unwrap_or(self.retry_ms);
        self.ready.extend(events);
        Ok(true)
    }

    async fn open(&mut self) -> Result<Incoming, Error> {
        self.decoder = Decoder::default();
        let path = format!("/v1/runs/{}/events{}", percent_encoded(&self.run_id), self.query);
        let mut call = Call::get(path).header("accept", "text/event-stream");
        if self.cursor > 0 {
            call = call.header("last-event-id", format!("{}:{}", self.run_id, self.cursor));
        }
        let response = self.client.send(&call).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = self.client.body(response).await?;
        Err(refused(status, &body))
    }

    /// What an event means for the stream; `None` when it is not for the caller.
    fn take(&mut self, event: Event) -> Option<Streamed> {
        match event.event.as_str() {
            // The stream ends after these two; the next read comes back from the cursor.
            "slow_consumer" | "end" => None,
            "resync" => {
                self.cursor = self.cursor.min(resync_seq(&event.data)?);
                None
            }
            name => {
                let (_, seq) = parse_event_id(&event.id)?;
                if seq <= self.cursor {
                    return None;
                }
                self.cursor = seq;
                self.failures = 0;
                self.ended = matches!(name, "run.completed" | "run.failed" | "run.cancelled");
                Some(Streamed::Event(event))
            }
        }
    }

    fn broken(&self, why: &str) -> Error {
        Error::Broken { url: self.client.url().to_owned(), why: why.to_owned() }
    }
}

fn resync_seq(data: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(data).ok()?.get("seq")?.as_u64()
}
