//! From text to IR: reads a workflow in any spelling, checks it, lowers it.
//!
//! [`compile`] reads JSON or YAML under the limits of a document, brings it into its canonical form, whose RFC 8785
//! text is what is stored and hashed, and lowers it to the IR. Every finding is reported, with pointer, line and
//! column. The same workflow in another spelling has the same canonical document, and [`compile_canonical`] of that
//! gives the same IR again. A document that asks for what this node cannot do yet compiles too: [`Compiled::unavailable`]
//! says what, and its IR is empty, so that nothing half understood can run.
//!
//! Pure: no clock, no I/O. No document panics, overflows the stack or takes more than its limits.

mod admission;
mod agents;
mod braces;
mod canonical;
mod document;
mod fields;
mod finding;
mod graph;
mod inputs;
mod known;
mod lower;
mod names;
mod node;
mod order;
pub mod patch;
mod pointer;
pub mod policy;
mod position;
mod read;
mod schema;
mod spent;
mod steps;

use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use crate::model::parse_duration;
pub use finding::{Diagnostic, Diagnostics, Severity};
pub use inputs::InputsValidator;
pub use schema::bounded_schema;

use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::workflow::Workflow;
use crate::model::{Mode, Value};
use document::Reading;
use finding::Findings;
use known::Known;

/// How a document is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// YAML 1.2, core schema.
    Yaml,
}

/// The value that a text in YAML stands for, as documents are read.
#[cfg(test)]
pub(crate) fn value_of_yaml(text: &str) -> Option<Value> {
    read::read(text.as_bytes(), Format::Yaml).ok().map(|source| source.value)
}

impl Format {
    /// JSON when the first byte that is no space is `{` and the whole is JSON's shape; YAML otherwise.
    pub fn detect(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii();
        // A YAML flow map starts with `{` too; in JSON the next thing is a quoted key or the end.
        let next = text.strip_prefix(b"{").map(|rest| rest.trim_ascii_start().first().copied());
        match next {
            Some(None | Some(b'"' | b'}')) => Self::Json,
            _ if text.first() == Some(&b'[') => Self::Json,
            _ => Self::Yaml,
        }
    }
}

/// What the caller knows about a document.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its name in findings.
    pub file: Option<String>,
    /// The workflow's name, for a document without one. One that says another is refused.
    pub name: Option<String>,
    /// Its version, likewise.
    pub version: Option<String>,
    /// Refuse a document without a name.
    pub require_name: bool,
}

/// A document that holds.
#[derive(Debug)]
pub struct Compiled {
    /// Compiled form; empty when something is unavailable.
    pub ir: Arc<Ir>,
    /// RFC 8785 text of the canonical document.
    pub canonical: Arc<str>,
    /// The canonical document.
    pub document: Value,
    /// Sha-256 of `canonical`.
    pub hash: DocumentHash,
    /// Checks a run's inputs.
    pub inputs: InputsValidator,
    /// What has no effect, or a doubtful one.
    pub warnings: Vec<Diagnostic>,
    /// What this node cannot do yet; such a document must not be registered.
    pub unavailable: Vec<Diagnostic>,
    /// What stands against running it here and now, as warnings; it may be registered, but not started.
    pub unstartable: Vec<Diagnostic>,
    /// What a document made of this one need not compile again.
    known: Known,
}

/// Name of a workflow that has none.
const UNNAMED: &str = "unnamed";
/// Version of a workflow that has none.
const UNVERSIONED: &str = "0";

/// What is compiled.
enum Given<'s> {
    /// A text from anywhere.
    Text(&'s [u8], Format),
    /// What a patch made of a canonical document; its values are within the limits of values.
    Made(&'s Value),
}

impl Given<'_> {
    fn read(&self) -> Result<read::Source, Box<Diagnostic>> {
        match self {
            Self::Text(text, format) => read::read(text, *format),
            Self::Made(value) => read::made(value),
        }
    }
}

/// Compiles a document.
///
/// # Errors
/// Every finding, with its place.
pub fn compile(source: &[u8], format: Format, options: &Options) -> Result<Compiled, Diagnostics> {
    compile_as(&Given::Text(source, format), options, (false, None))
}

/// `own`: the text is the node's. `known`: what need not be compiled again.
fn compile_as(
    given: &Given<'_>,
    options: &Options,
    (own, known): (bool, Option<&Known>),
) -> Result<Compiled, Diagnostics> {
    let mut findings = Findings::default();
    let read = match given.read() {
        Ok(read) => read,
        Err(refused) => {
            findings.errors.push(*refused);
            return Err(refuse(findings, given, options));
        }
    };
    let mut reading = Reading { own, ..Reading::new(&mut findings, known) };
    let workflow = document::read(&read, options, &mut reading);
    let made = workflow.and_then(|workflow| {
        let lowered = lower::lower(&workflow, &mut reading);
        let inputs = inputs(&workflow, &mut reading);
        Some((workflow, lowered, inputs?))
    });
    let known = reading.spent.into_known();
    let (Some((workflow, lowered, inputs)), true) = (made, findings.errors.is_empty()) else {
        return Err(refuse(findings, given, options));
    };
    let document = workflow.to_value();
    let canonical: Arc<str> = match canonical::text(&document) {
        Ok(text) => text.into(),
        Err(failure) => {
            findings.error("canonical", "", failure);
            return Err(refuse(findings, given, options));
        }
    };
    if canonical.len() > crate::limits::DOCUMENT_BYTES_MAX {
        let message = format!(
            "the canonical document has {} bytes; at most {} are allowed (limit document_bytes_max)",
            canonical.len(),
            crate::limits::DOCUMENT_BYTES_MAX
        );
        findings.error("document_bytes_max", "", message);
        return Err(refuse(findings, given, options));
    }
    locate(&mut findings, given, options);
    let hash: DocumentHash = Sha256::digest(canonical.as_bytes()).into();
    let whole = findings.unavailable.is_empty();
    let (scopes, outputs) = if whole { (lowered.scopes, lowered.outputs) } else { Default::default() };
    let span = |value: &Value| match value {
        Value::String(text) => parse_duration(text),
        other => fields::seconds(other),
    };
    let deadline = document.get("limits").and_then(|limits| limits.get("deadline")).and_then(span);
    let fast = document.get("mode").and_then(Value::as_str) == Some(Mode::Fast.as_str());
    let retention = document.get("retention").and_then(span);
    let ir = Ir {
        name: workflow.name.unwrap_or_else(|| UNNAMED.into()),
        version: workflow.version.unwrap_or_else(|| UNVERSIONED.into()),
        document: hash,
        scopes,
        mode: if fast { Mode::Fast } else { Mode::Full },
        deadline,
        retention,
        admission: lowered.admission,
        budget: workflow.budget.map(Box::new),
        outputs,
    };
    let Findings { warnings, unavailable, unstartable, .. } = findings;
    let ir = Arc::new(ir);
    Ok(Compiled { ir, canonical, document, hash, inputs, warnings, unavailable, unstartable, known })
}

/// Compiles the canonical text that [`compile`] gave: the same IR and the same hash again. What a policy made of a document
/// ([`policy::materialise`]) is read too.
///
/// # Errors
/// As [`compile`]; for a text that it gave there are none.
pub fn compile_canonical(canonical: &[u8]) -> Result<Compiled, Diagnostics> {
    compile_as(&Given::Text(canonical, Format::Json), &Options::default(), (true, None))
}

/// Compiles what a patch made of a canonical document, as [`compile_canonical`] compiles its text; what is known of the
/// document before need not be compiled again.
fn compile_made(document: &Value, known: Option<&Known>) -> Result<Compiled, Diagnostics> {
    compile_as(&Given::Made(document), &Options::default(), (true, known))
}

fn inputs(workflow: &Workflow, reading: &mut Reading<'_>) -> Option<InputsValidator> {
    let Some(schema) = &workflow.inputs else { return Some(InputsValidator::default()) };
    schema::check(schema, "inputs", reading).map(InputsValidator::new)
}

fn locate(findings: &mut Findings, given: &Given<'_>, options: &Options) {
    if findings.is_empty() {
        return;
    }
    let made;
    let (source, format) = match given {
        Given::Text(source, format) => (*source, *format),
        Given::Made(value) => {
            made = value.to_json();
            (made.as_bytes(), Format::Json)
        }
    };
    if source.len() <= crate::limits::DOCUMENT_BYTES_MAX {
        let text = std::str::from_utf8(source).unwrap_or_default();
        position::locate(findings, text, format, options.file.as_deref());
    }
}

fn refuse(mut findings: Findings, given: &Given<'_>, options: &Options) -> Diagnostics {
    locate(&mut findings, given, options);
    for finding in findings.all_mut() {
        finding.file = options.file.clone();
    }
    findings.into_refusal()
}

#[cfg(test)]
mod tests;
