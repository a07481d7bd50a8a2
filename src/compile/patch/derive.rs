//! Documents made again from what the log has, and the operations that lead from one to another.

use super::candidate::wrong;
use super::{Base, Patch, Refusal};
use crate::compile::{Compiled, compile_made};
use crate::model::Value;

/// The document that a patch made of this one once. Whether the patch may be made is not judged again: it was.
///
/// # Errors
/// It does not fit the document, or what follows does not compile: then it never was made.
pub fn remake<'d>(base: impl Into<Base<'d>>, patch: &Patch) -> Result<Compiled, Refusal> {
    let Base { document, known } = base.into();
    let next = patch.apply(document)?;
    compile_made(&next, known).map_err(|refused| wrong(&patch.parsed, &refused.errors))
}

/// Operations that make `after` of `before`; of documents that differ in nothing but nodes, edges and metadata.
pub fn difference(before: &Value, after: &Value) -> Value {
    let json = |value: &Value| serde_json::to_value(value).unwrap_or_default();
    let (mut before, mut after) = (json(before), json(after));
    // One that has none leaves `edges` out: it is the members that differ, not the map.
    for document in [&mut before, &mut after] {
        if let Some(document) = document.as_object_mut() {
            document.entry("edges").or_insert_with(|| serde_json::json!({}));
        }
    }
    let operations = json_patch::diff(&before, &after);
    serde_json::to_value(operations)
        .and_then(serde_json::from_value)
        .unwrap_or_else(|_| Value::list(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile_canonical;
    use crate::compile::patch::{candidate, read};

    fn document(text: &str) -> Value {
        compile_canonical(text.as_bytes()).unwrap().document
    }

    // F096
    #[test]
    fn the_difference_of_two_documents_leads_from_one_to_the_other() {
        let base = document(r#"{"name": "w", "nodes": {"a": {"type": "function", "with": {"expr": "1"}}}}"#);
        let grown = document(
            r#"{"name": "w", "nodes": {"a": {"type": "function", "with": {"expr": "2"}},
                "b": {"type": "function", "with": {"expr": "input"}, "needs": ["a"]}}}"#,
        );
        for (from, to) in [(&base, &grown), (&grown, &base), (&base, &base)] {
            let patch = read(&difference(from, to)).unwrap();
            assert_eq!(remake(from, &patch).unwrap().document, *to);
            assert_eq!(candidate(from, &patch).unwrap().compiled.document, *to);
        }
    }
}
