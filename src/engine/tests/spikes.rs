//! Agents whose model is too slow or too dear, and those whose conversation does not fit.

use super::agent::{both, brought, cents, over, quote, said, wants, workflow};
use super::{Driver, Mode, start, value};
use crate::engine::Says;
use crate::ir::OnBreach;
use crate::model::EventBody;
use crate::model::agent::{Aside, Limit, Measure, Overflow, Said, Spiked, Wanted};

const TWO: &str = r#"{"task": "t", "models": ["big", "small"], "memory": {"keep_turns": 1}}"#;

fn spiked(from: &str, to: &str) -> Says {
    let (measure, measured, threshold) = (Measure::CallTime, 900, 500);
    Says::Spiked(Box::new(Spiked { from: from.into(), to: to.into(), measure, measured, threshold }))
}

fn recovered(from: &str, to: &str) -> Says {
    Says::Recovered { from: from.into(), to: to.into() }
}

fn overflow(limit: Limit, most: u64) -> Says {
    Says::Overflow(Overflow { model: "big".into(), limit, tokens: 1_000, most, bytes_per_token: 4 })
}

impl Driver {
    fn asks(&self) -> Option<String> {
        match self.turn().2 {
            Wanted::Model { model, .. } => model.map(|model| model.to_string()),
            Wanted::Tools(_) => panic!("a model is next"),
        }
    }

    /// An answer that asks for a tool, and what that brings.
    fn goes_round(&mut self) {
        self.answers(quote(1), wants(&["find"]));
        assert!(!self.says(Says::Returned(vec![brought("find")])));
    }

    fn last(&self) -> &EventBody {
        &self.history.last().unwrap().body
    }
}

// F389
#[test]
fn another_model_is_asked_while_one_spikes_and_that_one_again_when_it_is_good() {
    both(&workflow(TWO, None), |mut driver| {
        let seq = driver.turn().1;
        assert!(!driver.says(spiked("big", "small")));
        assert_eq!(driver.last().type_name(), "model.degraded");
        assert_eq!((driver.asks().as_deref(), driver.turn().1), (Some("small"), seq), "the same turn");
        assert!(driver.says(spiked("big", "small")), "it is asked already");
        driver.goes_round();
        assert_eq!(driver.asks().as_deref(), Some("small"), "until somebody says otherwise");
        // Not only those of its own ladder.
        assert!(!driver.says(spiked("small", "elsewhere")));
        assert!(driver.says(recovered("small", "big")), "that one is not asked");
        assert!(!driver.says(Says::Reserve(quote(1))));
        assert!(driver.says(recovered("elsewhere", "big")), "a call is under way");
        assert!(!driver.says(Says::Answered(Box::new(wants(&["find"])))));
        assert!(!driver.says(Says::Returned(vec![brought("find")])));
        assert!(!driver.says(recovered("elsewhere", "big")));
        assert_eq!(driver.last().type_name(), "model.recovered");
        assert_eq!(driver.asks().as_deref(), Some("big"));
        assert!(driver.says(recovered("elsewhere", "big")), "once");
        driver.answers(quote(1), said("done"));
        assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
    });
}

// F389: a model that takes another one's place and fails does not fail the agent.
#[test]
fn a_model_that_was_asked_instead_and_fails_leads_back_and_no_other_is_tried_in_that_attempt() {
    both(&workflow(TWO, None), |mut driver| {
        assert!(!driver.says(spiked("big", "small")));
        assert!(!driver.says(Says::Reserve(quote(1))));
        driver.fails("model_unauthorized");
        assert_eq!(driver.asks().as_deref(), Some("big"), "there is none below");
        assert!(driver.says(spiked("big", "small")));
        // The next attempt is free to.
        assert!(!driver.says(Says::Reserve(quote(1))));
        driver.fails("answer_too_long");
        if driver.run.status().is_terminal() {
            return;
        }
        assert!(driver.fire_next());
        assert!(!driver.says(spiked("big", "small")));
        driver.answers(quote(1), said("done"));
    });
    let three = TWO.replace("\"small\"]", "\"small\", \"least\"]");
    both(&workflow(&three, None), |mut driver| {
        assert!(!driver.says(spiked("big", "small")));
        assert!(!driver.says(Says::Reserve(quote(1))));
        driver.fails("context_overflow");
        assert_eq!(driver.asks().as_deref(), Some("least"), "the next below the one that was asked");
        let marks = driver.run.dispatches();
        let crate::engine::Work::Agent(ask) = &marks[0].work else { panic!() };
        assert_eq!(ask.said.last(), Some(&Said::Aside(Aside::Back)));
        assert_eq!(ask.own.as_deref(), Some("least"));
        driver.answers(quote(1), said("done"));
    });
}

// F391: a ceiling holds whoever is asked.
#[test]
fn a_budget_holds_for_a_model_that_is_asked_instead() {
    let mut driver =
        Driver::begin(&start(&workflow(TWO, cents(5, OnBreach::Stop)), value("{}")), Mode::Bursts(512));
    driver.goes_round();
    assert!(!driver.says(spiked("big", "small")));
    assert!(!driver.says(Says::Reserve(quote(5))));
    assert_eq!(driver.failure(), ("budget_exceeded".into(), Some("ask".into())));
    assert_eq!(driver.spent(), (1, 0));
}

// F389, F407
#[test]
fn a_wider_budget_leads_below_the_model_that_is_asked_instead() {
    let three = TWO.replace("\"small\"]", "\"small\", \"least\"]");
    let mut driver = Driver::begin(&start(&workflow(&three, None), value("{}")), Mode::Bursts(512));
    assert!(!driver.says(spiked("big", "small")));
    assert!(!driver.says(over(quote(6), 5, OnBreach::Degrade)));
    assert_eq!(driver.asks().as_deref(), Some("least"), "the one that was too dear is not asked again");
    driver.answers(quote(1), said("done"));
    assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
}

// F372, F390
#[test]
fn a_conversation_that_does_not_fit_goes_down_the_ladder_and_is_then_trimmed() {
    both(&workflow(TWO, None), |mut driver| {
        assert!(driver.says(overflow(Limit::Memory, 10)), "nothing was said yet");
        driver.goes_round();
        driver.goes_round();
        assert!(!driver.says(overflow(Limit::Window, 990)));
        assert_eq!(driver.asks().as_deref(), Some("small"), "first another model");
        let before = driver.turn().1;
        assert!(!driver.says(overflow(Limit::Window, 990)));
        let EventBody::ContextTrimmed { trimmed, .. } = driver.last() else { panic!("{:?}", driver.last()) };
        assert_eq!((trimmed.left_out, trimmed.turns), (2, 1));
        assert!(trimmed.tokens_after < 1_000);
        assert!(driver.turn().1 > before, "the turn begins again");
        assert!(
            driver.says(overflow(Limit::Window, 10)),
            "the last answer stays; whoever is not sure may try"
        );
        // A provider that says so bills nothing, and what cannot be trimmed fails.
        assert!(!driver.says(Says::Reserve(quote(3))));
        assert_eq!(driver.spent().1, 3);
        let (place, seq, ..) = driver.turn();
        let says = overflow(Limit::Provider, 500);
        assert!(!driver.give(&super::Given::Agent(place, seq, says)));
        assert_eq!(driver.spent(), (2, 0));
        assert_eq!(driver.failure(), ("context_overflow".into(), Some("ask".into())));
    });
    // Who only wants less to be read asks no other model for it.
    both(&workflow(TWO, None), |mut driver| {
        driver.goes_round();
        driver.goes_round();
        assert!(!driver.says(Says::Reserve(quote(3))));
        assert!(!driver.says(overflow(Limit::Memory, 990)));
        assert_eq!(
            (driver.asks().as_deref(), driver.spent()),
            (Some("big"), (2, 0)),
            "what was reserved is free"
        );
        driver.answers(quote(1), said("done"));
        assert_eq!(driver.outputs(), value(r#"{"done": "done"}"#));
    });
}

#[test]
fn nothing_of_it_happens_in_a_pause_and_an_image_has_it_all() {
    let ir = workflow(TWO, None);
    let mut driver = Driver::begin(&start(&ir, value("{}")), Mode::Bursts(512));
    driver.goes_round();
    driver.goes_round();
    assert!(!driver.says(spiked("big", "small")));
    assert!(!driver.says(overflow(Limit::Memory, 990)));
    let image = driver.run.to_image().unwrap();
    assert_eq!(crate::engine::Run::from_image_with(&image, ir).unwrap(), driver.run);
    assert!(!driver.give(&super::Given::Pause));
    for says in [spiked("small", "other"), recovered("small", "big"), overflow(Limit::Provider, 1)] {
        assert!(driver.says(says), "it is paused");
    }
}
