//! The turns of agents: a model is asked, or its tools are called, and the run is told what came of it.
//!
//! What must hold (RELIABILITY 2.10): a model is called once the most that the call may cost is reserved, durably, and by nobody
//! who could not reserve it. A turn is known by its run and the number of the event that it follows from: handed out twice, it is
//! made once. One that is given up, or whose node stops, is dropped; after a restart the run asks for it again. A tool that is
//! called again carries the same key.
//!
//! What models say is data: a tool that is not the agent's is not called, a patch that it proposes goes the way of any patch,
//! with the agent as its author and nobody's rights but a writer's.

mod live;
mod patch;
mod spike;
mod workflow;

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::catalog::Entry;
use super::errands::{Pause, is_passing, tell};
use super::services::Services;
use crate::compile::{Compiled, Diagnostic, Severity};
use crate::engine::command::{Command, Dispatch, Reply, Says, Settle, Turn};
use crate::exec::{Models, Tools, models, tools};
use crate::limits;
use crate::model::agent::{Ask, Quote, Returned, Said, ToolCall, ToolSpec, Wanted};
use crate::model::tools::Other;
use crate::model::{Failure, RunId, Value, Workspace};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

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
            let results = under.tools(calls).await;
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
            Ok((_, Some(overflow))) if self.accepted(Says::Overflow(overflow.clone())).await => return Ok(()),
            Ok((quote, _)) => quote,
            Err(failure) => return self.failed(failure).await,
        };
        let _place = match executors.models.place(&ask).await {
            Ok(place) => place,
            Err(failure) => return self.failed(failure).await,
        };
        if !self.reserved(&quote).await {
            return Ok(());
        }
        let name = self.name(turn);
        if let Some(watched) = &mut watched {
            watched.begins();
        }
        let (models, listener) = (&executors.models, live::listen(self, turn));
        let outcome = models.call(&name, ask.clone(), tools.clone(), &quote, listener).await;
        if let Some(watched) = watched {
            watched.told(&outcome);
        }
        match outcome {
            Ok(answer) => {
                self.say(Says::Answered(Box::new(answer))).await;
                Ok(())
            }
            Err(failure) => match models.halved(&ask, &quote.model, &tools) {
                Some(overflow) if &*failure.code == "context_overflow" => {
                    self.say(Says::Overflow(overflow)).await;
                    Err(failure)
                }
                _ => self.failed(failure).await,
            },
        }
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

    /// Makes calls side by side.
    async fn tools(&self, calls: &[ToolCall]) -> Vec<Returned> {
        let others = self.others().unwrap_or_default();
        let mut made: Vec<_> =
            calls.iter().map(|call| Box::pin(self.tool(call, others.get(&call.name)))).collect();
        let mut results: Vec<Option<Returned>> = calls.iter().map(|_| None).collect();
        poll_fn(|context| {
            for (made, result) in made.iter_mut().zip(&mut results) {
                if result.is_none()
                    && let Poll::Ready(returned) = made.as_mut().poll(context)
                {
                    *result = Some(returned);
                }
            }
            if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        results.into_iter().flatten().collect()
    }

    /// Makes one call of a tool. What fails is told to the model.
    async fn tool(&self, call: &ToolCall, other: Option<&Other>) -> Returned {
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

    /// Tells the run; did it take it?
    pub(super) async fn accepted(&self, says: Says) -> bool {
        let mut pause = Pause::default();
        loop {
            match self.services.ask(self.run_id, self.command(says.clone())).await {
                Ok(reply) => return matches!(reply, Reply::Accepted(_)),
                Err(problem) if is_passing(&problem) => pause.wait().await,
                Err(_) => return false,
            }
        }
    }

    fn command(&self, says: Says) -> Command {
        let (place, seq) = (self.dispatch.place.clone(), self.dispatch.seq);
        Command::Agent(Box::new(Turn { run_id: self.run_id, place, seq, says }))
    }

    /// May the model be called? That its cost is reserved is durable then.
    async fn reserved(&self, quote: &Quote) -> bool {
        self.accepted(Says::Reserve(quote.clone())).await
    }

    /// Tells the run, until it has heard.
    async fn say(&self, says: Says) {
        let mut pause = Pause::default();
        loop {
            match self.services.ask(self.run_id, self.command(says.clone())).await {
                Err(problem) if is_passing(&problem) => pause.wait().await,
                _ => return,
            }
        }
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
    let missing = compiled.models().filter_map(|(node, first)| {
        let (code, message) = match first {
            Some(name) if models.known(name).is_none() => {
                ("model_unknown", format!("the model {name:?} is none of this node's (models.names.{name})"))
            }
            None if models.default_model().is_none() => (
                "no_model",
                String::from("this node has no model for agents that name none (models.default)"),
            ),
            _ => return None,
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
