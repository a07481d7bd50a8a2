//! How data is printed: a table for people, JSON or YAML for programs. Colour only where a terminal reads it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::Error;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// One YAML document; of a stream, a document an event
    Yaml,
}

/// Where data goes. Talk goes to standard error.
#[derive(Debug)]
pub struct Output {
    format: Format,
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const CALM: Style = AnsiColor::Cyan.on_default();

impl Output {
    /// Prints in this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Is it for people?
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// `aob version`
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn version(&mut self) -> Result<(), Error> {
        let version = env!("CARGO_PKG_VERSION");
        if self.is_table() {
            self.line(&format!("aob {version}"))
        } else {
            self.document(&serde_json::json!({"name": "aob", "version": version}))
        }
    }

    /// One line of text.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// These bytes as they are.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// One document: YAML, or JSON, indented for `json` and on one line for `jsonl`.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn document(&mut self, value: &Value) -> Result<(), Error> {
        match self.format {
            Format::Yaml => self.line(yaml(value)?.trim_end()),
            Format::Json => self.line(&format!("{value:#}")),
            Format::Jsonl | Format::Table => self.line(&value.to_string()),
        }
    }

    /// Rows: these members as columns, or as JSON or YAML the whole answer, or each row on a line.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn rows(&mut self, answer: &Value, member: &str, columns: &[&str]) -> Result<(), Error> {
        let rows = answer.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match self.format {
            Format::Json | Format::Yaml => self.document(answer),
            Format::Jsonl => rows.iter().try_for_each(|row| self.document(row)),
            Format::Table => self.table(rows, columns),
        }
    }

    fn table(&mut self, rows: &[Value], columns: &[&str]) -> Result<(), Error> {
        let heads = columns.iter().map(|column| column.to_uppercase()).collect();
        let mut cells: Vec<Vec<String>> = vec![heads];
        cells.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row.get(*column))).collect()));
        let widths: Vec<usize> = (0..columns.len())
            .map(|at| cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        cells.iter().try_for_each(|row| {
            let line: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            self.line(line.join("  ").trim_end())
        })
    }

    /// One event of a stream.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn event(&mut self, data: &str) -> Result<(), Error> {
        match self.format {
            Format::Table => {}
            Format::Json | Format::Jsonl => return self.line(data),
            Format::Yaml => {
                let row: Value = serde_json::from_str(data).unwrap_or_default();
                return self.line(&format!("---\n{}", yaml(&row)?.trim_end()));
            }
        }
        let row: Value = serde_json::from_str(data).unwrap_or_default();
        let kind = cell(row.get("type"));
        let style = match kind.as_str() {
            "node.completed" | "run.completed" => GOOD,
            "node.failed" | "run.failed" | "run.cancelled" => BAD,
            _ => CALM,
        };
        let time = cell(row.get("at"));
        let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock.trim_end_matches('Z'));
        let more = ["error", "reason", "signal", "waiting_for", "due"]
            .iter()
            .filter_map(|member| row.get(*member))
            .map(|value| cell(value.get("message").or(Some(value))))
            .collect::<Vec<_>>()
            .join("  ");
        let node = cell(row.get("node"));
        self.line(format!("{clock}  {style}{kind:22}{style:#}  {node:24}  {more}").trim_end())
    }
}

/// As YAML 1.2 that readers of YAML 1.1 understand alike. Strings with line breaks are quoted, so that what a run says
/// cannot steer the terminal.
fn yaml(value: &Value) -> Result<String, Error> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| Error::Invalid(error.to_string()))
}

/// Is nothing to be said but errors?
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on [`say`] says nothing, or something again.
pub fn hush(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Says something to the person at the terminal, unless it is to be quiet.
pub fn say(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        complain(text);
    }
}

/// Says what went wrong.
pub fn complain(text: &str) {
    // Nobody to talk to is no reason to stop.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Text from a run, without what would steer a terminal or break a line.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{b7}' } else { letter }).collect()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::from("-"),
        Some(Value::String(text)) => harmless(text),
        Some(Value::Bool(yes)) => String::from(if *yes { "yes" } else { "-" }),
        Some(Value::Array(items)) if items.is_empty() => String::from("-"),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            harmless(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back(value: &Value) -> Value {
        let text = yaml(value).unwrap();
        let visible = text.chars().all(|letter| letter == '\n' || !letter.is_control());
        assert!(visible, "{text:?}");
        let read = crate::compile::value_of_yaml(&text).unwrap_or_else(|| panic!("not read: {text}"));
        serde_json::to_value(&read).unwrap()
    }

    #[test]
    fn yaml_is_read_back_as_what_it_was() {
        for text in [
            "",
            " ",
            "~",
            "null",
            "no",
            "on",
            "y",
            "1",
            "1.0",
            "1e3",
            "0x1f",
            ".nan",
            ".inf",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\n",
            "\n",
            " a",
            "a ",
            "a\tb",
            "\u{1b}[31m",
            "\u{9b}x",
            "\0",
            "\r",
            "\u{85}",
            "\u{2028}",
            "\u{feff}x",
            "---",
            "...",
            "!x",
            "&x",
            "*x",
            "%x",
            "@x",
            "`x",
            "|",
            ">",
            "{a}",
            "[a]",
            "?",
            "? a",
            ":",
            "a:",
            "=",
            "<<",
            "2026-01-01",
            "12:30:45",
            "1_000",
            "0o17",
            "+1",
            "é",
            "日本",
            "😀",
        ] {
            let value =
                serde_json::json!({"a": text, "list": [text, [text]], text: {"in": [{}, [], null, true]}});
            assert_eq!(read_back(&value), value, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_back_from_yaml(value in any_value()) {
            // A document is a map; anything else stands in one.
            let value = serde_json::json!({"it": value});
            prop_assert_eq!(read_back(&value), value);
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
            "[a-z \n]{0,120}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[ -~]{0,8}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn text_from_a_run_cannot_steer_the_terminal() {
        let hostile = Value::from("a\u{1b}]0;x\u{7}b\nc\u{9b}");
        assert_eq!(cell(Some(&hostile)), "a·]0;x·b·c·");
        assert_eq!(cell(Some(&serde_json::json!(["a\u{1b}", "b"]))), "a·,b");
    }
}
