//! Why a node does not run, as clients see it: what its run says, and what the queue of its job or the executor of its call
//! adds. Nothing of it is recorded; it is true when it is asked.

use super::services::Services;
use crate::engine::command::{Executor, GraphView, Waits, Why};
use crate::exec::places::Stage;
use crate::exec::slots::{Reason, Standing};
use crate::model::{Admission, RunId, RunSummary, Seq, Status, Ticket, Workspace};
use crate::wire::Shown;
use crate::wire::run::{NodeWaiting, RunWaiting};

/// Why each node of a run does not run, in the order of the view.
pub(super) fn of_nodes(services: &Services, view: &GraphView) -> Vec<Option<NodeWaiting>> {
    let node = |waits: &Waits| waiting(services, &view.summary, waits);
    view.nodes.iter().map(|state| state.waits.as_ref().map(node)).collect()
}

/// Why a run that is to begin does not.
pub(super) fn of_run(
    services: &Services,
    summary: &RunSummary,
    admission: Option<&(std::sync::Arc<Admission>, bool)>,
) -> Option<RunWaiting> {
    let (wanted, admitted) = admission?;
    if *admitted || summary.status != Status::Pending {
        return None;
    }
    let standing = services.executors.slots.standing(summary.run_id, &summary.workflow);
    let at_rate = standing.as_ref().is_some_and(|standing| standing.reason == Reason::Rate);
    let waiting = RunWaiting::new(wanted, at_rate);
    let Some(Standing { ahead, held, holders, .. }) = standing else { return Some(waiting) };
    Some(waiting.standing(ahead, held, &holders))
}

fn waiting(services: &Services, summary: &RunSummary, waits: &Waits) -> NodeWaiting {
    let plain = |reason| NodeWaiting { reason, ..NodeWaiting::default() };
    let texts = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
    let told = match &waits.why {
        Why::Edges(nodes) => NodeWaiting { nodes: texts(nodes), ..plain("edges") },
        Why::Admission => plain("admission"),
        Why::Paused => plain("paused"),
        Why::Cancelling => plain("cancelling"),
        Why::Turn => plain("turn"),
        Why::Timer => plain("timer"),
        Why::Retry => plain("retry"),
        Why::Passes => plain("passes"),
        Why::Outcome => plain("outcome"),
        Why::Signal(name) => NodeWaiting { signal: Some(name.to_string()), ..plain("signal") },
        Why::Human { reviewers, seq } => NodeWaiting {
            ticket: Some(Shown(Ticket { run_id: summary.run_id, seq: *seq })),
            reviewers: texts(reviewers),
            ..plain("human")
        },
        Why::Child(child) => NodeWaiting { run_id: Some(Shown(*child)), ..plain("child") },
        Why::Worker { queue, seq } => {
            let room = (Workspace::of(&summary.workflow).name().into(), queue.clone());
            let standing = services.executors.pool.standing(&room, (summary.run_id, *seq));
            NodeWaiting {
                queue: Some(queue.to_string()),
                ahead: standing.ahead,
                leased: Some(standing.leased),
                max: standing.max,
                ..plain("worker")
            }
        }
        Why::Call { executor: Executor::Http, seq } => call(services, (summary.run_id, *seq)),
        Why::Call { .. } => plain("answer"),
    };
    NodeWaiting { until: waits.until.map(Shown), ..told }
}

fn call(services: &Services, name: (RunId, Seq)) -> NodeWaiting {
    let slot = |limit, max| NodeWaiting {
        reason: "http_slot",
        limit: Some(limit),
        max: Some(max),
        ..NodeWaiting::default()
    };
    match services.executors.http.places().stage(name) {
        Some(Stage::Host { host, max }) => {
            NodeWaiting { host: Some(host), ..slot("http.calls_per_host_max", max) }
        }
        Some(Stage::All { max }) => slot("http.calls_max", max),
        Some(Stage::Answer { host }) => {
            NodeWaiting { reason: "answer", host: Some(host), ..NodeWaiting::default() }
        }
        Some(Stage::Handed) | None => NodeWaiting { reason: "answer", ..NodeWaiting::default() },
    }
}
