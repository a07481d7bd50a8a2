//! What happens to a run: what it cannot go on without, and anything at all.

use std::sync::Arc;

use super::Bytes;
use super::world::{Move, World};
use crate::engine::scope::Phase;
use crate::engine::tests::Given;
use crate::engine::{Dispatch, Permit, Says, Timer, Verb, Work};
use crate::model::agent::{
    Answer, Ask, Limit, Measure, Overflow, Quote, Returned, Spiked, Stop, ToolCall, Wanted,
};
use crate::model::budget::{OnBreach, Over, Wider};
use crate::model::event::Decision;
use crate::model::money::{Tokens, Usd};
use crate::model::{Class, Failure, Place, Value};
use crate::time::Timestamp;

impl World {
    /// Something that the run, which is not ready, cannot go on without.
    pub(super) fn wanted(&mut self, round: u32) -> Option<Given> {
        if self.run.may(Verb::Resume) == Permit::Go {
            return Some(Given::Resume);
        }
        if let Some((claim, false)) = self.run.claim() {
            return Some(Given::Admitted(claim.seq));
        }
        let answered = |dispatch: &Dispatch| {
            let result = if round % 3 == 2 { Err(Failure::fatal("no", "no")) } else { Ok(Value::Int(7)) };
            Given::Settle(dispatch.place.clone(), dispatch.seq, result)
        };
        let mut asked: Vec<Dispatch> = self.run.dispatches();
        asked.retain(|dispatch| self.work.contains(dispatch));
        if let Some(dispatch) = asked.first() {
            return Some(answered(dispatch));
        }
        if let Some((place, seq, due)) = self.asked()
            && round % 2 == 1
            && self.run.cancel.is_none()
            && due.is_none_or(|due| due > self.now)
        {
            return Some(Given::Decide(place, seq, decision(round % 4 == 1)));
        }
        // Nothing of a node counts any more once the run is to be cancelled.
        let cancelling = self.run.cancel.is_some();
        let counts = |timer: &Timer| !cancelling || !matches!(timer, Timer::Node(_));
        if let Some((due, timer)) = self.run.timers().filter(|(_, timer)| counts(timer)).min() {
            self.now = self.now.max(due);
            return Some(Given::Timer(timer));
        }
        let waiting = self.run.waiting.keys().find(|name| self.run.waiter(name).is_some());
        if let Some(name) = waiting {
            return Some(Given::Signal(name.to_string(), Value::Int(7)));
        }
        self.uncertain().map(|(place, attempt)| Given::Settle(place, attempt, Ok(Value::Int(7))))
    }

    /// A call of which nobody knows what became of it.
    fn uncertain(&self) -> Option<(Place, u64)> {
        let mut found = None;
        self.run.root.walk(&mut smallvec::SmallVec::new(), &mut |scopes, node, state| {
            if state.phase == Phase::Uncertain {
                let seq = state.call().map_or(0, |call| call.seq);
                found = Some((Place { scopes: scopes.clone(), node }, seq));
            }
            found.is_none()
        });
        found
    }

    /// A review that waits: its node, the event that asked, its end.
    fn asked(&self) -> Option<(Place, u64, Option<Timestamp>)> {
        let mut found = None;
        self.run.root.walk(&mut smallvec::SmallVec::new(), &mut |scopes, node, state| {
            if let Some(asked) = state.open_review() {
                found = Some((Place { scopes: scopes.clone(), node }, asked.seq, asked.review.due));
            }
            found.is_none()
        });
        found
    }

    /// Anything, as the bytes say.
    pub(super) fn happening(&mut self, script: &mut Bytes<'_>) -> Move {
        let timer = |script: &mut Bytes<'_>| {
            let place = usize::from(script.below(255)) % self.timers.len().max(1);
            self.timers.get(place).cloned()
        };
        let work = |script: &mut Bytes<'_>| {
            let place = usize::from(script.below(255)) % self.work.len().max(1);
            self.work.get(place).cloned()
        };
        let signal = |script: &mut Bytes<'_>| {
            Given::Signal(format!("s{}", script.below(3)), Value::Int(i64::from(script.below(9))))
        };
        let given = match script.below(32) {
            0..=6 => match self.timers.iter().min().cloned() {
                Some((due, timer)) => {
                    self.now = self.now.max(due);
                    Given::Timer(timer)
                }
                None => signal(script),
            },
            7 | 8 => match timer(script) {
                // Early, as often as not.
                Some((_, timer)) => Given::Timer(timer),
                None => Given::Timer(Timer::Node(Place::root(u32::from(script.below(9))))),
            },
            9..=17 => match work(script) {
                Some(Dispatch { place, seq, work: Work::Agent(ask), .. }) if !script.one_in(6) => {
                    let says = agent(script, &ask, self.run.is_reserved(&place, seq));
                    Given::Agent(place, seq, says)
                }
                Some(dispatch) => Given::Settle(dispatch.place, dispatch.seq, result(script)),
                None => signal(script),
            },
            // An attempt that is not the one under way, or was answered.
            18 => match work(script) {
                Some(dispatch) => Given::Settle(dispatch.place, dispatch.seq + 1, result(script)),
                None => Given::Settle(Place::root(u32::from(script.below(9))), 1, result(script)),
            },
            19 | 20 => match self.uncertain() {
                Some((place, attempt)) => Given::Settle(place, attempt, result(script)),
                None => signal(script),
            },
            21 | 22 => match work(script) {
                Some(dispatch) => Given::Lost(dispatch.place, dispatch.seq),
                None => signal(script),
            },
            28 | 29 => match work(script) {
                Some(dispatch) => Given::Lease(dispatch.place, dispatch.seq),
                None => signal(script),
            },
            23 => Given::Pause,
            24 | 25 => Given::Resume,
            26 if script.one_in(4) => Given::Cancel,
            26 if script.one_in(3) => Given::Terminate,
            27 => return Move::Crash,
            // As often as not for another claim than the one that counts.
            30 => Given::Admitted(
                self.run.claim().map_or(2, |(claim, _)| claim.seq) + u64::from(script.below(2)),
            ),
            31 => match self.asked() {
                // Now and then of another review than the one that waits.
                Some((place, seq, _)) => {
                    let seq = seq + u64::from(script.one_in(4));
                    Given::Decide(place, seq, decision(script.one_in(2)))
                }
                None => signal(script),
            },
            _ => signal(script),
        };
        Move::Give(given)
    }

    /// A terminate is two events of one burst, and so is what a wider budget says; a node that dies after every event would tear
    /// what a frame of the log never tears (ADR 9). Where that is played, the run is cancelled first, and no such budget refuses.
    pub(super) fn untorn(&self, next: Move) -> Move {
        match next {
            Move::Give(Given::Terminate) if !self.terminated && self.run.cancel.is_none() => {
                Move::Give(Given::Cancel)
            }
            Move::Give(Given::Agent(place, seq, Says::Refused(over))) if !self.terminated => {
                Move::Give(Given::Agent(place, seq, Says::Reserve(over.quote)))
            }
            next => next,
        }
    }
}

fn decision(approved: bool) -> Decision {
    let form = Value::list(vec![Value::Bool(approved)]);
    Decision { approved, reviewer: "ops".into(), reason: Some("so".into()), form, digest: [7; 32] }
}

/// Something that may be said of a turn, now and then something else than what comes next.
fn agent(script: &mut Bytes<'_>, ask: &Ask, reserved: bool) -> Says {
    let of = |calls: &[ToolCall]| calls.iter().map(|call| returned(&call.id)).collect();
    match &ask.wanted {
        Wanted::Tools(calls) if !script.one_in(8) => Says::Returned(of(calls)),
        Wanted::Model { .. } if reserved && script.one_in(8) => overflow(script),
        Wanted::Model { .. } if reserved && script.one_in(8) => Says::Warned(Box::new(wider(script))),
        Wanted::Model { .. } if reserved => Says::Answered(Box::new(answer(script))),
        Wanted::Model { model, .. } if script.one_in(6) => moved(script, model.as_ref()),
        _ if script.one_in(5) => Says::Refused(Box::new(Over { quote: quote(script), by: wider(script) })),
        _ => Says::Reserve(quote(script)),
    }
}

fn quote(script: &mut Bytes<'_>) -> Quote {
    let cost = (!script.one_in(4)).then(|| Usd::from_nanos(u64::from(script.below(100))));
    // No call takes no tokens.
    let tokens = 1 + u64::from(script.below(100));
    Quote { model: "a".into(), cost, tokens }
}

/// A budget that others have a part in, as it happens to stand.
fn wider(script: &mut Bytes<'_>) -> Wider {
    let (scope, per) = (*script.of(&["node", "workspace:acme"]), *script.of(&["hour", "total"]));
    let nanos = |script: &mut Bytes<'_>| Usd::from_nanos(u64::from(script.below(50)));
    let usd = (!script.one_in(3)).then(|| (nanos(script), Usd::from_nanos(100)));
    let tokens = script.one_in(3).then(|| (u64::from(script.below(50)), 100));
    let on_breach = *script.of(&[OnBreach::Stop, OnBreach::Pause, OnBreach::Degrade]);
    Wider { scope: scope.into(), per: per.into(), usd, tokens, on_breach }
}

/// Something about the model or the conversation of a turn.
fn moved(script: &mut Bytes<'_>, asked: Option<&Arc<str>>) -> Says {
    let asked: Arc<str> = asked.cloned().unwrap_or_else(|| "a".into());
    match script.below(3) {
        0 => Says::Recovered { from: asked, to: "a".into() },
        1 => overflow(script),
        _ => Says::Spiked(Box::new(Spiked {
            from: asked,
            to: ["a", "b", "elsewhere"][script.below(3) as usize].into(),
            measure: Measure::CallTime,
            measured: 2,
            threshold: 1,
        })),
    }
}

fn overflow(script: &mut Bytes<'_>) -> Says {
    let limit = [Limit::Memory, Limit::Window, Limit::Provider][script.below(3) as usize];
    let (tokens, most) = (255, u64::from(script.below(255)));
    Says::Overflow(Overflow { model: "a".into(), limit, tokens, most, bytes_per_token: 1 })
}

fn returned(id: &str) -> Returned {
    Returned { id: id.into(), name: "t".into(), outcome: Ok(Value::Int(7)), took_ms: 1 }
}

fn answer(script: &mut Bytes<'_>) -> Answer {
    let call = |at: u8| ToolCall {
        id: format!("c{at}").into(),
        name: "t".into(),
        arguments: Value::Int(i64::from(at)),
        refused: (at % 2 == 1).then(|| Box::new(Failure::fatal("tool_not_allowed", "no"))),
    };
    let first = script.below(2);
    Answer {
        model: "a".into(),
        provider: "p".into(),
        answered_by: "a-1".into(),
        response_id: "r".into(),
        content: "7".into(),
        calls: (first..first + script.below(3)).map(call).collect(),
        stop: *script.of(&[Stop::End, Stop::Tools, Stop::End, Stop::Length, Stop::Filtered]),
        tokens: Tokens { input: 3, output: u64::from(script.below(9)), ..Tokens::default() },
        measured: true,
        cost: Some(Usd::from_nanos(u64::from(script.below(50)))),
        took_ms: 1,
    }
}

fn result(script: &mut Bytes<'_>) -> Result<Value, Failure> {
    let failure = |class, code: &str| Failure { class, ..Failure::fatal(code, "it did not work") };
    match script.below(9) {
        0..=3 => Ok(Value::Int(7)),
        4 => Ok(Value::list(vec![Value::Int(i64::from(script.below(9))), Value::Null])),
        5 => Err(failure(Class::Fatal, "refused")),
        6 => Err(failure(Class::Transient, "connection_reset")),
        7 => {
            let details = Value::map([("retry_after_ms", Value::Int(i64::from(script.below(200)) * 100))]);
            Err(Failure { details, ..failure(Class::Recoverable, "rate_limit") })
        }
        _ => Err(failure(Class::Transient, "timeout")),
    }
}
