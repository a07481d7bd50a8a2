//! Reads a history as an outsider would, event by event, with the document in hand, and objects to what must not be in it.
//!
//! A node is counted once for each time its pass is gone through: when a node with bodies is tried again, what happened in
//! its passes before is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Run;
use crate::ir::{Backoff, Ir, Kind, Node, Policy, Retry, Scope};
use crate::limits;
use crate::model::event::Waiting;
use crate::model::{EventBody, Failure, Place, Status};
use crate::time::Timestamp;

/// What has become of a node so far.
#[derive(Clone, Debug, Default)]
struct Life {
    attempts: u32,
    /// Those that were over when the turn of an agent began: each turn has all of them.
    earlier: u32,
    /// An attempt is under way.
    begun: bool,
    settled: bool,
    fell_back: bool,
    /// Not before.
    due: Option<Timestamp>,
    /// When others are asked, and when nobody is any more.
    review: Option<(Vec<Timestamp>, Option<Timestamp>)>,
    /// Passes begun by event: the iterations of a loop.
    iterations: u32,
    /// How many passes there are to be.
    passes: Option<usize>,
    /// Passes that ended.
    over: BTreeSet<u32>,
}

/// What a history says.
#[derive(Clone)]
pub(super) struct Ledger {
    ir: Arc<Ir>,
    lives: BTreeMap<Place, Life>,
    /// Verdicts on edges, by pass and index of the edge.
    edges: BTreeMap<(Place, u32), bool>,
    status: Status,
    /// What it was before it was paused.
    paused_at: Status,
    cancelling: bool,
    deadline: Option<Timestamp>,
    admitted: bool,
    /// It goes on where another one was.
    forked: bool,
    /// Attempts that it had under way there, when it has to wait for its turn.
    begin_again: BTreeSet<Place>,
}

impl Ledger {
    pub(super) fn new(ir: Arc<Ir>) -> Self {
        Self {
            ir,
            lives: BTreeMap::new(),
            edges: BTreeMap::new(),
            status: Status::Running,
            paused_at: Status::Running,
            cancelling: false,
            deadline: None,
            admitted: false,
            forked: false,
            begin_again: BTreeSet::new(),
        }
    }

    /// A fork of a run that was admitted waits for a slot of its own; attempts under way begin again then.
    fn stand_in_line(&mut self) {
        let begun = self.lives.iter().filter(|(_, life)| life.begun && !life.settled);
        let calls = begun.filter(|(place, _)| self.node(place).is_call());
        self.begin_again = calls.map(|(place, _)| place.clone()).collect();
        self.forked = true;
        if self.admitted && self.status == Status::Paused {
            self.paused_at = Status::Pending;
        }
        self.admitted = false;
    }

    fn graph(&self, place: &Place) -> &Scope {
        let mut graph = self.ir.root();
        for (owner, pass) in &place.scopes {
            let body = graph.nodes[*owner as usize].body(*pass).expect("no such body");
            graph = &self.ir.scopes[body as usize];
        }
        graph
    }

    fn node(&self, place: &Place) -> &Node {
        &self.graph(place).nodes[place.node as usize]
    }

    fn life(&mut self, place: &Place) -> &mut Life {
        self.lives.entry(place.clone()).or_default()
    }

    pub(super) fn record(&mut self, at: Timestamp, body: &EventBody) {
        let said = format!("{} {:?}", body.type_name(), body.place());
        assert!(!self.status.is_terminal(), "{said} after the run's end");
        if let Some(place) = body.place()
            && !matches!(body, EventBody::RunFailed { .. })
        {
            self.alive(place, &said);
        }
        match body {
            EventBody::RunStarted(started) => self.deadline = started.deadline,
            EventBody::RunForked(forked) => {
                self.deadline = forked.deadline;
                self.stand_in_line();
            }
            EventBody::NodeRedriven { place } => {
                assert!(self.node(place).is_call() && !self.life(place).settled, "{said}");
                *self.life(place) = Life::default();
            }
            EventBody::NodeStarted { place, attempt } => self.started(place, *attempt, at),
            EventBody::NodeWaiting { place, waiting } => self.waiting(place, waiting),
            EventBody::TimerSet { place, due } => self.life(place).due = Some(*due),
            EventBody::TimerFired { place } => {
                let due = self.life(place).due.take();
                assert!(due.is_some_and(|due| due <= at), "{said}: due {due:?}, now {at}");
                // A retry's due time is kept for its start; its passes are gone.
                self.forget(place);
            }
            EventBody::NodeCompleted { place, edges, .. } => self.ended(place, edges, body),
            EventBody::NodeFailed { place, edges, .. } => self.ended(place, edges, body),
            EventBody::NodeSkipped { place } => {
                let (live, open) = self.arrived(place);
                assert!(live == 0 && open == 0, "{said}: {live} live, {open} open");
                self.ended(place, &[], body);
            }
            EventBody::NodeRetryScheduled { place, failure, due, .. } => {
                self.retry(place, failure, at, *due);
            }
            EventBody::NodeFellBack { place, .. } => {
                self.forget(place);
                let life = self.life(place);
                assert!(!life.fell_back && !life.settled, "{said} twice");
                life.fell_back = true;
                (life.due, life.passes) = (None, None);
            }
            EventBody::NodeUncertain { place, .. } => {
                assert!(self.node(place).at_most_once && self.node(place).is_call(), "{said}");
                self.life(place).due = None;
            }
            EventBody::NodeLost { place } => {
                assert!(self.node(place).is_call() && !self.node(place).at_most_once, "{said}");
            }
            EventBody::NodeLeased { place, .. } => assert!(self.node(place).is_call(), "{said}"),
            EventBody::LoopContinued { place, iteration } => {
                let Kind::Loop { max_iterations, .. } = self.node(place).kind else { panic!("{said}") };
                let life = self.life(place);
                life.iterations += 1;
                assert_eq!(life.iterations, *iteration, "{said}");
                assert!(*iteration < max_iterations, "{said}: {iteration} of {max_iterations}");
                life.passes = Some(*iteration as usize + 1);
            }
            EventBody::ApprovalEscalated { place, level } => {
                let (escalations, _) = self.life(place).review.clone().expect("it asks nobody");
                assert!(escalations[*level as usize - 1] <= at, "{said} early");
            }
            EventBody::ApprovalExpired { place } => {
                let (_, due) = self.life(place).review.clone().expect("it asks nobody");
                assert!(due.is_some_and(|due| due <= at), "{said} early");
            }
            EventBody::ApprovalDecided { place, .. } => {
                // I-11: once, and in time.
                let (_, due) = self.life(place).review.take().expect("nobody is asked (any more)");
                assert!(due.is_none_or(|due| due > at), "{said} late");
            }
            EventBody::RunWaiting(_) => {
                assert!(self.lives.is_empty() || self.forked, "{said} after something started");
                self.go(Status::Running, Status::Pending);
            }
            EventBody::RunAdmitted => {
                self.admitted = true;
                self.go(Status::Pending, Status::Running);
            }
            EventBody::RunPaused { .. } => {
                self.paused_at = self.status;
                assert!(matches!(self.status, Status::Pending | Status::Running), "{said}");
                self.go(self.status, Status::Paused);
            }
            EventBody::RunResumed => self.go(Status::Paused, self.paused_at),
            EventBody::RunCancelRequested { .. } => {
                assert!(!self.cancelling, "{said} twice");
                self.cancelling = true;
            }
            EventBody::RunCompleted { .. } => {
                assert!(self.status == Status::Running && !self.cancelling, "{said} while {:?}", self.status);
                for node in 0..self.ir.root().nodes.len() {
                    let life = self.lives.get(&Place::root(u32::try_from(node).unwrap()));
                    let waits = life.is_none_or(|life| !life.settled);
                    assert!(!waits || self.never_due(node), "{said}: node {node} is left behind");
                }
                self.status = Status::Completed;
            }
            EventBody::RunFailed { failure, .. } => {
                if &*failure.code == "deadline_exceeded" {
                    assert!(self.deadline.is_some_and(|due| due <= at), "{said} early");
                }
                self.status = Status::Failed;
            }
            EventBody::RunCancelled { .. } => {
                assert!(self.cancelling, "{said}, and nobody asked for it");
                self.status = Status::Cancelled;
            }
            EventBody::ModelAnswered { place, .. } | EventBody::ToolReturned { place, .. } => {
                assert!(self.node(place).is_call(), "{said}");
                let life = self.life(place);
                life.earlier = life.attempts.saturating_sub(1);
            }
            EventBody::ModelCalled { place, .. }
            | EventBody::ToolCalled { place, .. }
            | EventBody::AgentCorrected { place, .. }
            | EventBody::ModelDegraded { place, .. }
            | EventBody::ModelSpiked { place, .. }
            | EventBody::ModelRecovered { place, .. }
            | EventBody::ContextTrimmed { place, .. }
            | EventBody::BudgetExceeded { place, .. }
            | EventBody::WiderExceeded { place, .. }
            | EventBody::WiderWarned { place, .. } => assert!(self.node(place).is_call(), "{said}"),
            EventBody::SignalReceived { .. }
            | EventBody::BudgetWarned { .. }
            | EventBody::BudgetRaised { .. }
            | EventBody::RunLinked { .. }
            | EventBody::RunKeyed { .. }
            | EventBody::PatchApplied(_)
            | EventBody::PatchCreated(_)
            | EventBody::PatchRejected(_)
            | EventBody::PatchRevoked(_)
            | EventBody::PatchHeld(_)
            | EventBody::PatchDecided(_)
            | EventBody::RunLayered(_)
            | EventBody::RequestRemembered(_)
            | EventBody::ModeChanged { .. }
            | EventBody::EventsDerived { .. } => {}
        }
    }

    /// May a node of the outermost scope be left pending in a run that completed? No: every edge settles.
    fn never_due(&self, _: usize) -> bool {
        false
    }

    fn go(&mut self, from: Status, to: Status) {
        assert_eq!(self.status, from);
        assert!(!self.cancelling);
        self.status = to;
    }

    /// Everything around the place is under way, and its pass is not over.
    fn alive(&self, place: &Place, said: &str) {
        let mut around = place.clone();
        while let Some((owner, pass)) = around.node_of_pass() {
            let life = self.lives.get(&owner).unwrap_or_else(|| panic!("{said}: its owner never began"));
            assert!((life.begun || life.fell_back) && !life.settled, "{said}: its owner is not under way");
            assert!(!life.over.contains(&pass), "{said}: its pass is over");
            assert_eq!(life.fell_back, pass == Place::FALLBACK, "{said}");
            around = owner;
        }
    }

    /// (live edges into a node, edges that have no verdict yet)
    fn arrived(&self, place: &Place) -> (usize, usize) {
        let pass = Place { node: Place::PASS, ..place.clone() };
        let verdicts = self.node(place).incoming.iter().map(|edge| self.edges.get(&(pass.clone(), *edge)));
        let verdicts: Vec<_> = verdicts.collect();
        let live = verdicts.iter().filter(|verdict| **verdict == Some(&true)).count();
        (live, verdicts.iter().filter(|verdict| verdict.is_none()).count())
    }

    /// I-8, I-12: nothing starts before its inputs settled, nor before its retry is due, nor in a pause.
    fn started(&mut self, place: &Place, attempt: u32, at: Timestamp) {
        let said = format!("attempt {attempt} of {}", self.ir.path(place));
        assert!(self.status == Status::Running && !self.cancelling, "{said} while {:?}", self.status);
        let earlier = self.life(place).earlier;
        let node = self.node(place);
        let most = node.retry.as_ref().map_or(1, |retry| retry.max_attempts);
        assert!(attempt - earlier <= most.max(1), "{said}, {earlier} in earlier turns: at most {most}");
        assert!(!node.at_most_once || attempt == 1, "{said}: at most once");
        let (live, open) = self.arrived(place);
        let enough = node.incoming.is_empty()
            || match node.policy {
                Policy::All => live >= 1 && open == 0,
                Policy::Any => live >= 1,
                Policy::AtLeast(k) => live >= k as usize,
            };
        assert!(enough, "{said}: {live} live edges, {open} open ones");
        self.forget(place);
        let again = self.begin_again.remove(place);
        let life = self.life(place);
        if again && life.begun && attempt == life.attempts {
            *life = Life { attempts: attempt - 1, ..Life::default() };
        }
        assert!(!life.settled && !life.begun, "{said} begins twice");
        assert_eq!(attempt, life.attempts + 1, "{said}");
        assert!(life.due.is_none_or(|due| due <= at), "{said} begins early");
        let attempts = attempt;
        *life = Life { attempts, earlier, begun: true, ..Life::default() };
    }

    /// Nothing is known any more of what happened in a node's passes.
    fn forget(&mut self, place: &Place) {
        let depth = place.scopes.len();
        let inside = |other: &Place| {
            other.scopes.len() > depth
                && other.scopes[..depth] == place.scopes[..]
                && other.scopes[depth].0 == place.node
        };
        self.lives.retain(|other, _| !inside(other));
        self.edges.retain(|(other, _), _| !inside(other));
        let life = self.life(place);
        life.over.clear();
        life.iterations = 0;
    }

    fn waiting(&mut self, place: &Place, waiting: &Waiting) {
        let branches = match &self.node(place).kind {
            Kind::Parallel { branches, .. } => branches.len(),
            _ => 1,
        };
        let life = self.life(place);
        assert!(life.begun && !life.settled, "{place:?} waits without having begun");
        match waiting {
            Waiting::Timer { due } | Waiting::Call { due, .. } => life.due = Some(*due),
            Waiting::Signal { due, .. } | Waiting::Child { due, .. } => life.due = *due,
            Waiting::Items { items } => {
                let crate::model::Value::List(items) = items else { panic!("no list") };
                life.passes = Some(items.len());
            }
            Waiting::Passes { .. } => life.passes = Some(branches),
            Waiting::Review(review) => {
                let escalations = review.escalations.iter().map(|step| step.at).collect();
                life.review = Some((escalations, review.due));
            }
        }
    }

    /// I-5: one outcome, and it has a cause.
    fn ended(&mut self, place: &Place, verdicts: &[bool], body: &EventBody) {
        let said = format!("{} {}", body.type_name(), self.ir.path(place));
        if place.node == Place::PASS {
            return self.pass_over(place, &said);
        }
        let (skipped, unmet) = match body {
            EventBody::NodeSkipped { .. } => (true, false),
            EventBody::NodeFailed { failure, .. } => (false, &*failure.code == "join_unsatisfiable"),
            _ => (false, false),
        };
        let outgoing = self.node(place).outgoing.clone();
        let over = matches!(body, EventBody::NodeCompleted { .. });
        let life = self.life(place);
        assert!(!life.settled, "{said} twice");
        assert!(life.begun || life.fell_back || skipped || unmet, "{said}, and it never began");
        if over && let Some(passes) = life.passes {
            assert_eq!(life.over.len(), passes, "{said}: passes that are over");
        }
        (life.settled, life.due) = (true, None);
        let pass = Place { node: Place::PASS, ..place.clone() };
        assert!(verdicts.len() <= outgoing.len());
        for (at, edge) in outgoing.iter().enumerate() {
            let verdict = if skipped { Some(false) } else { verdicts.get(at).copied() };
            if let Some(verdict) = verdict {
                let before = self.edges.insert((pass.clone(), *edge), verdict);
                assert_eq!(before, None, "{said}: a second verdict");
            }
        }
        let unjudged = !skipped && verdicts.len() < outgoing.len();
        let brought_down = match body {
            EventBody::NodeFailed { continued, .. } => !*continued && !verdicts.iter().any(|live| *live),
            _ => false,
        };
        // A pass ends with its only node, or with a failure that nobody takes care of; else by an event.
        let anonymous = self.graph(place).anonymous;
        if !place.scopes.is_empty() && !unjudged && !self.cancelling && (anonymous || brought_down) {
            self.pass_over(&pass, &said);
        }
    }

    fn pass_over(&mut self, pass: &Place, said: &str) {
        let (owner, number) = pass.node_of_pass().unwrap();
        let life = self.life(&owner);
        assert!(life.over.insert(number), "{said}: its pass is over twice");
    }

    /// The delay lies within the policy's bounds, and is no shorter than what was asked for.
    fn retry(&mut self, place: &Place, failure: &Failure, at: Timestamp, due: Timestamp) {
        let node = self.node(place);
        let retry = node.retry.clone().expect("it is not tried again");
        assert!(failure.retryable() && !node.at_most_once && !self.cancelling, "{place:?} {failure}");
        self.forget(place);
        let life = self.life(place);
        let (attempts, earlier) = (life.attempts, life.earlier);
        assert!(life.begun && !life.settled && attempts - earlier < retry.max_attempts, "{place:?}");
        let (least, most) = bounds(&retry, attempts - earlier - 1);
        let asked = failure.retry_after().unwrap_or_default();
        let asked = asked.min(Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX));
        let delay = at.until(due);
        let slack = Duration::from_micros(2);
        assert!(delay + slack >= least.max(asked), "{place:?} waits {delay:?}, at least {least:?}");
        assert!(delay <= most.max(asked) + slack, "{place:?} waits {delay:?}, at most {most:?}");
        *life = Life { attempts, earlier, due: Some(due), ..Life::default() };
    }

    /// The run has come to its end.
    pub(super) fn over(&self, run: &Run) {
        assert_eq!(run.status(), self.status);
    }
}

/// The shortest and the longest delay before retry `n`.
fn bounds(retry: &Retry, n: u32) -> (Duration, Duration) {
    let plain = match retry.backoff {
        Backoff::Fixed => retry.initial,
        Backoff::Linear => retry.initial * n,
        Backoff::Exponential => (0..n).fold(retry.initial, |delay, _| delay.mul_f64(retry.multiplier)),
    };
    let plain = plain.min(retry.max);
    if retry.jitter { (plain / 2, (plain * 3 / 2).min(retry.max)) } else { (plain, plain) }
}
