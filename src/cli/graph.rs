//! `aob workflow graph FILE`: the graph of a document as text, SVG, Mermaid or DOT.
//!
//! Works from the canonical document, so that every spelling is drawn alike, and the same document always gives the
//! same bytes. What is drawn has been compiled, so its size is bounded by the limits of a document; time and memory are
//! near linear in nodes and edges.

mod dialects;
mod listing;

use clap::ValueEnum;

use super::output::{Output, say};
use super::{Error, policy, read};
use crate::compile::policy::Rules;
use crate::compile::{self, Options};
use crate::draw::{self, Drawing, Scope};

#[derive(Debug, clap::Args)]
pub(super) struct Draw {
    /// A JSON or YAML file; - is standard input
    file: String,
    /// What to draw
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// With the gates that the rules of this configuration put in
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A listing by layers, for a terminal
    Text,
    /// A picture
    Svg,
    /// For Markdown that knows Mermaid
    Mermaid,
    /// For Graphviz
    Dot,
}

impl Draw {
    /// Compiles and draws.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let rules = self.policy.as_deref().map(policy::rules).transpose()?;
        let drawing = drawing(&read(&self.file)?, &self.file, rules.as_deref())?;
        // Asked for JSON, a program gets the graph itself, not a picture of it.
        if !output.is_table() && self.to.is_none() && self.format == Format::Text {
            return output.document(&dialects::json(&drawing));
        }
        let text = match self.format {
            Format::Text => listing::draw(&drawing),
            Format::Svg => draw::svg(&drawing),
            Format::Mermaid => dialects::mermaid(&drawing),
            Format::Dot => dialects::dot(&drawing),
        };
        let Some(path) = &self.to else { return output.line(text.trim_end()) };
        let plain = anstream::adapter::strip_str(&text).to_string();
        std::fs::write(path, plain)
            .map_err(|error| Error::File { path: path.clone(), why: error.to_string() })?;
        say(&format!("{path}: written"));
        Ok(())
    }
}

fn drawing(source: &[u8], file: &str, rules: Option<&Rules>) -> Result<Drawing, Error> {
    let options = Options { file: Some(file.to_owned()), ..Options::default() };
    let compiled = compile::compile(source, compile::Format::detect(source), &options)
        .map_err(|found| Error::Invalid(found.to_string().trim_end().to_owned()))?;
    let of = |key: &str| compiled.document.get(key).and_then(|value| value.as_str());
    let title = match (of("name"), of("version")) {
        (Some(name), Some(version)) => format!("{name}@{version}"),
        (name, _) => name.unwrap_or("workflow").to_owned(),
    };
    let gated = rules.map(|rules| policy::effective(&compiled, rules)).transpose()?;
    Ok(Drawing { title, scope: Scope::read(gated.as_ref().unwrap_or(&compiled.document)) })
}

#[cfg(test)]
mod tests;
