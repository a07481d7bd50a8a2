//! `Idempotency-Key` of what is asked of a run: signals, updates, changes of its graph.
//!
//! A key belongs to its run and route. The run's owner remembers it with what was done (`runtime::shard::once`); of a run that is
//! over its history tells, for as long as it is kept. What a request means is what its body says, however it is spelt.

use http::{HeaderName, Response};
use sha2::{Digest as _, Sha256};

use super::ports::{Location, StorageError};
use super::respond::{Body, with};
use super::services::{Services, unexpected};
use super::start::first_half;
use crate::engine::command::{Known, Refusal, Reply, Settled, Updated};
use crate::model::event::{Done, Idempotency};
use crate::model::{EventBody, RunId, RunSummary, Seq};
use crate::wire::problem::Problem;

/// Events read at a time.
const EVENTS_AT_ONCE: usize = 1_000;

/// The key of a request to this route below a run, and what the request means.
pub(super) fn of(given: &[u8], (run_id, route): (RunId, &str), meaning: &[impl AsRef<str>]) -> Idempotency {
    within(given, &format!("/v1/runs/{run_id}/{route}"), meaning)
}

/// The same, of a request to this path.
pub(super) fn within(given: &[u8], path: &str, meaning: &[impl AsRef<str>]) -> Idempotency {
    // A key has no zero byte, so the last one is where the path ends.
    let scope = format!("{path}\0");
    let key = Sha256::new_with_prefix(scope).chain_update(given).finalize();
    let meaning = meaning.iter().map(AsRef::as_ref).fold(Sha256::new(), |hasher, part: &str| {
        hasher.chain_update((part.len() as u64).to_le_bytes()).chain_update(part)
    });
    Idempotency { key: first_half(&key), fingerprint: first_half(&meaning.finalize()) }
}

/// Says that this was done before.
pub(super) fn replayed(response: Response<Body>) -> Response<Body> {
    with(response, HeaderName::from_static("idempotent-replayed"), "true")
}

/// What was done under a key in a run that is over.
pub(super) struct Again {
    location: Location,
    known: Known,
}

impl Again {
    /// The run as it was when it was done.
    pub(super) fn summary(&self) -> RunSummary {
        self.known.summary(self.location.summary.clone())
    }

    pub(super) fn done(&self) -> &Done {
        &self.known.request.done
    }
}

/// What was done under this key in a run that its owner does not know: it has ended.
///
/// # Errors
/// There is no such run, or the key stands for another request.
pub(super) async fn before(
    services: &Services,
    run_id: RunId,
    key: Option<&Idempotency>,
) -> Result<Option<Again>, Box<Problem>> {
    let Some(key) = key.cloned() else { return Ok(None) };
    let (location, runs) = (services.finished(run_id).await?, services.runs.clone());
    services
        .read(move || {
            let (mut found, mut after): (Option<Known>, Seq) = (None, 0);
            loop {
                let events = runs.events(&location, after, EVENTS_AT_ONCE)?;
                let Some(last) = events.last() else { break };
                after = last.seq;
                for event in events {
                    match event.body {
                        // What comes before is another run's.
                        EventBody::RunForked(_) => found = None,
                        EventBody::RequestRemembered(request) if request.idempotency.key == key.key => {
                            found = Some(Known { seq: event.seq, at: event.at, request });
                        }
                        _ => {}
                    }
                }
            }
            match found {
                Some(known) if known.request.idempotency.fingerprint != key.fingerprint => {
                    Err(unexpected(Reply::Refused(Refusal::KeyReused)))
                }
                found => Ok(found.map(|known| Again { location, known })),
            }
        })
        .await
}

/// How the node settled that answers the update with this key, as the run's history says.
pub(super) async fn settled(
    services: &Services,
    location: &Location,
    key: Option<&Idempotency>,
) -> Result<Option<Settled>, Box<Problem>> {
    let Some(key) = key.map(|key| key.key) else { return Ok(None) };
    let (location, runs) = (location.clone(), services.runs.clone());
    services
        .read(move || {
            let (mut answers, mut settled) = (None, None);
            runs.each(&location, &mut |event| match event {
                EventBody::RequestRemembered(request) if request.idempotency.key == key => {
                    if let Done::Signal { taken: Some((_, reply)), .. } = &request.done {
                        (answers, settled) = (Some(reply.clone()), None);
                    }
                }
                event if settled.is_none() && answers.is_some() && event.place() == answers.as_ref() => {
                    settled = Settled::of(event);
                }
                _ => {}
            })?;
            Ok::<_, StorageError>(settled.or(Some(Settled::Gone)))
        })
        .await
}

/// The answer to an update that was taken by a run that is over.
pub(super) async fn updated(services: &Services, again: Again) -> Result<Updated, Box<Problem>> {
    let Done::Signal { seq, taken: Some((place, reply)) } = again.done().clone() else {
        return Err(Problem::new(500, "internal", "an update was remembered as something else"));
    };
    let settled = settled(services, &again.location, Some(&again.known.request.idempotency)).await?;
    let (location, runs) = (again.location.clone(), services.runs.clone());
    let graph = services.read(move || runs.graph(&location)).await?;
    let path = |place| graph.as_ref().map_or_else(String::new, |graph| graph.path(place));
    Ok(Updated {
        run: again.location.summary.clone(),
        seq,
        node: path(&place),
        reply: (place != reply).then(|| path(&reply)),
        settled,
        replayed: true,
        kept: None,
    })
}
