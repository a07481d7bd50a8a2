//! Polls: who asks waits until there is something in one of its queues, and gets jobs whose leases are durable.
//!
//! A worker serves its own workspace. One that may (`admin`) serves several, or all of them, and then takes from them in turn,
//! by weight (`exec::pool`). Who waits in a poll costs a task and nothing else; at most [`limits::POLLS_WAITING_MAX`] wait,
//! further ones are answered at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Answer, accepted, number, texts};
use crate::api::body;
use crate::api::errands::is_passing;
use crate::api::respond::json as respond;
use crate::api::services::Services;
use crate::api::worklog;
use crate::auth::{Caller, Role};
use crate::engine::command::{Command, Lease};
use crate::exec::pool::{Job, Room, Whose};
use crate::exec::{Ticket, idempotency_key, traceparent};
use crate::limits;
use crate::model::workspace::shown;
use crate::model::{Value, Workspace};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

/// What a poll asks for.
struct Asked {
    queues: Vec<Arc<str>>,
    /// `None`: of the caller's own workspace.
    whose: Option<Whose>,
    own: Arc<str>,
    max: usize,
    worker: Arc<str>,
}

pub(super) async fn poll(services: &Services, caller: &Caller, bytes: &[u8]) -> Answer {
    services.refuse_when_stopping()?;
    let [queues, workspaces, max, wait, worker] =
        body::members(bytes, ["queues", "workspaces", "max", "wait_ms", "worker"])?;
    let wait_ms = number("wait_ms", wait, limits::POLL_WAIT_MILLIS_MAX, 0)?;
    let max = number("max", max, limits::POLL_JOBS_MAX as u64, 1)?;
    let asked = Asked {
        queues: texts("queues", queues, (limits::POLL_QUEUES_MAX, "poll_queues_max"))?,
        whose: whose(caller, workspaces)?,
        own: caller.workspace.name().into(),
        max: usize::try_from(max).unwrap_or(usize::MAX),
        worker: body::text("worker", worker)?.unwrap_or_else(|| "worker".into()),
    };
    if asked.worker.len() > limits::NAME_BYTES_MAX {
        let detail = format!("\"worker\" has {} bytes", asked.worker.len());
        return Err(Problem::new(422, "limit_exceeded", detail).limit("name_bytes_max"));
    }
    let until_us = services.clock.monotonic_us().saturating_add(wait_ms * 1_000);
    loop {
        let jobs = granted(services, &asked).await;
        let left_us = until_us.saturating_sub(services.clock.monotonic_us());
        let full = services.polls.get() >= limits::POLLS_WAITING_MAX;
        if !jobs.is_empty() || asked.max == 0 || left_us == 0 || full || services.stopping.get() {
            return Ok(respond(StatusCode::OK, &json!({"jobs": jobs})));
        }
        // Now and then it looks up whether the node is stopping.
        let nap = Duration::from_micros(left_us).min(Duration::from_secs(1));
        let news = news(services, &asked);
        services.polls.set(services.polls.get() + 1);
        let waiting = Waiting(services);
        let _ = tokio::time::timeout(nap, any(&news)).await;
        drop(waiting);
    }
}

/// Which workspaces a poll is about: `"*"`, a list, or none, which is the caller's own.
fn whose(caller: &Caller, given: Option<Value>) -> Result<Option<Whose>, Box<Problem>> {
    let whose = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(all)) if &*all == "*" => Whose::All,
        Some(Value::String(one)) => {
            let list = Value::List(Arc::new([Value::String(one)]));
            return whose(caller, Some(list));
        }
        list => {
            let names = texts("workspaces", list, (limits::POLL_WORKSPACES_MAX, "poll_workspaces_max"))?;
            for name in &names {
                name.parse::<Workspace>()
                    .map_err(|error| Problem::new(422, "invalid_name", format!("the workspace {error}")))?;
            }
            Whose::These(names)
        }
    };
    let only_own =
        matches!(&whose, Whose::These(names) if names.iter().all(|name| **name == *caller.workspace.name()));
    if caller.role < Role::Admin && !only_own {
        let detail = "jobs of other workspaces than the token's own take the role admin";
        return Err(Problem::new(403, "forbidden", detail));
    }
    Ok(Some(whose))
}

/// What is woken when there may be something.
fn news(services: &Services, asked: &Asked) -> Vec<Arc<Notify>> {
    let pool = &services.executors.pool;
    let room = |workspace: &Arc<str>, queue: &Arc<str>| pool.news(&(workspace.clone(), queue.clone()));
    let queues = asked.queues.iter();
    match &asked.whose {
        None => queues.map(|queue| room(&asked.own, queue)).collect(),
        Some(Whose::All) => queues.map(|queue| pool.news_of_all(queue)).collect(),
        Some(Whose::These(some)) => {
            queues.flat_map(|queue| some.iter().map(move |workspace| room(workspace, queue))).collect()
        }
    }
}

/// Counts a poll out that no longer waits, however that came.
struct Waiting<'a>(&'a Services);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.polls.set(self.0.polls.get().saturating_sub(1));
    }
}

/// Until one of them has news.
async fn any(news: &[Arc<Notify>]) {
    let mut all: Vec<_> = news.iter().map(|one| Box::pin(one.notified())).collect();
    std::future::poll_fn(|context| {
        let ready = all.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Jobs on offer from the queues of a poll.
fn offered(services: &Services, asked: &Asked) -> Vec<(Room, Job)> {
    let pool = &services.executors.pool;
    let mut offers = Vec::new();
    // Each poll begins at another queue, and not one that follows from how many polls there are: with a plain turn, a worker
    // whose polls are every second one would begin at the same of two queues for ever.
    let turn = scattered(services.turn());
    for at in 0..asked.queues.len() {
        let Some(queue) = asked.queues.get((turn % asked.queues.len() + at) % asked.queues.len()) else {
            continue;
        };
        let left = asked.max - offers.len();
        match &asked.whose {
            Some(whose) => offers.extend(pool.offer_in_turn(whose, queue, left)),
            None => {
                let room = (asked.own.clone(), queue.clone());
                offers.extend(pool.offer(&room, left).into_iter().map(|job| (room.clone(), job)));
            }
        }
        if offers.len() >= asked.max {
            break;
        }
    }
    offers
}

/// A number that looks like chance, another one for each turn (the finaliser of splitmix64).
fn scattered(turn: usize) -> usize {
    let mut bits = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from(bits ^ (bits >> 31)).unwrap_or(turn)
}

/// Jobs whose leases are durable. Goes on when the one who asks has gone: what is on offer must come to an end.
async fn granted(services: &Services, asked: &Asked) -> Vec<Json> {
    let Some(services) = services.own() else { return Vec::new() };
    let offers = offered(&services, asked);
    if offers.is_empty() {
        return Vec::new();
    }
    let worker = asked.worker.clone();
    let all = tokio::task::spawn_local(async move {
        let mut asked = JoinSet::new();
        for (room, job) in offers {
            asked.spawn_local(lease(services.clone(), room, job, worker.clone()));
        }
        let mut jobs: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        jobs.sort_by_key(|(seq, _)| *seq);
        jobs.into_iter().map(|(_, job)| job).collect()
    });
    all.await.unwrap_or_default()
}

/// Has one lease written down.
async fn lease(services: Rc<Services>, room: Room, job: Job, worker: Arc<str>) -> Option<(u64, Json)> {
    let asked = Lease { run_id: job.run_id, place: job.place.clone(), seq: job.seq, worker: worker.clone() };
    let pool = &services.executors.pool;
    match accepted(&services, job.run_id, Command::Lease(Box::new(asked))).await {
        Ok(()) => {
            worklog::leased(&job, &worker);
            pool.leased(&room, &job, worker, services.clock.monotonic_us());
            crate::failpoint::pass("worker::job_handed_out");
            Some((job.seq, described(&services, room, &job)))
        }
        Err(problem) => {
            pool.drop_offer(&room, &job, is_passing(&problem), services.clock.monotonic_us());
            None
        }
    }
}

/// A job as its worker sees it.
fn described(services: &Services, room: Room, job: &Job) -> Json {
    let workspace = room.0.to_string();
    let ticket = Ticket { run_id: job.run_id, place: job.place.clone(), seq: job.seq, room };
    let lease = services.executors.leases.seal(&ticket);
    let hash = base64::engine::general_purpose::STANDARD.encode(job.document);
    json!({
        "callback": format!("/v1/callbacks/{lease}"),
        "lease": lease,
        "lease_seconds": services.executors.pool.lease_seconds(),
        "run_id": job.run_id.to_string(),
        "node": job.path,
        "workspace": workspace,
        "workflow": shown(&job.workflow),
        "queue": &*job.queue,
        "attempt": job.attempt,
        "epoch": job.epoch,
        "priority": job.priority.as_str(),
        "config_digest": format!("sha-256=:{hash}:"),
        "idempotency_key": idempotency_key(job.run_id, &job.place),
        "traceparent": traceparent(job.run_id, job.seq),
        "deadline": job.due.map(|due| due.to_string()),
        "input": job.payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // F381
    #[test]
    fn no_queue_is_left_out_however_polls_alternate() {
        for (queues, stride) in [(2, 1), (2, 2), (3, 3), (4, 2), (32, 32)] {
            let mut begun = vec![0; queues];
            for poll in 0..100 * queues {
                begun[scattered(poll * stride) % queues] += 1;
            }
            assert!(begun.iter().all(|count| (60..=140).contains(count)), "{queues} {stride}: {begun:?}");
        }
    }

    #[test]
    fn other_workspaces_are_for_those_who_may() {
        let of = |role, given: Json| {
            let caller = Caller { role, workspace: "acme".parse().unwrap(), ..Caller::ANYONE };
            whose(&caller, Some(Value::from_json(given.to_string().as_bytes()).unwrap()))
        };
        let these = |names: &[&str]| Whose::These(names.iter().map(|name| (*name).into()).collect());
        assert_eq!(of(Role::Write, json!(null)).unwrap(), None);
        assert_eq!(of(Role::Write, json!(["acme"])).unwrap(), Some(these(&["acme"])));
        for given in [json!("*"), json!("other"), json!(["acme", "other"])] {
            assert_eq!(of(Role::Write, given).unwrap_err().status, 403);
        }
        assert_eq!(of(Role::Admin, json!("*")).unwrap(), Some(Whose::All));
        assert_eq!(of(Role::Admin, json!(["b", "c"])).unwrap(), Some(these(&["b", "c"])));
        assert_eq!(of(Role::Admin, json!(["A/b"])).unwrap_err().code, "invalid_name");
        assert_eq!(of(Role::Admin, json!(vec!["a"; 33])).unwrap_err().code, "limit_exceeded");
        assert_eq!(of(Role::Admin, json!(1)).unwrap_err().status, 400);
    }
}
