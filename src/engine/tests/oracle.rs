//! A second opinion on "when does a node run": the rule written down once more, as a recursion over the finished graph,
//! for graphs in which no order matters.

use proptest::prelude::*;

use super::build::{Build, identity, join};
use super::{Driver, value};
use crate::ir::{On, OnError, Policy};

#[derive(Clone, Debug)]
struct Plan {
    /// 0 identity, 1 fails, 2 fails and goes on, 3 and 4 conditional (true, false), else a join.
    kind: u8,
    policy: u8,
    /// To each earlier node: 0 none, 1 success, 2 error, 3 branch t, 4 branch f, else success with a false `when`.
    edges: Vec<u8>,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0_u8..7, 0_u8..5, proptest::collection::vec(0_u8..9, 12))
        .prop_map(|(kind, policy, edges)| Plan { kind, policy, edges });
    proptest::collection::vec(plan, 1..12)
}

/// (state, is its failure unhandled) of each node, in order.
fn expected(plans: &[Plan]) -> Vec<(&'static str, bool)> {
    let mut states: Vec<(&'static str, bool)> = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        let incoming: Vec<bool> = (0..at)
            .filter_map(|from| {
                let (state, source) = (states[from].0, plans[from].kind);
                match plan.edges[from] {
                    0 | 6.. => None,
                    1 => Some(state == "completed"),
                    2 => Some(state == "failed"),
                    3 => Some(state == "completed" && source == 3),
                    4 => Some(state == "completed" && source == 4),
                    _ => Some(false),
                }
            })
            .collect();
        let live = incoming.iter().filter(|live| **live).count();
        let needed = if plan.policy == 3 { 2 } else { 1 };
        let too_few = !incoming.is_empty() && live < needed;
        let caught = plans[at + 1..].iter().any(|later| later.edges[at] == 2);
        states.push(match plan.kind {
            _ if !incoming.is_empty() && live == 0 => ("skipped", false),
            2 if !caught => ("completed", false),
            1 | 2 => ("failed", !caught),
            _ if too_few => ("failed", !caught),
            _ => ("completed", false),
        });
    }
    states
}

fn built(plans: &[Plan]) -> Driver {
    let mut b = Build::new();
    for (at, plan) in plans.iter().enumerate() {
        let kind = match plan.kind {
            0 => identity(),
            1 | 2 => b.function(0, "1 / 0"),
            3 => b.conditional(0, &[("t", "true")], Some("f")),
            4 => b.conditional(0, &[("t", "false")], Some("f")),
            _ => join(),
        };
        let node = b.node(0, &format!("n{at}"), kind);
        b.at(0, node).policy = match plan.policy {
            3 => Policy::AtLeast(2),
            4 => Policy::Any,
            _ => Policy::All,
        };
        if plan.kind == 2 {
            b.at(0, node).on_error = OnError::Continue;
        }
        for (from, edge) in (0..node).zip(&plan.edges) {
            let (on, when) = match edge {
                0 | 6.. => continue,
                1 => (On::Success, None),
                2 => (On::Error, None),
                3 => (On::Branch("t".into()), None),
                4 => (On::Branch("f".into()), None),
                _ => (On::Success, Some("1 == 2")),
            };
            b.edge_on(0, (from, node), on, when);
        }
    }
    Driver::with(&b.build(), "1")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_run_when_the_rule_says_so(plans in plans()) {
        let expected = expected(&plans);
        let driver = built(&plans);
        let view = driver.run.view();
        if expected.iter().any(|(_, unhandled)| *unhandled) {
            prop_assert_eq!(view.summary.status.as_str(), "failed");
            let node: usize = view.failed_node.unwrap()[1..].parse().unwrap();
            prop_assert!(expected[node].1, "{} was not to fail the run", node);
        } else {
            prop_assert_eq!(view.summary.status.as_str(), "completed");
            let states: Vec<_> = driver.states().into_iter().map(|(_, state)| state).collect();
            prop_assert_eq!(states, expected.iter().map(|(state, _)| *state).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_oracle_knows_the_simple_cases() {
    let plan = |kind, edges: &[u8]| {
        let mut edges = edges.to_vec();
        edges.resize(12, 0);
        Plan { kind, policy: 0, edges }
    };
    let plans = [plan(3, &[]), plan(0, &[3]), plan(0, &[4]), plan(5, &[0, 1, 1])];
    let states: Vec<_> = expected(&plans).into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["completed", "completed", "skipped", "completed"]);
    let driver = built(&plans);
    assert_eq!(driver.outputs(), value(r#"{"n3": {"n1": 1}}"#));
}
