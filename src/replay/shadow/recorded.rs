//! What a record says of the world around its run: answers by node and attempt, what people did, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ended;
use crate::engine::{Cause, Graphs, Run, Timer};
use crate::model::event::{Decision, DocumentHash, RunStarted, Waiting};
use crate::model::{EventBody, Failure, RunId, Seq, Status, Value};
use crate::replay::{Burst, Error, Folding, Record};
use crate::time::Timestamp;

/// What an attempt gave.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// So long after it was asked for.
    pub(super) after: Duration,
    /// What it was asked.
    pub(super) request: Option<Value>,
    /// `None`: it was not answered in time.
    pub(super) result: Option<Result<Value, Failure>>,
}

/// What came from outside at some time.
#[derive(Clone, Debug)]
pub(super) enum Given {
    Cause(Cause),
    /// By its number.
    Patch(usize),
}

/// Path of a node, number of its attempt.
type Name = (String, u32);

/// All of it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) run_id: RunId,
    pub(super) started: RunStarted,
    pub(super) began: Timestamp,
    /// What follows `run.started` before anything begins.
    pub(super) preface: Vec<EventBody>,
    pub(super) answers: BTreeMap<Name, Answer>,
    pub(super) decisions: BTreeMap<Name, (Duration, Box<Decision>)>,
    pub(super) given: Vec<(Timestamp, Given)>,
    /// What was proposed, and what document came of it.
    pub(super) patches: Vec<(EventBody, DocumentHash)>,
    pub(super) admitted_after: Duration,
    pub(super) results: BTreeMap<String, Ended>,
    pub(super) status: Status,
    pub(super) outputs: Option<Value>,
    pub(super) failure: Option<Failure>,
    /// When and what attempts under way were asked.
    asked: BTreeMap<Name, (Timestamp, Option<Value>)>,
    /// What each node has asked last.
    requests: BTreeMap<String, Value>,
    /// Humans who are asked, by the event that asked.
    reviews: BTreeMap<Seq, (Name, Timestamp)>,
    waits_since: Timestamp,
}

impl Recorded {
    pub(super) fn of(record: &Record, graphs: &mut dyn Graphs) -> Result<Self, Error> {
        let first = record.bursts.first();
        let Some((EventBody::RunStarted(started), burst)) =
            first.and_then(|burst| Some((burst.events.first()?, burst)))
        else {
            return Err(Error::Unfit { seq: 1, why: "a record begins with run.started".into() });
        };
        let is_preface = |event: &&EventBody| {
            let keyed = matches!(event, EventBody::RunLinked { .. } | EventBody::RunKeyed { .. });
            keyed || matches!(event, EventBody::ModeChanged { .. })
        };
        let mut recorded = Self {
            run_id: record.run_id,
            started: (**started).clone(),
            began: burst.at,
            preface: burst.events.iter().skip(1).take_while(is_preface).cloned().collect(),
            answers: BTreeMap::new(),
            decisions: BTreeMap::new(),
            given: Vec::new(),
            patches: Vec::new(),
            admitted_after: Duration::ZERO,
            results: BTreeMap::new(),
            status: Status::Running,
            outputs: None,
            failure: None,
            asked: BTreeMap::new(),
            requests: BTreeMap::new(),
            reviews: BTreeMap::new(),
            waits_since: burst.at,
        };
        let mut folding = Folding::new(record.run_id, graphs);
        for burst in &record.bursts {
            recorded.burst(burst, &mut folding)?;
        }
        if let Some(run) = folding.run {
            let view = run.view();
            recorded.status = view.summary.status;
            (recorded.outputs, recorded.failure) = (view.outputs, view.failure);
        }
        Ok(recorded)
    }

    /// What came from outside.
    fn caused(&mut self, run: &Run, burst: &Burst) {
        let cause = Cause::of(run, &burst.events, burst.at);
        let name = |place: &crate::model::Place| (run.ir().path(place), run.attempts(place));
        match cause {
            // An agent goes on with another model: its end comes later.
            Cause::Settle(..) if matches!(burst.events.first(), Some(EventBody::ModelDegraded { .. })) => {}
            Cause::Settle(place, _, result) => self.answered(name(&place), burst.at, Some(result)),
            Cause::Timer(Timer::Node(place)) if self.asked.contains_key(&name(&place)) => {
                self.answered(name(&place), burst.at, None);
            }
            Cause::Decide(_, seq, decision) => {
                if let Some((name, since)) = self.reviews.get(&seq) {
                    self.decisions.insert(name.clone(), (since.until(burst.at), decision));
                }
            }
            Cause::Admitted(_) => self.admitted_after = self.waits_since.until(burst.at),
            // Nobody sends it to the shadow again.
            Cause::Signal(name, payload, _) => {
                self.given.push((burst.at, Given::Cause(Cause::Signal(name, payload, None))));
            }
            Cause::Pause(_) | Cause::Resume | Cause::Cancel(_) | Cause::Terminate(_) => {
                self.given.push((burst.at, Given::Cause(cause)));
            }
            _ => {}
        }
    }

    fn burst(&mut self, burst: &Burst, folding: &mut Folding<'_>) -> Result<(), Error> {
        if let Some(run) = &folding.run {
            self.caused(run, burst);
        }
        for event in burst.events() {
            folding.event(&event)?;
            let Some(run) = &folding.run else { continue };
            for body in folding.derived.iter().chain([&event.body]) {
                Ended::note(&mut self.results, run, body);
            }
            match &event.body {
                // An agent's end follows from its last answer: in a shadow it is the answer to the whole conversation.
                EventBody::NodeCompleted { place, output, .. } => {
                    self.agent_ended((run.ir().path(place), run.attempts(place)), event.at, Ok(output));
                }
                EventBody::NodeFailed { place, failure, .. }
                | EventBody::NodeFellBack { place, failure, .. } => {
                    self.agent_ended((run.ir().path(place), run.attempts(place)), event.at, Err(failure));
                }
                EventBody::NodeWaiting { place, waiting } => {
                    let name = (run.ir().path(place), run.attempts(place));
                    match waiting {
                        Waiting::Call { request: asked, .. } | Waiting::Child { inputs: asked, .. } => {
                            // A later attempt asks for the same as the one before.
                            let before = self.requests.get(&name.0).cloned();
                            let asked = asked.clone().or(before);
                            self.requests.extend(asked.clone().map(|asked| (name.0.clone(), asked)));
                            self.asked.insert(name, (event.at, asked));
                        }
                        Waiting::Review(_) => drop(self.reviews.insert(event.seq, (name, event.at))),
                        _ => {}
                    }
                }
                EventBody::RunForked(forked) => {
                    if let Some(inputs) = &forked.inputs {
                        self.started.inputs = inputs.clone();
                    }
                }
                EventBody::RunWaiting(_) => self.waits_since = event.at,
                EventBody::PatchApplied(patched) => {
                    let before = event.seq.saturating_sub(1).saturating_sub(burst.first_seq);
                    let proposed = burst.events.get(usize::try_from(before).unwrap_or(usize::MAX));
                    if let Some(proposed) = proposed {
                        self.given.push((event.at, Given::Patch(self.patches.len())));
                        self.patches.push((proposed.clone(), patched.document));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn agent_ended(&mut self, name: Name, at: Timestamp, result: Result<&Value, &Failure>) {
        if self.asked.contains_key(&name) {
            self.answered(name, at, Some(result.cloned().map_err(Clone::clone)));
        }
    }

    fn answered(&mut self, name: Name, at: Timestamp, result: Option<Result<Value, Failure>>) {
        let (asked, request) = self.asked.remove(&name).unwrap_or((at, None));
        self.answers.insert(name, Answer { after: asked.until(at), request, result });
    }
}
