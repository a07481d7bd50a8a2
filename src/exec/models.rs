//! The gateway to models: one turn of a conversation in, the model's answer out.
//!
//! [`Models`] is the door, cheap to clone, for whoever has an ask. What a call may cost is settled before it is made
//! ([`Models::quote`], arithmetic only), so that it can be reserved; what it did cost stands in its answer. Calls are made on a
//! thread of their own (`aob-models`): long conversations are written and read there, beside the calls of `http` nodes and not
//! in their way.
//!
//! What must hold: an address is checked as for any call that leaves the node; a credential is read at its call, kept nowhere,
//! and in no answer and no failure; everything that comes back is bounded. A call whose asker has gone is dropped, its
//! connection closed. So many calls of one model are under way at once, so many wait, further ones are refused; a model that
//! fails is left alone for a while. Jobs are as many as attempts under way: bounded by the unfinished runs.

mod anthropic;
mod book;
mod call;
mod catalog;
mod counts;
mod embeddings;
mod estimate;
mod events;
mod hearing;
mod lines;
mod openai;
mod price_table;
mod prompt;
mod refusal;
mod reply;
mod settings;
mod spell;
mod suggest;
pub mod summaries;

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use self::book::{Doing, Failed};
use self::call::Caller;
use self::catalog::{Catalog, Entry};
pub use self::counts::{
    BUCKETS_SECONDS, BUCKETS_TOKENS, Counts, OPERATIONS, Operation, OperationCounts, Spread,
};
pub use self::hearing::Deltas;
pub use self::lines::{InLine, Places, Turn};
pub use self::price_table::{Dollars, PriceTable};
pub use self::settings::{Kind, Model, Provider, Settings, base_url, check_header, is_name};
pub use self::spell::{Watched, measure};
pub use self::suggest::{Complexity, Rule, Suggestions, suggest_model};
use super::Secrets;
use super::connect::{Connector, Lookup, system};
use super::reach::Reach;
use crate::io::trust;
use crate::model::agent::{Answer, Ask, Quote, ToolSpec, Wanted};
use crate::model::money::{Price, Usd};
use crate::model::{Failure, Place, RunId, Seq, Value};
use crate::resilience::{State, spike};
use crate::time::{Clock as _, SystemClock};

/// What a call is known by: to the provider, in its headers, and to whoever reads its log.
#[derive(Clone, Debug)]
pub struct CallName {
    /// Of which run.
    pub run_id: RunId,
    /// The node's path.
    pub path: String,
    /// Of which node.
    pub place: Place,
    /// Number of the event that handed the attempt out.
    pub seq: Seq,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Of the shard.
    pub epoch: u64,
    /// Which turn of the conversation.
    pub turn: u32,
    /// The workflow's name inside the node.
    pub workflow: Arc<str>,
    /// It was under way before when a node went down. It is made again, under the same `Idempotency-Key`.
    pub lost: bool,
}

/// A call on its way to the thread that makes it.
struct Job {
    entry: Arc<Entry>,
    name: CallName,
    ask: Arc<Ask>,
    tools: Arc<[ToolSpec]>,
    quote: Quote,
    deltas: Option<Deltas>,
    reply: oneshot::Sender<Result<Answer, Failure>>,
}

/// What is known of a model without calling it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its provider's.
    pub provider: Arc<str>,
    /// Tokens that it reads and writes in one call, together.
    pub context_tokens: u64,
    /// Tokens that it writes at most.
    pub max_output_tokens: u64,
    /// `None`: unpriced, so under a hard budget it is refused unless the budget says otherwise (D15).
    pub price: Option<Price>,
    /// It gives vectors (`with.embed`), as far as its interface says.
    pub embeds: bool,
    /// Its place on the ladder, from 0, the dearest; `None`: it is not on it.
    pub rung: Option<usize>,
    /// Is it called at the moment?
    pub breaker: State,
}

/// What is counted of one model.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The model's name.
    pub model: Arc<str>,
    /// Its provider's.
    pub provider: Arc<str>,
    /// The numbers.
    pub counts: Arc<Counts>,
    /// Of its breaker.
    pub state: State,
    /// Is it too slow, or too dear?
    pub spell: spike::State,
    /// How often it was, by what was over its threshold.
    pub spikes: [(&'static str, u64); 3],
}

/// The door for whoever asks models.
#[derive(Clone, Debug)]
pub struct Models {
    jobs: mpsc::UnboundedSender<Job>,
    catalog: Arc<Catalog>,
}

/// Where the thread that makes calls gets them from.
pub struct Jobs(mpsc::UnboundedReceiver<Job>);

impl Models {
    /// A door, and what [`serve`] serves.
    pub fn new(settings: &Settings) -> (Self, Jobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        (Self { jobs, catalog: Arc::new(Catalog::new(settings)) }, Jobs(receiver))
    }

    /// The most that the next call may take: the text as tokens at the dearest price of what is read, and all that may be
    /// written. Arithmetic on the configuration and the ask; nothing is called.
    ///
    /// # Errors
    /// `no_model`, `model_unknown`, `model_request_invalid`, `context_overflow`.
    pub fn quote(&self, ask: &Ask, tools: &[ToolSpec]) -> Result<Quote, Failure> {
        let model = &self.entry(ask)?.model;
        Ok(estimate::quote(model, estimate::write(model, ask, tools)?.bound))
    }

    /// One answer of a model. Dropping this future gives it up: its connection is closed.
    ///
    /// # Errors
    /// How the call failed (docs/models.md). Whether it may have been billed all the same: `model::agent::is_billed`.
    #[expect(clippy::too_many_arguments, reason = "each is one thing, and none is optional but the last")]
    pub async fn call(
        &self,
        name: &CallName,
        ask: Arc<Ask>,
        tools: Arc<[ToolSpec]>,
        quote: &Quote,
        deltas: Option<Deltas>,
    ) -> Result<Answer, Failure> {
        let entry = self.entry(&ask)?.clone();
        let gone = || Failure::transient("executor_stopped", "the node is stopping");
        let counts = entry.counts.clone();
        let mut watch = counts.begin(SystemClock.monotonic_us(), Operation::of(&ask));
        let role = ask.request.get("role").and_then(Value::as_str).unwrap_or_default();
        let noted = self.catalog.book.begin((name.workflow.clone(), role.into()), &entry.model.name);
        let (reply, outcome) = oneshot::channel();
        let job = Job { entry, name: name.clone(), ask, tools, quote: quote.clone(), deltas, reply };
        self.jobs.send(job).map_err(|_| gone())?;
        let outcome = outcome.await.unwrap_or_else(|_| Err(gone()));
        watch.ended(&outcome);
        noted.ended(&outcome);
        outcome
    }

    /// A place among the calls of a model that are under way, kept until it is dropped. Whoever reserves money for a call waits for
    /// it before: what is reserved for a call that only waits is lost to others, and all of it when the node goes down. They
    /// are as many as attempts under way, bounded by the unfinished runs.
    ///
    /// # Errors
    /// `no_model`, `model_unknown`; `executor_stopped`.
    pub async fn place(&self, ask: &Ask) -> Result<OwnedSemaphorePermit, Failure> {
        let places = self.entry(ask)?.places.clone();
        let gone = |_| Failure::transient("executor_stopped", "the node is stopping");
        places.acquire_owned().await.map_err(gone)
    }

    /// The model of whoever names none.
    pub fn default_model(&self) -> Option<&Arc<str>> {
        self.catalog.default.as_ref()
    }

    /// What is known of a model; `None`: there is no such model.
    pub fn known(&self, name: &str) -> Option<Known> {
        let Entry { model, breaker, .. } = &**self.catalog.models.get(name)?;
        Some(Known {
            name: model.name.clone(),
            provider: model.provider.name.clone(),
            context_tokens: model.context_tokens,
            max_output_tokens: model.max_output_tokens,
            price: model.price,
            embeds: model.provider.kind == Kind::OpenAi,
            rung: self.catalog.ladder.iter().position(|rung| **rung == *name),
            breaker: breaker.state(),
        })
    }

    /// The next model down the node's ladder that is called at the moment; `None`: there is none, or this one is not on it.
    pub fn below(&self, name: &str) -> Option<&Arc<str>> {
        let ladder = &self.catalog.ladder;
        let at = ladder.iter().position(|rung| **rung == *name)?;
        let called = |rung: &&Arc<str>| {
            self.catalog.models.get(*rung).is_some_and(|entry| entry.breaker.state() != State::Open)
        };
        ladder.iter().skip(at + 1).find(called)
    }

    /// Which model suits a task (F401). The rules' models need not be configured.
    pub fn suggest(&self, complexity: Complexity, budget: Option<Usd>) -> Option<&str> {
        suggest_model(&self.catalog.suggestions, complexity, budget)
    }

    /// What an agent did since the node began, by its workflow (as it is named inside the node) and role; `None`: nothing that
    /// is remembered.
    pub fn doing(&self, workflow: &str, role: &str) -> Option<Doing> {
        self.catalog.book.of(workflow, role)
    }

    /// What is counted, by model.
    pub fn counted(&self) -> impl Iterator<Item = Counted> + '_ {
        self.catalog.models.values().map(|entry| Counted {
            model: entry.model.name.clone(),
            provider: entry.model.provider.name.clone(),
            counts: entry.counts.clone(),
            state: entry.breaker.state(),
            spell: entry.spell.state(),
            spikes: {
                let [time, cost, errors] = entry.spell.began.each_ref().map(crate::telemetry::Cell::value);
                [("latency", time), ("cost", cost), ("errors", errors)]
            },
        })
    }

    fn entry(&self, ask: &Ask) -> Result<&Arc<Entry>, Failure> {
        let Wanted::Model { model, .. } = &ask.wanted else {
            return Err(Failure::fatal("internal", "a model is asked, and no model's turn is wanted"));
        };
        let Some(name) = model.as_ref().or(self.catalog.default.as_ref()) else {
            let message =
                "no model is named, and the node has no default: models.default in the configuration";
            return Err(Failure::fatal("no_model", message));
        };
        self.catalog.models.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.catalog.models.keys().map(|name| &**name).collect();
            let message = match known.is_empty() {
                true => format!("there is no model {name}: models.names in the configuration is empty"),
                false => format!("there is no model {name} in models.names; there is: {}", known.join(", ")),
            };
            Failure::fatal("model_unknown", message)
        })
    }
}

/// A call as a simulated provider gets it.
#[cfg(test)]
pub(crate) struct Asked {
    pub(crate) name: CallName,
    pub(crate) ask: Arc<Ask>,
    pub(crate) model: Arc<str>,
    pub(crate) price: Option<Price>,
    pub(crate) reply: oneshot::Sender<Result<Answer, Failure>>,
}

#[cfg(test)]
impl Jobs {
    /// The next call.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        let Job { entry, name, ask, reply, .. } = self.0.recv().await?;
        Some(Asked { name, ask, model: entry.model.name.clone(), price: entry.model.price, reply })
    }
}

/// Makes calls until all doors are gone. Wants a `LocalSet`. `settings` says what may be reached.
///
/// # Errors
/// What is trusted cannot be read.
pub async fn serve(settings: super::Settings, secrets: Secrets, jobs: Jobs) -> Result<(), String> {
    serve_with(settings, secrets, jobs, system()).await
}

async fn serve_with(
    settings: super::Settings,
    secrets: Secrets,
    mut jobs: Jobs,
    lookup: Lookup,
) -> Result<(), String> {
    let tls =
        trust::client_config(settings.ca_file.as_deref()).map_err(|why| format!("http.ca_file {why}"))?;
    let caller = Rc::new(Caller::new(Connector::new(Reach::new(&settings), tls, lookup), secrets));
    while let Some(mut job) = jobs.0.recv().await {
        let caller = caller.clone();
        crate::io::spawn_local(async move {
            let (silent, _) = oneshot::channel();
            let mut reply = std::mem::replace(&mut job.reply, silent);
            tokio::select! {
                outcome = caller.attempt(&job) => drop(reply.send(outcome)),
                () = reply.closed() => {}
            }
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "models/tests/gateway.rs"]
mod tests;
