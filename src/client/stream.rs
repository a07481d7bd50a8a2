//! The events of one run, in order, each once, over which transport ever and however often the connection breaks.
//!
//! A number that was seen is left out when it comes again; one that is missing is a broken stream. Both are counted
//! ([`Events::repeated`], [`Events::missed`]): a node that keeps what docs/formats/stream.md says causes neither.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Call, Client, Error, percent_encoded, quic, refused, socket};
use crate::wire::sse::{Decoder, Event, parse_event_id};

/// Attempts to come back that fail in a row before the stream gives up.
const RETRIES_MAX: u32 = 10;
/// Milliseconds before coming back when the node said nothing else.
const RETRY_MS: u64 = 2_000;
/// How often the wait before coming back is doubled.
const DOUBLINGS_MAX: u32 = 2;

/// How events come. A cursor of one works on all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Server-sent events over HTTP/1.1.
    #[default]
    Sse,
    /// `aob.v1`.
    WebSocket,
    /// `aob/1`.
    Quic,
    /// The frames of `aob/1` in a session over HTTP/3, as browsers have it.
    WebTransport,
}

/// What comes from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// An event; `data` is a row of the timeline.
    Event(Event),
    /// Something without a number, which is never sent again (`node.delta`); only for whoever [asked](Events::with_asides).
    Aside(Event),
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
    transport: Transport,
    run_id: String,
    /// Which events are wanted, as the query says it; empty: all.
    filter: String,
    cursor: u64,
    source: Option<Source>,
    /// The connection of QUIC, kept for the next stream.
    line: Option<quic::Line>,
    ready: VecDeque<Event>,
    failures: u32,
    retry_ms: u64,
    asides: bool,
    ended: bool,
    repeated: u64,
    missed: u64,
    /// Why the stream is about to end, when it said so.
    last_words: Option<String>,
}

/// An open stream.
#[derive(Debug)]
enum Source {
    Sse(Incoming, Decoder),
    Socket(Box<socket::Source>),
    Quic(Box<quic::Source>),
}

impl Events {
    pub(super) fn new(client: Client, transport: Transport, run_id: String, after: u64) -> Self {
        Self {
            client,
            transport,
            run_id,
            filter: String::new(),
            cursor: after,
            source: None,
            line: None,
            ready: VecDeque::new(),
            failures: 0,
            retry_ms: RETRY_MS,
            asides: false,
            ended: false,
            repeated: 0,
            missed: 0,
            last_words: None,
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
        self.filter = parts.concat().join("&");
        self
    }

    /// Gives what has no number too.
    #[must_use]
    pub fn with_asides(mut self) -> Self {
        self.asides = true;
        self
    }

    /// Another run's events after this number, over the same connection where a connection holds several streams. What was counted
    /// stays.
    pub fn turn_to(&mut self, run_id: impl Into<String>, after: u64) {
        (self.run_id, self.cursor) = (run_id.into(), after);
        (self.source, self.last_words) = (None, None);
        self.ready.clear();
        (self.failures, self.ended) = (0, false);
    }

    /// Number of the last event that was given: where another stream may go on.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Events that came again and were left out.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Times that the next number did not come; the stream was then taken up again from where it was.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Goes on from another port of this machine, as a client whose address changes does; `false` where a connection
    /// belongs to an address, or there is none now.
    ///
    /// # Errors
    /// There is no other port.
    pub fn rebind(&mut self) -> std::io::Result<bool> {
        self.line.as_ref().map_or(Ok(false), |line| line.rebind().map(|()| true))
    }

    /// Breaks the connection, so that the stream has to come back from where it is: for tests of whoever serves it.
    pub fn cut(&mut self) {
        self.source = None;
        self.line = None;
        self.client.connection = None;
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
            let taken = match self.ready.pop_front() {
                Some(event) => self.take(event),
                None if self.ended => return Ok(Step::Ended),
                None => match self.read(quiet).await {
                    Ok(true) => Ok(None),
                    Ok(false) => return Ok(Step::Quiet),
                    Err(error) => Err(error),
                },
            };
            match taken {
                Ok(None) => {}
                Ok(Some(streamed)) => return Ok(Step::Streamed(streamed)),
                Err(error @ Error::Refused(_)) if !error.retryable() => return Err(error),
                Err(error) => {
                    self.source = None;
                    self.ready.clear();
                    self.failures += 1;
                    if self.failures > RETRIES_MAX {
                        return Err(error);
                    }
                    let why = self.last_words.take().unwrap_or_else(|| error.to_string());
                    return Ok(Step::Streamed(Streamed::Reconnecting { why }));
                }
            }
        }
    }

    /// Reads on, opening the stream when it is not open; `false` when nothing came for so long.
    async fn read(&mut self, quiet: Option<Duration>) -> Result<bool, Error> {
        let url = self.client.url().to_owned();
        let broken = |why: &str| Error::Broken { url: url.clone(), why: why.to_owned() };
        if self.source.is_none() {
            if self.failures > 0 {
                tokio::time::sleep(self.wait()).await;
            }
            self.source = Some(Box::pin(self.open()).await?);
        }
        let Some(source) = &mut self.source else { return Ok(false) };
        // Only the wait for what comes next of an open stream may be left and taken up again.
        let read = source.read(broken);
        let events = match quiet {
            Some(quiet) => match tokio::time::timeout(quiet, read).await {
                Ok(events) => events?,
                Err(_) => return Ok(false),
            },
            None => read.await?,
        };
        if let Source::Sse(_, decoder) = source {
            self.retry_ms = decoder.retry_ms().unwrap_or(self.retry_ms);
        }
        self.ready.extend(events);
        Ok(true)
    }

    /// Longer after each failure, and never the same for all who were cut off together.
    fn wait(&self) -> Duration {
        let longest = self.retry_ms << (self.failures - 1).min(DOUBLINGS_MAX);
        let drawn = RandomState::new().hash_one(self.failures) % (longest / 2 + 1);
        Duration::from_millis(longest - drawn)
    }

    /// From where, and which.
    fn query(&self) -> String {
        let joint = if self.filter.is_empty() { "" } else { "&" };
        format!("after={}{joint}{}", self.cursor, self.filter)
    }

    async fn open(&mut self) -> Result<Source, Error> {
        let run = percent_encoded(&self.run_id);
        match self.transport {
            Transport::Sse => self.open_sse(&run).await,
            Transport::WebSocket => {
                let path = format!("/v1/runs/{run}/events?{}", self.query());
                Ok(Source::Socket(Box::new(socket::open(&self.client, &path).await?)))
            }
            Transport::Quic | Transport::WebTransport => {
                let web = self.transport == Transport::WebTransport;
                let line = match self.line.take() {
                    Some(line) if line.takes_another() => line,
                    before => quic::Line::open(&mut self.client, web, before).await?,
                };
                let (query, line) = (self.query(), self.line.insert(line));
                Ok(Source::Quic(Box::new(line.subscribe(&self.client, &run, &query).await?)))
            }
        }
    }

    async fn open_sse(&mut self, run: &str) -> Result<Source, Error> {
        let filter = if self.filter.is_empty() { String::new() } else { format!("?{}", self.filter) };
        let mut call =
            Call::get(format!("/v1/runs/{run}/events{filter}")).header("accept", "text/event-stream");
        if self.cursor > 0 {
            call = call.header("last-event-id", format!("{}:{}", self.run_id, self.cursor));
        }
        let response = self.client.send(&call).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Source::Sse(response.into_body(), Decoder::default()));
        }
        let body = self.client.body(response).await?;
        Err(refused(status, &body))
    }

    /// What an event means for the stream; `None` when it is not for the caller.
    fn take(&mut self, event: Event) -> Result<Option<Streamed>, Error> {
        match event.event.as_str() {
            // The stream ends after these; the next read comes back from the cursor.
            "slow_consumer" => {
                self.last_words = Some(String::from("slow_consumer: events came faster than they were read"))
            }
            "resync" => self.resync(&event.data),
            "node.delta" if self.asides => return Ok(Some(Streamed::Aside(event))),
            "node.delta" => {}
            name => {
                let Some((_, seq)) = parse_event_id(&event.id) else { return Ok(None) };
                if seq <= self.cursor {
                    self.repeated += 1;
                    return Ok(None);
                }
                // What a filter keeps back is no gap.
                if seq > self.cursor + 1 && self.filter.is_empty() {
                    self.missed += 1;
                    let why = format!("event {} is missing before {seq}", self.cursor + 1);
                    return Err(Error::Broken { url: self.client.url().to_owned(), why });
                }
                self.cursor = seq;
                self.failures = 0;
                self.ended = matches!(name, "run.completed" | "run.failed" | "run.cancelled");
                return Ok(Some(Streamed::Event(event)));
            }
        }
        Ok(None)
    }

    /// The cursor is ahead of the log, or behind what is kept: goes on where the log says, and says so.
    fn resync(&mut self, data: &str) {
        let said: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let Some(seq) = said.get("seq").and_then(serde_json::Value::as_u64) else { return };
        if seq <= self.cursor {
            self.last_words = Some(format!("resync: the log ends at {seq}, not at {}", self.cursor));
            self.cursor = seq;
        } else {
            self.last_words = Some(format!("resync: events before {seq} are not kept"));
            self.cursor = seq - 1;
        }
    }
}

impl Source {
    /// What came next; it may be nothing for the caller.
    async fn read(&mut self, broken: impl Fn(&str) -> Error) -> Result<Vec<Event>, Error> {
        match self {
            Self::Socket(source) => Ok(source.read(broken).await?.into_iter().collect()),
            Self::Quic(source) => Ok(source.read(broken).await?.into_iter().collect()),
            Self::Sse(body, decoder) => {
                let frame = body.frame().await.ok_or_else(|| broken("it ended before the run did"))?;
                let data = frame.map_err(|error| broken(&error.to_string()))?.into_data().unwrap_or_default();
                let mut events = Vec::new();
                decoder.feed(&data, &mut events).map_err(|error| Error::Answer(error.to_string()))?;
                Ok(events)
            }
        }
    }
}

#[cfg(test)]
mod tests;
