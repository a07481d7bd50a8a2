//! What is wrong with a document, and where. Everything is collected; at most [`limits::DIAGNOSTICS_MAX`] findings of
//! a severity are kept and the rest is counted. Line and column are looked up at the end, only when there are any.

use std::fmt;

use serde::Serialize;

use crate::limits;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// It can, but something in it has no effect or a doubtful one.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostic {
    /// Stable, snake_case.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// One sentence that names the thing, the value and the limit.
    pub message: String,
    /// JSON Pointer (RFC 6901) into the source as it was written.
    pub pointer: String,
    /// The source's name, when the caller gave one.
    pub file: Option<String>,
    /// From 1; 0 when it is not known.
    pub line: u32,
    /// From 1, in characters; 0 when it is not known.
    pub column: u32,
    /// What to do.
    pub help: Option<String>,
}

/// Why a document was refused.
#[derive(Debug)]
pub struct Diagnostics {
    /// At least one.
    pub errors: Vec<Diagnostic>,
    /// What else was noticed.
    pub warnings: Vec<Diagnostic>,
    /// Findings left out because there were more than [`limits::DIAGNOSTICS_MAX`].
    pub truncated: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let file = self.file.as_deref().unwrap_or("document");
        if self.line == 0 {
            write!(f, "{file}: {severity}[{}]: {}", self.code, self.message)?;
        } else {
            write!(f, "{file}:{}:{}: {severity}[{}]: {}", self.line, self.column, self.code, self.message)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.errors.iter().chain(&self.warnings).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        if self.truncated > 0 {
            write!(f, "\nand {} more findings (limit diagnostics_max)", self.truncated)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The findings of one compilation.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) unavailable: Vec<Diagnostic>,
    pub(super) unstartable: Vec<Diagnostic>,
    pub(super) truncated: usize,
}

fn push(into: &mut Vec<Diagnostic>, truncated: &mut usize, finding: impl FnOnce() -> Diagnostic) {
    if into.len() < limits::DIAGNOSTICS_MAX {
        into.push(finding());
    } else {
        *truncated += 1;
    }
}

pub(super) fn error(
    code: &'static str,
    pointer: impl Into<String>,
    message: impl Into<String>,
) -> Diagnostic {
    Diagnostic {
        code,
        severity: Severity::Error,
        message: message.into(),
        pointer: pointer.into(),
        file: None,
        line: 0,
        column: 0,
        help: None,
    }
}

impl Findings {
    pub(super) fn error(&mut self, code: &'static str, at: impl Into<String>, message: impl Into<String>) {
        push(&mut self.errors, &mut self.truncated, || error(code, at, message));
    }

    /// Will another error be kept? Proposals cost time and are made only then.
    pub(super) fn has_room(&self) -> bool {
        self.errors.len() < limits::DIAGNOSTICS_MAX
    }

    /// An error with a proposal.
    pub(super) fn error_with(
        &mut self,
        code: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        push(&mut self.errors, &mut self.truncated, || Diagnostic { help, ..error(code, at, message) });
    }

    pub(super) fn warning(&mut self, code: &'static str, at: impl Into<String>, message: impl Into<String>) {
        push(&mut self.warnings, &mut self.truncated, || Diagnostic {
            severity: Severity::Warning,
            ..error(code, at, message)
        });
    }

    /// Something of the language that this node cannot do yet.
    /// A warning with a proposal.
    pub(super) fn warning_with(
        &mut self,
        code: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        push(&mut self.warnings, &mut self.truncated, || Diagnostic {
            severity: Severity::Warning,
            help,
            ..error(code, at, message)
        });
    }

    pub(super) fn unavailable(
        &mut self,
        code: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
    ) {
        push(&mut self.unavailable, &mut self.truncated, || error(code, at, message));
    }

    /// Something that only matters when the workflow is run: a warning, and the reason why a start is refused.
    pub(super) fn unstartable(
        &mut self,
        code: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
    ) {
        push(&mut self.unstartable, &mut self.truncated, || Diagnostic {
            severity: Severity::Warning,
            ..error(code, at, message)
        });
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Diagnostic> {
        let others = self.unavailable.iter_mut().chain(&mut self.unstartable);
        self.errors.iter_mut().chain(&mut self.warnings).chain(others)
    }

    pub(super) fn is_empty(&self) -> bool {
        let others = self.unavailable.is_empty() && self.unstartable.is_empty();
        self.errors.is_empty() && self.warnings.is_empty() && others
    }

    pub(super) fn into_refusal(self) -> Diagnostics {
        let mut errors = self.errors;
        errors.extend(self.unavailable);
        Diagnostics { errors, warnings: self.warnings, truncated: self.truncated }
    }
}

/// `did you mean "x"?` for the nearest of the known names; of many only the first are looked at.
pub(super) fn did_you_mean<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    const LONGEST: usize = 64;
    const NAMES: usize = 1_000;
    if written.len() > LONGEST {
        return None;
    }
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .take(NAMES)
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

/// A name from outside, quoted and shortened for a message.
pub(super) fn quoted(text: &str) -> String {
    const CHARS: usize = 60;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
