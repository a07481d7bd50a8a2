//! A node in the canonical document.

use std::sync::Arc;

use super::{Branch, Escalation, Fallback, Kind, Merge, Node, Wait};
use crate::model::Value;
use crate::model::workflow::Written;

type Entries = Vec<(Arc<str>, Value)>;

impl Kind {
    /// The kind's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Function { .. } => "function",
            Self::Map { .. } => "map",
            Self::Join { .. } => "join",
            Self::Conditional { .. } => "conditional",
            Self::Delay { .. } => "delay",
            Self::Wait { .. } => "wait",
            Self::Parallel { .. } => "parallel",
            Self::Loop { .. } => "loop",
            Self::Composite { .. } | Self::Child { .. } => "composite",
            Self::HumanReview { .. } => "human_review",
            Self::Call { name, .. } | Self::Other { name, .. } => name,
        }
    }

    fn with(&self) -> Entries {
        let mut entries = Entries::new();
        let mut put =
            |key: &str, value: Option<Value>| entries.extend(value.map(|value| (Arc::from(key), value)));
        let written = |written: &Option<Written>| written.as_ref().map(|written| written.value.clone());
        match self {
            Self::Function { expr } => put("expr", written(expr)),
            Self::Map { over, body, max_concurrency, on_item_error } => {
                put("over", Some(over.value.clone()));
                put("body", Some(body.to_value()));
                put("max_concurrency", max_concurrency.map(|limit| Value::Int(limit.into())));
                put("on_item_error", on_item_error.clone().map(Value::String));
            }
            Self::Join { wait, merge } => {
                put("wait", wait.map(Wait::to_value));
                put("merge", merge.as_ref().map(Merge::to_value));
            }
            Self::Conditional { branches, default } => {
                put("branches", Some(Value::list(branches.iter().map(Branch::to_value).collect())));
                put("default", default.clone().map(Value::String));
            }
            Self::Delay { span, until } => {
                put("for", written(span));
                put("until", written(until));
            }
            Self::Wait { signal, timeout, accepts, reply } => {
                put("signal", Some(signal.value.clone()));
                put("timeout", written(timeout));
                put("accepts", written(accepts));
                put("reply", written(reply));
            }
            Self::Parallel { branches, results } => {
                let branches = branches.iter().map(|(name, body)| (name.clone(), body.to_value()));
                put("branches", Some(Value::map(branches)));
                let names = |names: &Vec<Arc<str>>| names.iter().cloned().map(Value::String).collect();
                put("results", results.as_ref().map(|results| Value::list(names(results))));
            }
            Self::Loop { condition, body, max_iterations, on_exhausted } => {
                put("while", Some(condition.value.clone()));
                put("body", Some(body.to_value()));
                put("max_iterations", Some(Value::Int((*max_iterations).into())));
                put("on_exhausted", on_exhausted.clone().map(Value::String));
            }
            Self::Composite { body } => put("body", Some(body.to_value())),
            Self::Child { workflow, parent_close } => {
                put("workflow", Some(Value::String(workflow.clone())));
                put("parent_close", parent_close.clone().map(Value::String));
            }
            Self::HumanReview { reviewers, timeout, escalate, on_timeout, form, data, reason, policy } => {
                put("reviewers", written(reviewers));
                put("timeout", written(timeout));
                let steps = escalate.iter().map(Escalation::to_value).collect();
                put("escalate", (!escalate.is_empty()).then(|| Value::list(steps)));
                put("on_timeout", on_timeout.clone().map(Value::String));
                put("form", form.clone());
                put("data", written(data));
                put("reason", reason.clone().map(Value::String));
                put("policy", policy.clone().map(Value::String));
            }
            Self::Call { with, .. } | Self::Other { with, .. } => {
                if let Value::Map(map) = &with.value {
                    let own = map.iter().filter(|(key, _)| !key.starts_with("x-"));
                    entries.extend(own.map(|(key, value)| (key.clone(), value.clone())));
                }
            }
        }
        entries
    }
}

impl Escalation {
    fn to_value(&self) -> Value {
        Value::map([("after", self.after.value.clone()), ("to", self.to.value.clone())])
    }
}

impl Fallback {
    fn to_value(&self) -> Value {
        match self {
            // A value that could be taken for a body stands under `value`.
            Self::Value(Written { value: value @ Value::Map(_), .. }) => {
                Value::map([("value", value.clone())])
            }
            Self::Value(written) => written.value.clone(),
            Self::Body(body) => body.to_value(),
            Self::Cached { written, .. } => written.clone(),
        }
    }
}

impl Wait {
    fn to_value(self) -> Value {
        match self {
            Self::All => "all".into(),
            Self::Any => "any".into(),
            Self::AtLeast(count) => Value::map([("at_least", Value::Int(count.into()))]),
        }
    }
}

impl Merge {
    fn to_value(&self) -> Value {
        match self {
            Self::Object => "object".into(),
            Self::Array => "array".into(),
            Self::Cel(written) => Value::map([("cel", written.value.clone())]),
        }
    }
}

impl Branch {
    fn to_value(&self) -> Value {
        let own =
            [("name".into(), Value::String(self.name.clone())), ("when".into(), self.when.value.clone())];
        Value::map(self.rest.iter().cloned().chain(own))
    }
}

impl Node {
    /// The node in the canonical document.
    pub fn to_value(&self) -> Value {
        let mut entries = self.rest.clone();
        entries.push(("type".into(), self.kind.name().into()));
        let mut with = self.kind.with();
        with.extend(self.with_rest.iter().cloned());
        if !with.is_empty() {
            entries.push(("with".into(), Value::map(with)));
        }
        if let Some(input) = &self.input {
            entries.push(("input".into(), input.value.clone()));
        }
        if !self.outputs.is_empty() {
            entries.push((
                "outputs".into(),
                Value::list(self.outputs.iter().cloned().map(Value::String).collect()),
            ));
        }
        if self.continues {
            entries.push(("on_error".into(), "continue".into()));
        }
        let mut put =
            |key: &str, value: Option<Value>| entries.extend(value.map(|value| (key.into(), value)));
        put("retry", self.retry.as_ref().map(|retry| retry.written.clone()));
        put("fallback", self.fallback.as_ref().map(Fallback::to_value));
        put("output_schema", self.output_schema.as_ref().map(|schema| schema.value.clone()));
        put("at_most_once", self.at_most_once.then_some(Value::Bool(true)));
        Value::map(entries)
    }
}
