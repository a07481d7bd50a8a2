//! `aob explain CODE`: what a code means and what to do about it, from the pages that are compiled in.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::Error;
use super::output::Output;
use crate::catalogue::{self, Page};

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A code as it stands in an error, such as unknown_key
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    code: Option<String>,
    /// List all codes by area
    #[arg(long)]
    list: bool,
}

const COLUMNS: usize = 88;
const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();
const CODE: Style = AnsiColor::Cyan.on_default();

impl Explain {
    /// Prints the page, or the list.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let Some(code) = &self.code else { return list(output) };
        let page = catalogue::find(code).ok_or_else(|| unknown(code))?;
        if output.is_table() {
            return output.line(shown(page).trim_end());
        }
        let mut row = row(page);
        if let Some(row) = row.as_object_mut() {
            row.insert("text".into(), page.text.into());
        }
        output.document(&row)
    }
}

fn unknown(code: &str) -> Error {
    let shown: String = code.chars().take(60).collect();
    let hint = catalogue::nearest(code)
        .map_or_else(|| String::from("aob explain --list lists all"), |near| format!("did you mean {near}?"));
    Error::NotFound(format!("there is no code {shown:?}; {hint}"))
}

fn row(page: &Page) -> serde_json::Value {
    let facts = page.facts().map(|(name, value)| (name.replace(' ', "_"), value.into()));
    let mut row: serde_json::Map<String, serde_json::Value> = facts.collect();
    row.insert("code".into(), page.code.into());
    row.insert("meaning".into(), page.meaning().into());
    row.into()
}

fn list(output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        let rows: Vec<serde_json::Value> = catalogue::pages().iter().map(row).collect();
        return output.rows(&serde_json::json!({"codes": rows}), "codes", &[]);
    }
    let mut areas: Vec<&str> = catalogue::pages().iter().filter_map(|page| page.fact("area")).collect();
    areas.sort_unstable();
    areas.dedup();
    let mut text = String::new();
    for area in areas {
        let _ = writeln!(text, "{TITLE}{area}{TITLE:#}");
        for page in catalogue::pages().iter().filter(|page| page.fact("area") == Some(area)) {
            let meaning = first(page.meaning(), COLUMNS.saturating_sub(34));
            let _ = writeln!(text, "  {CODE}{:<30}{CODE:#}  {meaning}", page.code);
        }
        text.push('\n');
    }
    output.line(text.trim_end())
}

/// The first `most` characters, at a space.
fn first(text: &str, most: usize) -> String {
    let mut lines = wrapped(text, most);
    let cut = lines.len() > 1;
    let mut line = if lines.is_empty() { String::new() } else { lines.swap_remove(0) };
    if cut {
        line.push('…');
    }
    line
}

/// A page for the eye: the facts as columns, prose wrapped, examples set in.
fn shown(page: &Page) -> String {
    let mut text = format!("{TITLE}{}{TITLE:#}\n\n", page.code);
    for (name, value) in page.facts().filter(|(_, value)| *value != "-") {
        let _ = writeln!(text, "  {QUIET}{name:<13}{QUIET:#}{}", value.replace('`', ""));
    }
    text.push('\n');
    let mut fenced = false;
    for line in page.body().lines() {
        if let Some(info) = line.strip_prefix("```") {
            fenced = !fenced;
            if let Some((_, note)) = info.split_once(' ') {
                let _ = writeln!(text, "  {QUIET}{note}:{QUIET:#}");
            }
        } else if fenced {
            let _ = writeln!(text, "    {CODE}{line}{CODE:#}");
        } else if line.is_empty() {
            text.push('\n');
        } else {
            prose(line, &mut text);
        }
    }
    text
}

/// A paragraph; its first words may be bold.
fn prose(line: &str, text: &mut String) {
    let bold = line.strip_prefix("**").and_then(|rest| rest.split_once("**"));
    let (head, rest) = bold.map_or(("", line), |(head, rest)| (head, rest.trim_start()));
    if !head.is_empty() {
        let _ = writeln!(text, "{TITLE}{}{TITLE:#}", head.trim_end_matches('.'));
    }
    for line in wrapped(rest, COLUMNS.saturating_sub(2)) {
        let _ = writeln!(text, "  {line}");
    }
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{self, Format, Options};

    fn plain(page: &Page) -> String {
        anstream::adapter::strip_str(&shown(page)).to_string()
    }

    #[test]
    fn a_page_is_laid_out_for_a_terminal() {
        let text = plain(catalogue::find("unknown_key").unwrap());
        assert!(text.starts_with("unknown_key\n\n  area         document\n"), "{text}");
        assert!(text.contains("\nWhat to do\n  Take the proposal"), "{text}");
        assert!(text.contains("  wrong:\n    nodes: {a: {type: function, ouputs: [rows]}}"), "{text}");
        for page in catalogue::pages() {
            let text = plain(page);
            assert!(!text.contains("**") && !text.contains("```") && !text.contains("\n| "), "{text}");
        }
    }

    #[test]
    fn an_unknown_code_gets_a_proposal() {
        let error = unknown("unknwon_key");
        assert_eq!(error.to_string(), "there is no code \"unknwon_key\"; did you mean unknown_key?");
        assert_eq!(error.exit_code(), 3);
        assert!(unknown("zzz").to_string().ends_with("aob explain --list lists all"));
    }

    /// Documents that stand in a page under this fence.
    fn examples<'p>(page: &'p Page, fence: &str) -> Vec<&'p str> {
        let parts = page.text.split(fence).skip(1);
        parts.filter_map(|part| part.split("```").next()).collect()
    }

    #[test]
    fn examples_of_documents_are_as_wrong_and_as_right_as_they_say() {
        let codes = |source: &str| {
            let format = Format::Yaml;
            let (errors, others) = match compile::compile(source.as_bytes(), format, &Options::default()) {
                Ok(found) => (Vec::new(), [found.warnings, found.unavailable].concat()),
                Err(found) => (found.errors, found.warnings),
            };
            let codes =
                |found: Vec<compile::Diagnostic>| found.into_iter().map(|d| d.code).collect::<Vec<_>>();
            (codes(errors), codes(others))
        };
        let mut seen = 0;
        for page in catalogue::pages() {
            for example in examples(page, "```yaml wrong\n") {
                let (errors, others) = codes(example);
                let found = errors.contains(&page.code) || others.contains(&page.code);
                assert!(found, "{}: the wrong example gives {errors:?} {others:?}", page.code);
                seen += 1;
            }
            for example in examples(page, "```yaml right\n") {
                let (errors, others) = codes(example);
                assert_eq!(errors, [""; 0], "{}: the right example", page.code);
                assert!(!others.contains(&page.code), "{}: the right example", page.code);
            }
        }
        assert!(seen > 40, "{seen} examples");
    }
}
