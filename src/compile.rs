//! TEMP stand-in: just enough of the compiler's API for the modules around it.
use std::sync::Arc;

use serde::Serialize;

use crate::ir::{Ir, Kind, Node, OnError, Policy, Scope};
use crate::model::Value;
use crate::model::event::DocumentHash;

/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// x
    Json,
    /// x
    Yaml,
}
impl Format {
    /// x
    pub fn detect(bytes: &[u8]) -> Self {
        if bytes.trim_ascii_start().starts_with(b"{") { Self::Json } else { Self::Yaml }
    }
}
/// x
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// x
    pub file: Option<String>,
    /// x
    pub name: Option<String>,
    /// x
    pub version: Option<String>,
    /// x
    pub require_name: bool,
}
/// x
#[derive(Debug)]
pub struct InputsValidator(Option<jsonschema::Validator>);
impl InputsValidator {
    /// x
    pub fn check(&self, value: &Value) -> Result<(), Vec<Diagnostic>> {
        let Some(validator) = &self.0 else { return Ok(()) };
        let json: serde_json::Value = serde_json::from_str(&value.to_json()).unwrap_or_default();
        let found: Vec<_> = validator
            .iter_errors(&json)
            .map(|e| {
                Diagnostic::error("input_invalid", e.to_string(), format!("/inputs{}", e.instance_path()))
            })
            .collect();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}
/// x
#[derive(Debug)]
pub struct Compiled {
    /// x
    pub ir: Arc<Ir>,
    /// x
    pub canonical: Arc<str>,
    /// x
    pub document: Value,
    /// x
    pub hash: DocumentHash,
    /// x
    pub inputs: InputsValidator,
    /// x
    pub warnings: Vec<Diagnostic>,
    /// x
    pub unavailable: Vec<Diagnostic>,
}
/// x
#[derive(Clone, Debug, Serialize)]
pub struct Diagnostic {
    /// x
    pub code: &'static str,
    /// x
    pub message: String,
    /// x
    pub pointer: String,
    /// x
    pub line: Option<usize>,
    /// x
    pub column: Option<usize>,
}
impl Diagnostic {
    fn error(code: &'static str, message: impl Into<String>, pointer: impl Into<String>) -> Self {
        Self { code, message: message.into(), pointer: pointer.into(), line: Some(1), column: Some(1) }
    }
}
/// x
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// x
    pub errors: Vec<Diagnostic>,
    /// x
    pub warnings: Vec<Diagnostic>,
    /// x
    pub truncated: usize,
}
impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.errors.iter().try_for_each(|e| writeln!(f, "workflow:1:1 {}", e.message))
    }
}
/// x
pub fn compile(source: &[u8], _format: Format, options: &Options) -> Result<Compiled, Diagnostics> {
    use sha2::Digest as _;
    let fail = |code, message: String, pointer: &str| Diagnostics {
        errors: vec![Diagnostic::error(code, message, pointer)],
        warnings: Vec::new(),
        truncated: 0,
    };
    let document = Value::from_json(source).map_err(|e| fail("document_syntax", e.to_string(), ""))?;
    let name = document.get("name").and_then(Value::as_str).map(str::to_owned).or(options.name.clone());
    let version =
        document.get("version").and_then(Value::as_str).map(str::to_owned).or(options.version.clone());
    if name.is_none() && options.require_name {
        return Err(fail("name_missing", "a workflow needs a name".into(), "/name"));
    }
    let Some(Value::Map(nodes)) = document.get("nodes") else {
        return Err(fail("nodes_missing", "a workflow needs nodes".into(), "/nodes"));
    };
    let mut unavailable = Vec::new();
    let mut scope = Scope::default();
    for (id, node) in nodes.iter() {
        if node.get("type").and_then(Value::as_str) != Some("function") {
            unavailable.push(Diagnostic::error(
                "kind_unavailable",
                format!("{id}: kind is not here yet"),
                format!("/nodes/{id}/type"),
            ));
        }
        scope.nodes.push(Node {
            id: id.clone(),
            kind: Kind::Function { expr: None },
            input: None,
            policy: Policy::All,
            on_error: OnError::Fail,
            outputs: Vec::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
        });
    }
    let inputs = match document.get("inputs") {
        Some(schema) => {
            let json: serde_json::Value = serde_json::from_str(&schema.to_json()).unwrap_or_default();
            Some(
                jsonschema::validator_for(&json)
                    .map_err(|e| fail("inputs_schema", e.to_string(), "/inputs"))?,
            )
        }
        None => None,
    };
    let canonical: Arc<str> = document.to_json().into();
    let hash: DocumentHash = sha2::Sha256::digest(canonical.as_bytes()).into();
    let ir = Ir {
        name: name.unwrap_or_default().into(),
        version: version.unwrap_or_default().into(),
        document: hash,
        scopes: vec![scope],
        deadline: None,
        outputs: Vec::new(),
    };
    Ok(Compiled {
        ir: Arc::new(ir),
        canonical,
        document,
        hash,
        inputs: InputsValidator(inputs),
        warnings: Vec::new(),
        unavailable,
    })
}
/// x
pub fn compile_canonical(bytes: &[u8]) -> Result<Compiled, Diagnostics> {
    compile(bytes, Format::Json, &Options::default())
}
