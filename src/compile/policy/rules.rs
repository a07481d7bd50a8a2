//! Rules as an operator writes them (`policy.gates`), checked.
//!
//! The settings of a rule's review are checked as those of any review: by compiling one. Names are names here, never
//! templates, so whom a rule asks does not follow from what a run is given.

use std::sync::Arc;

use crate::compile::node::is_tag;
use crate::compile::{compile_canonical, finding};
use crate::limits;
use crate::model::Value;

/// What a rule is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum About {
    /// Nodes with this tag.
    Tag(Arc<str>),
    /// Outputs whose `confidence` is below this.
    Confidence(f64),
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) about: About,
    /// Patterns of the names of workflows; none: all.
    workflows: Vec<Arc<str>>,
    pub(super) reviewers: Vec<Arc<str>>,
    /// Settings of its reviews: reviewers, timeout, escalate, on_timeout, reason.
    pub(super) with: Value,
    /// As written, without `workflows`.
    written: Value,
}

/// All rules, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub(super) rules: Vec<Rule>,
}

const KEYS: [&str; 8] = [
    "tag",
    "confidence_below",
    "workflows",
    "reviewers",
    "timeout",
    "escalate",
    "on_timeout",
    "reason_required",
];

impl Rules {
    /// Reads the list that a configuration or a document has.
    ///
    /// # Errors
    /// In one line: which rule, and what is wrong with it.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Value::List(items) = value else { return Err("a list of rules is expected".into()) };
        if items.len() > limits::POLICY_RULES_MAX {
            let most = limits::POLICY_RULES_MAX;
            return Err(format!(
                "{} rules; at most {most} are allowed (limit policy_rules_max)",
                items.len()
            ));
        }
        let rules = items
            .iter()
            .zip(1..)
            .map(|(item, number)| Rule::read(item).map_err(|problem| format!("rule {number}: {problem}")));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Those that are about the workflow of this name (`name`, or `workspace/name` outside the default workspace).
    #[must_use]
    pub fn of(&self, name: &str) -> Self {
        let own = name.rsplit('/').next().unwrap_or(name);
        let fits = |pattern: &Arc<str>| {
            glob(pattern.as_bytes(), if pattern.contains('/') { name } else { own }.as_bytes())
        };
        let rules =
            self.rules.iter().filter(|rule| rule.workflows.is_empty() || rule.workflows.iter().any(fits));
        Self { rules: rules.map(|rule| Rule { workflows: Vec::new(), ..rule.clone() }).collect() }
    }

    /// As [`read`](Self::read) reads them.
    pub(super) fn to_value(&self) -> Value {
        Value::list(self.rules.iter().map(|rule| rule.written.clone()).collect())
    }
}

impl Rule {
    fn read(value: &Value) -> Result<Self, String> {
        let Value::Map(map) = value else { return Err("a table is expected".into()) };
        if let Some((key, _)) = map.iter().find(|(key, _)| !KEYS.contains(&&***key)) {
            let help =
                finding::did_you_mean(key, KEYS).unwrap_or_else(|| format!("known: {}", KEYS.join(", ")));
            return Err(format!("unknown key `{key}`; {help}"));
        }
        let about = about(value)?;
        let workflows = match value.get("workflows") {
            None => Vec::new(),
            Some(list) => names(list, "workflows", limits::POLICY_PATTERNS_MAX)?,
        };
        let reviewers = value.get("reviewers").ok_or("`reviewers` is missing: a rule says who may decide")?;
        let reviewers = names(reviewers, "reviewers", limits::REVIEWERS_MAX)?;
        let reason = match value.get("reason_required") {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(("reason", Value::from("required"))),
            Some(_) => return Err("reason_required is true or false".into()),
        };
        let kept = ["reviewers", "timeout", "escalate", "on_timeout"];
        let kept = kept.into_iter().filter_map(|key| Some((key, value.get(key)?.clone())));
        let with = Value::map(kept.chain(reason));
        if with.to_json().contains("${") {
            return Err("`${ }` has no meaning in a rule: names are names".into());
        }
        settings(&with)?;
        let written = map.iter().filter(|(key, _)| &***key != "workflows");
        let written = Value::map(written.map(|(key, value)| (key.clone(), value.clone())));
        Ok(Self { about, workflows, reviewers, with, written })
    }

    /// In words, as it is shown: `tag money`.
    pub(super) fn why(&self) -> String {
        match &self.about {
            About::Tag(tag) => format!("tag {tag}"),
            About::Confidence(below) => format!("confidence below {below}"),
        }
    }

    /// Everybody whom it asks, sooner or later.
    pub(super) fn asks(&self, name: &str) -> bool {
        let listed = |to: &Value| match to {
            Value::List(items) => items.iter().any(|item| item.as_str() == Some(name)),
            one => one.as_str() == Some(name),
        };
        let later = match self.with.get("escalate") {
            Some(Value::List(steps)) => steps.iter().any(|step| step.get("to").is_some_and(listed)),
            _ => false,
        };
        later || self.reviewers.iter().any(|reviewer| **reviewer == *name)
    }
}

fn about(rule: &Value) -> Result<About, String> {
    match (rule.get("tag"), rule.get("confidence_below")) {
        (Some(Value::String(tag)), None) if is_tag(tag) => Ok(About::Tag(tag.clone())),
        (Some(_), None) => {
            let most = limits::TAG_BYTES_MAX;
            Err(format!("tag must be text that fits [A-Za-z0-9_.:-]{{1,{most}}} (limit tag_bytes_max)"))
        }
        (None, Some(Value::Float(below))) if (0.0..=1e9).contains(below) => Ok(About::Confidence(*below)),
        (None, Some(Value::Int(below))) => match u32::try_from(*below) {
            Ok(below) => Ok(About::Confidence(below.into())),
            Err(_) => Err("confidence_below must be a number from 0".into()),
        },
        (None, Some(_)) => Err("confidence_below must be a number from 0".into()),
        _ => Err("a rule has either a `tag` or `confidence_below`".into()),
    }
}

fn names(value: &Value, key: &str, most: usize) -> Result<Vec<Arc<str>>, String> {
    let Value::List(items) = value else { return Err(format!("{key} must be a list of names")) };
    if items.is_empty() || items.len() > most {
        return Err(format!("{key} has {} names; 1 to {most} are expected", items.len()));
    }
    let name = |item: &Value| match item {
        Value::String(name) if !name.is_empty() && name.len() <= 2 * limits::NAME_BYTES_MAX => {
            Ok(name.clone())
        }
        _ => Err(format!("{key} must be a list of names of at most {} bytes", limits::NAME_BYTES_MAX)),
    };
    items.iter().map(name).collect()
}

/// May a review have these settings?
fn settings(with: &Value) -> Result<(), String> {
    let node = Value::map([("type", Value::from("human_review")), ("with", with.clone())]);
    let document = Value::map([("nodes", Value::map([("gate", node)]))]);
    match compile_canonical(document.to_json().as_bytes()) {
        Ok(_) => Ok(()),
        Err(refused) => Err(refused
            .errors
            .first()
            .map_or_else(|| "it is no review".into(), |error| error.message.clone())),
    }
}

/// `*` stands for any text, `?` for one byte. Linear in pattern times text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || text.get(seen) == Some(byte) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((from, taken)) = star else { return false };
                star = Some((from, taken + 1));
                at = from + 1;
                seen = taken + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}
