//! The timeline as a calm view: one line for each node, redrawn in place on a terminal, written once when piped.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::time::{Clock as _, SystemClock};

/// Between two redraws.
const REDRAW_US: u64 = 60_000;

/// One node of the outermost scope.
struct Line {
    name: String,
    state: &'static str,
    /// Passes of its body that are done.
    items: usize,
    first_us: u64,
    last_us: u64,
}

/// What is shown.
pub(super) struct View {
    lines: Vec<Line>,
    events: usize,
    terminal: bool,
    drawn: usize,
    drawn_us: u64,
    clock: SystemClock,
}

impl View {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { lines: Vec::new(), events: 0, terminal, drawn: 0, drawn_us: 0, clock: SystemClock }
    }

    /// Takes one row of the timeline in.
    pub(super) fn event(&mut self, row: &Value) {
        self.events += 1;
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        let (Some(kind), Some(node)) = (text("type"), text("node")) else { return };
        let name = node.split(['[', '.']).next().unwrap_or(node);
        let at = self.clock.monotonic_us();
        let index = self.lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            self.lines.push(Line { name: name.to_owned(), state: "", items: 0, first_us: at, last_us: at });
            self.lines.len() - 1
        });
        let Some(line) = self.lines.get_mut(index) else { return };
        line.last_us = at;
        if node == name {
            line.state = match kind {
                "node.completed" => "completed",
                "node.failed" => "failed",
                "node.skipped" => "skipped",
                _ => "running",
            };
            if !self.terminal && line.state != "running" {
                anstream::println!("{}", line.text());
            }
        } else if matches!(kind, "node.completed" | "node.failed") && node.ends_with(']') {
            line.items += 1;
        }
        if self.terminal && at >= self.drawn_us + REDRAW_US {
            self.draw();
        }
    }

    /// The last picture stays.
    pub(super) fn end(&mut self) {
        if self.terminal {
            self.draw();
        }
        anstream::println!("\n{} events, each durable before it was shown\n", self.events);
    }

    fn draw(&mut self) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &self.lines {
            text.push_str("\x1b[2K");
            text.push_str(&line.text());
            text.push('\n');
        }
        let mut out = anstream::stdout().lock();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        self.drawn = self.lines.len();
        self.drawn_us = self.clock.monotonic_us();
    }
}

impl Line {
    fn text(&self) -> String {
        let (mark, colour) = match self.state {
            "completed" => ("✓", "\x1b[32m"),
            "failed" => ("✗", "\x1b[31m"),
            "skipped" => ("-", "\x1b[2m"),
            _ => ("·", "\x1b[36m"),
        };
        let items = if self.items > 0 { format!("{} items", self.items) } else { String::new() };
        let took = (self.last_us - self.first_us) / 1_000;
        format!("  {colour}{mark}\x1b[0m {:<20} {items:<14} {took:>6} ms", self.name)
    }
}
