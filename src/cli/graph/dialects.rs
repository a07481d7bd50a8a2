//! The graph for other programs: Mermaid, DOT, JSON.

use std::fmt::Write as _;

use serde_json::{Value, json as value};

use crate::draw::{Drawing, Scope, layers, said};

/// Mermaid's flowchart. Nodes with bodies are subgraphs, edges lead to them as to any node.
pub(super) fn mermaid(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart TD\n");
    mermaid_scope(&drawing.scope, "n", "  ", &mut text);
    text
}

fn mermaid_scope(scope: &Scope, name: &str, indent: &str, text: &mut String) {
    let escaped = |text: &str| {
        let plain = text.replace('&', "&amp;").replace('"', "&quot;");
        plain.replace('<', "&lt;").replace('>', "&gt;")
    };
    for (at, node) in scope.nodes.iter().enumerate() {
        let label = escaped(&label(&node.id, &node.kind));
        if node.bodies.is_empty() {
            let _ = writeln!(text, "{indent}{name}{at}[\"{label}\"]");
            continue;
        }
        let _ = writeln!(text, "{indent}subgraph {name}{at}[\"{label}\"]");
        for (which, (body, inner)) in node.bodies.iter().enumerate() {
            let _ = writeln!(text, "{indent}  subgraph {name}{at}b{which}[\"{}\"]", escaped(body));
            mermaid_scope(inner, &format!("{name}{at}b{which}n"), &format!("{indent}    "), text);
            let _ = writeln!(text, "{indent}  end");
        }
        let _ = writeln!(text, "{indent}end");
    }
    for edge in &scope.edges {
        let said = said(edge);
        let label = if said.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(&said)) };
        let _ = writeln!(text, "{indent}{name}{} -->{label} {name}{}", edge.from, edge.to);
    }
}

/// Graphviz. A body is a cluster; a dashed line leads to it from its node.
pub(super) fn dot(drawing: &Drawing) -> String {
    let mut text =
        format!("digraph \"{}\" {{\n  node [shape=box, fontname=monospace];\n", quoted(&drawing.title));
    dot_scope(&drawing.scope, "n", "  ", &mut text);
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn dot_scope(scope: &Scope, name: &str, indent: &str, text: &mut String) {
    for (at, node) in scope.nodes.iter().enumerate() {
        let _ = writeln!(text, "{indent}{name}{at} [label=\"{}\"];", quoted(&label(&node.id, &node.kind)));
        for (which, (body, inner)) in node.bodies.iter().enumerate() {
            let inner_name = format!("{name}{at}b{which}n");
            let _ = writeln!(text, "{indent}subgraph cluster_{name}{at}b{which} {{");
            let _ = writeln!(text, "{indent}  label=\"{}\";", quoted(body));
            dot_scope(inner, &inner_name, &format!("{indent}  "), text);
            let _ = writeln!(text, "{indent}}}");
            let _ = writeln!(text, "{indent}{name}{at} -> {inner_name}0 [style=dashed];");
        }
    }
    for edge in &scope.edges {
        let said = said(edge);
        let label = if said.is_empty() { String::new() } else { format!(" [label=\"{}\"]", quoted(&said)) };
        let _ = writeln!(text, "{indent}{name}{} -> {name}{}{label};", edge.from, edge.to);
    }
}

fn label(id: &str, kind: &str) -> String {
    if id.is_empty() { kind.to_owned() } else { format!("{id}: {kind}") }
}

/// The graph as data, with the layer of every node.
pub(super) fn json(drawing: &Drawing) -> Value {
    let mut json = json_scope(&drawing.scope);
    if let Some(json) = json.as_object_mut() {
        json.insert("workflow".into(), drawing.title.clone().into());
    }
    json
}

fn json_scope(scope: &Scope) -> Value {
    let pairs: Vec<(usize, usize)> = scope.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let layers = layers::layers(scope.nodes.len(), &pairs);
    let nodes = scope.nodes.iter().zip(&layers.of).map(|(node, layer)| {
        let bodies = node.bodies.iter().map(|(label, body)| (label.clone(), json_scope(body)));
        let bodies: serde_json::Map<String, Value> = bodies.collect();
        value!({"id": node.id, "type": node.kind, "layer": layer + 1, "bodies": bodies})
    });
    let id = |at: usize| scope.nodes.get(at).map_or("", |node| &node.id);
    let edges = scope.edges.iter().map(|edge| {
        let when = (!edge.when.is_empty()).then_some(&edge.when);
        value!({"from": id(edge.from), "to": id(edge.to), "on": edge.on, "when": when})
    });
    value!({"nodes": nodes.collect::<Vec<_>>(), "edges": edges.collect::<Vec<_>>()})
}
