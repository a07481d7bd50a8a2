//! What shards want done elsewhere: child runs to be started and cancelled, parents to be told of their end.
//!
//! Every errand may come twice, and may have been done before a crash: a child has the id that its parent drew for the
//! attempt, and is started under a key made of that id, so a second start finds the first; an end that was told before is
//! dropped by the parent, for it names its attempt. When a shard has no room the errand is tried again until it is done
//! or the node stops. At most [`limits::ERRANDS_PER_CORE_MAX`] starts are under way at once, and as many of the others: starts
//! that find no room must not hold up the ends and recalls that make room. Further ones wait, no more than there are
//! unfinished runs.
//!
//! A node that stops waits for the calls under way, as long as it may, and begins no new ones: those are left for the next
//! start, which hands them out again. Only what must not be sent twice is sent still, for after the restart nobody could
//! tell that it was not.
//!
//! HTTP calls and turns of agents wait in their executors, jobs of workers in the pool; none holds up the rest.

mod turns;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use self::turns::{Calls, Turn};
use super::services::Services;
use super::{agents, cached, runs, slots, start, workers, worklog};
use crate::engine::command::{
    Command, Dispatch, Errand, Executor, Recall, Recalled, Refusal, Reply, Settle, Start, Work,
    child_cancelled, child_failed,
};
use crate::exec::{Call, is_unkeyed};
use crate::failpoint;
use crate::limits;
use crate::model::event::{Idempotency, Parent};
use crate::model::{Class, Failure, RunId, Status, Value};
use crate::queue::Receiver;
use crate::time::Clock as _;
use crate::wire::problem::Problem;

/// Children that are being started, and whether they were called back meanwhile.
type Starting = Rc<RefCell<BTreeMap<RunId, bool>>>;

/// What a core has under way for its shards.
#[derive(Default)]
struct UnderWay {
    starting: Starting,
    /// HTTP calls and turns of agents.
    calls: Calls,
}

/// Does what shards ask for; runs as long as the core does.
pub async fn run_errands(services: Rc<Services>, mut errands: Receiver<Errand>) {
    let room = || Arc::new(Semaphore::new(limits::ERRANDS_PER_CORE_MAX));
    let (starts, others) = (room(), room());
    let under_way = UnderWay::default();
    loop {
        poll_fn(|context| errands.poll_ready(context)).await;
        while let Some(errand) = errands.try_recv() {
            let Some(errand) = at_once(&services, errand, &under_way) else { continue };
            let room = if let Errand::Dispatch { dispatch, .. } = &errand {
                if let Work::Child { run_id, .. } = dispatch.work {
                    // From here on a recall finds it, however long it waits.
                    under_way.starting.borrow_mut().insert(run_id, false);
                }
                starts.clone()
            } else {
                others.clone()
            };
            let (services, starting) = (services.clone(), under_way.starting.clone());
            crate::io::spawn_local(async move {
                if let Ok(_permit) = room.acquire_owned().await {
                    run(&services, errand, &starting).await;
                }
            });
        }
    }
}

/// Does what takes no waiting, or waits in a place of its own; gives back the rest.
fn at_once(services: &Rc<Services>, errand: Errand, under_way: &UnderWay) -> Option<Errand> {
    match cached::at_once(services, errand)? {
        Errand::Dispatch { dispatch, .. }
            if services.stopping.get() && is_call(&dispatch, Executor::Http) && may_wait(&dispatch) =>
        {
            None
        }
        Errand::Dispatch { run_id, epoch, dispatch, .. } if is_call(&dispatch, Executor::Http) => {
            let name = (run_id, dispatch.seq);
            let given_up = under_way.calls.begin(name);
            let (services, calls) = (services.clone(), under_way.calls.clone());
            let begun = services.executors.http.begin();
            crate::io::spawn_local(async move {
                let began_us = services.clock.monotonic_us();
                let outcome = tokio::select! {
                    biased;
                    _ = given_up => return worklog::given_up(run_id, &dispatch),
                    outcome = call(&services, (run_id, epoch), &dispatch) => outcome,
                };
                let took_us = services.clock.monotonic_us().saturating_sub(began_us);
                worklog::called(run_id, &dispatch, outcome.as_ref().err(), took_us);
                calls.end(name);
                let Dispatch { place, seq, .. } = dispatch;
                tell(&services, Settle { run_id, place, seq, result: outcome }).await;
                drop(begun);
            });
            None
        }
        Errand::Dispatch { run_id, depth, epoch, mut dispatch }
            if matches!(dispatch.work, Work::Agent(_)) =>
        {
            if let Work::Agent(ask) = std::mem::replace(&mut dispatch.work, Work::NONE) {
                let turn = Turn { depth, epoch, dispatch, ask: *ask };
                turns::turn(services, run_id, Box::new(turn), &under_way.calls);
            }
            None
        }
        Errand::Dispatch { run_id, epoch, dispatch, .. } if is_call(&dispatch, Executor::Task) => {
            failpoint::pass("errand::job");
            workers::add(services, (run_id, epoch), dispatch);
            None
        }
        Errand::Recall { run_id, recall: Recall { seq, whom: Recalled::Executor(executor), .. } } => {
            match executor {
                Executor::Http | Executor::Agent => {
                    under_way.calls.give_up((run_id, seq));
                }
                Executor::Task => services.executors.pool.recall((run_id, seq)),
                // It is answered at once.
                Executor::Cached => {}
            }
            None
        }
        Errand::Claim { run_id, claiming } => {
            slots::claim(services, run_id, claiming);
            None
        }
        other => Some(other),
    }
}

/// May it be handed out again without asking whether it was made?
fn may_wait(dispatch: &Dispatch) -> bool {
    matches!(&dispatch.work, Work::Call { request, .. } if !is_unkeyed(request))
}

pub(super) fn is_call(dispatch: &Dispatch, wanted: Executor) -> bool {
    matches!(dispatch.work, Work::Call { executor, .. } if executor == wanted)
}

/// Makes an HTTP call.
async fn call(
    services: &Services,
    (run_id, epoch): (RunId, u64),
    dispatch: &Dispatch,
) -> Result<Value, Failure> {
    let Work::Call { request, .. } = &dispatch.work else { return Ok(Value::Null) };
    let call = Call {
        run_id,
        place: dispatch.place.clone(),
        path: dispatch.path.clone(),
        seq: dispatch.seq,
        attempt: dispatch.attempt,
        epoch,
        lost: dispatch.lost > 0,
        workflow: dispatch.workflow.clone(),
        request: request.clone(),
        due: dispatch.due,
        unguarded: false,
    };
    failpoint::pass("errand::call");
    let answer = services.executors.http.call(call).await;
    failpoint::pass("errand::call_answered");
    answer
}

async fn run(services: &Services, errand: Errand, starting: &Starting) {
    match errand {
        Errand::Dispatch { run_id, depth, dispatch, .. } => {
            let settled = dispatched(services, (run_id, depth), &dispatch, starting).await;
            if let Some(result) = settled {
                let Dispatch { place, seq, .. } = dispatch;
                tell(services, Settle { run_id, place, seq, result }).await;
            }
        }
        Errand::Recall { run_id, recall } => {
            if let Recalled::Child(child) = recall.whom {
                if let Some(called_back) = starting.borrow_mut().get_mut(&child) {
                    *called_back = true;
                    return;
                }
                cancel(services, run_id, child).await;
            }
        }
        Errand::Ended { parent, result, .. } => {
            let Parent { run_id, place, seq, .. } = parent;
            failpoint::pass("child::ended_told");
            tell(services, Settle { run_id, place, seq, result }).await;
        }
        // Done at once.
        Errand::Claim { .. } | Errand::Keep { .. } => {}
    }
}

/// Hands an attempt out. Answers how it ended when that is known at once; the end of a child that was started comes by
/// itself.
async fn dispatched(
    services: &Services,
    (run_id, depth): (RunId, u32),
    dispatch: &Dispatch,
    starting: &Starting,
) -> Option<Result<Value, Failure>> {
    let (child, workflow, inputs) = match &dispatch.work {
        Work::Child { run_id, workflow, inputs, .. } => (*run_id, workflow, inputs),
        Work::Call { executor, .. } => {
            let message = format!("this node has nobody who does the work of a {}", executor.kind());
            return Some(Err(Failure::fatal("executor_not_available", message)));
        }
        // Done at once.
        Work::Agent(_) => return None,
    };
    let parent = Parent { run_id, place: dispatch.place.clone(), seq: dispatch.seq, depth: depth + 1 };
    let called_back = || starting.borrow().get(&child).copied().unwrap_or(false);
    let started = start_child(services, child, (workflow, inputs), (parent, &called_back)).await;
    let called_back = starting.borrow_mut().remove(&child).unwrap_or(false);
    if called_back {
        cancel(services, run_id, child).await;
    }
    match started {
        Ok(Status::Completed | Status::Failed | Status::Cancelled) => result(services, child).await,
        Ok(_) => None,
        Err(failure) => Some(Err(failure)),
    }
}

/// Starts a child, or finds it. Answers its status.
pub(super) async fn start_child(
    services: &Services,
    child: RunId,
    (workflow, inputs): (&Arc<str>, &Value),
    (parent, called_back): (Parent, &dyn Fn() -> bool),
) -> Result<Status, Failure> {
    if parent.depth > limits::CHILD_DEPTH_MAX {
        let message = format!(
            "there are {} runs above {child}; at most {} may be (limit child_depth_max)",
            parent.depth,
            limits::CHILD_DEPTH_MAX
        );
        return Err(Failure::fatal("child_depth_max", message));
    }
    let idempotency = key(child);
    let seed = u64::from_le_bytes(idempotency.fingerprint.first_chunk().copied().unwrap_or_default());
    let (name, version) = match workflow.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (&**workflow, None),
    };
    let mut pause = Pause::default();
    loop {
        let tried = async {
            // Its row says how it ended; that of its key what was acknowledged when it started.
            let runs = services.runs.clone();
            if let Some(ended) = services.read(move || runs.get(child)).await? {
                return Ok(ended.summary.status);
            }
            let workspace = services.workspace_of(parent.run_id).await?;
            let entry = start::find(services, &workspace, name, version).await?;
            start::check(&entry, inputs)?;
            let laid = start::laid(services, &entry, None, child.as_bytes()).await?;
            let kept = services.keep(child, &workspace, inputs).await?;
            let start = Start {
                run_id: child,
                ir: laid.entry.compiled.ir.clone(),
                inputs: inputs.clone(),
                seed,
                idempotency: Some(idempotency.clone()),
                deadline: None,
                parent: Some(parent.clone()),
                run_key: None,
                mode: None,
                layered: laid.layered,
            };
            let command = Command::Start(Box::new(start)).keeping(child, kept);
            failpoint::pass("child::start");
            match services.ask(child, command).await? {
                Reply::Started { run, .. } => {
                    failpoint::pass("child::started");
                    Ok(run.status)
                }
                other => Err(super::services::unexpected(other)),
            }
        };
        match tried.await {
            Ok(status) => return Ok(status),
            // It was indexed between the two looks: the next look finds it.
            Err(problem) if passes(&problem) || problem.code == "run_not_found" => {
                if called_back() {
                    return Err(child_cancelled(child));
                }
                pause.wait().await;
            }
            Err(problem) => return Err(refused(&problem)),
        }
    }
}

/// The key that a child is started under; it belongs to the child's partition, as keys and their runs do.
fn key(child: RunId) -> Idempotency {
    let hash: [u8; 32] =
        Sha256::new().chain_update(b"child\0").chain_update(child.as_bytes()).finalize().into();
    let mut key: [u8; 16] = hash.first_chunk().copied().unwrap_or_default();
    let [high, low] = child.partition().index().to_be_bytes();
    [key[0], key[1]] = [high, low];
    Idempotency { key, fingerprint: hash.last_chunk().copied().unwrap_or_default() }
}

/// How a child that has ended did so.
pub(super) async fn result(services: &Services, child: RunId) -> Option<Result<Value, Failure>> {
    let mut pause = Pause::default();
    loop {
        match runs::outcome(services, child).await {
            Ok(view) => {
                return match view.summary.status {
                    Status::Completed => Some(Ok(view.outputs.unwrap_or_default())),
                    Status::Failed => Some(Err(child_failed(child, view.failure))),
                    Status::Cancelled => Some(Err(child_cancelled(child))),
                    _ => None,
                };
            }
            Err(problem) if passes(&problem) => pause.wait().await,
            Err(_) => return Some(Err(Failure::fatal("child_lost", format!("{child} is not to be found")))),
        }
    }
}

/// The command that tells a run how an attempt ended, once what it brings is stored.
pub(super) async fn settled(services: &Services, settle: Settle) -> Result<Command, Box<Problem>> {
    let run_id = settle.run_id;
    let brought = settle.result.as_ref().unwrap_or_else(|failure| &failure.details);
    let kept = services.keep_for(run_id, brought).await?;
    Ok(Command::Settle(Box::new(settle)).keeping(run_id, kept))
}

/// Tells a run how an attempt ended, until it has heard. Does it count? Not when the attempt was over before.
pub(super) async fn tell(services: &Services, settle: Settle) -> bool {
    let Settle { run_id, place, seq, result } = settle;
    let mut pause = Pause::default();
    loop {
        let settle = Settle { run_id, place: place.clone(), seq, result: result.clone() };
        let told = match settled(services, settle).await {
            Ok(command) => services.ask(run_id, command).await,
            Err(problem) => Err(problem),
        };
        match told {
            Err(problem) if is_passing(&problem) => pause.wait().await,
            told => return matches!(told, Ok(Reply::Accepted(_))),
        }
    }
}

/// Cancels a child that nobody waits for any more, and tells its parent's shard that it need not be told again.
async fn cancel(services: &Services, parent: RunId, child: RunId) {
    let reason: Arc<str> = format!("{parent} no longer waits for it").into();
    let command = || Command::Cancel { run_id: child, reason: reason.clone() };
    let heard = until_answered(services, child, command).await;
    // A shard whose journal failed has heard nothing that would last.
    if matches!(heard, Ok(reply) if !matches!(reply, Reply::Refused(Refusal::Fenced { .. }))) {
        let _ = until_answered(services, parent, || Command::Recalled(parent)).await;
    }
}

/// Asks the owner of a run until it has room.
async fn until_answered(
    services: &Services,
    run_id: RunId,
    command: impl Fn() -> Command,
) -> Result<Reply, Box<Problem>> {
    let mut pause = Pause::default();
    loop {
        match services.ask(run_id, command()).await {
            Err(problem) if is_passing(&problem) => pause.wait().await,
            answered => return answered,
        }
    }
}

/// Will the same errand meet other circumstances soon?
pub(super) fn is_passing(problem: &Problem) -> bool {
    matches!(
        &*problem.code,
        "overloaded"
            | "shard_queue_full"
            | "shard_overdue"
            | "too_many_runs"
            | "storage_failed"
            | "store_unavailable"
    )
}

/// As [`is_passing`], for those who wait until the node has been started again: a shard that has lost its journal is no
/// reason for another shard's run to fail.
fn passes(problem: &Problem) -> bool {
    is_passing(problem) || problem.code == "shard_fenced"
}

/// A start that was refused, as the failure of the node that wanted it.
fn refused(problem: &Problem) -> Failure {
    let first = problem.errors.first().and_then(|first| first.get("message"));
    let first =
        first.and_then(serde_json::Value::as_str).map_or_else(String::new, |text| format!(": {text}"));
    let message = format!("{}{first}", problem.detail);
    Failure { class: Class::Fatal, ..Failure::fatal(&problem.code, message) }
}

/// Longer and longer waits between tries.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    pub(super) async fn wait(&mut self) {
        self.0 = (self.0 + 1).min(10);
        let millis = (1_u64 << self.0).min(limits::ERRAND_RETRY_MILLIS_MAX);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    #[test]
    fn a_childs_key_is_its_own_and_lives_on_its_partition() {
        let child = |random| RunId::new(Timestamp::from_micros(0), Partition::new(41), [random; 10]);
        assert_eq!(key(child(1)), key(child(1)));
        assert_ne!(key(child(1)).key, key(child(2)).key);
        assert_eq!(Partition::of_key(&key(child(1)).key), child(1).partition());
    }
}
