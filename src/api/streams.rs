//! Events as streams: of one run, of several, of all runs of a workspace or of a workflow.
//!
//! What is asked for is judged here, before the stream begins, so that a wrong id is a 404 and not an empty stream; the fanout core
//! only feeds it. Full: a core with [`limits::SUBSCRIBERS_PER_CORE_MAX`] streams, or whose queue is full, refuses with 503.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::respond::{Body, bytes};
use super::services::Services;
use super::{admission, allow, history, request};
use crate::auth::streams::Place;
use crate::limits;
use crate::model::{RunId, Seq};
use crate::wire::filter::{Filter, KINDS, Level};
use crate::wire::problem::Problem;
use crate::wire::sse;
use crate::wire::stream::{From, Of, OfFeed, Since, Subscribe, ToHub, subscription};

type Answer = Result<Response<Body>, Box<Problem>>;
type Refused = Box<Problem>;

/// `GET /v1/runs/{id}/events`: those after `Last-Event-ID` or `?after=`, or from `?from=now` on.
pub(super) async fn of_run(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "text/event-stream")?;
    services.refuse_when_stopping()?;
    let asked = Asked::read(head, &["after", "from", "node", "kind", "level"])?;
    let after = asked.after.as_deref().map(history::seq).transpose()?.map(From::After);
    let from = match (last_event(head)?, after, asked.from) {
        (Some((run, seq)), ..) if run == run_id => From::After(seq),
        (Some(_), ..) => {
            let detail = format!("Last-Event-ID must be {run_id}:N, an id of this stream");
            return Err(Problem::new(400, "invalid_cursor", detail));
        }
        (None, Some(_), Some(From::Now)) => {
            return Err(invalid("after and from=now exclude each other"));
        }
        (None, after, from) => after.or(from).unwrap_or(From::After(0)),
    };
    services.locate(run_id).await?;
    open(services, head, (Of::Runs(vec![(run_id, from)]), asked.filter))
}

/// `GET /v1/events`: of several runs, of a workflow, of the workspace.
pub(super) async fn of_many(services: &Services, head: &Parts) -> Answer {
    allow(head, "GET")?;
    request::require_accept(&head.headers, "text/event-stream")?;
    services.refuse_when_stopping()?;
    let asked = Asked::read(head, &["run", "workflow", "after", "from", "node", "kind", "level"])?;
    let last = last_event(head)?;
    if asked.runs.is_empty() {
        // What a header says is later: it comes with a connection that was made again.
        let last = last.map_or_else(
            || asked.after.as_deref().map(|text| event_id("after", text)).transpose(),
            |last| Ok(Some(last)),
        )?;
        let of = feed(head, &asked, last)?;
        return open(services, head, (Of::Feed(of), asked.filter));
    }
    if asked.workflow.is_some() || asked.after.is_some() {
        return Err(invalid("run excludes workflow and after; each run goes on by run=ID:SEQ"));
    }
    let mut runs: Vec<(RunId, From)> = Vec::with_capacity(asked.runs.len());
    let mut seen = std::collections::BTreeSet::new();
    for (id, after) in &asked.runs {
        let run_id = admission::run(services, head, id).await?;
        if !seen.insert(run_id) {
            return Err(invalid(&format!("run {run_id} stands twice")));
        }
        let from = after.map(From::After).or(asked.from).unwrap_or(From::After(0));
        runs.push((run_id, from));
    }
    match (last, &mut *runs) {
        (None, _) => {}
        (Some((run_id, seq)), [(only, from)]) if *only == run_id => *from = From::After(seq),
        (Some(_), _) => {
            // It names one of many places: the others would be told again, or left out.
            let detail = "Last-Event-ID says where one run stood; a set goes on by run=ID:SEQ for each";
            return Err(Problem::new(400, "invalid_cursor", detail));
        }
    }
    open(services, head, (Of::Runs(runs), asked.filter))
}

fn feed(head: &Parts, asked: &Asked, after: Option<(RunId, Seq)>) -> Result<OfFeed, Refused> {
    let since = match (asked.from, after) {
        // Whoever was cut off does not know whether it had come to where the feed is live: to go on behind one event could be to
        // leave out all that the replay had yet to tell.
        (Some(From::After(_)), Some(_)) => {
            let detail = "from=start begins again; what was live goes on by after=RUN:SEQ without it";
            return Err(Problem::new(400, "invalid_cursor", detail));
        }
        (Some(From::After(_)), None) => Since::Start,
        (_, Some(event)) => Since::After(event),
        (_, None) => Since::Now,
    };
    let workspace = admission::workspace(head).clone();
    let workflow = match &asked.workflow {
        None => None,
        Some(name) => Some(
            workspace
                .qualified(name)
                .filter(|name| name.len() <= limits::STREAM_FILTER_BYTES_MAX)
                .ok_or_else(|| invalid("workflow is no name of one"))?
                .into(),
        ),
    };
    Ok(OfFeed { workspace, workflow, since })
}

fn open(services: &Services, head: &Parts, (of, filter): (Of, Filter)) -> Answer {
    let place = place(services, head)?;
    let which = of.hub(services.hubs.len());
    let open = services.subscribers.get(which).map_or(0, |cells| cells.open.value());
    if open >= limits::SUBSCRIBERS_PER_CORE_MAX as u64 {
        let problem =
            Problem::unavailable("too_many_streams", format!("{open} streams are open on this core"));
        return Err(problem.limit("subscribers_per_core_max"));
    }
    let hub = services
        .hubs
        .get(which)
        .ok_or_else(|| Problem::unavailable("streams_unavailable", "this node has no fanout plane"))?;
    let (sink, subscription) = subscription(hub.clone());
    let subscription = subscription.keeping(place);
    hub.send(ToHub::Subscribe(Subscribe { of, filter, sink })).map_err(|_| {
        Problem::unavailable("hub_queue_full", "too many subscriptions are waiting").limit("hub_queue_max")
    })?;
    let mut response = bytes(StatusCode::OK, "text/event-stream", "");
    *response.body_mut() = Body::Stream(Some(::bytes::Bytes::from_static(sse::RETRY)), subscription);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Counts a stream of a token; 429 when it has all that it may.
fn place(services: &Services, head: &Parts) -> Result<Option<Place>, Refused> {
    let (Some(streams), Some(token)) = (&services.door.streams, &admission::caller(head).token) else {
        return Ok(None);
    };
    streams.take(token).map(Some).ok_or_else(|| {
        let detail = format!(
            "{} streams of token {token:?} are open; close one, or raise limits.streams_per_token",
            streams.most()
        );
        let mut problem = Problem::new(429, "limit_reached", detail).limit("streams_per_token");
        (problem.retryable, problem.retry_after_ms) = (true, Some(1_000));
        problem
    })
}

/// What the parameters say.
#[derive(Debug, Default)]
struct Asked {
    runs: Vec<(String, Option<Seq>)>,
    workflow: Option<String>,
    after: Option<String>,
    from: Option<From>,
    filter: Filter,
}

impl Asked {
    fn read(head: &Parts, known: &[&str]) -> Result<Self, Refused> {
        let mut asked = Self::default();
        let mut level = None;
        for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name, name)?, decoded(name, value)?);
            if !known.contains(&&*name) {
                return Err(Problem::new(
                    400,
                    "unknown_parameter",
                    request::unknown("parameter", &name, known),
                ));
            }
            match &*name {
                "run" => value.split(',').try_for_each(|text| asked.run(text))?,
                "node" => {
                    value.split(',').try_for_each(|text| term("node", &mut asked.filter.nodes, text))?
                }
                "kind" => value.split(',').try_for_each(|text| kind(&mut asked.filter.kinds, text))?,
                "workflow" => once("workflow", &mut asked.workflow, value.into_owned())?,
                "after" => once("after", &mut asked.after, value.into_owned())?,
                "from" => once("from", &mut asked.from, from(&value)?)?,
                _ => once("level", &mut level, level_of(&value)?)?,
            }
        }
        asked.filter.level = level.unwrap_or_default();
        Ok(asked)
    }

    fn run(&mut self, text: &str) -> Result<(), Refused> {
        if self.runs.len() >= limits::RUNS_PER_SUBSCRIPTION_MAX {
            let detail = format!("at most {} runs fit one stream", limits::RUNS_PER_SUBSCRIPTION_MAX);
            return Err(Problem::new(400, "too_many_runs", detail).limit("runs_per_subscription_max"));
        }
        let (id, after) = match text.rsplit_once(':') {
            Some((id, after)) => (id, Some(history::seq(after)?)),
            None => (text, None),
        };
        self.runs.push((id.to_owned(), after));
        Ok(())
    }
}

fn decoded<'a>(name: &str, text: &'a str) -> Result<Cow<'a, str>, Refused> {
    request::percent_decoded(text, true)
        .ok_or_else(|| invalid(&format!("parameter {name:?} is not percent-encoded UTF-8")))
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), Refused> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid(&format!("parameter {name:?} stands twice"))),
    }
}

fn term(name: &str, terms: &mut Vec<Box<str>>, text: &str) -> Result<(), Refused> {
    if text.is_empty() || text.len() > limits::STREAM_FILTER_BYTES_MAX {
        let detail = format!("{name} has from 1 to {} bytes", limits::STREAM_FILTER_BYTES_MAX);
        return Err(invalid(&detail).limit("stream_filter_bytes_max"));
    }
    if terms.len() >= limits::STREAM_FILTER_TERMS_MAX {
        let detail = format!("at most {} of {name} are taken", limits::STREAM_FILTER_TERMS_MAX);
        return Err(invalid(&detail).limit("stream_filter_terms_max"));
    }
    terms.push(text.into());
    Ok(())
}

fn kind(kinds: &mut Vec<Box<str>>, text: &str) -> Result<(), Refused> {
    term("kind", kinds, text)?;
    if Filter::is_known_kind(text) {
        return Ok(());
    }
    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let text: String = text.chars().take(64).collect();
    Err(invalid(&request::unknown("kind", &text, &known)))
}

fn level_of(text: &str) -> Result<Level, Refused> {
    Level::named(text).ok_or_else(|| invalid(&request::unknown("level", text, &Level::NAMES)))
}

fn from(text: &str) -> Result<From, Refused> {
    match text {
        "start" => Ok(From::After(0)),
        "now" => Ok(From::Now),
        _ => Err(invalid("from is start or now")),
    }
}

fn last_event(head: &Parts) -> Result<Option<(RunId, Seq)>, Refused> {
    let Some(value) = head.headers.get("last-event-id").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    event_id("Last-Event-ID", value.to_str().unwrap_or_default()).map(Some)
}

fn event_id(name: &str, text: &str) -> Result<(RunId, Seq), Refused> {
    sse::parse_event_id(text).ok_or_else(|| {
        Problem::new(400, "invalid_cursor", format!("{name} must be RUN:SEQ, an id of this stream"))
    })
}

fn invalid(detail: &str) -> Refused {
    Problem::new(400, "invalid_parameter", detail)
}
