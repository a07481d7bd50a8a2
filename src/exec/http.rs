//! The `http` executor: one attempt in, its outcome out.
//!
//! Runs on a thread of its own. At most so many calls are under way, in all and to one host; further ones wait in the order
//! they came (no more than there are unfinished runs). A call whose asker has gone is dropped, its connection closed.

mod guard;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use url::Url;

use self::guard::{tell, weight};
use super::breakers::Breakers;
use super::connect::{Connector, Lookup, Shared, Target, system};
use super::places::{Kept, Places};
use super::reach::Reach;
use super::request::{self, Prepared, Puts};
use super::secret::{Redactor, Secrets};
use super::{Settings, answer, idempotency_key, traceparent};
use crate::io::trust;
use crate::limits;
use crate::model::{Failure, Place, RunId, Seq, Value, Workspace};
use crate::resilience::breaker::Ended;
use crate::resilience::overload;
use crate::telemetry::Cell;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// One attempt of an `http`.
#[derive(Clone, Debug)]
pub struct Call {
    /// Of which run.
    pub run_id: RunId,
    /// Of which node.
    pub place: Place,
    /// The node's path.
    pub path: String,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Of the shard.
    pub epoch: u64,
    /// It was under way before when a node went down.
    pub lost: bool,
    /// The workflow's name inside the node.
    pub workflow: Arc<str>,
    /// The settings, evaluated.
    pub request: Value,
    /// When the attempt is given up.
    pub due: Option<Timestamp>,
    /// It is made even when its service is left alone, and what comes of it tells nothing of the service.
    pub unguarded: bool,
}

pub(crate) type Job = (Call, oneshot::Sender<Result<Value, Failure>>);

/// The door for whoever has a call to make. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    jobs: mpsc::UnboundedSender<Job>,
    counts: Arc<Counts>,
    places: Arc<Places>,
    breakers: Arc<Breakers>,
    /// Calls whose runs have not heard how they ended.
    under_way: Arc<AtomicUsize>,
}

/// A call is under way as long as this lives.
#[derive(Debug)]
pub struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What became of calls, by attempt.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attempts with the answer that was expected.
    pub succeeded: Cell,
    /// Attempts that failed.
    pub failed: Cell,
    /// Attempts that were given up before they ended.
    pub given_up: Cell,
    /// Microseconds of all of them, waiting for a place included.
    pub micros: Cell,
}

/// Counts one attempt, however it ends.
struct Counted<'a> {
    counts: &'a Counts,
    began_us: u64,
    ended: Option<bool>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let cell = match self.ended {
            Some(true) => &self.counts.succeeded,
            Some(false) => &self.counts.failed,
            None => &self.counts.given_up,
        };
        cell.increment();
        self.counts.micros.add(SystemClock.monotonic_us().saturating_sub(self.began_us));
    }
}

/// Where the executor's thread gets its calls from.
pub struct Jobs(mpsc::UnboundedReceiver<Job>, Arc<Places>, Arc<Breakers>);

impl Http {
    /// A door, and what [`serve`] serves. Jobs are as many as attempts under way: bounded by the unfinished runs.
    pub fn new() -> (Self, Jobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (places, breakers) = (Arc::<Places>::default(), Arc::<Breakers>::default());
        let door = Self {
            jobs,
            counts: Arc::default(),
            places: places.clone(),
            breakers: breakers.clone(),
            under_way: Arc::default(),
        };
        (door, Jobs(receiver, places, breakers))
    }

    /// What became of calls so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What calls under way wait for.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Services that are left alone for a while, or were.
    pub fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// Notes that a call is under way, from now until its run has heard how it ended: a node that stops waits for that.
    pub fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.under_way.clone())
    }

    /// Calls under way, on all cores.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Makes the call. Dropping this future gives it up.
    ///
    /// # Errors
    /// How the attempt failed.
    pub async fn call(&self, call: Call) -> Result<Value, Failure> {
        let (reply, outcome) = oneshot::channel();
        let gone = || Failure::transient("executor_stopped", "the node is stopping");
        let mut counted = Counted { counts: &self.counts, began_us: SystemClock.monotonic_us(), ended: None };
        let _kept: Kept = self.places.keep((call.run_id, call.seq));
        self.jobs.send((call, reply)).map_err(|_| gone())?;
        let outcome = outcome.await.unwrap_or_else(|_| Err(gone()));
        counted.ended = Some(outcome.is_ok());
        outcome
    }
}

#[cfg(test)]
impl Jobs {
    /// The next call, and where its outcome goes.
    pub(crate) async fn next(&mut self) -> Option<Job> {
        self.0.recv().await
    }
}

/// Makes calls until all doors are gone. Wants a `LocalSet`.
///
/// # Errors
/// What is trusted cannot be read.
pub async fn serve(settings: Settings, secrets: Secrets, jobs: Jobs) -> Result<(), String> {
    serve_with(settings, secrets, jobs, system()).await
}

async fn serve_with(
    settings: Settings,
    secrets: Secrets,
    mut jobs: Jobs,
    lookup: Lookup,
) -> Result<(), String> {
    let tls =
        trust::client_config(settings.ca_file.as_deref()).map_err(|why| format!("http.ca_file {why}"))?;
    jobs.2.set(settings.breaker);
    jobs.1.limit(settings.calls_max.max(1), settings.calls_per_host_max.max(1));
    let connector = Rc::new(Connector::new(Reach::new(&settings), tls, lookup));
    let executor = Rc::new(Executor {
        connector,
        secrets,
        all: Arc::new(Semaphore::new(settings.calls_max.max(1))),
        per_host_max: settings.calls_per_host_max.max(1),
        hosts: RefCell::default(),
        places: jobs.1.clone(),
        breakers: jobs.2.clone(),
    });
    while let Some((call, mut reply)) = jobs.0.recv().await {
        let executor = executor.clone();
        crate::io::spawn_local(async move {
            tokio::select! {
                outcome = executor.attempt(&call) => drop(reply.send(outcome)),
                () = reply.closed() => {}
            }
        });
    }
    Ok(())
}

struct Executor {
    connector: Shared,
    secrets: Secrets,
    all: Arc<Semaphore>,
    per_host_max: usize,
    /// Rooms of hosts that have calls under way.
    hosts: RefCell<BTreeMap<(String, u16), Arc<Semaphore>>>,
    places: Arc<Places>,
    breakers: Arc<Breakers>,
}

/// Places of a call among those to its host and among all.
type Room = [Option<OwnedSemaphorePermit>; 2];

impl Executor {
    async fn attempt(&self, call: &Call) -> Result<Value, Failure> {
        let workspace = Workspace::of(&call.workflow);
        let mut puts = Puts::of(&call.request, &self.secrets, workspace.name());
        let prepared = request::prepare(&call.request, &mut puts);
        let redactor = puts.redactor;
        let outcome = match prepared {
            Ok(prepared) => self.send(call, prepared).await,
            Err(failure) => Err(failure),
        };
        redacted(outcome, &redactor)
    }

    async fn send(&self, call: &Call, mut prepared: Prepared) -> Result<Value, Failure> {
        let unkeyed = request::is_unkeyed(&call.request);
        prepared.repeatable |= !unkeyed;
        if call.lost && !prepared.repeatable {
            return Err(unknown("the node went down while the call was under way"));
        }
        name(call, &mut prepared, unkeyed)?;
        for hop in 0..=limits::HTTP_REDIRECTS_MAX {
            let target = request::target(&prepared.url)?;
            let (mut asked, _room) = self.let_through(call, (&target, hop == 0)).await?;
            let sent = self.connector.exchange(&target, prepared.request(&target)).await;
            let (sender, response) = sent.map_err(|failure| {
                tell(&mut asked, weight(&failure));
                match &*failure.code {
                    "connection_lost" => ambiguous(failure, prepared.repeatable),
                    // Nothing was sent.
                    _ => failure,
                }
            })?;
            let status = response.status();
            tell(&mut asked, Ended::Succeeded);
            if let Some(next) = redirect(&prepared, status, response.headers())? {
                prepared = next;
                continue;
            }
            let headers = response.headers().clone();
            let outcome = answer::read(response).await;
            let answer = outcome.map_err(|failure| {
                tell(&mut asked, weight(&failure));
                ambiguous(failure, prepared.repeatable)
            })?;
            self.connector.keep(target, sender);
            if answer::is_expected(call.request.get("expect"), status.as_u16()) {
                return Ok(answer);
            }
            let failure = answer::unexpected(answer, status, &headers);
            tell(&mut asked, overload::weigh(status.as_u16(), failure.retry_after()));
            return Err(failure);
        }
        let most = limits::HTTP_REDIRECTS_MAX;
        Err(Failure::fatal(
            "too_many_redirects",
            format!("more than {most} redirects (limit http_redirects_max)"),
        ))
    }

    /// Waits until one more call may go to this host.
    async fn room(&self, call: &Call, target: &Target) -> Room {
        let key = (target.host.clone(), target.port);
        let host = {
            let mut hosts = self.hosts.borrow_mut();
            if hosts.len() > 4 * limits::HTTP_IDLE_CONNECTIONS_MAX {
                hosts.retain(|_, room| Arc::strong_count(room) > 1);
            }
            hosts.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.per_host_max))).clone()
        };
        // The host's first: who waits for a slow host must not hold a place that others could use.
        let name = (call.run_id, call.seq);
        let shown = format!("{}:{}", target.host, target.port);
        self.places.waits_for_host(name, &shown);
        let host = host.acquire_owned().await.ok();
        self.places.waits_for_all(name);
        let all = self.all.clone().acquire_owned().await.ok();
        self.places.under_way(name, &shown);
        [host, all]
    }
}

fn redacted(outcome: Result<Value, Failure>, redactor: &Redactor) -> Result<Value, Failure> {
    if redactor.is_empty() {
        return outcome;
    }
    outcome.map(|value| redactor.value(value)).map_err(|failure| redactor.failure(failure))
}

/// Puts the names of the attempt on a request.
fn name(call: &Call, prepared: &mut Prepared, unkeyed: bool) -> Result<(), Failure> {
    let key = idempotency_key(call.run_id, &call.place);
    let mut own = vec![
        ("traceparent", traceparent(call.run_id, call.seq)),
        ("aob-run-id", call.run_id.to_string()),
        ("aob-attempt", call.attempt.to_string()),
        ("aob-epoch", call.epoch.to_string()),
        ("user-agent", concat!("aob/", env!("CARGO_PKG_VERSION")).into()),
        ("accept", "*/*".into()),
        ("accept-encoding", "gzip, zstd".into()),
    ];
    if !unkeyed {
        own.push(("idempotency-key", key));
    }
    for (header, value) in own {
        let value = HeaderValue::from_str(&value)
            .map_err(|_| Failure::fatal("http_request_invalid", format!("{header} cannot be sent")))?;
        prepared.headers.entry(header).or_insert(value);
    }
    Ok(())
}

impl Prepared {
    fn request(&self, target: &Target) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        let path = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        // A parsed URL is made of what a URI is made of.
        *request.uri_mut() = path.parse().unwrap_or_else(|_| http::Uri::from_static("/"));
        *request.headers_mut() = self.headers.clone();
        let host = self.url.host_str().unwrap_or(&target.host);
        let host = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if let Ok(host) = HeaderValue::from_str(&host) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}

/// Where an answer sends us on. What is confidential stays with the place it was meant for.
fn redirect(
    prepared: &Prepared,
    status: StatusCode,
    headers: &http::HeaderMap,
) -> Result<Option<Prepared>, Failure> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refused = |why: String| Failure::fatal("redirect_refused", why);
    let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| refused("its Location is no text".into()))?;
    let url = prepared.url.join(location).map_err(|error| refused(format!("its Location: {error}")))?;
    let url = request::parse(url.as_str())?;
    if prepared.url.scheme() == "https" && url.scheme() == "http" {
        return Err(refused(format!("from https to {url}: what was protected would not be")));
    }
    let mut next = Prepared { url, ..prepared.clone() };
    let keeps = matches!(status.as_u16(), 307 | 308) || matches!(next.method, Method::GET | Method::HEAD);
    if !keeps {
        next.method = Method::GET;
        next.body = Bytes::new();
        next.confidential_body = false;
        next.headers.remove(header::CONTENT_TYPE);
    }
    if !same_place(&prepared.url, &next.url) {
        if next.confidential_body {
            return Err(refused(format!("a secret in the body is not sent on to {}", next.url)));
        }
        let fixed = [header::AUTHORIZATION, header::COOKIE];
        for header in next.confidential.drain(..).chain(fixed) {
            next.headers.remove(header);
        }
    }
    Ok(Some(next))
}

fn same_place(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host(), a.port_or_known_default()) == (b.scheme(), b.host(), b.port_or_known_default())
}

/// A failure after the request may have had its effect: final when it must not be sent again.
fn ambiguous(failure: Failure, repeatable: bool) -> Failure {
    let lost = &*failure.code == "connection_lost";
    if lost && !repeatable { unknown(&failure.message) } else { failure }
}

fn unknown(why: &str) -> Failure {
    let message =
        format!("{why}; its effect is unknown, and it carries no key that would make a repetition safe");
    Failure::fatal("outcome_unknown", message)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
