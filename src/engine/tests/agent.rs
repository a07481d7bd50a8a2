//! Agents: turns, tools, corrections, ladders, and the money that all of it takes.

use std::sync::Arc;
use std::time::Duration;

use super::build::{Build, identity, retry};
use super::{Driver, Given, Mode, start, value};
use crate::engine::command::{Paused, run_of_tool};
use crate::engine::{Raise, Recalled, Says, Work};
use crate::ir::{Budget, Executor, Ir, Kind, OnBreach, Template};
use crate::model::agent::{Answer, Quote, Returned, Said, Stop, ToolCall, Wanted};
use crate::model::budget::{Over, Wider};
use crate::model::event::{Done, Idempotency};
use crate::model::money::{Tokens, Usd};
use crate::model::{EventBody, Failure, Place, Seq, Status, Value};

const CENT: u64 = 10_000_000;

/// ask (agent) -> done, with this request and budget.
pub(super) fn workflow(request: &str, budget: Option<Budget>) -> Arc<Ir> {
    let mut build = Build::new();
    let kind = Kind::Call { executor: Executor::Agent, request: Template::Value(value(request)) };
    let ask = build.node(0, "ask", kind);
    let done = build.node(0, "done", identity());
    build.edge(0, ask, done);
    build.at(0, ask).retry = retry(3, 1);
    build.at(0, ask).timeout = Some(Duration::from_secs(600));
    build.ir.budget = budget.map(Box::new);
    build.build()
}

pub(super) fn cents(cents: u64, on_breach: OnBreach) -> Option<Budget> {
    let usd = Some(Usd::from_nanos(cents * CENT));
    Some(Budget { usd, tokens: None, warn_at_permille: 800, on_breach, allow_unpriced: false })
}

pub(super) fn quote(cents: u64) -> Quote {
    Quote { model: "m".into(), cost: Some(Usd::from_nanos(cents * CENT)), tokens: 100 }
}

pub(super) fn said(text: &str) -> Answer {
    Answer {
        model: "m".into(),
        provider: "p".into(),
        answered_by: "m-1".into(),
        response_id: "r".into(),
        content: text.into(),
        calls: Vec::new(),
        stop: Stop::End,
        tokens: Tokens { input: 10, output: 5, ..Tokens::default() },
        measured: true,
        cost: Some(Usd::from_nanos(CENT)),
        took_ms: 7,
    }
}

pub(super) fn wants(tools: &[&str]) -> Answer {
    let call = |name: &&str| ToolCall {
        id: format!("call_{name}").into(),
        name: (*name).into(),
        arguments: Value::Null,
        refused: name.starts_with("bad").then(|| Box::new(Failure::fatal("tool_not_allowed", "no"))),
    };
    Answer { calls: tools.iter().map(call).collect(), stop: Stop::Tools, ..said("") }
}

pub(super) fn brought(name: &str) -> Returned {
    let (id, name) = (format!("call_{name}").into(), name.into());
    Returned { id, name, outcome: Ok(value("[1]")), took_ms: 3 }
}

impl Driver {
    /// The turn of the agent that is under way.
    pub(super) fn turn(&self) -> (Place, Seq, Wanted, usize) {
        let dispatches = self.run.dispatches();
        let [dispatch] = &dispatches[..] else { panic!("one turn: {dispatches:?}") };
        let Work::Agent(ask) = &dispatch.work else { panic!("{dispatch:?}") };
        (dispatch.place.clone(), dispatch.seq, ask.wanted.clone(), ask.said.len())
    }

    pub(super) fn says(&mut self, says: Says) -> bool {
        let (place, seq, ..) = self.turn();
        self.give(&Given::Agent(place, seq, says))
    }

    /// Reserves what the call may cost, and answers it.
    pub(super) fn answers(&mut self, reserved: Quote, answer: Answer) {
        assert!(!self.says(Says::Reserve(reserved)));
        assert!(!self.says(Says::Answered(Box::new(answer))));
    }

    pub(super) fn fails(&mut self, code: &str) {
        let (place, seq, ..) = self.turn();
        let failure = Failure::transient(code, "no");
        assert!(!self.give(&Given::Settle(place, seq, Err(failure))));
    }

    pub(super) fn spent(&self) -> (u64, u64) {
        let spend = self.run.spend().cloned().unwrap_or_default();
        (spend.spent.as_nanos() / CENT, spend.reserved.as_nanos() / CENT)
    }

    fn paused(&self) -> Option<Paused> {
        self.run.view().pauses.into_iter().next().map(|pause| pause.why)
    }

    /// What is left, and what is lacking for the next call.
    fn short(&self) -> Option<(Usd, Usd)> {
        match self.paused()? {
            Paused::Budget(short) => Some((short.usd?.0, short.lacks.0)),
            _ => None,
        }
    }

    pub(super) fn types(&self) -> Vec<&'static str> {
        let about = |kind: &&str| !matches!(*kind, "run.started" | "run.completed");
        self.history.iter().map(|event| event.body.type_name()).filter(about).collect()
    }
}

pub(super) fn both(ir: &Arc<Ir>, test: impl Fn(Driver)) {
    for mode in [Mode::Bursts(512), Mode::CrashAfterEachEvent] {
        test(Driver::begin(&start(ir, value("{}")), mode));
    }
}

// F029
#[test]
fn a_model_is_asked_its_tools_are_called_and_it_is_asked_again_until_it_has_an_answer() {
    both(&workflow(r#"{"task": "look", "models": ["big"]}"#, None), |mut driver| {
        assert_eq!(driver.turn().2, Wanted::Model { model: Some("big".into()), turn: 0 });
        driver.answers(quote(2), wants(&["find", "read"]));
        let Wanted::Tools(calls) = driver.turn().2 else { panic!("tools are next") };
        assert_eq!(calls.len(), 2);
        assert!(!driver.says(Says::Returned(vec![brought("read"), brought("find")])));
        let (_, _, wanted, said_count) = driver.turn();
        assert_eq!((wanted, said_count), (Wanted::Model { model: Some("big".into()), turn: 1 }, 2));
        driver.answers(quote(2), said("found"));
        assert_eq!(driver.outputs(), value(r#"{"done": "found"}"#));
        assert_eq!(
            driver.types(),
            [
                "node.started",
                "node.waiting",
                "model.called",
                "model.answered",
                "tool.called",
                "tool.returned",
                "model.called",
                "model.answered",
                "node.completed",
                "node.started",
                "node.completed"
            ]
        );
        assert_eq!(driver.spent(), (2, 0), "a cent an answer, and nothing reserved any more");
    });
}

#[test]
fn what_tools_brought_stands_in_the_order_of_the_calls_and_what_was_refused_among_it() {
    both(&workflow(r#"{"task": "look"}"#, None), |mut driver| {
        driver.answers(quote(1), wants(&["bad_one", "find"]));
        assert!(driver.says(Says::Returned(vec![brought("other")])), "one is missing");
        assert!(!driver.says(Says::Returned(vec![brought("find")])));
        let dispatches = driver.run.dispatches();
        let Work::Agent(ask) = &dispatches[0].work else { panic!() };
        let Some(Said::Tools(results)) = ask.said.last() else { panic!("{:?}", ask.said) };
        assert_eq!(results.iter().map(|result| result.outcome.is_ok()).collect::<Vec<_>>(), [false, true]);
        driver.answers(quote(1), wants(&["bad_two"]));
        assert!(
            matches!(driver.turn().2, Wanted::Model { turn: 2, .. }),
            "nobody is called when all are refused"
        );
    });
}

// F030
#[test]
fn an_answer_that_is_not_what_was_asked_for_goes_back_with_what_is_wrong_and_then_fails() {
    both(&workflow(r#"{"task": "t", "outputs": ["a", "b"]}"#, None), |mut driver| {
        driver.answers(quote(1), said("no JSON"));
        driver.answers(quote(1), said(r#"{"a": 1}"#));
        driver.answers(quote(1), said("```json\n{\"a\": 1, \"b\": 2}\n```"));
        assert_eq!(driver.outputs(), value(r#"{"done": {"a": 1, "b": 2}}"#));
        assert_eq!(driver.types().iter().filter(|kind| **kind == "agent.corrected").count(), 2);
    });
    both(&workflow(r#"{"task": "t", "outputs": ["a", "b"]}"#, None), |mut driver| {
        for _ in 0..=crate::limits::AGENT_CORRECTIONS_MAX {
            driver.answers(quote(1), said("no"));
        }
        assert_eq!(driver.failure(), ("output_schema".into(), Some("ask".into())));
    });
}

// F430
#[test]
fn vectors_are_a_list_or_one_output_and_are_not_corrected() {
    for (request, outputs) in [
        (r#"{"embed": ["a"]}"#, r#"{"done": [[1.0, 0.5]]}"#),
        (r#"{"embed": ["a"], "outputs": ["vectors"]}"#, r#"{"done": {"vectors": [[1.0, 0.5]]}}"#),
    ] {
        both(&workflow(request, None), |mut driver| {
            driver.answers(quote(1), said("[[1.0,0.5]]"));
            assert_eq!(driver.outputs(), value(outputs));
            assert_eq!(driver.spent(), (1, 0));
        });
    }
    both(&workflow(r#"{"embed": ["a"]}"#, None), |mut driver| {
        driver.answers(quote(1), said("no numbers"));
        assert_eq!(driver.failure(), ("output_schema".into(), Some("ask".into())));
        assert!(!driver.types().contains(&"agent.corrected"));
    });
}

#[test]
fn one_output_may_be_a_text() {
    both(&workflow(r#"{"task": "t", "outputs": ["report"]}"#, None), |mut driver| {
        driver.answers(quote(1), said("all is well"));
        assert_eq!(driver.outputs(), value(r#"{"done": {"report": "all is well"}}"#));
    });
}

#[test]
fn turns_are_counted_and_there_is_an_end() {
    both(&workflow(r#"{"task": "t", "max_turns": 2}"#, None), |mut driver| {
        driver.answers(quote(1), wants(&["find"]));
        driver.says(Says::Returned(vec![brought("find")]));
        driver.answers(quote(1), wants(&["find"]));
        assert_eq!(driver.failure(), ("agent_turns_max".into(), Some("ask".into())));
    });
}

#[test]
fn what_was_said_stands_when_a_turn_fails_and_only_that_turn_is_made_again() {
    both(&workflow(r#"{"task": "t"}"#, None), |mut driver| {
        driver.answers(quote(1), wants(&["find"]));
        driver.says(Says::Returned(vec![brought("find")]));
        assert!(!driver.says(Says::Reserve(quote(3))));
        driver.fails("overloaded");
        assert_eq!(driver.spent(), (1, 0), "an overloaded provider bills nothing");
        assert!(driver.fire_next());
        let (_, _, wanted, said_count) = driver.turn();
        assert_eq!((wanted, said_count), (Wanted::Model { model: None, turn: 1 }, 2));
        assert!(!driver.says(Says::Reserve(quote(3))));
        driver.fails("timeout");
        assert_eq!(driver.spent(), (4, 0), "nobody knows what became of it: it counts");
    });
}

#[test]
fn a_turn_that_was_lost_is_made_again_and_counts_as_paid() {
    let ir = workflow(r#"{"task": "t"}"#, None);
    both(&ir, |mut driver| {
        driver.says(Says::Reserve(quote(3)));
        let (place, seq, ..) = driver.turn();
        assert!(!driver.give(&Given::Lost(place.clone(), seq)));
        assert_eq!(driver.spent(), (3, 0));
        let late = Says::Answered(Box::new(said("late")));
        assert!(driver.give(&Given::Agent(place, seq, late)), "that turn is over");
        driver.answers(quote(3), said("again"));
        assert_eq!(driver.outputs(), value(r#"{"done": "again"}"#));
    });
}

// A long conversation with a failure here and there does not use up the attempts of its node.
#[test]
fn attempts_are_those_of_a_turn_and_a_turn_that_was_made_sets_them_back() {
    both(&workflow(r#"{"task": "t"}"#, None), |mut driver| {
        for _ in 0..4 {
            for _ in 0..2 {
                driver.says(Says::Reserve(quote(1)));
                driver.fails("overloaded");
                assert!(driver.fire_next());
            }
            driver.answers(quote(1), wants(&["find"]));
            driver.fails("timeout");
            assert!(driver.fire_next());
            assert!(!driver.says(Says::Returned(vec![brought("find")])));
        }
        for _ in 0..2 {
            driver.says(Says::Reserve(quote(1)));
            driver.fails("overloaded");
            assert!(driver.fire_next());
        }
        driver.says(Says::Reserve(quote(1)));
        driver.fails("overloaded");
        assert_eq!(driver.failure(), ("overloaded".into(), Some("ask".into())), "three attempts of one turn");
        let attempts = driver.history.iter().filter_map(|event| match event.body {
            EventBody::NodeStarted { attempt, .. } => Some(attempt),
            _ => None,
        });
        assert!(attempts.eq(1..=15), "all attempts of the node have numbers of their own");
    });
}

// A tool that is called for the first time was not lost, whatever crash there was in an earlier turn.
#[test]
fn what_was_lost_is_the_turn_that_was_under_way_and_no_later_one() {
    both(&workflow(r#"{"task": "t"}"#, None), |mut driver| {
        let lose = |driver: &mut Driver| {
            let (place, seq, ..) = driver.turn();
            assert!(!driver.give(&Given::Lost(place, seq)));
        };
        let lost = |driver: &Driver| driver.run.dispatches()[0].lost;
        lose(&mut driver);
        assert_eq!(lost(&driver), 1);
        driver.answers(quote(1), wants(&["find"]));
        assert_eq!(lost(&driver), 0, "nobody has called this tool yet");
        lose(&mut driver);
        assert_eq!(lost(&driver), 1, "now somebody may have");
        driver.fails("timeout");
        assert!(driver.fire_next());
        assert_eq!(lost(&driver), 1, "and still may, in the turn's next attempt");
        driver.says(Says::Returned(vec![brought("find")]));
        assert_eq!(lost(&driver), 0);
        driver.answers(quote(1), said("done"));
        assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
    });
}

// F372
#[test]
fn a_context_that_is_too_long_goes_to_the_next_model_at_once_and_others_when_tries_are_used_up() {
    both(&workflow(r#"{"task": "t", "models": ["big", "small"]}"#, None), |mut driver| {
        driver.says(Says::Reserve(quote(1)));
        driver.fails("context_overflow");
        assert_eq!(driver.turn().2, Wanted::Model { model: Some("small".into()), turn: 0 });
        driver.answers(quote(1), said("short"));
        assert_eq!(driver.outputs(), value(r#"{"done": "short"}"#));
    });
    both(&workflow(r#"{"task": "t", "models": ["big", "small"]}"#, None), |mut driver| {
        for _ in 0..2 {
            driver.says(Says::Reserve(quote(1)));
            driver.fails("overloaded");
            assert!(driver.fire_next());
        }
        driver.says(Says::Reserve(quote(1)));
        driver.fails("overloaded");
        assert_eq!(driver.turn().2, Wanted::Model { model: Some("small".into()), turn: 0 });
    });
}

// F402, F403, F407, D16
#[test]
fn a_call_that_could_cost_more_than_is_left_is_not_made() {
    both(&workflow(r#"{"task": "t"}"#, cents(5, OnBreach::Stop)), |mut driver| {
        driver.answers(quote(4), wants(&["find"]));
        driver.says(Says::Returned(vec![brought("find")]));
        let (place, seq, ..) = driver.turn();
        driver.says(Says::Reserve(quote(5)));
        assert!(!driver.run.is_reserved(&place, seq));
        if driver.mode == Mode::CrashAfterEachEvent {
            // The end of the burst was lost: it is asked for again.
            driver.says(Says::Reserve(quote(5)));
            return;
        }
        assert_eq!(driver.failure(), ("budget_exceeded".into(), Some("ask".into())));
        assert!(driver.types().contains(&"budget.warned") && driver.types().contains(&"budget.exceeded"));
        assert_eq!(driver.spent(), (1, 0));
    });
}

#[test]
fn at_its_limit_a_run_goes_down_the_ladder() {
    both(
        &workflow(r#"{"task": "t", "models": ["big", "small"]}"#, cents(5, OnBreach::Degrade)),
        |mut driver| {
            driver.says(Says::Reserve(quote(6)));
            assert_eq!(driver.turn().2, Wanted::Model { model: Some("small".into()), turn: 0 });
            driver.answers(quote(2), said("cheap"));
            assert_eq!(driver.outputs(), value(r#"{"done": "cheap"}"#));
        },
    );
}

// N7
#[test]
fn at_its_limit_a_run_is_paused_and_goes_on_when_it_is_given_more() {
    let ir = workflow(r#"{"task": "t"}"#, cents(5, OnBreach::Pause));
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.says(Says::Reserve(quote(6)));
    assert_eq!(driver.run.status(), Status::Paused);
    assert!(driver.says(Says::Reserve(quote(1))), "nothing begins in a pause");
    assert_eq!(driver.short(), Some((Usd::from_nanos(5 * CENT), Usd::from_nanos(CENT))));
    let image = driver.run.to_image().unwrap();
    assert_eq!(crate::engine::Run::from_image_with(&image, ir.clone()).unwrap(), driver.run);
    let (usd, tokens) = (Usd::from_nanos(CENT), 0);
    let raise = Raise { usd, tokens, by: "ada".into(), reason: "go on".into(), resume: false, key: None };
    assert!(!driver.give(&Given::Raise(raise)));
    assert_eq!(driver.short(), Some((Usd::from_nanos(6 * CENT), Usd::ZERO)), "now there is enough");
    let handed_out = driver.dispatched.len();
    assert!(!driver.give(&Given::Resume));
    assert_eq!(driver.short(), None);
    assert!(!driver.give(&Given::Pause));
    assert_eq!(driver.paused(), Some(Paused::ByHand), "this one was not for money");
    assert!(!driver.give(&Given::Resume));
    assert_eq!(driver.dispatched.len(), handed_out + 2, "the turn is asked for again");
    driver.answers(quote(6), said("done"));
    assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
}

// F403, N7
#[test]
fn more_money_ends_a_pause_in_the_same_step_and_is_remembered_as_one_request() {
    // What is refused and its pause are one burst, and so is what ends it: neither is ever read without the other.
    let ir = workflow(r#"{"task": "t"}"#, cents(5, OnBreach::Pause));
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.says(Says::Reserve(quote(6)));
    assert_eq!(driver.run.status(), Status::Paused);
    let key = Idempotency { key: [1; 16], fingerprint: [2; 16] };
    let (usd, by) = (Usd::from_nanos(5 * CENT), "ada".into());
    let raise = Raise { usd, tokens: 0, by, reason: "go on".into(), resume: true, key: Some(key) };
    let before = driver.run.seq();
    assert!(!driver.give(&Given::Raise(raise)));
    let told = driver.history.iter().skip(before as usize).map(|event| event.body.type_name());
    assert_eq!(told.collect::<Vec<_>>(), ["budget.raised", "run.resumed", "request.remembered"]);
    let known = driver.run.remembered(&[1; 16]).unwrap();
    let request = (known.request.status, &known.request.done);
    assert_eq!(request, (Status::Running, &Done::Budget { seq: before + 1 }));
    driver.answers(quote(6), said("done"));
    assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
}

/// With so many cents left of ten, a workspace's budget of an hour refuses a call that may cost more.
pub(super) fn over(reserved: Quote, left: u64, on_breach: OnBreach) -> Says {
    let cents = |cents| Usd::from_nanos(cents * CENT);
    let (scope, per) = ("workspace:acme".into(), "hour".into());
    let by = Wider { scope, per, usd: Some((cents(left), cents(10))), tokens: None, on_breach };
    Says::Refused(Box::new(Over { quote: reserved, by }))
}

// F404, F407
#[test]
fn a_wider_budget_stops_an_agent_and_says_which_it_is_and_what_to_change() {
    let ir = workflow(r#"{"task": "t", "models": ["big"]}"#, None);
    for on_breach in [OnBreach::Stop, OnBreach::Degrade] {
        let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
        let (place, seq, ..) = driver.turn();
        assert!(!driver.says(over(quote(6), 5, on_breach)));
        assert!(!driver.run.is_reserved(&place, seq));
        assert_eq!(driver.failure(), ("budget_exceeded".into(), Some("ask".into())), "no rung is left");
        let message = driver.run.view().failure.unwrap().message;
        for part in
            ["$0.06", "$0.05 of $0.10 are left to workspace:acme", "per = \"hour\"", "usd in [[budgets]]"]
        {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(driver.spent(), (0, 0));
    }
}

// F407
#[test]
fn a_wider_budget_sends_an_agent_down_its_ladder() {
    let ir = workflow(r#"{"task": "t", "models": ["big", "small"]}"#, None);
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.says(over(quote(6), 5, OnBreach::Degrade));
    assert_eq!(driver.turn().2, Wanted::Model { model: Some("small".into()), turn: 0 });
    driver.answers(quote(2), said("cheap"));
    assert_eq!(driver.outputs(), value(r#"{"done": "cheap"}"#));
    let why = driver.history.iter().find_map(|event| match &event.body {
        EventBody::ModelDegraded { failure, .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert!(why.unwrap().contains("workspace:acme"));
}

// F404, N7
#[test]
fn a_wider_budget_pauses_a_run_which_asks_again_when_it_goes_on() {
    let ir = workflow(r#"{"task": "t"}"#, None);
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.says(over(quote(6), 5, OnBreach::Pause));
    assert_eq!(driver.run.status(), Status::Paused);
    assert!(driver.says(over(quote(6), 5, OnBreach::Stop)), "nothing is asked for in a pause");
    let Some(Paused::Budget(short)) = driver.paused() else { panic!("it is not for money") };
    assert_eq!(short.lacks.0, Usd::from_nanos(CENT));
    assert_eq!(&*short.by.unwrap().scope, "workspace:acme");
    let image = driver.run.to_image().unwrap();
    assert_eq!(crate::engine::Run::from_image_with(&image, ir.clone()).unwrap(), driver.run);
    assert!(!driver.give(&Given::Resume));
    driver.says(over(quote(6), 5, OnBreach::Pause));
    assert_eq!(driver.run.status(), Status::Paused, "it asks again, and is paused again");
    assert!(!driver.give(&Given::Resume));
    driver.answers(quote(6), said("done"));
    assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
    assert_eq!(driver.spent(), (1, 0));
}

// F403
#[test]
fn a_wider_budget_warns_a_call_that_is_made_and_no_other() {
    let warned = || {
        let Says::Refused(over) = over(quote(1), 2, OnBreach::Stop) else { unreachable!() };
        Says::Warned(Box::new(over.by))
    };
    both(&workflow(r#"{"task": "t"}"#, None), |mut driver| {
        assert!(driver.says(warned()), "nothing is reserved yet");
        assert!(!driver.says(Says::Reserve(quote(1))));
        assert!(!driver.says(warned()));
        assert!(driver.says(over(quote(1), 2, OnBreach::Stop)), "it is under way already");
        assert!(!driver.says(Says::Answered(Box::new(said("done")))));
        assert_eq!(driver.types().iter().filter(|kind| **kind == "budget.warned").count(), 1);
        assert_eq!(driver.spent(), (1, 0));
    });
}

// D15
#[test]
fn a_model_without_a_price_is_not_asked_under_a_limit_of_dollars() {
    let ir = workflow(r#"{"task": "t"}"#, cents(5, OnBreach::Stop));
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.says(Says::Reserve(Quote { cost: None, ..quote(0) }));
    assert_eq!(driver.failure(), ("unpriced_model".into(), Some("ask".into())));
}

#[test]
fn an_answer_that_comes_while_the_run_is_cancelled_is_paid_and_nothing_follows() {
    both(&workflow(r#"{"task": "t"}"#, None), |mut driver| {
        driver.says(Says::Reserve(quote(3)));
        driver.give(&Given::Cancel);
        let call = driver.run.node(&Place::root(0)).and_then(|node| node.call()).cloned().unwrap();
        let answered = Says::Answered(Box::new(wants(&["find"])));
        assert!(!driver.give(&Given::Agent(Place::root(0), call.seq, answered)));
        assert_eq!((driver.run.status(), driver.spent()), (Status::Cancelled, (1, 0)));
        assert!(!driver.history.iter().any(|event| matches!(event.body, EventBody::ToolCalled { .. })));
    });
}

#[test]
fn an_image_of_a_run_with_agents_is_the_run() {
    let ir = workflow(r#"{"task": "t"}"#, cents(50, OnBreach::Stop));
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.answers(quote(4), wants(&["find"]));
    driver.says(Says::Returned(vec![brought("find")]));
    driver.says(Says::Reserve(quote(3)));
    let image = driver.run.to_image().unwrap();
    assert_eq!(crate::engine::Run::from_image_with(&image, ir).unwrap(), driver.run);
}

// F025: whoever makes a turn forgets its tools in a crash; the run does not forget those that are runs.
#[test]
fn with_a_turn_the_runs_that_its_tools_are_are_called_back() {
    both(
        &workflow(r#"{"task": "t", "tools": ["workflow:held", "workflow:other@1"]}"#, None),
        |mut driver| {
            let answer = wants(&["workflow__held", "find", "workflow__other"]);
            let call = answer.calls[0].clone();
            driver.answers(quote(2), answer);
            assert!(matches!(driver.turn().2, Wanted::Tools(_)));
            assert_eq!(driver.run.recalls(), [], "they are waited for");
            driver.give(&Given::Cancel);
            let child = run_of_tool(driver.run.id(), "ask", 1, &call);
            let told: Vec<_> = driver.run.recalls().iter().map(|recall| recall.whom).collect();
            assert_eq!(told, [Recalled::Child(child)]);
            // Another call, another turn, another node is another run.
            let other = ToolCall { id: "call_other".into(), ..call.clone() };
            let id = driver.run.id();
            let others = [
                run_of_tool(id, "ask", 1, &other),
                run_of_tool(id, "ask", 2, &call),
                run_of_tool(id, "b", 1, &call),
            ];
            assert!(!others.contains(&child) && others.iter().all(|run| run.partition() == id.partition()));
        },
    );
}
