//! The checker, checked: a good history passes, each planted break of a promise is found by its name, and the work grows
//! with the length of the history and no faster.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test takes apart what it built, and fails loudly"
)]

mod breaks;
mod good;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::breaks::*;
use aob_checker::report::NAMES;
use aob_checker::{Report, check};

fn text(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n")
}

fn checked(lines: &[Value]) -> Report {
    check(&text(lines)).unwrap()
}

#[test]
fn a_good_history_passes_and_each_planted_break_is_found_by_its_name() {
    let good = good::history();
    let report = checked(&good);
    assert!(report.is_good(), "{}", report.shown(&text(&good), 50));
    let counts = report.counts;
    assert_eq!((counts.operations, counts.runs, counts.events, counts.faults), (29, 6, 56, 2));
    for (index, (name, plant)) in PLANTED.iter().enumerate() {
        let mut lines = good.clone();
        plant(&mut lines);
        assert_ne!(lines, good, "{name} ({index}) changes nothing");
        let report = checked(&lines);
        let shown = report.shown(&text(&lines), 50);
        assert!(report.names().contains(name), "{name} ({index}) was not found: {shown}");
        let found = report.violations.iter().find(|violation| violation.name == *name).unwrap();
        assert!(!found.lines.is_empty() && found.lines.len() <= 20, "{name} ({index}): {shown}");
    }
    assert!(PLANTED.len() >= 60, "{} are planted", PLANTED.len());
}

#[test]
fn an_agent_that_keeps_to_its_budget_and_asks_once_for_each_turn_is_as_it_should_be() {
    let mut lines = good::history();
    let refused = json!({"to": 1, "error": {"code": "overloaded"}});
    let nothing = json!({});
    agent(
        &mut lines,
        &[
            called(),
            ("node.lost", nothing.clone()),
            called(),
            ("model.degraded", refused),
            called(),
            answered(),
            ("tool.called", nothing.clone()),
            ("tool.returned", nothing.clone()),
            called(),
            answered(),
            ("agent.corrected", nothing),
            ("model.called", json!({"reserved_usd": "0.01"})),
            answered(),
        ],
    );
    assert!(checked(&lines).is_good(), "{}", checked(&lines).shown(&text(&lines), 9));
}

#[test]
fn every_name_can_be_found() {
    let planted: BTreeSet<&str> = PLANTED.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(planted, known);
}

#[test]
fn what_may_be_lost_and_only_that_may_be_lost() {
    let mut lines = good::history();
    remove_run(&mut lines, "r4", false);
    lines.retain(|line| line["run"] != "r4" || line["kind"] == "ok");
    let window =
        |from_us: u64| json!({"kind": "fault", "at_us": 30, "what": "loss_window", "from_us": from_us});
    let at = find(&lines, &json!({"kind": "invoke", "op": 6}));
    lines.insert(at, window(25));
    lines.retain(|line| line["op"] != 10 && line["op"] != 11);
    assert!(checked(&lines).is_good(), "{}", checked(&lines).shown(&text(&lines), 9));
    lines[at] = window(26);
    assert_eq!(checked(&lines).names(), BTreeSet::from(["lost_acknowledgement"]));
}

#[test]
fn nothing_is_late_that_was_due_while_the_node_was_away() {
    let mut lines = good::history();
    lines.retain(|line| line["kind"] != "event");
    for seq in 4..=10 {
        set_event(&mut lines, "r2", (seq, "at"), &json!(good::at(171)));
    }
    assert_eq!(checked(&lines).names(), BTreeSet::from(["late_timer"]));
    set(&mut lines, json!({"kind": "fault", "what": "kill"}), "wall_ms", json!(good::wall_ms(170)));
    assert!(checked(&lines).is_good(), "{}", checked(&lines).shown(&text(&lines), 9));
}

#[test]
fn what_is_refused_across_workspaces_is_as_it_should_be() {
    let mut lines = good::history();
    at_home(&mut lines);
    set(&mut lines, json!({"kind": "invoke", "op": 10}), "workspace", json!("beta"));
    assert!(checked(&lines).is_good(), "{}", checked(&lines).shown(&text(&lines), 9));
}

#[test]
fn garbage_is_an_error_with_its_line() {
    let good = text(&good::history());
    let line = |text: &str| check(text).unwrap_err();
    assert_eq!(line("").line, 1);
    assert_eq!(line("{\"kind\": \"dump\", \"at_us\": 1, \"dump\": 1, \"still\": false}").line, 1);
    assert!(line(&good.replacen("\"version\":1", "\"version\":2", 1)).why.contains("version 2"));
    let lines: Vec<&str> = good.lines().collect();
    for (index, garbage) in [
        (1, "no json"),
        (3, "{\"kind\":\"invoke\"}"),
        (4, "{\"kind\":\"unheard_of\",\"at_us\":12}"),
        (5, "{\"kind\":\"ok\",\"at_us\":12,\"op\":99}"),
        (6, "{\"kind\":\"unknown\",\"at_us\":1,\"op\":1}"),
        (7, "{\"kind\":\"row\",\"dump\":1,\"run\":\"r1\",\"event\":{}}"),
        (8, "{\"kind\":\"event\",\"at_us\":25,\"stream\":9,\"seq\":1,\"event\":{}}"),
        (9, "{\"kind\":\"invoke\",\"at_us\":25,\"op\":1,\"process\":\"c8\",\"what\":\"read\"}"),
        (3, "\u{1}\u{0}{{{{"),
        (1, "{\"kind\":\"head\",\"version\":1,\"seed\":1,\"durability\":\"fsync\",\"clock_slack_ms\":0}"),
    ] {
        let mut with = lines.clone();
        with.insert(index, garbage);
        let error = line(&with.join("\n"));
        assert_eq!(error.line, index + 1, "{garbage}: {error}");
    }
    // Cut anywhere, it is an error or a shorter history, and never a panic.
    for length in (0..good.len()).step_by(97) {
        let _ = check(&good[..length]);
    }
}

/// The history so many times over, with other names each time.
fn repeated(times: usize) -> String {
    let good = good::history();
    let (head, rest) = good.split_first().unwrap();
    let dumps = |line: &Value| matches!(line["kind"].as_str(), Some("dump" | "run" | "row"));
    let mut lines = vec![head.to_string()];
    let renamed = |line: &Value, copy: usize| {
        let mut line = line.clone();
        for member in ["op", "stream"] {
            if let Some(number) = line[member].as_u64() {
                line[member] = json!(number + 100 * copy as u64);
            }
        }
        if line["at_us"].is_u64() {
            line["at_us"] = json!(200);
        }
        let mut text = line.to_string();
        for name in ["r1", "r2", "r3", "r4", "r5", "r6", "k1", "k2", "ka", "kb"] {
            text = text.replace(&format!("\"{name}\""), &format!("\"{name}-{copy}\""));
        }
        text.replace("\"t:", &format!("\"t:{copy}-"))
    };
    for copy in 0..times {
        lines.extend(rest.iter().filter(|line| !dumps(line)).map(|line| renamed(line, copy)));
    }
    for dump in [1, 2] {
        let own = |line: &&Value| dumps(line) && line["dump"] == dump;
        lines.push(rest.iter().find(own).map(|line| renamed(line, 0)).unwrap());
        for copy in 0..times {
            let of = rest.iter().filter(own).filter(|line| line["kind"] != "dump");
            lines.extend(of.map(|line| renamed(line, copy)));
        }
    }
    lines.join("\n")
}

#[test]
fn the_work_is_linear_in_the_length_of_the_history() {
    let steps = |times: usize| {
        let report = check(&repeated(times)).unwrap();
        assert!(report.is_good(), "{times}: {}", report.shown(&repeated(times), 5));
        report.counts.steps
    };
    let (ten, hundred, thousand) = (steps(10), steps(100), steps(1_000));
    assert!(
        hundred <= ten * 10 + 100 && thousand <= hundred * 10 + 100,
        "{ten}, {hundred}, {thousand} steps"
    );
}
