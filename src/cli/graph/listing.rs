//! The drawing for a terminal: layer by layer, every node with what it is, its bodies, and where its edges lead. Lines
//! end at 80 columns; colours are left out by whoever prints to something else than a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::draw::{Drawing, Edge, Node, Scope, layers, short};

const COLUMNS: usize = 80;
const PLAIN: Style = Style::new();
const ID: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// The text, with colours in it.
pub(super) fn draw(drawing: &Drawing) -> String {
    let (nodes, edges) = drawing.scope.count();
    let mut text = format!("{ID}{}{ID:#}  {QUIET}{nodes} nodes, {edges} edges{QUIET:#}\n\n", drawing.title);
    scope(&drawing.scope, "", &mut text);
    text
}

fn scope(scope: &Scope, indent: &str, text: &mut String) {
    let pairs: Vec<(usize, usize)> = scope.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let layers = layers::layers(scope.nodes.len(), &pairs);
    let width = layers.rows.len().to_string().len();
    let mut leaving: Vec<Vec<&Edge>> = vec![Vec::new(); scope.nodes.len()];
    let mut arriving: Vec<Vec<&Edge>> = vec![Vec::new(); scope.nodes.len()];
    for edge in &scope.edges {
        leaving.get_mut(edge.from).into_iter().for_each(|list| list.push(edge));
        arriving.get_mut(edge.to).into_iter().for_each(|list| list.push(edge));
    }
    for (layer, row) in layers.rows.iter().enumerate() {
        for (position, at) in row.iter().enumerate() {
            let Some(node) = scope.nodes.get(*at) else { continue };
            let number = if position == 0 { (layer + 1).to_string() } else { String::new() };
            let sources = arriving.get(*at).map(Vec::as_slice).unwrap_or_default();
            head(node, scope, (indent, &format!("{number:>width$}  ")), sources, text);
            let inner = format!("{indent}{}", " ".repeat(width + 2));
            for (label, body) in &node.bodies {
                line(&[(PLAIN, &inner), (QUIET, "│ "), (QUIET, label)], text);
                self::scope(body, &format!("{inner}│   "), text);
            }
            edges(scope, leaving.get(*at).map(Vec::as_slice).unwrap_or_default(), &inner, text);
        }
    }
}

/// Number, id, kind and note of a node, and its sources when there are several.
fn head(node: &Node, scope: &Scope, (indent, number): (&str, &str), sources: &[&Edge], text: &mut String) {
    let id = if node.id.is_empty() { "(one node)" } else { &node.id };
    let style = if node.id.is_empty() { QUIET } else { ID };
    let mut from = String::new();
    if sources.len() > 1 {
        let ids = sources.iter().filter_map(|edge| scope.nodes.get(edge.from)).map(|node| &*node.id);
        from = format!("  ← {}", ids.take(COLUMNS).collect::<Vec<_>>().join(", "));
    }
    // Where it comes from matters more than the end of a long expression.
    let taken = [indent, number, id, "  ", &node.kind].iter().map(|part| part.chars().count()).sum::<usize>();
    let room = COLUMNS.saturating_sub(taken + from.chars().count().min(COLUMNS / 3)).max(3);
    let note = if node.note.is_empty() {
        String::new()
    } else {
        format!("  {}", short(&node.note, room.saturating_sub(2)))
    };
    line(
        &[
            (PLAIN, indent),
            (QUIET, number),
            (style, id),
            (PLAIN, "  "),
            (colour(&node.kind), &node.kind),
            (QUIET, &note),
            (QUIET, &from),
        ],
        text,
    );
}

fn edges(scope: &Scope, leaving: &[&Edge], indent: &str, text: &mut String) {
    for (at, edge) in leaving.iter().enumerate() {
        let Some(target) = scope.nodes.get(edge.to) else { continue };
        let arrow = if at + 1 == leaving.len() { "└▶ " } else { "├▶ " };
        let on = if edge.on == "success" { String::new() } else { format!("  on {}", edge.on) };
        let when = if edge.when.is_empty() {
            String::new()
        } else {
            format!("  when {}", short(&edge.when, COLUMNS))
        };
        let style = match &*edge.on {
            "error" | "rejected" => AnsiColor::Red.on_default(),
            "timeout" => AnsiColor::Yellow.on_default(),
            _ => AnsiColor::Green.on_default(),
        };
        line(&[(PLAIN, indent), (QUIET, arrow), (PLAIN, &target.id), (style, &on), (QUIET, &when)], text);
    }
}

/// One line of at most [`COLUMNS`] characters.
fn line(parts: &[(Style, &str)], text: &mut String) {
    let all: usize = parts.iter().map(|(_, part)| part.chars().count()).sum();
    let mut room = if all > COLUMNS { COLUMNS - 1 } else { COLUMNS };
    for (style, part) in parts {
        let cut: String = part.chars().take(room).collect();
        room -= cut.chars().count();
        if !cut.is_empty() {
            let _ = write!(text, "{style}{cut}{style:#}");
        }
    }
    text.push_str(if all > COLUMNS { "…\n" } else { "\n" });
}

fn colour(kind: &str) -> Style {
    let colour = match kind {
        "function" => AnsiColor::Cyan,
        "conditional" | "join" => AnsiColor::Blue,
        "map" | "loop" | "parallel" | "composite" => AnsiColor::Magenta,
        "human_review" | "wait" | "delay" => AnsiColor::Yellow,
        _ => AnsiColor::Green,
    };
    colour.on_default()
}
