//! The checker, checked: a good history passes, each planted break of a promise is found by its name, and the work grows
//! with the length of the history and no faster.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test takes apart what it built, and fails loudly"
)]

mod good;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use aob_checker::report::NAMES;
use aob_checker::{Report, check};

fn text(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n")
}

fn checked(lines: &[Value]) -> Report {
    check(&text(lines)).unwrap()
}

/// The line that has these members.
fn find(lines: &[Value], wanted: &Value) -> usize {
    let fits =
        |line: &Value| wanted.as_object().unwrap().iter().all(|(member, value)| line[member] == *value);
    lines.iter().position(fits).unwrap_or_else(|| panic!("no line has {wanted}"))
}

/// The lines of an event of a run, in every dump.
fn rows(lines: &[Value], run: &str, seq: u64) -> Vec<usize> {
    let fits = |line: &Value| line["kind"] == "row" && line["run"] == run && line["event"]["seq"] == seq;
    (0..lines.len()).filter(|index| fits(&lines[*index])).collect()
}

type Lines = Vec<Value>;

fn set(lines: &mut Lines, wanted: Value, member: &str, value: Value) {
    let at = find(lines, &wanted);
    lines[at][member] = value;
}

fn set_event(lines: &mut Lines, run: &str, (seq, member): (u64, &str), value: &Value) {
    for at in rows(lines, run, seq) {
        lines[at]["event"][member] = value.clone();
    }
}

/// Says in all dumps how many events a run has, and its status.
fn body(lines: &mut Lines, run: &str, (seq, status): (u64, &str)) {
    for line in lines.iter_mut().filter(|line| line["kind"] == "run" && line["run"] == run) {
        line["body"]["seq"] = json!(seq);
        line["body"]["status"] = json!(status);
    }
}

/// Puts an event behind another one, in all dumps, and numbers what follows anew.
fn insert_event(lines: &mut Lines, run: &str, after: u64, event: &Value) {
    for at in rows(lines, run, after).into_iter().rev() {
        let dump = lines[at]["dump"].clone();
        lines.insert(at + 1, json!({"kind": "row", "dump": dump, "run": run, "event": event}));
    }
    renumber(lines, run);
}

fn renumber(lines: &mut Lines, run: &str) {
    let (mut dump, mut seq) = (Value::Null, 0);
    for line in lines.iter_mut().filter(|line| line["kind"] == "row" && line["run"] == run) {
        if line["dump"] != dump {
            (dump, seq) = (line["dump"].clone(), 0);
        }
        seq += 1;
        line["event"]["seq"] = json!(seq);
    }
    for line in lines.iter_mut().filter(|line| line["kind"] == "run" && line["run"] == run) {
        line["body"]["seq"] = json!(seq);
    }
}

/// Takes a run out of the dumps; out of the last one only when `last` says so.
fn remove_run(lines: &mut Lines, run: &str, last: bool) {
    let gone = |line: &Value| {
        matches!(line["kind"].as_str(), Some("run" | "row"))
            && line["run"] == run
            && (!last || line["dump"] == 2)
    };
    lines.retain(|line| !gone(line));
}

fn remove_event(lines: &mut Lines, run: &str, seq: u64) {
    for at in rows(lines, run, seq).into_iter().rev() {
        lines.remove(at);
    }
}

/// Puts lines in front of the one that has these members.
fn before(lines: &mut Lines, wanted: Value, new: Vec<Value>) {
    let at = find(lines, &wanted);
    lines.splice(at..at, new);
}

/// A name, and how a good history is made to break it.
type Planted = (&'static str, fn(&mut Lines));

const PLANTED: &[Planted] = &[
    ("lost_acknowledgement", |lines| remove_run(lines, "r4", false)),
    ("lost_acknowledgement", |lines| set(lines, json!({"kind": "ok", "op": 5}), "seq", json!(4))),
    ("lost_acknowledgement", |lines| set_event(lines, "r2", (8, "payload"), &json!({"token": "t:no"}))),
    ("lost_acknowledgement", |lines| set_event(lines, "r1", (14, "output"), &json!({"n": 1}))),
    ("lost_acknowledgement", |lines| {
        let ack = json!({"kind": "ok", "at_us": 99, "op": 20, "run": "r4", "seq": 3, "durability": "fsync"});
        let asked =
            json!({"kind": "invoke", "at_us": 99, "op": 20, "process": "c9", "what": "cancel", "run": "r4"});
        before(lines, json!({"kind": "invoke", "op": 16}), vec![asked, ack]);
    }),
    ("wrong_answer", |lines| set(lines, json!({"kind": "ok", "op": 5}), "run", json!("r3"))),
    ("phantom_event", |lines| {
        let event = json!({"type": "signal.received", "at": good::at(40), "payload": {"token": "t:s2"}});
        insert_event(lines, "r4", 3, &event);
    }),
    ("phantom_event", |lines| {
        set_event(lines, "r1", (5, "output"), &json!({"body": {"answer": "t:nobody"}}))
    }),
    ("phantom_event", |lines| set_event(lines, "r4", (1, "inputs"), &json!({}))),
    ("phantom_event", |lines| set_event(lines, "r1", (8, "worker"), &json!("stranger"))),
    ("doubled_operation", |lines| {
        let event = json!({"type": "signal.received", "at": good::at(65), "payload": {"token": "t:s1"}});
        insert_event(lines, "r2", 7, &event);
    }),
    ("orphan_child", |lines| {
        insert_event(lines, "r4", 1, &json!({"type": "run.linked", "at": good::at(30), "parent": "r1"}));
    }),
    ("lost_without_fault", |lines| lines.retain(|line| line["what"] != "kill")),
    ("gap", |lines| remove_event(lines, "r1", 4)),
    ("gap", |lines| body(lines, "r4", (4, "running"))),
    ("gap", |lines| set_event(lines, "r4", (3, "seq"), &json!(2))),
    ("rewritten_event", |lines| {
        let last = *rows(lines, "r4", 2).last().unwrap();
        lines[last]["event"]["at"] = json!(good::at(31));
    }),
    ("rewritten_event", |lines| {
        set(
            lines,
            json!({"kind": "event", "stream": 1, "seq": 3}),
            "event",
            json!({"seq": 3, "type": "other"}),
        );
    }),
    ("lost_event", |lines| {
        let last = *rows(lines, "r1", 15).last().unwrap();
        lines.remove(last);
    }),
    ("lost_run", |lines| remove_run(lines, "r3", true)),
    ("two_runs_for_a_key", |lines| set(lines, json!({"kind": "ok", "op": 2}), "run", json!("r4"))),
    ("two_runs_for_a_key", |lines| set_event(lines, "r4", (1, "inputs"), &json!({"token": "t:1"}))),
    ("replay_differs", |lines| set(lines, json!({"kind": "ok", "op": 2}), "body", json!({"run_id": "r1"}))),
    ("replay_differs", |lines| set(lines, json!({"kind": "ok", "op": 2}), "seq", json!(2))),
    ("not_linearizable", |lines| set(lines, json!({"kind": "ok", "op": 2}), "replayed", json!(false))),
    ("not_linearizable", |lines| set(lines, json!({"kind": "ok", "op": 1}), "replayed", json!(true))),
    ("not_linearizable", |lines| set(lines, json!({"kind": "invoke", "op": 6}), "token", json!("t:1"))),
    ("two_outcomes", |lines| {
        insert_event(lines, "r1", 5, &json!({"type": "node.failed", "node": "a", "at": good::at(210)}));
    }),
    ("event_after_end", |lines| {
        insert_event(lines, "r3", 5, &json!({"type": "timer.fired", "node": "x", "at": good::at(90)}));
    }),
    ("started_after_outcome", |lines| {
        let event = json!({"type": "node.started", "node": "a", "at": good::at(210), "attempt": 2});
        insert_event(lines, "r1", 5, &event);
    }),
    ("outcome_without_start", |lines| remove_event(lines, "r2", 6)),
    ("attempt_out_of_order", |lines| set_event(lines, "r1", (11, "attempt"), &json!(3))),
    ("wrong_status", |lines| body(lines, "r1", (15, "failed"))),
    ("wrong_status", |lines| body(lines, "r4", (3, "completed"))),
    ("time_went_back", |lines| set_event(lines, "r1", (3, "at"), &json!("2027-01-15T07:59:59.000Z"))),
    ("started_after_cancel", |lines| {
        let event = json!({"type": "node.started", "node": "late", "at": good::at(80), "attempt": 1});
        insert_event(lines, "r3", 4, &event);
    }),
    ("effect_without_cause", |lines| set(lines, json!({"kind": "call", "attempt": 2}), "attempt", json!(3))),
    ("effect_without_cause", |lines| set(lines, json!({"kind": "call", "attempt": 1}), "run", json!("r9"))),
    ("effect_without_cause", |lines| {
        lines.retain(|line| line["event"]["type"] != "node.leased" || line["event"]["seq"] != 13);
        renumber(lines, "r1");
    }),
    ("effect_before_cause", |lines| {
        set(lines, json!({"kind": "call", "attempt": 2}), "wall_ms", json!(1_800_000_000_150_u64));
    }),
    ("too_many_calls", |lines| {
        let at = find(lines, &json!({"kind": "call", "attempt": 2}));
        let again = lines[at].clone();
        lines.insert(at, again);
    }),
    ("doubled_effect", |lines| set(lines, json!({"kind": "call", "attempt": 2}), "effect", json!(true))),
    ("repeated_at_most_once", |lines| {
        let nodes = json!({"nodes": {"a": {"type": "http", "at_most_once": true}}});
        set(lines, json!({"kind": "document", "hash": "sha256:calls"}), "document", nodes);
    }),
    ("two_keys_for_a_step", |lines| set(lines, json!({"kind": "call", "attempt": 2}), "key", json!("kz"))),
    ("one_key_for_two_steps", |lines| set(lines, json!({"kind": "call", "node": "b"}), "key", json!("ka"))),
    ("dispatch_before_inputs", |lines| {
        let edges = json!({"nodes": {}, "edges": [{"from": "b", "to": "a"}]});
        set(lines, json!({"kind": "document", "hash": "sha256:calls"}), "document", edges);
    }),
    ("wrong_graph_version", |lines| {
        insert_event(lines, "r2", 4, &json!({"type": "patch.applied", "at": good::at(61), "version": 3}));
        insert_event(lines, "r2", 4, &json!({"type": "patch.revoked", "at": good::at(61)}));
    }),
    ("half_a_patch", |lines| {
        insert_event(lines, "r2", 4, &json!({"type": "patch.applied", "at": good::at(61), "version": 2}));
    }),
    ("half_a_patch", |lines| {
        insert_event(lines, "r2", 4, &json!({"type": "patch.revoked", "at": good::at(61)}));
    }),
    ("two_decisions", |lines| {
        insert_event(lines, "r2", 4, &json!({"type": "approval.decided", "node": "x", "at": good::at(61)}));
        insert_event(lines, "r2", 4, &json!({"type": "approval.expired", "node": "x", "at": good::at(61)}));
    }),
    ("early_timer", |lines| set_event(lines, "r2", (3, "due"), &json!(good::at(62)))),
    ("late_timer", |lines| {
        for seq in 4..=10 {
            set_event(lines, "r2", (seq, "at"), &json!(good::at(171)));
        }
    }),
    ("late_timer", |lines| {
        // The node went away afterwards.
        set(lines, json!({"kind": "fault", "what": "kill"}), "wall_ms", json!(good::wall_ms(850)));
        set(lines, json!({"kind": "fault", "what": "restart"}), "wall_ms", json!(good::wall_ms(860)));
        for seq in 4..=10 {
            set_event(lines, "r2", (seq, "at"), &json!(good::at(800)));
        }
    }),
    ("too_many_attempts", |lines| {
        let at = find(lines, &json!({"kind": "document", "hash": "sha256:calls"}));
        lines[at]["document"]["nodes"]["b"]["retry"] = json!({"max_attempts": 1});
    }),
    ("timer_fired_twice", |lines| {
        insert_event(lines, "r2", 4, &json!({"type": "timer.fired", "node": "pause", "at": good::at(61)}));
    }),
    ("early_retry", |lines| {
        remove_event(lines, "r1", 10);
        set_event(lines, "r1", (9, "due"), &json!(good::at(245)));
    }),
    ("stream_gap", |lines| {
        let at = find(lines, &json!({"kind": "event", "stream": 1, "seq": 3}));
        lines.remove(at);
    }),
    ("stream_gap", |lines| set(lines, json!({"kind": "open", "stream": 2}), "after", json!(3))),
    ("stream_repeated", |lines| {
        let at = find(lines, &json!({"kind": "event", "stream": 2, "seq": 6}));
        let again = lines[at].clone();
        lines.insert(at, again);
    }),
    ("stream_repeated", |lines| set(lines, json!({"kind": "open", "stream": 2}), "after", json!(5))),
    ("dirty_read", |lines| set(lines, json!({"kind": "ok", "op": 15}), "seq", json!(16))),
    ("dirty_read", |lines| {
        let event = json!({"kind": "event", "at_us": 53, "stream": 2, "seq": 9, "event": {}});
        set(lines, json!({"kind": "open", "stream": 2}), "run", json!("r3"));
        before(lines, json!({"kind": "resync", "stream": 2}), vec![event]);
    }),
    ("stale_read", |lines| set(lines, json!({"kind": "ok", "op": 16}), "seq", json!(14))),
    ("read_below_min_seq", |lines| set(lines, json!({"kind": "ok", "op": 9}), "seq", json!(9))),
    ("wrong_epoch", |lines| set(lines, json!({"kind": "ok", "op": 3}), "epoch", json!(2))),
    ("epoch_went_back", |lines| set(lines, json!({"kind": "call", "attempt": 2}), "epoch", json!(0))),
    ("changed_by_recovery", |lines| {
        let last = find(lines, &json!({"kind": "run", "dump": 2, "run": "r1"}));
        lines[last]["body"]["outputs"] = json!({"other": 1});
    }),
    ("unfinished_again", |lines| set(lines, json!({"kind": "ok", "op": 16}), "status", json!("running"))),
    ("changed_end", |lines| set(lines, json!({"kind": "ok", "op": 16}), "status", json!("failed"))),
    ("stuck_run", |lines| {
        for line in lines.iter_mut().filter(|line| line["kind"] == "run" && line["run"] == "r4") {
            line["waits"] = json!(["turn"]);
        }
    }),
    ("unlisted_run", |lines| {
        set(lines, json!({"kind": "run", "dump": 2, "run": "r2"}), "listed", json!(false))
    }),
    ("silent_downgrade", |lines| set(lines, json!({"kind": "ok", "op": 7}), "durability", json!("os"))),
    ("acknowledged_after_failed_sync", |lines| {
        let failed = json!({"kind": "fault", "at_us": 60, "what": "sync_failed"});
        before(lines, json!({"kind": "invoke", "op": 7}), vec![failed]);
    }),
];

#[test]
fn a_good_history_passes_and_each_planted_break_is_found_by_its_name() {
    let good = good::history();
    let report = checked(&good);
    assert!(report.is_good(), "{}", report.shown(&text(&good), 50));
    let counts = report.counts;
    assert_eq!((counts.operations, counts.runs, counts.events, counts.faults), (16, 4, 33, 2));
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
        for name in ["r1", "r2", "r3", "r4", "k1", "ka", "kb"] {
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
