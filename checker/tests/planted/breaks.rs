//! Promises broken on purpose: each a change of the good history, and the name by which it must be found.

use serde_json::{Value, json};

use crate::good;

/// The line that has these members.
pub(crate) fn find(lines: &[Value], wanted: &Value) -> usize {
    let fits =
        |line: &Value| wanted.as_object().unwrap().iter().all(|(member, value)| line[member] == *value);
    lines.iter().position(fits).unwrap_or_else(|| panic!("no line has {wanted}"))
}

/// The lines of an event of a run, in every dump.
pub(crate) fn rows(lines: &[Value], run: &str, seq: u64) -> Vec<usize> {
    let fits = |line: &Value| line["kind"] == "row" && line["run"] == run && line["event"]["seq"] == seq;
    (0..lines.len()).filter(|index| fits(&lines[*index])).collect()
}

pub(crate) type Lines = Vec<Value>;

pub(crate) fn set(lines: &mut Lines, wanted: Value, member: &str, value: Value) {
    let at = find(lines, &wanted);
    lines[at][member] = value;
}

pub(crate) fn set_event(lines: &mut Lines, run: &str, (seq, member): (u64, &str), value: &Value) {
    for at in rows(lines, run, seq) {
        lines[at]["event"][member] = value.clone();
    }
}

/// Says in all dumps how many events a run has, and its status.
pub(crate) fn body(lines: &mut Lines, run: &str, (seq, status): (u64, &str)) {
    for line in lines.iter_mut().filter(|line| line["kind"] == "run" && line["run"] == run) {
        line["body"]["seq"] = json!(seq);
        line["body"]["status"] = json!(status);
    }
}

/// Puts an event behind another one, in all dumps, and numbers what follows anew.
pub(crate) fn insert_event(lines: &mut Lines, run: &str, after: u64, event: &Value) {
    for at in rows(lines, run, after).into_iter().rev() {
        let dump = lines[at]["dump"].clone();
        lines.insert(at + 1, json!({"kind": "row", "dump": dump, "run": run, "event": event}));
    }
    renumber(lines, run);
}

/// Lets a node of `r4` be an agent under a budget of five cents, to which this happens.
pub(crate) fn agent(lines: &mut Lines, events: &[(&str, Value)]) {
    let at = find(lines, &json!({"kind": "document", "hash": "sha256:waits"}));
    lines[at]["document"]["limits"] = json!({"budget": {"usd": "0.05"}});
    for (after, (kind, more)) in (3..).zip(events) {
        let mut event = json!({"type": kind, "node": "pause", "at": good::at(30)});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        insert_event(lines, "r4", after, &event);
    }
}

pub(crate) fn called() -> (&'static str, Value) {
    ("model.called", json!({"reserved_usd": "0.02"}))
}

pub(crate) fn answered() -> (&'static str, Value) {
    ("model.answered", json!({"cost_usd": "0.01"}))
}

pub(crate) fn renumber(lines: &mut Lines, run: &str) {
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

/// Says of all runs that they are in one workspace.
pub(crate) fn at_home(lines: &mut Lines) {
    for line in lines.iter_mut().filter(|line| line["kind"] == "run") {
        line["workspace"] = json!("acme");
    }
}

/// Takes a run out of the dumps; out of the last one only when `last` says so.
pub(crate) fn remove_run(lines: &mut Lines, run: &str, last: bool) {
    let gone = |line: &Value| {
        matches!(line["kind"].as_str(), Some("run" | "row"))
            && line["run"] == run
            && (!last || line["dump"] == 2)
    };
    lines.retain(|line| !gone(line));
}

pub(crate) fn remove_event(lines: &mut Lines, run: &str, seq: u64) {
    for at in rows(lines, run, seq).into_iter().rev() {
        lines.remove(at);
    }
}

/// Puts lines in front of the one that has these members.
pub(crate) fn before(lines: &mut Lines, wanted: Value, new: Vec<Value>) {
    let at = find(lines, &wanted);
    lines.splice(at..at, new);
}

/// A name, and how a good history is made to break it.
pub(crate) type Planted = (&'static str, fn(&mut Lines));

pub(crate) const PLANTED: &[Planted] = &[
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
    ("two_effects_for_a_key", |lines| {
        let event = json!({"type": "patch.created", "at": good::at(41), "justification": "t:p1"});
        insert_event(lines, "r5", 5, &event);
    }),
    ("two_effects_for_a_key", |lines| {
        set(lines, json!({"kind": "invoke", "op": 91}), "token", json!("t:d1"))
    }),
    ("replay_differs", |lines| set(lines, json!({"kind": "ok", "op": 91}), "seq", json!(4))),
    ("not_linearizable", |lines| set(lines, json!({"kind": "ok", "op": 91}), "replayed", json!(false))),
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
        let edges = json!({"nodes": {}, "edges": {"b/a": {"from": "b", "to": "a"}}});
        set(lines, json!({"kind": "document", "hash": "sha256:calls"}), "document", edges);
    }),
    ("dispatch_before_inputs", |lines| {
        // By the graph that the patch made.
        remove_event(lines, "r5", 11);
        insert_event(
            lines,
            "r5",
            5,
            &json!({"type": "node.started", "node": "x", "attempt": 1, "at": good::at(41)}),
        );
        let started = rows(lines, "r5", 11);
        started.into_iter().for_each(|at| {
            lines[at]["event"] =
                json!({"seq": 11, "type": "node.completed", "node": "x", "at": good::at(42), "output": 1})
        });
    }),
    ("wrong_graph_hash", |lines| set_event(lines, "r5", (5, "hash"), &json!("sha256:reviewed"))),
    ("wrong_graph_hash", |lines| {
        let operations = json!([{"op": "remove", "path": "/nodes/nobody"}]);
        set_event(lines, "r5", (4, "operations"), &operations);
    }),
    ("altered_after_start", |lines| {
        // Python again.
        let operations = json!([{"op": "add", "path": "/nodes/ask/priority", "value": "high"}]);
        set_event(lines, "r5", (4, "operations"), &operations);
        set_event(
            lines,
            "r5",
            (5, "hash"),
            &json!("sha256:ea9a4a1defb92bafeadf04ec103b79b26e5dba0504814f287060c86f967a0ea4"),
        );
        for (seq, kind) in [(10, "node.started"), (11, "node.completed")] {
            set_event(lines, "r5", (seq, "type"), &json!(kind.replace("node", "note")));
        }
    }),
    ("altered_after_start", |lines| {
        let operations = json!([{"op": "add", "path": "/nodes/x", "value": {"type": "function"}},
            {"op": "add", "path": "/edges/x~1ask", "value": {"from": "x", "to": "ask"}}]);
        set_event(lines, "r5", (4, "operations"), &operations);
        set_event(
            lines,
            "r5",
            (5, "hash"),
            &json!("sha256:b8df212cdd59d456a5909a42127c17856341c1b075e0105c963d00ba6f9897db"),
        );
    }),
    ("passed_closed_gate", |lines| set_event(lines, "r5", (6, "approved"), &json!(false))),
    ("passed_closed_gate", |lines| {
        // Nobody came, and that is no approval here.
        set_event(lines, "r5", (6, "type"), &json!("approval.expired"));
        lines.retain(|line| line["op"] != 82 && line["op"] != 83);
    }),
    ("too_many_nodes", |lines| {
        let at = find(lines, &json!({"kind": "document", "hash": "sha256:reviewed"}));
        lines[at]["document"]["limits"]["nodes"] = json!(2);
        set_event(
            lines,
            "r5",
            (5, "hash"),
            &json!("sha256:a369a4567403bace79df15353ba5afb11b57abbf970c21c8651d270f2153d474"),
        );
    }),
    // Nobody had approved it yet; nobody did; something came between; it waits again.
    ("held_patch_made", |lines| {
        let made = json!({"type": "patch.created", "patch_id": "p1", "at": good::at(51), "operations": []});
        insert_event(lines, "r6", 4, &made);
    }),
    ("held_patch_made", |lines| set_event(lines, "r6", (7, "approved"), &json!(false))),
    ("held_patch_made", |lines| set_event(lines, "r6", (8, "patch_id"), &json!("p1"))),
    ("held_patch_made", |lines| {
        insert_event(lines, "r6", 7, &json!({"type": "run.paused", "at": good::at(54)}));
    }),
    ("patch_decided_twice", |lines| {
        let again = json!({"type": "patch.decided", "patch_id": "p1", "approved": false, "at": good::at(52)});
        insert_event(lines, "r6", 5, &again);
    }),
    ("patch_decided_twice", |lines| {
        let never = json!({"type": "patch.decided", "patch_id": "p9", "approved": false, "at": good::at(52)});
        insert_event(lines, "r6", 5, &never);
    }),
    ("patch_decided_twice", |lines| set_event(lines, "r6", (6, "patch_id"), &json!("p1"))),
    ("node_of_no_graph", |lines| {
        let early = json!({"type": "node.started", "node": "x", "attempt": 1, "at": good::at(53)});
        insert_event(lines, "r6", 6, &early);
    }),
    ("lost_acknowledgement", |lines| set_event(lines, "r6", (4, "justification"), &json!("another's"))),
    ("lost_acknowledgement", |lines| set_event(lines, "r6", (5, "approved"), &json!(true))),
    ("crossed_workspaces", |lines| {
        at_home(lines);
        set(lines, json!({"kind": "invoke", "op": 9}), "workspace", json!("beta"));
    }),
    ("crossed_workspaces", |lines| {
        at_home(lines);
        set(lines, json!({"kind": "open", "stream": 2}), "workspace", json!("beta"));
    }),
    ("crossed_workspaces", |lines| {
        at_home(lines);
        set(lines, json!({"kind": "call", "node": "b"}), "workspace", json!("beta"));
    }),
    ("lost_acknowledgement", |lines| set_event(lines, "r5", (6, "reason"), &json!("another's"))),
    ("lost_acknowledgement", |lines| {
        // It names a patch.
        set(lines, json!({"kind": "ok", "op": 92}), "body", json!({"patch_id": "p3", "hash": good::PATCHED}));
    }),
    ("lost_acknowledgement", |lines| {
        // It did change something.
        set(lines, json!({"kind": "ok", "op": 92}), "body", json!({"hash": "sha256:reviewed"}));
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
    ("overspent", |lines| {
        agent(
            lines,
            &[
                called(),
                answered(),
                ("tool.returned", json!({})),
                ("model.called", json!({"reserved_usd": "0.041"})),
            ],
        );
    }),
    ("overspent", |lines| {
        agent(lines, &[called(), ("node.lost", json!({})), called(), ("node.lost", json!({})), called()]);
    }),
    ("paid_twice", |lines| agent(lines, &[called(), answered(), called()])),
    ("paid_twice", |lines| agent(lines, &[called(), called()])),
    ("paid_twice", |lines| agent(lines, &[called(), answered(), ("tool.called", json!({})), called()])),
    ("unreserved_answer", |lines| agent(lines, &[answered()])),
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
