//! The turns of agents: a model is asked, or its tools are called, and the run is told what came of it.
//!
//! What must hold (RELIABILITY 2.10): a model is called once the most that the call may cost is reserved, durably, and by nobody
//! who could not reserve it: in the budgets that the run shares with others (`wider`), then in its own. A turn is known by its
//! run and the number of the event that it follows from: handed out twice, it is made once. One that is given up, or whose node
//! stops, is dropped; after a restart the run asks for it again. A tool that is called again carries the same key.
//!
//! What models say is data: a tool that is not the agent's is not called, a patch that it proposes goes the way of any patch,
//! with the agent as its author and nobody's rights but a writer's.

pub(super) mod list;
mod live;
mod patch;
mod spike;
mod wider;
mod workflow;

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use self::wider::{Hold, Told};
use super::catalog::Entry;
use super::errands::{Pause, is_passing, tell};
use super::services::Services;
use crate::compile::{Compiled, Diagnostic, Severity};
use crate::engine::command::{Command, Dispatch, Reply, Says, Settle, Turn};
use crate::exec::ledger::{self, Taken};
use crate::exec::{Models, Tools, models, tools};
use crate::failpoint;
use crate::limits;
use crate::model::agent::{Answer, Ask, Overflow, Returned, Said, ToolCall, ToolSpec, Wanted, is_billed};
use crate::model::budget::Wider;
use crate::model::tools::Other;
use crate::model::{Failure, RunId, Value, Workspace};
use crate::telemetry::log::{self, Target};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

/// How a call ends that the node leaves because it stops.
const STOPPED: &str = "executor_stopped";

/// A turn on its way.
pub(super) struct Under<'a> {
    pub(super) services: &'a Services,
    pub(super) run_id: RunId,
    /// How many runs are above it.
    pub(super) depth: u32,
    pub(super) epoch: u64,
    pub(super) dispatch: &'a Dispatch,
    pub(super) ask: Arc<Ask>,
}

/// Makes a turn and tells the run; answers how it failed.
pub(super) async fn turn(under: Under<'_>) -> Result<(), Failure> {
    let _places = match under.services.executors.models.stand_in_line(under.in_line()).await {
        Ok(places) => places,
        Err(failure) => return under.failed(failure).await,
    };
    match &under.ask.wanted {
        Wanted::Model { turn, .. } => under.model(*turn).await,
        Wanted::Tools(calls) => {
            let results = under.tools(calls).await?;
            under.say(Says::Returned(results)).await;
            Ok(())
        }
    }
}

impl Under<'_> {
    /// What the agent may use.
    fn allowed(&self) -> Value {
        self.ask.request.get("tools").cloned().unwrap_or_else(|| Value::list(Vec::new()))
    }

    async fn model(&self, turn: u32) -> Result<(), Failure> {
        let executors = &self.services.executors;
        let tools = match self.offered().await {
            Ok(tools) => tools,
            Err(failure) => return self.failed(failure).await,
        };
        let (ask, mut watched) = self.placed(&tools).await;
        let quote = match executors.models.weigh(&ask, &tools) {
            Ok((_, Some(overflow))) if self.say(Says::Overflow(overflow.clone())).await => return Ok(()),
            Ok((quote, _)) => quote,
            Err(failure) => return self.failed(failure).await,
        };
        let _place = match executors.models.place(&ask).await {
            Ok(place) => place,
            Err(failure) => return self.failed(failure).await,
        };
        let hold = match wider::reserve(self, &quote) {
            Ok(hold) => hold,
            Err(refused) => return self.turned_away(*refused).await,
        };
        failpoint::pass("agent::reserve");
        let mut reserved = self.told(Says::Reserve(quote.clone()));
        if failpoint::mutant("call_before_reserved") {
            let _ = poll_fn(|context| Poll::Ready(reserved.as_mut().poll(context))).await;
            reserved = Box::pin(async { true });
        }
        // That its cost is reserved is durable then.
        let Some(hold) = wider::through(hold, reserved, Taken::Unknown).await else { return Ok(()) };
        failpoint::pass("agent::reserved");
        let hold = self.warn(hold).await;
        let name = self.name(turn);
        if let Some(watched) = &mut watched {
            watched.begins();
        }
        let (models, listener) = (&executors.models, live::listen(self, turn));
        let called = models.call(&name, ask.clone(), tools.clone(), &quote, listener).await;
        if let Some(watched) = watched {
            watched.told(&called);
        }
        failpoint::pass("agent::answered");
        let (told, taken) = self.outcome(&called, || models.halved(&ask, &quote.model, &tools));
        wider::through(hold, told, taken).await;
        called.map(drop)
    }

    /// How the run is told of a call, and what the call took if that counts. `shorter` is how to go on with a conversation that
    /// the provider does not take.
    fn outcome(
        &self,
        called: &Result<Answer, Failure>,
        shorter: impl FnOnce() -> Option<Overflow>,
    ) -> (Told, Taken) {
        match called {
            Ok(answer) => {
                let taken = Taken::Some(answer.cost.unwrap_or_default(), answer.tokens.total());
                (self.told(Says::Answered(Box::new(answer.clone()))), taken)
            }
            Err(failure) => {
                let taken = if is_billed(&failure.code) { Taken::Unknown } else { Taken::Nothing };
                if &*failure.code == "context_overflow"
                    && let Some(overflow) = shorter()
                {
                    return (self.told(Says::Overflow(overflow)), taken);
                }
                let (Dispatch { place, seq, .. }, run_id) = (self.dispatch.clone(), self.run_id);
                let settle = Settle { run_id, place, seq, result: Err(failure.clone()) };
                let services = self.services.own();
                let told = async move {
                    match services {
                        Some(services) => tell(&services, settle).await,
                        None => false,
                    }
                };
                (Box::pin(told), taken)
            }
        }
    }

    /// A budget that the run shares with others refuses the call, or none can be asked.
    async fn turned_away(&self, refused: ledger::Refused) -> Result<(), Failure> {
        match refused {
            ledger::Refused::Full(failure) => self.failed(failure).await,
            ledger::Refused::Over(over) => {
                let failure = over.failure();
                self.say(Says::Refused(over)).await;
                Err(failure)
            }
        }
    }

    /// The run that brought budgets to where they warn is told, and so is whoever reads the log.
    async fn warn(&self, mut hold: Option<Hold>) -> Option<Hold> {
        for by in hold.as_mut().map(Hold::warned).unwrap_or_default() {
            let Wider { scope, per, usd, tokens, .. } = &by;
            let usd = usd.map(|(left, of)| format!(" ${left} of ${of} are left")).unwrap_or_default();
            let tokens =
                tokens.map(|(left, of)| format!(" {left} of {of} tokens are left")).unwrap_or_default();
            let run_id = self.run_id;
            log::warn(
                Target::Work,
                format_args!(
                    "the budget of {scope} per {per} is nearly used up:{usd}{tokens} run_id={run_id}"
                ),
            );
            self.say(Says::Warned(Box::new(by))).await;
        }
        hold
    }

    /// The tools that the model is told of.
    async fn offered(&self) -> Result<Arc<[ToolSpec]>, Failure> {
        let allowed = self.allowed();
        let described = workflow::described(self).await?;
        let find = |name: &str, version: Option<&str>| {
            let of = |known: &&workflow::Known| *known.name == *name && known.version.as_deref() == version;
            described.iter().find(of).map(|known| known.described.clone())
        };
        self.services.executors.tools.offered_with(&allowed, &find).await
    }

    fn in_line(&self) -> models::Turn {
        let max = match self.ask.request.get("max_concurrency") {
            Some(Value::Int(max)) => usize::try_from(*max).ok().filter(|max| *max > 0),
            _ => None,
        };
        let role = self.ask.request.get("role").and_then(Value::as_str).unwrap_or_default();
        models::Turn {
            name: (self.run_id, self.dispatch.seq),
            workspace: self.workspace().name().into(),
            workflow: self.dispatch.workflow.clone(),
            role: role.into(),
            max,
        }
    }

    fn workspace(&self) -> Workspace {
        Workspace::of(&self.dispatch.workflow)
    }

    fn name(&self, turn: u32) -> models::CallName {
        let Dispatch { place, path, seq, attempt, workflow, lost, .. } = self.dispatch.clone();
        let (run_id, epoch) = (self.run_id, self.epoch);
        models::CallName { run_id, path, place, seq, attempt, epoch, turn, workflow, lost: lost > 0 }
    }

    /// What somebody else than the tools' own thread performs for the agent.
    fn others(&self) -> Result<BTreeMap<Arc<str>, Other>, Failure> {
        Tools::names_of_others(&self.allowed())
    }

    /// Makes calls side by side. When one is left because the node stops, all are: the next start makes them again, under the same
    /// keys.
    async fn tools(&self, calls: &[ToolCall]) -> Result<Vec<Returned>, Failure> {
        let others = self.others().unwrap_or_default();
        let mut made: Vec<_> =
            calls.iter().map(|call| Box::pin(self.tool(call, others.get(&call.name)))).collect();
        let mut results: Vec<Option<Returned>> = calls.iter().map(|_| None).collect();
        poll_fn(|context| {
            for (made, result) in made.iter_mut().zip(&mut results) {
                if result.is_none()
                    && let Poll::Ready(returned) = made.as_mut().poll(context)
                {
                    match returned.outcome {
                        Err(failure) if &*failure.code == STOPPED => return Poll::Ready(Err(failure)),
                        _ => *result = Some(returned),
                    }
                }
            }
            if results.iter().all(Option::is_some) { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Makes one call of a tool. What fails is told to the model.
    async fn tool(&self, call: &ToolCall, other: Option<&Other>) -> Returned {
        failpoint::pass("agent::tool");
        let returned = self.used(call, other).await;
        failpoint::pass("agent::tool_returned");
        returned
    }

    async fn used(&self, call: &ToolCall, other: Option<&Other>) -> Returned {
        let turn = self.answers();
        let Some(other) = other else {
            let models::CallName { run_id, path, place, seq, attempt, epoch, workflow, lost, .. } =
                self.name(turn);
            let name = tools::CallName { run_id, place, path, seq, turn, attempt, epoch, lost, workflow };
            return self.services.executors.tools.call(&name, &self.allowed(), call).await;
        };
        let began_us = self.services.clock.monotonic_us();
        let outcome = match other {
            Other::Patch => patch::propose(self, turn, call).await,
            Other::Workflow { name, version } => {
                workflow::run(self, turn, call, (name, version.as_deref())).await
            }
        };
        let took_ms = self.services.clock.monotonic_us().saturating_sub(began_us) / 1_000;
        Returned { id: call.id.clone(), name: call.name.clone(), outcome, took_ms }
    }

    /// Answers that were recorded so far.
    fn answers(&self) -> u32 {
        let answers = self.ask.said.iter().filter(|said| matches!(said, Said::Model(_)));
        u32::try_from(answers.count()).unwrap_or(u32::MAX)
    }

    /// Tells the run, until it has heard; did it take it?
    async fn say(&self, says: Says) -> bool {
        self.told(says).await
    }

    /// The same, by itself. Does it count?
    fn told(&self, says: Says) -> Told {
        let (services, run_id) = (self.services.own(), self.run_id);
        let (place, seq) = (self.dispatch.place.clone(), self.dispatch.seq);
        Box::pin(async move {
            let (Some(services), mut pause) = (services, Pause::default()) else { return false };
            loop {
                let turn = Turn { run_id, place: place.clone(), seq, says: says.clone() };
                match services.ask(run_id, Command::Agent(Box::new(turn))).await {
                    Err(problem) if is_passing(&problem) => pause.wait().await,
                    told => return matches!(told, Ok(Reply::Accepted(_))),
                }
            }
        })
    }

    async fn failed(&self, failure: Failure) -> Result<(), Failure> {
        let Dispatch { place, seq, .. } = self.dispatch.clone();
        let settle = Settle { run_id: self.run_id, place, seq, result: Err(failure.clone()) };
        tell(self.services, settle).await;
        Err(failure)
    }
}

/// Agents for which there is no model here: the first on the ladder of each, or the node's own when it names none.
pub(super) fn without_model(models: &Models, compiled: &Compiled) -> Vec<Diagnostic> {
    let missing = compiled.models().filter_map(|(node, first, embeds)| {
        let known = first.or(models.default_model().map(|name| &**name)).and_then(|name| models.known(name));
        let (code, message) = match first {
            Some(name) if models.known(name).is_none() => {
                ("model_unknown", format!("the model {name:?} is none of this node's (models.names.{name})"))
            }
            None if models.default_model().is_none() => (
                "no_model",
                String::from("this node has no model for agents that name none (models.default)"),
            ),
            _ => ("model_request_invalid", unfit(&known?, embeds)?),
        };
        let message = format!("the agent {node} cannot be run on this node as it stands: {message}");
        Some(Diagnostic {
            code,
            severity: Severity::Warning,
            message,
            pointer: String::new(),
            file: None,
            line: 0,
            column: 0,
            help: None,
        })
    });
    missing.take(limits::DIAGNOSTICS_MAX).collect()
}

/// Why a model cannot do what is asked of it: vectors, or words.
fn unfit(model: &models::Known, embeds: bool) -> Option<String> {
    let (name, provider) = (&model.name, &model.provider);
    match embeds {
        true if !model.embeds => {
            Some(format!("the interface of {name}'s provider ({provider}) has no embeddings"))
        }
        false if model.max_output_tokens == 0 => {
            Some(format!("{name} gives vectors and no words (models.names.{name}.max_output_tokens = 0)"))
        }
        _ => None,
    }
}

/// Is there a model for every agent of this workflow?
pub(super) fn check_models(services: &Services, entry: &Entry) -> Result<(), Box<Problem>> {
    let missing = without_model(&services.executors.models, &entry.compiled);
    if missing.is_empty() {
        return Ok(());
    }
    let name = crate::model::workspace::shown(&entry.name);
    let detail = format!("{name}@{} cannot be run on this node as it stands", entry.version);
    let problem = Problem::new(422, "workflow_unstartable", detail);
    Err(missing.iter().fold(problem, |problem, wrong| problem.at(wrong)))
}

/// Keeps what a turn needs beyond the errand that brought it.
pub(super) async fn run(
    services: Rc<Services>,
    (run_id, depth, epoch): (RunId, u32, u64),
    dispatch: &Dispatch,
    ask: Ask,
) -> Result<(), Failure> {
    let ask = Arc::new(ask);
    turn(Under { services: &services, run_id, depth, epoch, dispatch, ask }).await
}
