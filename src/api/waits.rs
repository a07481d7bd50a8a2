//! Why a node does not run, as clients see it: what its run says, and what the queue of its job or the executor of its call
//! adds. Nothing of it is recorded; it is true when it is asked.

use super::services::{Services, blocking};
use crate::engine::command::{Executor, GraphView, Paused, RunView, Short, Waits, Why};
use crate::exec::models::InLine;
use crate::exec::places::Stage;
use crate::exec::slots::{Reason, Standing};
use crate::limits;
use crate::model::agent::Quote;
use crate::model::budget::{Over, Wider};
use crate::model::money::Usd;
use crate::model::{Admission, EventBody, RunId, RunSummary, Seq, Status, Ticket, Workspace};
use crate::wire::Shown;
use crate::wire::problem::Problem;
use crate::wire::run::{NodeWaiting, Pause, RunWaiting};

/// Events of a history that are looked at for the time since when something waits.
const HISTORY_LOOKED_AT: Seq = 10_000;

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

/// Fills in since when it waits, from its history: neither state nor image says it. Of a long history only the last events are
/// looked at; who has waited longer has waited since before the first of these.
pub(super) async fn since(services: &Services, mut view: RunView) -> Result<RunView, Box<Problem>> {
    if view.pauses.is_empty() {
        return Ok(view);
    }
    let run_id = view.summary.run_id;
    let location = match services.locate(run_id).await {
        Err(problem) if problem.status == 404 => return Ok(view),
        located => located?,
    };
    let runs = services.runs.clone();
    blocking(move || {
        let mut after = location.summary.seq.saturating_sub(HISTORY_LOOKED_AT);
        loop {
            let events = runs.events(&location, after, limits::PAGE_ROWS_MAX)?;
            let Some(last) = events.last() else { return Ok(view) };
            after = last.seq;
            for event in &events {
                for pause in &mut view.pauses {
                    let is_it = match &pause.at {
                        None => matches!(event.body, EventBody::RunPaused { .. }),
                        Some((place, _)) => event.body.place() == Some(place),
                    };
                    if is_it || pause.since.is_none() {
                        pause.since = Some(event.at);
                    }
                }
            }
        }
    })
    .await?
    .map_err(|error: super::ports::StorageError| Box::<Problem>::from(error))
}

/// Why a run does not go on by itself, and what is needed.
pub(super) fn pauses(view: &RunView) -> Vec<Pause> {
    let run_id = view.summary.run_id;
    let reviews = view.reviews.iter().map(|review| {
        let who = match &review.reviewers[..] {
            [] => String::from("anybody who may write here"),
            names => names.join(" or "),
        };
        let ticket = Ticket { run_id, seq: review.seq };
        Pause {
            node: Some(review.node.clone()),
            reason: "review",
            why: String::from("a human has to decide before it goes on"),
            needed: format!("a decision by {who}: aob approve {ticket} approve|reject"),
            since: Shown(review.since),
            due_at: review.until.map(Shown),
            ticket: Some(Shown(ticket)),
        }
    });
    let others = view.pauses.iter().map(|pause| {
        let (reason, why, needed) = match &pause.why {
            Paused::ByHand => (
                "paused",
                String::from("somebody paused the run"),
                format!("that somebody resumes it: aob run resume {run_id}"),
            ),
            Paused::Signal(name) => (
                "signal",
                format!("it waits for the signal {name:?}"),
                format!("the signal: aob run signal {run_id} {name}"),
            ),
            Paused::Budget(short) => short_of(run_id, short),
            Paused::Outcome => (
                "outcome",
                String::from("nobody knows what became of its only call"),
                String::from("somebody who knows says how the attempt ended"),
            ),
        };
        Pause {
            node: pause.at.as_ref().map(|(_, path)| path.clone()),
            reason,
            why,
            needed,
            since: Shown(pause.since.unwrap_or(view.summary.started_at)),
            due_at: pause.until.map(Shown),
            ticket: None,
        }
    });
    reviews.chain(others).collect()
}

/// What the next call may cost, what is left, and what to do (N7).
fn short_of(run_id: RunId, short: &Short) -> (&'static str, String, String) {
    let Quote { model, cost, tokens } = &short.quote;
    let (lacks_usd, lacks_tokens) = short.lacks;
    let dollars = match (cost, short.usd) {
        (Some(cost), Some((left, of))) => Some(format!("${cost}, and ${left} of ${of} are left")),
        _ => None,
    };
    let many = short.tokens.map(|(left, of)| format!("{tokens} tokens, and {left} of {of} are left"));
    let takes: Vec<String> = dollars.into_iter().chain(many).collect();
    if let Some(by) = &short.by {
        let Wider { scope, per, .. } = by;
        let why = Over { quote: short.quote.clone(), by: by.clone() }.failure().message;
        let needed = format!(
            "more in [[budgets]] for {scope} per {per} (SIGHUP reads it again), or what leaves its window; then that somebody resumes \
             it: aob run resume {run_id}"
        );
        return ("budget", why.to_string(), needed);
    }
    let why = format!("its budget: the next call of {model} may take {}", takes.join("; "));
    if lacks_usd == Usd::ZERO && lacks_tokens == 0 {
        let needed = format!("that somebody resumes it: aob run resume {run_id}");
        return ("budget", format!("{why}; it was given enough since"), needed);
    }
    let mut command = format!("aob budget raise {run_id}");
    if lacks_usd > Usd::ZERO {
        command.push_str(&format!(" --usd {lacks_usd}"));
    }
    if lacks_tokens > 0 {
        command.push_str(&format!(" --tokens {lacks_tokens}"));
    }
    ("budget", why, format!("more to spend, at least: {command} --reason ... --resume"))
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
        Why::Call { executor: Executor::Agent, seq } => {
            match services.executors.models.in_line((summary.run_id, *seq)) {
                Some(InLine { limit, max }) => {
                    NodeWaiting { limit: Some(limit), max: Some(max), ..plain("agent_slot") }
                }
                None => plain("answer"),
            }
        }
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
