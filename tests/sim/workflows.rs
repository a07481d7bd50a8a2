//! What clients run, and what must come of it.

use serde_json::{Value, json};

/// Documents, in YAML.
pub(super) const DOCUMENTS: [&str; 19] = [
    r#"
aob: "1"
name: chain
nodes:
  a: {type: function, with: {expr: inputs.n + 1}}
  b: {type: function, with: {expr: input * 2}}
  c: {type: function, with: {expr: input + 3}}
edges: [{from: a, to: b}, {from: b, to: c}]
outputs: {n: "${ nodes.c.output }"}
"#,
    r#"
aob: "1"
name: calls
defaults: {timeout: 20s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
nodes:
  a: {type: http, with: {url: "http://tool.example/double?n=${ inputs.n }"}}
  b: {type: http, with: {method: POST, url: "http://tool.example/add?n=${ nodes.a.output.body }", body: {n: 1}}}
edges: [{from: a, to: b}]
outputs: {n: "${ nodes.b.output.body }"}
"#,
    r#"
aob: "1"
name: once
defaults: {timeout: 20s}
nodes:
  a: {type: http, at_most_once: true, with: {method: POST, url: "http://tool.example/double?n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.body }"}
limits: {deadline: 2m}
"#,
    r#"
aob: "1"
name: tasks
defaults: {timeout: 60s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
nodes:
  a: {type: task, with: {queue: work, payload: {n: "${ inputs.n }"}}}
  b: {type: task, priority: high, with: {queue: work, payload: {n: "${ nodes.a.output }"}}}
edges: [{from: a, to: b}]
outputs: {n: "${ nodes.b.output }"}
"#,
    r#"
aob: "1"
name: naps
nodes:
  a: {type: delay, with: {for: 2s}}
  b: {type: function, with: {expr: inputs.n}}
  c: {type: delay, with: {for: 700ms}}
edges: [{from: a, to: b}, {from: b, to: c}]
outputs: {n: "${ nodes.b.output }"}
"#,
    r#"
aob: "1"
name: waits
nodes:
  a: {type: wait, with: {signal: go, timeout: 15s}}
  late: {type: function, with: {expr: "-1"}}
  in_time: {type: function, with: {expr: inputs.n}}
  end: {type: join, with: {wait: any, merge: array}}
edges:
  - {from: a, to: in_time}
  - {from: a, to: late, on: timeout}
  - {from: in_time, to: end}
  - {from: late, to: end}
outputs: {n: "${ nodes.end.output[0] }"}
"#,
    r#"
aob: "1"
name: map
defaults: {timeout: 20s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
nodes:
  each:
    type: map
    with:
      over: "[inputs.n, inputs.n + 1, inputs.n + 2, inputs.n + 3]"
      max_concurrency: 2
      body: {type: http, with: {url: "http://tool.example/double?n=${ item }"}}
  sum: {type: function, with: {expr: "input[0].body + input[1].body + input[2].body + input[3].body"}}
edges: [{from: each, to: sum}]
outputs: {n: "${ nodes.sum.output }"}
"#,
    r#"
aob: "1"
name: parent
nodes:
  child: {type: composite, input: {n: "${ inputs.n }"}, with: {workflow: calls}}
  after: {type: function, with: {expr: nodes.child.output.n + 1000}}
edges: [{from: child, to: after}]
outputs: {n: "${ nodes.after.output }"}
"#,
    r#"
aob: "1"
name: rounds
nodes:
  round:
    type: loop
    input: 0
    with:
      while: input < 3
      max_iterations: 10
      body:
        nodes:
          before: {type: function}
          nap: {type: delay, with: {for: 300ms}}
          next: {type: function, with: {expr: nodes.before.output + 1}}
        edges: [{from: before, to: nap}, {from: nap, to: next}]
        outputs: "${ nodes.next.output }"
outputs: {n: "${ nodes.round.output }"}
"#,
    r#"
aob: "1"
name: slots
defaults: {timeout: 20s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
limits: {concurrency: {key: one, max: 2}}
nodes:
  a: {type: http, with: {url: "http://tool.example/double?n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.body }"}
"#,
    r#"
aob: "1"
name: papers
defaults: {timeout: 60s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
nodes:
  copy: {type: function, with: {expr: inputs.paper}}
  write: {type: task, with: {queue: work, payload: {n: "${ inputs.n }", paper: "${ nodes.copy.output }"}}}
  nap: {type: delay, with: {for: 1s}}
edges: [{from: copy, to: write}, {from: write, to: nap}]
outputs: {n: "${ nodes.write.output.n }", read: "${ nodes.copy.output }", written: "${ nodes.write.output.paper }"}
"#,
    r#"
aob: "1"
name: agent
defaults: {timeout: 30s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
agents:
  finder:
    model: big
    fallback: [small]
    tools:
      - {name: find, description: It finds., parameters: {type: object, properties: {n: {type: integer}}}, http: {url: "http://tool.example/find"}}
      - patch
nodes:
  a: {type: agent, outputs: [n, said], with: {role: finder, task: "n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.n }"}
"#,
    r#"
aob: "1"
name: spender
defaults: {timeout: 30s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
limits: {budget: {usd: "0.008", on_breach: stop}}
agents:
  finder:
    model: big
    fallback: [small]
    tools:
      - {name: find, description: It finds., parameters: {type: object, properties: {n: {type: integer}}}, http: {url: "http://tool.example/find"}}
nodes:
  a: {type: agent, outputs: [n, said], with: {role: finder, task: "n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.n }"}
"#,
    r#"
aob: "1"
name: thrifty
defaults: {timeout: 30s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
limits: {budget: {usd: "0.008", on_breach: pause}}
agents:
  finder:
    model: big
    fallback: [small]
    tools:
      - {name: find, description: It finds., parameters: {type: object, properties: {n: {type: integer}}}, http: {url: "http://tool.example/find"}}
      - patch
nodes:
  a: {type: agent, outputs: [n, said], with: {role: finder, task: "n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.n }"}
"#,
    r#"
aob: "1"
name: frugal
defaults: {timeout: 30s, retry: {max_attempts: 60, initial: 50ms, max: 2s}}
limits: {budget: {usd: "0.008", on_breach: degrade}}
agents:
  finder:
    model: big
    fallback: [small]
    tools:
      - {name: find, description: It finds., parameters: {type: object, properties: {n: {type: integer}}}, http: {url: "http://tool.example/find"}}
nodes:
  a: {type: agent, outputs: [n, said], with: {role: finder, task: "n=${ inputs.n }"}}
outputs: {n: "${ nodes.a.output.n }"}
"#,
    // Poison: these fail, each in its way, and take nothing else with them.
    r#"
aob: "1"
name: divides
nodes:
  a: {type: function, with: {expr: 1 / (inputs.n - inputs.n)}}
outputs: {n: "${ nodes.a.output }"}
"#,
    r#"
aob: "1"
name: endless
nodes:
  again:
    type: loop
    input: 0
    with:
      while: "true"
      max_iterations: 5
      body:
        nodes: {next: {type: function, with: {expr: input + 1}}}
        outputs: "${ nodes.next.output }"
outputs: {n: "${ nodes.again.output }"}
"#,
    r#"
aob: "1"
name: too_wide
nodes:
  each:
    type: map
    with: {over: "range(10001)", body: {type: function, with: {expr: item}}}
outputs: {n: "${ nodes.each.output[0] }"}
"#,
    r#"
aob: "1"
name: too_large
nodes:
  a: {type: function, with: {expr: "range(1000).map(i, range(1000).map(j, range(100)))"}}
outputs: {n: "${ nodes.a.output[0] }"}
"#,
];

/// Names, in the order of [`DOCUMENTS`].
pub(super) const NAMES: [&str; 19] = [
    "chain",
    "calls",
    "once",
    "tasks",
    "naps",
    "waits",
    "map",
    "parent",
    "rounds",
    "slots",
    "papers",
    "agent",
    "spender",
    "thrifty",
    "frugal",
    "divides",
    "endless",
    "too_wide",
    "too_large",
];

/// Of them, those that must fail, and how.
const POISON: [(&str, &str); 4] = [
    ("divides", "expression_division_by_zero"),
    ("endless", "loop_exhausted"),
    ("too_wide", "map_items_max"),
    ("too_large", "expression_steps_max"),
];

/// The code with which a run of a poisoned workflow fails.
pub(super) fn poison(workflow: &str) -> Option<&'static str> {
    POISON.iter().find(|(name, _)| *name == workflow).map(|(_, code)| *code)
}

/// What a run of it is given.
pub(super) fn inputs(workflow: &str, n: u64) -> Value {
    match workflow {
        "papers" => json!({"n": n, "paper": paper(i64::try_from(n).unwrap())}),
        _ => json!({"n": n}),
    }
}

/// Runs of `slots` that may be under way at once.
pub(super) const SLOTS: usize = 2;

/// What a service answers.
pub(super) fn answer(path: &str, n: i64) -> i64 {
    match path {
        "/double" => n * 2,
        _ => n + 1,
    }
}

/// What a worker makes of a payload.
pub(super) fn work(n: i64) -> i64 {
    n + 10
}

/// What is written in a paper: few different ones, so that runs have them in common; some stand in events and some do not.
pub(super) fn paper(n: i64) -> String {
    let kind = n % 6;
    format!("paper {kind} ").repeat(4 + 40 * usize::try_from(kind).unwrap())
}

/// What a worker makes of a paper.
pub(super) fn reply(paper: &str) -> String {
    paper.replace("paper", "reply")
}

/// Whether these are outputs that a completed run of `workflow` may have.
pub(super) fn is_right(workflow: &str, n: i64, outputs: &Value) -> bool {
    let right = |value: i64| *outputs == json!({"n": value});
    match workflow {
        "chain" => right((n + 1) * 2 + 3),
        "calls" => right(n * 2 + 1),
        "once" | "slots" => right(n * 2),
        "tasks" => right(n + 20),
        "naps" => right(n),
        "waits" => right(n) || right(-1),
        "map" => right(8 * n + 12),
        "parent" => right(n * 2 + 1001),
        "rounds" => right(3),
        "agent" | "spender" | "thrifty" | "frugal" => right(3 * n),
        // What they hold is looked at where it may be fetched.
        "papers" => outputs["n"] == json!(n + 10),
        _ => false,
    }
}

/// May a run of this workflow fail though everybody tries again often enough? A call that is made at most once may, and an
/// agent that has spent what it may.
pub(super) fn may_fail(workflow: &str) -> bool {
    matches!(workflow, "once" | "spender" | "frugal")
}
