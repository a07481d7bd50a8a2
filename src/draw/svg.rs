//! The picture: a box per node, coloured by kind, bodies as boxes inside, edges as curves from top to bottom.
//!
//! Text is set in a monospaced face, so that its width is known without measuring. Whatever comes from the document is
//! escaped; nothing refers to anything outside the file.

use std::fmt::Write as _;

use super::place::{self, Placed};
use super::scope::{Edge, Node, Scope};
use super::{Drawing, said, short};

const MARGIN: f64 = 24.0;
const TITLE: f64 = 34.0;
/// Height of a box without bodies, and of the head of one with.
const HEAD: f64 = 46.0;
const PAD: f64 = 12.0;
const LABEL: f64 = 20.0;
const ID_CHARS: usize = 34;
const NOTE_CHARS: usize = 40;
/// Width of a character of 13 and of 11 pixels.
const WIDE: f64 = 7.9;
const NARROW: f64 = 6.7;

const STYLE: &str = "text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328}\
.t{font-size:16px;font-weight:bold}.i{font-size:13px;font-weight:bold}.k{font-size:11px;fill:#59636e}\
.l{font-size:11px}rect{stroke-width:1.5}.b{fill:#fff;stroke:#d1d9e0;stroke-dasharray:4 3}\
.function{fill:#ddf4ff;stroke:#54aeff}.route{fill:#eaeef2;stroke:#8c959f}.body{fill:#fbefff;stroke:#c297ff}\
.clock{fill:#fff8c5;stroke:#d4a72c}.call{fill:#dafbe1;stroke:#4ac26b}.other{fill:#fff;stroke:#8c959f}\
path{fill:none;stroke:#59636e;stroke-width:1.4;marker-end:url(#a)}\
.error{stroke:#cf222e}.timeout{stroke:#bf8700}.good{stroke:#1a7f37}.named{stroke:#0969da}\
text.l{stroke:#fff;stroke-width:3px;paint-order:stroke;stroke-linejoin:round}\
text.error{fill:#cf222e}text.timeout{fill:#9a6700}text.good{fill:#1a7f37}text.named{fill:#0969da}";
/// How additions, removals and changes look; only in a picture that has some.
const MARKS: &str = "rect.added{fill:#dafbe1;stroke:#1a7f37;stroke-width:3}\
rect.removed{fill:#ffebe9;stroke:#cf222e;stroke-width:3;stroke-dasharray:6 4}\
rect.changed{fill:#fff8c5;stroke:#bf8700;stroke-width:3}path.added{stroke:#1a7f37;stroke-width:3}\
path.removed{stroke:#cf222e;stroke-width:2;stroke-dasharray:6 4}path.changed{stroke:#bf8700;stroke-width:3}\
text.removed{text-decoration:line-through}";

/// A scope with everything in it placed.
struct Sheet<'s> {
    scope: &'s Scope,
    placed: Placed,
    boxes: Vec<Card<'s>>,
}

/// A node with its bodies placed.
struct Card<'s> {
    size: (f64, f64),
    /// Label, left, top, content.
    bodies: Vec<(&'s str, f64, f64, Sheet<'s>)>,
}

/// The SVG document.
pub(crate) fn svg(drawing: &Drawing) -> String {
    let sheet = sheet(&drawing.scope);
    let heading = drawing.title.chars().count() as f64 * 9.7;
    let width = sheet.placed.width.max(heading) + 2.0 * MARGIN;
    let height = sheet.placed.height + 2.0 * MARGIN + TITLE;
    let (width, height) = (round(width), round(height));
    let marks = if drawing.scope.is_marked() { MARKS } else { "" };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>{STYLE}{marks}</style>\n\
         <defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <polygon points=\"0,0 8,4 0,8\" fill=\"#59636e\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let _ = writeln!(
        text,
        "<text class=\"t\" x=\"{}\" y=\"{}\">{}</text>",
        round(MARGIN),
        round(MARGIN + 12.0),
        escaped(&drawing.title)
    );
    write(&sheet, (MARGIN, MARGIN + TITLE), &mut text);
    text.push_str("</svg>\n");
    text
}

fn sheet(scope: &Scope) -> Sheet<'_> {
    let boxes: Vec<Card<'_>> = scope.nodes.iter().map(card).collect();
    let sizes: Vec<(f64, f64)> = boxes.iter().map(|card| card.size).collect();
    let edges: Vec<(usize, usize)> = scope.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    Sheet { scope, placed: place::place(&sizes, &edges), boxes }
}

fn card(node: &Node) -> Card<'_> {
    let id = short(&node.id, ID_CHARS).chars().count() as f64 * WIDE;
    let note = second(node).chars().count() as f64 * NARROW;
    let mut size = (id.max(note).max(60.0) + 2.0 * PAD, HEAD);
    let mut bodies = Vec::with_capacity(node.bodies.len());
    let mut left = PAD;
    let mut tallest: f64 = 0.0;
    for (label, body) in &node.bodies {
        let inner = sheet(body);
        let label_width = label.chars().count() as f64 * NARROW;
        let width = inner.placed.width.max(label_width) + 2.0 * PAD;
        let height = inner.placed.height + 2.0 * PAD + LABEL;
        bodies.push((label.as_str(), left, HEAD, inner));
        left += width + PAD;
        tallest = tallest.max(height);
    }
    if !bodies.is_empty() {
        size = (size.0.max(left), HEAD + tallest + PAD);
    }
    Card { size, bodies }
}

/// The second line of a box.
fn second(node: &Node) -> String {
    let gap = if node.note.is_empty() || node.id.is_empty() { "" } else { " · " };
    let kind = if node.id.is_empty() { "" } else { &node.kind };
    short(&format!("{kind}{gap}{}", node.note), NOTE_CHARS)
}

fn write(sheet: &Sheet<'_>, (x, y): (f64, f64), text: &mut String) {
    // Edges first: boxes lie above them.
    for (edge, bends) in sheet.scope.edges.iter().zip(&sheet.placed.bends) {
        write_edge(sheet, edge, bends, (x, y), text);
    }
    for ((node, card), corner) in sheet.scope.nodes.iter().zip(&sheet.boxes).zip(&sheet.placed.corners) {
        write_node(node, card, (x + corner.0, y + corner.1), text);
    }
}

fn write_node(node: &Node, card: &Card<'_>, (x, y): (f64, f64), text: &mut String) {
    let class = match &*node.kind {
        "function" => "function",
        "conditional" | "join" => "route",
        "map" | "loop" | "parallel" | "composite" => "body",
        "human_review" | "wait" | "delay" => "clock",
        "http" | "agent" | "task" => "call",
        _ => "other",
    };
    let first = if node.id.is_empty() { &node.kind } else { &node.id };
    let full = [node.mark.name(), &*node.id, &*node.kind, &*node.note].join(" ");
    let mark = node.mark.class();
    let _ = writeln!(
        text,
        "<g><title>{}</title><rect class=\"{class}{mark}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\
         <text class=\"i{mark}\" x=\"{}\" y=\"{}\">{}</text><text class=\"k\" x=\"{}\" y=\"{}\">{}</text></g>",
        escaped(&short(&full, 400)),
        round(x),
        round(y),
        round(card.size.0),
        round(card.size.1),
        round(x + PAD),
        round(y + 20.0),
        escaped(&short(first, ID_CHARS)),
        round(x + PAD),
        round(y + 36.0),
        escaped(&second(node)),
    );
    for (label, left, top, inner) in &card.bodies {
        let label_width = label.chars().count() as f64 * NARROW;
        let width = inner.placed.width.max(label_width) + 2.0 * PAD;
        let height = inner.placed.height + 2.0 * PAD + LABEL;
        let (left, top) = (x + left, y + top);
        let _ = writeln!(
            text,
            "<rect class=\"b\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\"/><text class=\"k\" x=\"{}\" y=\"{}\">{}</text>",
            round(left),
            round(top),
            round(width),
            round(height),
            round(left + PAD),
            round(top + 16.0),
            escaped(label),
        );
        write(inner, (left + PAD, top + PAD + LABEL), text);
    }
}

fn write_edge(
    sheet: &Sheet<'_>,
    edge: &Edge,
    bends: &[(f64, f64, f64)],
    (x, y): (f64, f64),
    text: &mut String,
) {
    let end = |at: usize| Some((sheet.placed.corners.get(at)?, sheet.boxes.get(at)?.size));
    let (Some((from, size)), Some((to, target))) = (end(edge.from), end(edge.to)) else { return };
    let mut here = (from.0 + size.0 / 2.0, from.1 + size.1);
    let mut way = format!("M{} {}", round(x + here.0), round(y + here.1));
    // Down to the end of the row first: a taller neighbour may stand in between.
    let floor = sheet.placed.floors.get(edge.from).copied().unwrap_or(here.1);
    if floor > here.1 {
        here.1 = floor;
        let _ = write!(way, "V{}", round(y + floor));
    }
    let start = here;
    let last = (to.0 + target.0 / 2.0, to.1, to.1);
    let mut label = None;
    for (at, top, bottom) in bends.iter().copied().chain([last]) {
        let pull = (top - here.1).abs().min(place::BETWEEN) / 2.0;
        let _ = write!(
            way,
            "C{} {} {} {} {} {}",
            round(x + here.0),
            round(y + here.1 + pull),
            round(x + at),
            round(y + top - pull),
            round(x + at),
            round(y + top)
        );
        if bottom > top {
            let _ = write!(way, "V{}", round(y + bottom));
        }
        label.get_or_insert(((start.0 + at) / 2.0, (start.1 + top) / 2.0));
        here = (at, bottom);
    }
    let class = match &*edge.on {
        "success" => "",
        "error" | "rejected" => "error",
        "timeout" => "timeout",
        "approved" => "good",
        _ => "named",
    };
    let mark = edge.mark.class();
    let _ = writeln!(text, "<path class=\"{class}{mark}\" d=\"{way}\"/>");
    let said = said(edge);
    if let Some(label) = label.filter(|_| !said.is_empty()) {
        let _ = writeln!(
            text,
            "<text class=\"l {class}\" text-anchor=\"middle\" x=\"{}\" y=\"{}\">{}</text>",
            round(x + label.0),
            round(y + label.1 + 4.0),
            escaped(&said)
        );
    }
}

/// Whole pixels, and no `-0`.
fn round(number: f64) -> String {
    format!("{:.0}", number.round() + 0.0)
}

/// Text that may stand in XML. Characters that XML does not know are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
}
