//! Maps: scopes, windows, failures.

use super::build::{Build, delay, identity, wait};
use super::{Driver, Given, Mode, start, value};
use crate::engine::{Bill, Timer};
use crate::ir::{Kind, On, OnError, OnItemError, Template};
use crate::limits;
use crate::model::agent::Quote;
use crate::model::event::Forked;
use crate::model::money::Usd;
use crate::model::{EventBody, Failure, Place, Status, Value};

fn set_window(b: &mut Build, node: u32, window: u32) {
    if let Kind::Map { max_concurrency, .. } = &mut b.at(0, node).kind {
        *max_concurrency = Some(window);
    }
}

#[test]
fn a_map_gives_its_results_in_the_lists_order() {
    // F023
    let mut b = Build::new();
    b.map_of("inputs", "item * 2 + index", OnItemError::Fail);
    let driver = Driver::with(&b.build(), "[5, 6, 7]");
    assert_eq!(driver.outputs(), value(r#"{"each": [10, 13, 16]}"#));
    assert!(driver.told().contains(&"node.completed each[1]".to_owned()), "{:?}", driver.told());
}

#[test]
fn an_empty_list_gives_an_empty_list() {
    let mut b = Build::new();
    b.map_of("[]", "item", OnItemError::Fail);
    assert_eq!(Driver::of(&b.build()).outputs(), value(r#"{"each": []}"#));
}

#[test]
fn what_is_no_list_or_too_long_fails_the_map() {
    for (input, code) in
        [("5".to_owned(), "expression_type"), (ones(limits::MAP_ITEMS_MAX + 1), "map_items_max")]
    {
        let mut b = Build::new();
        b.map_of("inputs", "item", OnItemError::Skip);
        assert_eq!(Driver::with(&b.build(), &input).failure(), (code.into(), Some("each".into())));
    }
}

fn ones(count: usize) -> String {
    format!("[{}]", vec!["1"; count].join(","))
}

#[test]
fn the_longest_list_is_mapped_in_good_time() {
    for on_item_error in [OnItemError::Fail, OnItemError::Collect] {
        let mut b = Build::new();
        let source = if on_item_error == OnItemError::Fail { "item + 1" } else { "item / 0" };
        b.map_of("inputs", source, on_item_error);
        let ir = b.build();
        let start = start(&ir, value(&ones(limits::MAP_ITEMS_MAX)));
        // Not through the driver: its checks after every burst are not linear.
        let (history, run) = super::plain(&start);
        assert_eq!(run.status(), Status::Completed);
        assert_eq!(history.len(), 2 * limits::MAP_ITEMS_MAX + 5);
    }
}

#[test]
fn items_that_fail_are_collected_skipped_or_fail_the_map() {
    let run = |on_item_error| {
        let mut b = Build::new();
        b.map_of("[2, 0, 1]", "4 / item", on_item_error);
        Driver::of(&b.build())
    };
    assert_eq!(run(OnItemError::Skip).outputs(), value(r#"{"each": [2, 4]}"#));
    let collected = run(OnItemError::Collect).outputs();
    let Some(Value::List(items)) = collected.get("each") else { panic!("{collected}") };
    assert_eq!((&items[0], &items[2]), (&Value::Int(2), &Value::Int(4)));
    let code = items[1].get("error").and_then(|error| error.get("code")).cloned();
    assert_eq!(code, Some(Value::string("expression_division_by_zero")));
    let failed = run(OnItemError::Fail);
    assert_eq!(failed.failure(), ("expression_division_by_zero".into(), Some("each".into())));
    assert!(failed.run.view().failure.unwrap().message.starts_with("item 1: "));
    assert!(
        !failed.told().contains(&"node.started each[2]".to_owned()),
        "nothing starts after it failed for all"
    );
}

#[test]
fn several_items_may_fail_for_all() {
    let mut b = Build::new();
    let body = b.body(0, true);
    b.node(body, "body", wait("go", Some(10)));
    let kind = b.map(0, "[1, 2, 3]", body, OnItemError::Fail);
    let each = b.node(0, "each", kind);
    let saved = b.node(0, "saved", identity());
    b.edge_on(0, (each, saved), On::Error, None);
    let mut driver = Driver::of(&b.build());
    let timers: Vec<_> = driver.run.timers().map(|(_, timer)| timer).collect();
    assert_eq!(timers.len(), 3);
    driver.fire_next();
    assert_eq!((driver.run.status(), driver.state("each")), (Status::Completed, "failed"));
    assert!(timers.iter().all(|timer| driver.give(&Given::Timer(timer.clone()))), "all stale now");
}

#[test]
fn a_window_bounds_the_items_under_way() {
    let mut b = Build::new();
    let body = b.body(0, true);
    b.node(body, "body", wait("go", None));
    let kind = b.map(0, "[1, 2, 3, 4, 5]", body, OnItemError::Fail);
    let each = b.node(0, "each", kind);
    set_window(&mut b, each, 2);
    let mut driver = Driver::of(&b.build());
    for done in 0..5 {
        assert_eq!(driver.run.graph().nodes[0].items, Some((done, 5)));
        let current = driver.run.view().current_nodes;
        let expected: Vec<_> = std::iter::once("each".to_owned())
            .chain((done..5).take(2).map(|item| format!("each[{item}]")))
            .collect();
        assert_eq!(current, expected);
        driver.signal("go", &(done * 10).to_string());
    }
    assert_eq!(driver.outputs(), value(r#"{"each": [0, 10, 20, 30, 40]}"#));
}

#[test]
fn a_window_of_none_is_a_window_of_one() {
    let mut b = Build::new();
    let each = b.map_of("[1, 2]", "item", OnItemError::Fail);
    set_window(&mut b, each, 0);
    assert_eq!(Driver::of(&b.build()).outputs(), value(r#"{"each": [1, 2]}"#));
}

#[test]
fn large_bodies_are_begun_in_turns() {
    let mut b = Build::new();
    let body = b.body(0, false);
    let size = 20_000;
    for id in 0..size {
        b.node(body, &format!("n{id}"), delay(5));
    }
    let kind = b.map(0, "inputs", body, OnItemError::Fail);
    b.node(0, "each", kind);
    let (_, run) = super::plain(&start(&b.build(), value(&ones(1000))));
    assert_eq!(run.timers().count(), size * (limits::MAP_NODES_OPEN_MAX / size));
}

/// `each` over a list; its body has a conditional and two ways.
fn branching_body(output: Option<&str>) -> std::sync::Arc<crate::ir::Ir> {
    let mut b = Build::new();
    let body = b.body(0, false);
    let kind = b.conditional(body, &[("big", "input > 1")], Some("small"));
    let choose = b.node(body, "choose", kind);
    let kind = b.function(body, "input * 100");
    let big = b.node(body, "big", kind);
    let small = b.node(body, "small", identity());
    b.edge_on(body, (choose, big), On::Branch("big".into()), None);
    b.edge_on(body, (choose, small), On::Branch("small".into()), None);
    b.ir.scopes[body as usize].output = output.map(|source| b.template(body, source));
    let kind = b.map(0, "inputs", body, OnItemError::Collect);
    b.node(0, "each", kind);
    b.build()
}

#[test]
fn a_body_gives_its_template_or_its_last_nodes() {
    let driver = Driver::with(&branching_body(None), "[1, 2]");
    assert_eq!(driver.outputs(), value(r#"{"each": [{"small": 1}, {"big": 200}]}"#));
    assert!(driver.told().contains(&"node.skipped each[0].big".to_owned()));
    assert!(driver.told().contains(&"node.completed each[0]".to_owned()));
    let driver =
        Driver::with(&branching_body(Some("[index, nodes.big.output, nodes.small.output]")), "[1, 2]");
    assert_eq!(driver.outputs(), value(r#"{"each": [[0, null, 1], [1, 200, null]]}"#));
}

#[test]
fn a_body_whose_output_fails_fails_its_item() {
    let driver = Driver::with(&branching_body(Some("nodes.big.output + 1")), "[1, 2]");
    let outputs = driver.outputs();
    let Some(Value::List(items)) = outputs.get("each") else { panic!("{outputs}") };
    assert!(items[0].get("error").is_some());
    assert_eq!(items[1], Value::Int(201));
}

#[test]
fn a_when_that_fails_in_a_body_fails_its_item() {
    let mut b = Build::new();
    let body = b.body(0, false);
    let first = b.node(body, "first", identity());
    let last = b.node(body, "last", identity());
    b.edge_on(body, (first, last), On::Success, Some("4 / output > 0"));
    let kind = b.map(0, "[1, 0, 2]", body, OnItemError::Skip);
    b.node(0, "each", kind);
    let driver = Driver::of(&b.build());
    assert_eq!(driver.outputs(), value(r#"{"each": [1, 2]}"#));
    let told = driver.told();
    let at =
        told.iter().position(|told| told == "node.completed each[1].first").expect("its completion stands");
    assert!(told[at..].contains(&"node.failed each[1]".to_owned()), "{told:?}");
}

#[test]
fn maps_nest_and_see_outwards() {
    let mut b = Build::new();
    let kind = b.function(0, "100");
    let base = b.node(0, "base", kind);
    let outer = b.body(0, false);
    let inner = b.body(outer, true);
    let kind = b.function(inner, "item + index + nodes.base.output");
    b.node(inner, "body", kind);
    let kind = b.map(outer, "item", inner, OnItemError::Fail);
    b.node(outer, "inner", kind);
    let kind = b.map(0, "inputs", outer, OnItemError::Fail);
    let each = b.node(0, "each", kind);
    b.edge(0, base, each);
    let driver = Driver::begin(&start(&b.build(), value("[[1, 2], [], [5]]")), Mode::Bursts(1));
    assert_eq!(driver.outputs(), value(r#"{"each": [[101, 103], [], [105]]}"#));
    assert!(driver.told().contains(&"node.completed each[0].inner[1]".to_owned()), "{:?}", driver.told());
}

#[test]
fn an_item_takes_its_scope_with_it() {
    let mut b = Build::new();
    b.map_of("inputs", "\"a text that is kept\"", OnItemError::Skip);
    let gate = b.node(0, "gate", wait("go", None));
    let ir = {
        let each = 0;
        b.edge(0, each, gate);
        b.build()
    };
    let driver = Driver::with(&ir, "[1, 2, 3]");
    let each = driver.run.node(&Place::root(0)).unwrap();
    assert!(each.own.is_none());
    // The checks after every event compare the bytes with what is there.
    let inner = Place { scopes: [(0, 1)].into_iter().collect(), node: 0 };
    assert!(driver.run.node(&inner).is_none());
}

#[test]
fn a_dropped_item_takes_no_signal() {
    // Item 0 waits for `go`, then fails with its neighbour; the signal must go to who still waits.
    let mut b = Build::new();
    let body = b.body(0, false);
    b.node(body, "ask", wait("go", None));
    b.node(body, "bomb", wait("never", Some(10)));
    let kind = b.map(0, "[1]", body, OnItemError::Collect);
    b.node(0, "each", kind);
    b.node(0, "outside", wait("go", None));
    let mut driver = Driver::of(&b.build());
    let EventBody::NodeWaiting { place, .. } = driver.history.iter().rev().map(|e| &e.body).find(|body| {
        matches!(body, EventBody::NodeWaiting { place, .. } if place.node == 1 && !place.scopes.is_empty())
    }).unwrap() else { unreachable!() };
    let bomb = Given::Timer(Timer::Node(place.clone()));
    driver.now = driver.run.timers().next().unwrap().0;
    driver.give(&bomb);
    driver.signal("go", "7");
    let outputs = driver.outputs();
    assert_eq!(outputs.get("outside"), Some(&Value::Int(7)));
}

#[test]
fn an_item_node_that_goes_on_with_null_fails_nothing() {
    let mut b = Build::new();
    let body = b.body(0, true);
    let kind = b.function(body, "1 / item");
    let node = b.node(body, "body", kind);
    b.at(body, node).on_error = OnError::Continue;
    b.at(body, node).input = Some(Template::Value(Value::Null));
    let kind = b.map(0, "[1, 0]", body, OnItemError::Fail);
    b.node(0, "each", kind);
    assert_eq!(Driver::of(&b.build()).outputs(), value(r#"{"each": [1, null]}"#));
}

// F396: what failed took the others with it, before there was a fork; what goes on without it did not.
#[test]
fn a_fork_inherits_what_the_items_of_a_failed_map_had_reserved() {
    for (on_item_error, inherited) in
        [(OnItemError::Fail, 70), (OnItemError::Collect, 0), (OnItemError::Skip, 0)]
    {
        let mut b = Build::new();
        let each = b.map_of("inputs", "item", on_item_error);
        let ir = b.build();
        let item = |pass| Place { scopes: [(each, pass)].into_iter().collect(), node: 0 };
        let quote = Quote { model: "m".into(), cost: Some(Usd::from_nanos(70)), tokens: 9 };
        let failure = Failure::fatal("refused", "no");
        let forked = Forked {
            run_id: super::run_id(),
            seq: 3,
            since: super::START,
            replay: false,
            inputs: None,
            deadline: None,
            idempotency: None,
            epoch: 1,
        };
        let mut bill = Bill::default();
        for body in [
            EventBody::ModelCalled { place: item(1), quote: Box::new(quote) },
            EventBody::NodeFailed {
                place: item(0),
                failure,
                edges: [].into_iter().collect(),
                continued: false,
            },
            EventBody::RunForked(Box::new(forked)),
        ] {
            bill.take(&body, Some(&ir), &|place| ir.path(place).into());
        }
        let total = bill.total();
        assert_eq!((total.usd, total.reserved), (Usd::from_nanos(inherited), Usd::ZERO), "{on_item_error:?}");
    }
}
