//! Kinds of nodes, one by one.

use std::time::Duration;

use super::build::{Build, delay, identity, join, wait};
use super::{Driver, Given, START, start, value};
use crate::engine::Timer;
use crate::ir::{Kind, Merge, On, Policy, Span, Template};
use crate::model::{Place, Status, Value};
use crate::time::Timestamp;

fn seconds(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

#[test]
fn functions_hand_their_values_on() {
    let mut b = Build::new();
    let first = b.node(0, "first", identity());
    let kind = b.function(0, "input + 1");
    let second = b.node(0, "second", kind);
    let kind = b.function(0, "nodes.first.output * 10 + input");
    let third = b.node(0, "third", kind);
    b.chain(0, &[first, second, third]);
    let driver = Driver::with(&b.build(), "4");
    assert_eq!(driver.outputs(), value(r#"{"third": 45}"#));
    assert_eq!(
        driver.told(),
        [
            "run.started",
            "node.started first",
            "node.completed first",
            "node.started second",
            "node.completed second",
            "node.started third",
            "node.completed third",
            "run.completed",
        ]
    );
    assert!(driver.run.graph().nodes.iter().all(|node| node.attempts == 1 && node.state == "completed"));
}

#[test]
fn an_expression_that_fails_fails_its_node_and_the_run() {
    let mut b = Build::new();
    let kind = b.function(0, "input / 0");
    let bad = b.node(0, "bad", kind);
    let after = b.node(0, "after", identity());
    b.edge(0, bad, after);
    let driver = Driver::with(&b.build(), "4");
    assert_eq!(driver.failure(), ("expression_division_by_zero".into(), Some("bad".into())));
    assert_eq!((driver.state("bad"), driver.state("after")), ("failed", "cancelled"));
    assert_eq!(driver.told()[1..], ["node.started bad", "node.failed bad", "run.failed bad"]);
}

#[test]
fn an_input_template_takes_the_place_of_what_arrived() {
    let mut b = Build::new();
    let first = b.node(0, "first", identity());
    let second = b.node(0, "second", identity());
    b.edge(0, first, second);
    let text = Template::Text(vec![
        crate::ir::Part::Text("v".into()),
        crate::ir::Part::Expr(b.expr(0, "nodes.first.output")),
        crate::ir::Part::Text("/".into()),
        crate::ir::Part::Expr(b.expr(0, "run.workflow")),
    ]);
    let list = Template::List(vec![b.template(0, "inputs"), Template::Value(Value::Null)]);
    b.at(0, second).input = Some(Template::Map(vec![("t".into(), text), ("l".into(), list)]));
    let driver = Driver::with(&b.build(), "4");
    assert_eq!(driver.outputs(), value(r#"{"second": {"t": "v4/w", "l": [4, null]}}"#));
}

fn branching(default: Option<&str>) -> std::sync::Arc<crate::ir::Ir> {
    let mut b = Build::new();
    let kind = b.conditional(0, &[("big", "input > 10"), ("even", "input % 2 == 0")], default);
    let choose = b.node(0, "choose", kind);
    for name in ["big", "even", "other"] {
        let node = b.node(0, name, identity());
        b.edge_on(0, (choose, node), On::Branch(name.into()), None);
    }
    b.build()
}

#[test]
fn a_conditional_takes_the_first_branch_that_holds() {
    let ir = branching(Some("other"));
    for (input, taken) in [("12", "big"), ("11", "big"), ("4", "even"), ("3", "other")] {
        let driver = Driver::with(&ir, input);
        assert_eq!(driver.outputs(), value(&format!("{{\"{taken}\": {input}}}")));
        let skipped = driver.states().into_iter().filter(|(_, state)| *state == "skipped").count();
        assert_eq!(skipped, 2, "{input}");
    }
}

#[test]
fn a_conditional_without_a_way_fails() {
    let ir = branching(None);
    assert_eq!(Driver::with(&ir, "3").failure(), ("no_branch".into(), Some("choose".into())));
    let (code, node) = Driver::with(&ir, "\"text\"").failure();
    assert!(code.starts_with("expression_"), "{code}");
    assert_eq!(node.as_deref(), Some("choose"));
}

fn joined(merge: Merge) -> std::sync::Arc<crate::ir::Ir> {
    let mut b = Build::new();
    let mut sources = Vec::new();
    for (id, source) in [("z", "1"), ("a", "2"), ("m", "3")] {
        let kind = b.function(0, source);
        sources.push(b.node(0, id, kind));
    }
    let join = b.node(0, "join", Kind::Join { merge });
    b.edge(0, sources[1], join);
    b.edge(0, sources[0], join);
    b.edge_on(0, (sources[2], join), On::Success, Some("output == 99"));
    b.build()
}

#[test]
fn a_join_merges_live_arrivals_in_document_order() {
    let b = Build::new();
    let cel = Merge::Cel(b.expr(0, "input.a + input.z"));
    for (merge, expected) in [(Merge::Object, r#"{"a": 2, "z": 1}"#), (Merge::Array, "[2, 1]"), (cel, "3")] {
        let driver = Driver::of(&joined(merge));
        assert_eq!(driver.outputs().get("join"), Some(&value(expected)));
    }
}

#[test]
fn a_join_of_one_arrival_is_still_an_object_or_a_list() {
    for (merge, expected) in [(Merge::Object, r#"{"a": 2}"#), (Merge::Array, "[2]")] {
        let mut b = Build::new();
        let kind = b.function(0, "2");
        let a = b.node(0, "a", kind);
        let join = b.node(0, "join", Kind::Join { merge });
        b.edge(0, a, join);
        assert_eq!(Driver::of(&b.build()).outputs(), value(&format!("{{\"join\": {expected}}}")));
    }
}

#[test]
fn two_edges_from_one_source_bring_one_value() {
    let mut b = Build::new();
    let a = b.node(0, "a", identity());
    let after = b.node(0, "after", identity());
    let both = b.node(0, "both", join());
    for to in [after, both] {
        b.edge(0, a, to);
        b.edge_on(0, (a, to), On::Success, Some("output > 1"));
    }
    let driver = Driver::with(&b.build(), "5");
    assert_eq!(driver.outputs(), value(r#"{"after": 5, "both": {"a": 5}}"#));
}

#[test]
fn a_delay_fires_when_due_never_before_and_once() {
    let mut b = Build::new();
    let pause = b.node(0, "pause", delay(90));
    let after = b.node(0, "after", identity());
    b.edge(0, pause, after);
    let mut driver = Driver::with(&b.build(), "5");
    let timer = Timer::Node(Place::root(pause));
    assert_eq!(driver.run.timers().collect::<Vec<_>>(), [(seconds(90), timer.clone())]);
    assert_eq!(
        driver.run.graph().nodes[0].waiting_for.as_deref(),
        Some("time until 2027-01-15T08:01:30.000Z")
    );
    driver.now = Timestamp::from_micros(seconds(90).as_micros() - 1);
    assert!(driver.give(&Given::Timer(timer.clone())), "early");
    driver.now = seconds(90);
    assert!(!driver.give(&Given::Timer(timer.clone())));
    assert_eq!(driver.outputs(), value(r#"{"after": null}"#));
    assert!(driver.give(&Given::Timer(timer)), "twice");
}

fn delayed(span: impl Fn(Template) -> Span, input: &str) -> Driver {
    let mut b = Build::new();
    let span = span(b.template(0, "inputs"));
    b.node(0, "pause", Kind::Delay { span });
    Driver::with(&b.build(), input)
}

#[test]
fn a_delay_reads_durations_and_points_in_time() {
    for (text, due) in [
        ("\"90s\"", 90),
        ("\"PT90S\"", 90),
        ("\"1h30m\"", 5400),
        ("\"7d\"", 7 * 86_400),
        ("90", 90),
        ("1.0", 1),
        ("0", 0),
        ("\"366d\"", 366 * 86_400),
    ] {
        let driver = delayed(Span::ForExpr, text);
        assert_eq!(driver.run.timers().next().map(|(due, _)| due), Some(seconds(due)), "{text}");
    }
    for (text, due) in [("\"2027-01-15T08:00:10Z\"", 10), ("\"2027-01-15T09:01:00+01:00\"", 60)] {
        let driver = delayed(Span::Until, text);
        assert_eq!(driver.run.timers().next().map(|(due, _)| due), Some(seconds(due)), "{text}");
    }
}

#[test]
fn a_point_in_the_past_is_due_at_once() {
    for text in ["\"2020-01-01T00:00:00Z\"", "\"1969-01-01T00:00:00Z\""] {
        let mut driver = delayed(Span::Until, text);
        assert_eq!(driver.run.timers().next().map(|(due, _)| due), Some(START));
        assert!(driver.fire_next());
        assert_eq!((driver.run.status(), driver.now), (Status::Completed, START));
    }
}

#[test]
fn what_is_no_duration_fails_the_delay() {
    for text in ["\"soon\"", "\"\"", "-1", "\"-5s\"", "1e300", "null", "{}", "\"367d\"", "31622401", "\"1y\""]
    {
        assert_eq!(delayed(Span::ForExpr, text).failure().0, "invalid_duration", "{text}");
    }
    for text in ["\"tomorrow\"", "\"9999-01-01T00:00:00Z\"", "\"2027-01-15\"", "5"] {
        assert_eq!(delayed(Span::Until, text).failure().0, "invalid_duration", "{text}");
    }
}

#[test]
fn a_wait_ends_with_its_signal() {
    let mut b = Build::new();
    let signal = Template::Text(vec![
        crate::ir::Part::Text("order-".into()),
        crate::ir::Part::Expr(b.expr(0, "inputs.id")),
    ]);
    b.node(0, "wait", Kind::Wait { signal, timeout: None, accepts: None, reply: None });
    let mut driver = Driver::with(&b.build(), r#"{"id": 7}"#);
    assert_eq!(driver.run.graph().nodes[0].waiting_for.as_deref(), Some("signal order-7"));
    assert_eq!(driver.run.view().current_nodes, ["wait"]);
    assert!(!driver.signal("order-8", "1"), "kept");
    assert_eq!((driver.run.status(), driver.run.signals_kept()), (Status::Running, 1));
    driver.signal("order-7", r#"{"ok": true}"#);
    assert_eq!(driver.outputs(), value(r#"{"wait": {"ok": true}}"#));
    assert!(driver.told().ends_with(&[
        "signal.received wait".into(),
        "node.completed wait".into(),
        "run.completed".into()
    ]));
}

#[test]
fn signals_are_first_in_first_out_and_each_goes_to_one_waiter() {
    let mut b = Build::new();
    let nodes: Vec<_> = ["w1", "w2", "w3"].map(|id| b.node(0, id, wait("go", None))).into();
    let again = b.node(0, "again", wait("go", None));
    b.edge(0, nodes[0], again);
    let mut driver = Driver::of(&b.build());
    driver.signal("go", "1");
    assert_eq!(
        (driver.state("w1"), driver.state("w2"), driver.state("again")),
        ("completed", "waiting", "waiting")
    );
    for payload in ["2", "3", "4"] {
        driver.signal("go", payload);
    }
    assert_eq!(driver.outputs(), value(r#"{"again": 4, "w2": 2, "w3": 3}"#));
}

#[test]
fn kept_signals_are_taken_oldest_first() {
    let mut b = Build::new();
    let gate = b.node(0, "gate", delay(1));
    let first = b.node(0, "first", wait("go", None));
    let second = b.node(0, "second", wait("go", Some(5)));
    b.chain(0, &[gate, first, second]);
    let kind = b.function(0, "[nodes.first.output, nodes.second.output]");
    let both = b.node(0, "both", kind);
    b.edge(0, second, both);
    let mut driver = Driver::of(&b.build());
    for (name, payload) in [("go", "1"), ("else", "2"), ("go", "3"), ("go", "4")] {
        driver.signal(name, payload);
    }
    driver.fire_next();
    assert_eq!(driver.outputs(), value(r#"{"both": [1, 3]}"#));
    assert_eq!(driver.timers.len(), 1, "what was handed a kept signal arms no timer");
}

#[test]
fn a_wait_that_times_out_takes_its_timeout_edges() {
    for with_timeout_edge in [true, false] {
        let mut b = Build::new();
        let ask = b.node(0, "ask", wait("go", Some(60)));
        let ok = b.node(0, "ok", identity());
        let late = b.node(0, "late", identity());
        let error = b.node(0, "error", identity());
        b.edge(0, ask, ok);
        b.edge_on(0, (ask, error), On::Error, None);
        if with_timeout_edge {
            b.edge_on(0, (ask, late), On::Timeout, None);
        } else {
            b.edge(0, ok, late);
        }
        let mut driver = Driver::of(&b.build());
        driver.fire_next();
        assert_eq!(driver.run.status(), Status::Completed);
        let expected = if with_timeout_edge { ("completed", "skipped") } else { ("skipped", "completed") };
        assert_eq!((driver.state("late"), driver.state("error")), expected);
        assert_eq!((driver.state("ask"), driver.state("ok")), ("failed", "skipped"));
    }
}

#[test]
fn a_wait_without_anyone_to_take_its_timeout_fails_the_run() {
    let mut b = Build::new();
    b.node(0, "ask", wait("go", Some(60)));
    let mut driver = Driver::of(&b.build());
    driver.fire_next();
    assert_eq!(driver.failure(), ("wait_timeout".into(), Some("ask".into())));
    assert_eq!(driver.told()[3..], ["timer.fired ask", "node.failed ask", "run.failed ask"]);
}

#[test]
fn a_signal_after_the_timeout_is_kept_and_a_timer_after_the_signal_is_stale() {
    let mut b = Build::new();
    let ask = b.node(0, "ask", wait("go", Some(60)));
    let late = b.node(0, "late", wait("go", None));
    let stay = b.node(0, "stay", delay(1000));
    b.edge_on(0, (ask, late), On::Timeout, None);
    let ir = b.build();
    let timer = Given::Timer(Timer::Node(Place::root(ask)));

    let mut driver = Driver::of(&ir);
    driver.now = seconds(61);
    assert!(!driver.signal("go", "1"), "late, but before the timer: it counts");
    assert!(driver.give(&timer));
    assert_eq!((driver.state("ask"), driver.state("late")), ("completed", "skipped"));

    let mut driver = Driver::of(&ir);
    driver.now = seconds(61);
    assert!(!driver.give(&timer));
    assert!(!driver.signal("go", "1"));
    assert_eq!((driver.state("ask"), driver.state("late")), ("failed", "completed"));
    assert_eq!(driver.run.timers().collect::<Vec<_>>(), [(seconds(1000), Timer::Node(Place::root(stay)))]);
}

#[test]
fn what_names_no_signal_fails_the_wait() {
    for input in ["5", "\"\"", "null"] {
        let mut b = Build::new();
        let signal = b.template(0, "inputs");
        b.node(0, "ask", Kind::Wait { signal, timeout: None, accepts: None, reply: None });
        assert_eq!(Driver::with(&b.build(), input).failure().0, "invalid_signal");
    }
}

#[test]
fn expressions_know_the_run() {
    let mut b = Build::new();
    let kind = b.function(0, "[run.id, run.workflow, run.version, run.started_at]");
    b.node(0, "me", kind);
    let driver = Driver::of(&b.build());
    let expected = format!(r#"{{"me": ["{}", "w", "1", "2027-01-15T08:00:00.000Z"]}}"#, super::run_id());
    assert_eq!(driver.outputs(), value(&expected));
}

#[test]
fn named_outputs_are_members_of_a_nodes_output() {
    let mut b = Build::new();
    let kind = b.function(0, "{'total': 5, 'rest': 1}");
    let sum = b.node(0, "sum", kind);
    b.at(0, sum).outputs = vec!["total".into()];
    let kind = b.function(0, "outputs.total + 1");
    let after = b.node(0, "after", kind);
    b.edge(0, sum, after);
    assert_eq!(Driver::of(&b.build()).outputs(), value(r#"{"after": 6}"#));
}

#[test]
fn all_entry_nodes_start() {
    // F114
    let mut b = Build::new();
    for id in ["a", "b", "c"] {
        b.node(0, id, identity());
    }
    let any = b.node(0, "any", join());
    b.at(0, any).policy = Policy::AtLeast(3);
    let driver = Driver::begin(&start(&b.build(), value("1")), super::Mode::Bursts(1));
    assert_eq!(driver.outputs(), value(r#"{"a": 1, "b": 1, "c": 1, "any": 1}"#));
}
