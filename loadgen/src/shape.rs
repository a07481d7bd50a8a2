//! What one run looks like: the documents that are registered at the start. Pure nodes with small expressions, so
//! that the engine and the log are what is measured.

use serde_json::{Map, Value, json};

use crate::agent::MODEL;

/// A shape of graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// One node.
    Single,
    /// Five nodes in a row.
    Chain5,
    /// Fifty nodes in a row.
    Chain50,
    /// One node, ten after it, a join, one node.
    Fan10,
    /// One node, a thousand after it, a join, one node.
    Fan1000,
    /// A map over a hundred items, a node each, and one node after it.
    Map100,
    /// Ten nodes with branches, a choice and two joins.
    Graph10,
    /// Five tasks in a row, done by workers of the generator.
    Task5,
    /// One agent with one answer of a model that costs nothing; the node has to be told of it (see `--stub-listen`).
    Agent,
    /// Readers of the events of long runs (see `--transport`, `--subscribers`, `--watched`); with `--rate`, runs of chain5 beside it.
    Stream,
}

/// Where the tasks wait.
pub(crate) const QUEUE: &str = "loadgen";

impl Shape {
    /// Every shape.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::Single,
        Self::Chain5,
        Self::Chain50,
        Self::Fan10,
        Self::Fan1000,
        Self::Map100,
        Self::Graph10,
        Self::Task5,
        Self::Agent,
    ];

    /// Name of the workflow.
    pub(crate) fn workflow(self) -> &'static str {
        match self {
            Self::Single => "loadgen_single",
            Self::Chain5 => "loadgen_chain5",
            Self::Chain50 => "loadgen_chain50",
            Self::Fan10 => "loadgen_fan10",
            Self::Fan1000 => "loadgen_fan1000",
            Self::Map100 => "loadgen_map100",
            Self::Graph10 => "loadgen_graph10",
            Self::Task5 => "loadgen_task5",
            Self::Agent => "loadgen_agent",
            Self::Stream => crate::stream::WORKFLOW,
        }
    }

    /// Does it want workers?
    pub(crate) fn has_tasks(self) -> bool {
        matches!(self, Self::Task5)
    }

    /// Does it ask a model?
    pub(crate) fn has_agent(self) -> bool {
        matches!(self, Self::Agent)
    }

    /// The canonical document.
    pub(crate) fn document(self) -> Value {
        if self == Self::Stream {
            return crate::stream::document(crate::stream::PACE_MS);
        }
        let (nodes, edges, last) = match self {
            Self::Single => single(),
            Self::Chain5 => chain(5),
            Self::Chain50 => chain(50),
            Self::Fan10 => fan(10),
            Self::Fan1000 => fan(1_000),
            Self::Map100 => map(100),
            Self::Graph10 => graph(),
            Self::Task5 => tasks(5),
            Self::Agent | Self::Stream => agent(),
        };
        let mut document = json!({
            "aob": "1",
            "name": self.workflow(),
            "version": "1",
            "inputs": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}},
            "nodes": nodes,
            "edges": edges,
            "outputs": {"n": format!("${{ nodes.{last}.output }}")},
        });
        if self.has_agent()
            && let Some(members) = document.as_object_mut()
        {
            members.insert("agents".to_owned(), json!({"decider": {"model": MODEL, "max_turns": 1}}));
        }
        document
    }
}

type Graph = (Map<String, Value>, Vec<Value>, &'static str);

fn function(expr: &str) -> Value {
    json!({"type": "function", "with": {"expr": expr}})
}

fn edge(from: &str, to: &str) -> Value {
    json!({"from": from, "to": to})
}

fn single() -> Graph {
    (Map::from_iter([("only".to_owned(), function("inputs.n + 1"))]), Vec::new(), "only")
}

fn chain(length: usize) -> Graph {
    let id = |at: usize| if at + 1 == length { "last".to_owned() } else { format!("step{at}") };
    let expr = |at| if at == 0 { "inputs.n + 1" } else { "input + 1" };
    let nodes = (0..length).map(|at| (id(at), function(expr(at)))).collect();
    (nodes, (1..length).map(|at| edge(&id(at - 1), &id(at))).collect(), "last")
}

fn tasks(length: usize) -> Graph {
    let (mut nodes, edges, last) = chain(length);
    for node in nodes.values_mut() {
        *node = json!({"type": "task", "with": {"queue": QUEUE, "payload": {"n": "${ inputs.n }"}}});
    }
    (nodes, edges, last)
}

fn agent() -> Graph {
    let node = json!({"type": "agent", "with": {"role": "decider",
        "task": "Case ${ inputs.n }: accept or refuse? [[say: accept]]"}});
    (Map::from_iter([("decide".to_owned(), node)]), Vec::new(), "decide")
}

fn fan(width: usize) -> Graph {
    let mut nodes = Map::new();
    let mut edges = Vec::new();
    nodes.insert("first".into(), function("inputs.n"));
    for at in 0..width {
        let id = format!("branch{at}");
        nodes.insert(id.clone(), function(&format!("input + {at}")));
        edges.extend([edge("first", &id), edge(&id, "joined")]);
    }
    nodes.insert("joined".into(), json!({"type": "join", "with": {"wait": "all", "merge": "array"}}));
    nodes.insert("total".into(), function("sum(input)"));
    edges.push(edge("joined", "total"));
    (nodes, edges, "total")
}

fn map(width: usize) -> Graph {
    let items: Vec<String> = (0..width).map(|at| at.to_string()).collect();
    let each = json!({"type": "map", "with": {"over": format!("[{}]", items.join(", ")), "body": function("item + inputs.n")}});
    let nodes = [("each", each), ("total", function("sum(input)"))];
    let nodes = nodes.into_iter().map(|(id, node)| (id.to_owned(), node)).collect();
    (nodes, vec![edge("each", "total")], "total")
}

fn graph() -> Graph {
    let join = |wait: &str, merge: &str| json!({"type": "join", "with": {"wait": wait, "merge": merge}});
    let nodes = [
        ("first", function("inputs.n")),
        ("left", function("input + 1")),
        ("right", function("input + 2")),
        (
            "choose",
            json!({"type": "conditional", "with": {
                "branches": [{"name": "even", "when": "input % 2 == 0", "to": "even"}], "default": "odd"}}),
        ),
        ("even", function("input / 2")),
        ("odd", function("input * 3 + 1")),
        ("chosen", join("any", "array")),
        ("both", join("all", "object")),
        ("total", function("input.right + input.chosen[0]")),
        ("done", function("input + 0")),
    ];
    let edges = [
        ("first", "left"),
        ("first", "right"),
        ("left", "choose"),
        ("even", "chosen"),
        ("odd", "chosen"),
        ("right", "both"),
        ("chosen", "both"),
        ("both", "total"),
        ("total", "done"),
    ];
    let nodes = nodes.into_iter().map(|(id, node)| (id.to_owned(), node)).collect();
    (nodes, edges.iter().map(|(from, to)| edge(from, to)).collect(), "done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_joins_nodes_that_exist_and_every_shape_has_its_size() {
        for (shape, nodes) in Shape::ALL.iter().zip([1, 5, 50, 13, 1_003, 2, 10, 5, 1]) {
            let document = shape.document();
            let ids = document["nodes"].as_object().unwrap();
            assert_eq!(ids.len(), nodes, "{shape:?}");
            for edge in document["edges"].as_array().unwrap() {
                for end in ["from", "to"] {
                    assert!(ids.contains_key(edge[end].as_str().unwrap()), "{shape:?}: {edge}");
                }
            }
            let output = document["outputs"]["n"].as_str().unwrap();
            let last = output.trim_start_matches("${ nodes.").trim_end_matches(".output }");
            assert!(ids.contains_key(last), "{shape:?}: {output}");
        }
    }
}
