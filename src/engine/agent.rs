//! An agent as its events left it: what it was asked for, what was said, what comes next.
//!
//! | the last turn | then it wants |
//! | --- | --- |
//! | none, tools have returned, a correction | a model |
//! | an answer that asks for tools | those tools |
//! | an answer that does not | nothing: `machine::agent` says whether it is good |
//!
//! Among the turns are marks, of which no model is told: that another model is asked for a while, that the oldest turns are
//! left out. They are a part of what follows from events, and the order among them and the turns counts.
//!
//! Its settings stand in its request, which was written down when it began: a patch, or another configuration, does not
//! change an agent under way.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::scope::Agent;
use crate::limits;
use crate::model::agent::{
    Answer, Aside, Ask, Capture, Overflow, Quote, Returned, Said, Spiked, ToolCall, Wanted, kept_turns,
};
use crate::model::budget::{Over, Wider};
use crate::model::tools::{self, Other};
use crate::model::{RunId, Value};
use crate::time::Timestamp;

/// The run that a workflow is as a tool: the same for the same call of the same turn (answers before it), so that a call that is
/// made again finds it.
pub fn run_of_tool(run_id: RunId, path: &str, turn: u32, call: &ToolCall) -> RunId {
    let hash = Sha256::new_with_prefix(b"tool\0")
        .chain_update(run_id.as_bytes())
        .chain_update(path.as_bytes())
        .chain_update(turn.to_be_bytes())
        .chain_update(call.id.as_bytes())
        .finalize();
    let hash: [u8; 32] = hash.into();
    let created = Timestamp::from_micros(run_id.created_millis().saturating_mul(1_000));
    let mut random = [0; 10];
    random.iter_mut().zip(hash).for_each(|(into, from)| *into = from);
    RunId::new(created, run_id.partition(), random)
}

/// What is said of a turn of an agent, by whoever makes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// A model is about to be called; this is the most that it may take. It may be called once that is reserved.
    Reserve(Quote),
    /// It has answered.
    Answered(Box<Answer>),
    /// The tools have returned: those that were to be called, in any order.
    Returned(Vec<Returned>),
    /// The model that is to be asked spikes: another one is asked in its place. No call is under way.
    Spiked(Box<Spiked>),
    /// The model on the agent's ladder is asked again, in place of the one that is asked instead of it. No call is under way.
    Recovered {
        /// The one that is asked.
        from: Arc<str>,
        /// The ladder's.
        to: Arc<str>,
    },
    /// The conversation does not fit.
    Overflow(Overflow),
    /// A model is not called: a budget wider than the run has too little left for it.
    Refused(Box<Over>),
    /// With the call that was reserved a budget wider than the run has come to where it warns.
    Warned(Box<Wider>),
}

impl Agent {
    /// The last answer, when nothing came after it.
    pub(super) fn answer(&self) -> Option<&Answer> {
        let last = self.said.iter().rev().find(|said| !matches!(said, Said::Aside(_) | Said::Trimmed(_)));
        match last {
            Some(Said::Model(answer)) => Some(answer),
            _ => None,
        }
    }

    pub(super) fn wants_model(&self) -> bool {
        self.answer().is_none()
    }

    /// Its role; empty without one.
    pub(super) fn role(&self) -> Arc<str> {
        match self.call.request.get("role") {
            Some(Value::String(role)) => role.clone(),
            _ => Arc::default(),
        }
    }

    /// Answers so far.
    pub(super) fn turns(&self) -> u32 {
        let answers = self.said.iter().filter(|said| matches!(said, Said::Model(_)));
        u32::try_from(answers.count()).unwrap_or(u32::MAX)
    }

    /// How often it was told that an answer is not what was asked for.
    pub(super) fn corrections(&self) -> usize {
        self.said.iter().filter(|said| matches!(said, Said::Correction(_))).count()
    }

    /// The tools of the last answer that it may have.
    pub(super) fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        let calls = self.answer().map_or(&[][..], |answer| &answer.calls);
        calls.iter().filter(|call| call.refused.is_none())
    }

    /// The runs that its tools are that it waits for.
    pub(super) fn runs_of_tools(&self, run_id: RunId, path: &str) -> impl Iterator<Item = RunId> {
        // Nearly every list has none, and is not read when no tool is called.
        let calls: Vec<_> = self.calls().collect();
        let listed = self.call.request.get("tools").filter(|_| !calls.is_empty());
        let entries = listed.and_then(|listed| tools::read(listed).ok()).unwrap_or_default();
        let others = tools::others(&entries);
        let turn = self.turns();
        let is_run = |call: &ToolCall| matches!(others.get(&call.name), Some(Other::Workflow { .. }));
        let runs = calls.into_iter().filter(|call| is_run(call));
        runs.map(|call| run_of_tool(run_id, path, turn, call)).collect::<Vec<_>>().into_iter()
    }

    /// As whoever makes its next turn is asked.
    pub(super) fn ask(&self) -> Ask {
        let wanted = match self.wants_model() {
            true => Wanted::Model { model: self.model().cloned(), turn: self.turns() },
            false => Wanted::Tools(self.calls().cloned().collect()),
        };
        let own = self.own_model().cloned();
        Ask { request: self.call.request.clone(), said: self.said.clone(), wanted, own }
    }

    /// The models that it may ask, the best first; none: whatever the node asks when nothing is said.
    fn ladder(&self) -> &[Value] {
        match self.call.request.get("models") {
            Some(Value::List(models)) => models,
            _ => &[],
        }
    }

    /// The model on its ladder.
    fn own_model(&self) -> Option<&Arc<str>> {
        match self.ladder().get(self.rung as usize) {
            Some(Value::String(model)) => Some(model),
            _ => None,
        }
    }

    /// The model that it asks.
    fn model(&self) -> Option<&Arc<str>> {
        match self.aside() {
            Aside::To(model) => Some(model),
            Aside::Back | Aside::Stays => self.own_model(),
        }
    }

    /// Does it ask another model than that on its ladder?
    pub(super) fn aside(&self) -> &Aside {
        let last = self.said.iter().rev().find_map(|said| match said {
            Said::Aside(aside) => Some(aside),
            _ => None,
        });
        last.unwrap_or(&Aside::Back)
    }

    /// The position on its ladder below the model that it asks.
    pub(super) fn next_rung(&self) -> u32 {
        let below = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
        let aside = match self.aside() {
            Aside::To(model) => self.ladder().iter().position(|rung| rung.as_str() == Some(model)),
            Aside::Back | Aside::Stays => None,
        };
        aside.map_or(0, below).max(self.rung + 1)
    }

    /// Answers that stay when its conversation is trimmed.
    pub(super) fn kept_turns(&self) -> usize {
        kept_turns(&self.call.request)
    }

    /// Is there a model below the one that it asks?
    pub(super) fn has_rung(&self, rung: u32) -> bool {
        matches!(self.ladder().get(rung as usize), Some(Value::String(_)))
    }

    /// Most answers.
    pub(super) fn turns_max(&self) -> u32 {
        let max = match self.call.request.get("max_turns") {
            Some(Value::Int(max)) => u32::try_from(*max).ok(),
            Some(Value::UInt(max)) => u32::try_from(*max).ok(),
            _ => None,
        };
        max.unwrap_or(limits::AGENT_TURNS_DEFAULT).min(limits::AGENT_TURNS_MAX)
    }

    /// How much is shown of it.
    pub(super) fn capture(&self) -> Capture {
        let named = self.call.request.get("capture").and_then(Value::as_str).and_then(Capture::named);
        named.unwrap_or_default()
    }

    /// Is it asked for vectors, and for nothing that is said?
    pub(super) fn embeds(&self) -> bool {
        self.call.request.get("embed").is_some()
    }

    /// The names of what it gives.
    pub(super) fn outputs(&self) -> Vec<&Arc<str>> {
        let Some(Value::List(names)) = self.call.request.get("outputs") else { return Vec::new() };
        names
            .iter()
            .filter_map(|name| if let Value::String(name) = name { Some(name) } else { None })
            .collect()
    }
}
