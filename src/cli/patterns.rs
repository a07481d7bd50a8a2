//! `aob workflow new` and `aob workflow patterns`: documents made from the library of patterns, without a node.
//!
//! A pattern is a commented document with places to fill in, compiled into the program. Its parameters are checked one by
//! one, and what is made of them is compiled as `aob workflow validate` does before anybody sees it: what is printed
//! validates and runs here. A file that is there is not touched unless that is asked for.

mod fill;
mod parameter;
mod table;

use std::io::Write as _;

use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::{Value, json};

use super::Error;
use super::output::{Output, say};
use crate::compile::{self, Compiled, Options};
use crate::limits;
use fill::{Filling, Fillings};
use table::Pattern;

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Which; `aob workflow patterns` lists them
    #[arg(long, value_parser = names())]
    pattern: String,
    /// The workflow's name; that of the pattern unless given
    #[arg(long, value_name = "WORKFLOW")]
    name: Option<String>,
    /// A parameter of the pattern, for each one that is not to be as listed
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write to this file instead of standard output; it must not be there
    #[arg(long, visible_alias = "file", value_name = "FILE")]
    to: Option<String>,
    /// Overwrite the file
    #[arg(long, requires = "to")]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Show the parameters of this one
    #[arg(value_parser = names())]
    pattern: Option<String>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(
        table::PATTERNS.iter().map(|pattern| PossibleValue::new(pattern.name).help(pattern.summary)),
    )
}

fn find(name: &str) -> Result<&'static Pattern, Error> {
    table::find(name).ok_or_else(|| Error::Usage(format!("there is no pattern {name:?}")))
}

impl New {
    /// Makes the document, and prints or writes it.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let pattern = find(&self.pattern)?;
        let text = make(pattern, self.name.as_deref(), &self.set)?;
        let compiled = checked(pattern, &text)?;
        match &self.to {
            Some(path) => {
                write(path, &text, self.force).map_err(|why| Error::File { path: path.clone(), why })?;
                say(&format!("{path}: written"));
                Ok(())
            }
            None if output.is_table() => output.bytes(text.as_bytes()),
            None => {
                let document = serde_json::from_str(&compiled.canonical);
                output.document(&document.map_err(|error| Error::Invalid(error.to_string()))?)
            }
        }
    }
}

impl List {
    /// Lists the patterns, or the parameters of one.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let Some(name) = &self.pattern else {
            let all: Vec<Value> =
                table::PATTERNS.iter().map(|pattern| row(pattern, output.is_table())).collect();
            return output.rows(&json!({"patterns": all}), "patterns", &["name", "parameters", "summary"]);
        };
        let pattern = find(name)?;
        if output.is_table() {
            return output.rows(&row(pattern, false), "parameters", &["name", "default", "takes", "help"]);
        }
        output.document(&row(pattern, false))
    }
}

/// A pattern as data; `short` with the names of its parameters only.
fn row(pattern: &Pattern, short: bool) -> Value {
    let parameters: Vec<Value> = pattern
        .parameters
        .iter()
        .map(|parameter| match short {
            true => parameter.name.into(),
            false => json!({
                "name": parameter.name,
                "default": parameter.default,
                "takes": parameter.kind.wanted(),
                "help": parameter.help,
            }),
        })
        .collect();
    json!({"name": pattern.name, "summary": pattern.summary, "parameters": parameters})
}

/// The document's text, of these settings (`key=value`).
fn make(pattern: &Pattern, name: Option<&str>, settings: &[String]) -> Result<String, Error> {
    let mut fillings = Fillings::new();
    let name = workflow_name(name.unwrap_or(pattern.name))?;
    fillings.insert(String::from("workflow"), Filling::One(name));
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--set {setting}: a parameter is set as KEY=VALUE")))?;
        let parameter = pattern.parameters.iter().find(|parameter| parameter.name == key);
        let parameter = parameter.ok_or_else(|| no_parameter(pattern, key))?;
        let filling = parameter.kind.read(value).map_err(|wanted| {
            Error::Usage(format!("{key} of the pattern {} takes {wanted}, not {value:?}", pattern.name))
        })?;
        taken(pattern, key, &filling)?;
        if fillings.insert(key.to_owned(), filling).is_some() {
            return Err(Error::Usage(format!("{key} is set twice")));
        }
    }
    let mistake = |what: String| Error::Invalid(format!("the pattern {}: {what}", pattern.name));
    for parameter in pattern.parameters {
        if !fillings.contains_key(parameter.name) {
            let default = parameter.kind.read(parameter.default).map_err(mistake)?;
            fillings.insert(parameter.name.to_owned(), default);
        }
    }
    fill::fill(pattern.template, &fillings).map_err(mistake)
}

fn no_parameter(pattern: &Pattern, key: &str) -> Error {
    let known: Vec<&str> = pattern.parameters.iter().map(|parameter| parameter.name).collect();
    Error::Usage(format!(
        "the pattern {} has no parameter {key:?}; it has {}",
        pattern.name,
        known.join(", ")
    ))
}

/// A node that is named like one that the pattern has anyway is refused.
fn taken(pattern: &Pattern, key: &str, filling: &Filling) -> Result<(), Error> {
    let Filling::List(items) = filling else { return Ok(()) };
    match items.iter().find(|item| pattern.taken.contains(&&***item)) {
        Some(item) => Err(Error::Usage(format!(
            "{key}: the pattern {} has a node {item} of its own; take another name",
            pattern.name
        ))),
        None => Ok(()),
    }
}

/// The name as it stands in the document.
fn workflow_name(name: &str) -> Result<String, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let most = limits::NAME_BYTES_MAX;
    if name.is_empty() || name.len() > most || !name.bytes().all(fits) {
        return Err(Error::Usage(format!(
            "{name:?} is no name of a workflow: 1 to {most} of A-Z a-z 0-9 _ . -"
        )));
    }
    Ok(if parameter::is_plain(name, b".") { name.to_owned() } else { parameter::quoted(name) })
}

/// Compiles what was made. Only a text that holds an expression can keep it from that.
fn checked(pattern: &Pattern, text: &str) -> Result<Compiled, Error> {
    let options = Options { file: Some(format!("pattern {}", pattern.name)), ..Options::default() };
    let compiled = compile::compile(text.as_bytes(), compile::Format::Yaml, &options)
        .map_err(|found| Error::Invalid(found.to_string().trim_end().to_owned()))?;
    for warning in compiled.warnings.iter().chain(&compiled.unavailable).chain(&compiled.unstartable) {
        say(&warning.to_string());
    }
    Ok(compiled)
}

fn write(path: &str, text: &str, force: bool) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => String::from("is there already (--force overwrites it)"),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests;
