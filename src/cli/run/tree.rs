//! The picture of a run that is under way: its nodes as a tree, each with its state, attempts and time.
//!
//! Pure: rows of the timeline go in, text of a given width and height comes out. Inner nodes leave the picture when they
//! end well, so that a map of ten thousand items stays small; above [`WATCH_NODES_MAX`] nodes further ones are counted,
//! not kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::evidence::{millis, text};
use super::explain::duration;
use crate::cli::output::harmless;
use crate::limits::WATCH_NODES_MAX;

const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const BUSY: Style = AnsiColor::Cyan.on_default();
const HELD: Style = AnsiColor::Yellow.on_default();

/// How it is to be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) now_ms: u64,
    pub(super) columns: usize,
    /// Lines of nodes.
    pub(super) rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Running,
    Waiting,
    Retrying,
    Completed,
    Failed,
    Skipped,
    Uncertain,
    Stopped,
}

#[derive(Debug)]
struct Node {
    state: State,
    attempts: u64,
    began: Option<i64>,
    ended: Option<i64>,
    note: String,
    /// Inner nodes that ended well and left the picture.
    inner_done: u64,
}

/// The run so far.
#[derive(Debug)]
pub(super) struct Tree {
    run_id: String,
    workflow: String,
    status: String,
    /// It has not been admitted yet.
    outside: bool,
    began: Option<i64>,
    ended: Option<i64>,
    nodes: BTreeMap<Vec<String>, Node>,
    left_out: usize,
    note: String,
}

impl Tree {
    /// The nodes of the outermost scope; in their states of now, if the events do not begin at the beginning.
    pub(super) fn new(graph: &Value, as_of_now: bool) -> Self {
        let document = graph.get("document").unwrap_or(&Value::Null);
        let mut tree = Self {
            run_id: text(graph, "run_id").to_owned(),
            workflow: text(document, "name").to_owned(),
            status: String::from("running"),
            outside: false,
            began: None,
            ended: None,
            nodes: BTreeMap::new(),
            left_out: 0,
            note: String::new(),
        };
        let nodes = graph.get("nodes").and_then(Value::as_object).into_iter().flatten();
        for (path, about) in nodes {
            let state = if as_of_now { State::named(text(about, "state")) } else { State::Pending };
            if let Some(node) = tree.node(path) {
                node.state = state;
                node.attempts =
                    about.get("attempts").and_then(Value::as_u64).filter(|_| as_of_now).unwrap_or(0);
            }
        }
        tree
    }

    /// Something to say below the picture.
    pub(super) fn note(&mut self, note: &str) {
        note.clone_into(&mut self.note);
    }

    /// The next row of the timeline.
    pub(super) fn take(&mut self, row: &Value) {
        self.note.clear();
        let (kind, at) = (text(row, "type"), millis(row.get("at")));
        match kind {
            "run.started" => {
                self.began = at;
                text(row, "workflow").clone_into(&mut self.workflow);
            }
            "run.waiting" | "run.admitted" => {
                self.outside = kind == "run.waiting";
                self.status = String::from(if self.outside { "pending" } else { "running" });
            }
            "run.paused" => self.status = String::from("paused"),
            "run.resumed" => {
                self.status = String::from(if self.outside { "pending" } else { "running" });
            }
            "run.cancel_requested" => self.status = String::from("cancelling"),
            "run.completed" | "run.failed" | "run.cancelled" => {
                kind.trim_start_matches("run.").clone_into(&mut self.status);
                self.ended = at;
                self.stop(at);
            }
            _ => {}
        }
        match row.get("node").and_then(Value::as_str) {
            Some(path) if kind.starts_with("node.") => self.take_node(kind, path, row, at),
            _ => {}
        }
    }

    fn take_node(&mut self, kind: &str, path: &str, row: &Value, at: Option<i64>) {
        let parts = split(path);
        let leaves = parts.len() > 1 && matches!(kind, "node.completed" | "node.skipped");
        if leaves {
            // What was inside has ended with it.
            let inside = self.nodes.keys().filter(|key| key.starts_with(&parts)).cloned().collect::<Vec<_>>();
            inside.iter().for_each(|key| drop(self.nodes.remove(key)));
            let outer = parts.first().cloned().map(|first| vec![first]).unwrap_or_default();
            if let Some(outer) = self.nodes.get_mut(&outer) {
                outer.inner_done += 1;
            }
            return;
        }
        let Some(node) = self.node(path) else { return };
        let message = row.get("error").map(|error| text(error, "code")).unwrap_or_default();
        match kind {
            "node.started" => {
                node.attempts = row.get("attempt").and_then(Value::as_u64).unwrap_or(1);
                node.began = node.began.or(at);
                node.set(State::Running, "");
            }
            "node.waiting" => match text(row, "waiting_for") {
                "call" | "items" | "passes" => {}
                "signal" => node.set(State::Waiting, &format!("signal {}", text(row, "signal"))),
                other => node.set(State::Waiting, other),
            },
            "node.completed" => node.end(State::Completed, "", at),
            "node.failed" => node.end(State::Failed, message, at),
            "node.skipped" => node.end(State::Skipped, "", None),
            "node.retry_scheduled" => node.set(State::Retrying, message),
            "node.uncertain" => node.set(State::Uncertain, message),
            "node.fell_back" => node.set(State::Running, "fallback"),
            _ => {}
        }
    }

    /// `None` when there is no room for one more.
    fn node(&mut self, path: &str) -> Option<&mut Node> {
        let parts = split(path);
        if !self.nodes.contains_key(&parts) && self.nodes.len() >= WATCH_NODES_MAX {
            self.left_out += 1;
            return None;
        }
        Some(self.nodes.entry(parts).or_insert_with(|| Node {
            state: State::Pending,
            attempts: 0,
            began: None,
            ended: None,
            note: String::new(),
            inner_done: 0,
        }))
    }

    fn stop(&mut self, at: Option<i64>) {
        for node in self.nodes.values_mut().filter(|node| !node.state.has_ended()) {
            if node.state == State::Pending {
                node.end(State::Skipped, "", None);
            } else {
                node.end(State::Stopped, "", at);
            }
        }
    }

    /// The picture.
    pub(super) fn drawn(&self, frame: &Frame) -> String {
        let mut out = String::new();
        let outer = self.nodes.iter().filter(|(path, _)| path.len() == 1);
        let (done, all) =
            outer.fold((0, 0), |(done, all), (_, node)| (done + u64::from(node.state.has_ended()), all + 1));
        let took = took(self.began, self.ended, frame.now_ms);
        let style = match self.status.as_str() {
            "completed" => GOOD,
            "failed" | "cancelled" => BAD,
            "paused" => HELD,
            _ => BUSY,
        };
        let (workflow, status) = (&self.workflow, &self.status);
        let _ =
            write!(out, "{TITLE}{workflow}{TITLE:#}  {style}{status}{style:#}  {done}/{all} nodes  {took}");
        let _ = write!(out, "\n{QUIET}{}{QUIET:#}", cut(&self.run_id, frame.columns));
        let shown = self.chosen(frame.rows);
        for (path, node) in &shown {
            let _ = write!(out, "\n{}", line(path, node, frame));
        }
        let hidden = self.nodes.len() - shown.len() + self.left_out;
        if hidden > 0 {
            let _ = write!(out, "\n{QUIET}  and {hidden} more{QUIET:#}");
        }
        if !self.note.is_empty() {
            let _ = write!(out, "\n{HELD}{}{HELD:#}", cut(&self.note, frame.columns));
        }
        out
    }

    /// The nodes that matter most, in the order of the tree.
    fn chosen(&self, rows: usize) -> Vec<(&Vec<String>, &Node)> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        if nodes.len() > rows {
            nodes.sort_by_key(|(_, node)| node.state.rank());
            nodes.truncate(rows);
            nodes.sort_by_key(|(path, _)| *path);
        }
        nodes
    }
}

impl Node {
    fn set(&mut self, state: State, note: &str) {
        self.state = state;
        self.ended = None;
        note.clone_into(&mut self.note);
    }

    fn end(&mut self, state: State, note: &str, at: Option<i64>) {
        self.set(state, note);
        self.ended = at;
    }
}

impl State {
    fn named(name: &str) -> Self {
        match name {
            "running" | "ready" => Self::Running,
            "waiting" => Self::Waiting,
            "retrying" => Self::Retrying,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "skipped" => Self::Skipped,
            "uncertain" => Self::Uncertain,
            "cancelled" => Self::Stopped,
            _ => Self::Pending,
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped | Self::Stopped)
    }

    fn glyph(self) -> (Style, char) {
        match self {
            Self::Pending => (QUIET, '·'),
            Self::Running => (BUSY, '●'),
            Self::Waiting => (HELD, '◌'),
            Self::Retrying => (HELD, '↻'),
            Self::Completed => (GOOD, '✓'),
            Self::Failed => (BAD, '✗'),
            Self::Skipped => (QUIET, '–'),
            Self::Uncertain => (BAD, '?'),
            Self::Stopped => (BAD, '■'),
        }
    }

    /// Whom to leave out last.
    fn rank(self) -> u8 {
        match self {
            Self::Failed | Self::Uncertain | Self::Stopped => 0,
            Self::Running | Self::Waiting | Self::Retrying => 1,
            Self::Pending => 2,
            Self::Completed => 3,
            Self::Skipped => 4,
        }
    }
}

fn line(path: &[String], node: &Node, frame: &Frame) -> String {
    let indent = path.len().saturating_sub(1) * 2;
    let (style, glyph) = node.state.glyph();
    let mut more = Vec::new();
    if node.attempts > 1 {
        more.push(format!("attempt {}", node.attempts));
    }
    if node.inner_done > 0 {
        more.push(format!("{} inside done", node.inner_done));
    }
    if !node.note.is_empty() {
        more.push(node.note.clone());
    }
    let started = node.began.is_some() && (node.ended.is_some() || !node.state.has_ended());
    let time = if started { took(node.began, node.ended, frame.now_ms) } else { String::new() };
    let label = path.last().map(String::as_str).unwrap_or_default();
    // The time stands at the right; what is between is cut first.
    let room = frame.columns.saturating_sub(indent + 3 + time.chars().count());
    let label = cut(label, room.min(32));
    let rest = cut(&more.join(", "), room.saturating_sub(label.chars().count() + 2));
    let text = if rest.is_empty() { label } else { format!("{label}  {rest}") };
    let line = format!("{:indent$}{style}{glyph}{style:#} {text:room$} {time}", "");
    line.trim_end().to_owned()
}

/// `clean[0].arrival` is `clean`, `[0]`, `arrival`.
fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for letter in path.chars() {
        if letter == '[' || letter == '.' {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| letter != '.') {
            part.push(letter);
        }
    }
    parts
}

fn took(began: Option<i64>, ended: Option<i64>, now_ms: u64) -> String {
    let Some(began) = began else { return String::new() };
    let until = ended.or_else(|| i64::try_from(now_ms).ok()).unwrap_or(began);
    duration(u64::try_from(until - began).unwrap_or(0))
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    let text = harmless(text);
    if text.chars().count() <= most {
        return text;
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    if most > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
