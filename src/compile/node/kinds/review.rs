//! `with` of `human_review`.

use std::time::Duration;

use crate::compile::document::Reading;
use crate::compile::fields::{Fields, wrong};
use crate::compile::finding::Findings;
use crate::compile::{pointer, policy, schema};
use crate::limits;
use crate::model::Value;
use crate::model::node::{Escalation, Kind};
use crate::model::workflow::Written;

pub(super) fn read(with: &Fields<'_>, reading: &mut Reading<'_>) -> Option<Kind> {
    policy::reserved(with, "policy", reading);
    let findings = &mut *reading.findings;
    let timeout = with.duration("timeout", findings);
    let on_timeout = with.word("on_timeout", &["reject", "approve", "fail"], findings);
    let reason = with.word("reason", &["optional", "required"], findings);
    let policy = with.text("policy", findings);
    let escalate = match with.get("escalate") {
        None => Vec::new(),
        Some(Value::List(items)) => escalations(items, with, timeout, findings),
        Some(other) => {
            wrong(findings, with.at("escalate"), "escalate", "a list", other);
            Vec::new()
        }
    };
    if let Some(form) = with.written("form") {
        let _checked = schema::check(&form, "form", reading);
    }
    Some(Kind::HumanReview {
        reviewers: with.written("reviewers"),
        timeout: with.written("timeout"),
        escalate,
        on_timeout,
        form: with.get("form").cloned(),
        data: with.written("data"),
        reason,
        policy,
    })
}

/// Steps with rising `after`, all of them before the timeout.
fn escalations(
    items: &[Value],
    with: &Fields<'_>,
    timeout: Option<Duration>,
    findings: &mut Findings,
) -> Vec<Escalation> {
    let most = limits::ESCALATIONS_MAX;
    if items.len() > most {
        let message = format!("{} escalations; at most {most} (limit escalations_max)", items.len());
        findings.error("escalations_max", with.at("escalate"), message);
        return Vec::new();
    }
    let mut steps = Vec::new();
    let mut before = Duration::ZERO;
    for (index, item) in items.iter().enumerate() {
        let at = pointer::index(&with.at("escalate"), index);
        let Some(step) = Fields::new(item, at, "an escalation", findings) else { continue };
        step.only(&["after", "to"], "an escalation", findings);
        for key in ["after", "to"] {
            if !step.has(key) {
                findings.error("missing_key", step.at.clone(), format!("an escalation has no `{key}`"));
            }
        }
        let after = step.duration("after", findings);
        if let Some(after) = after {
            if after <= before && index > 0 || timeout.is_some_and(|timeout| after >= timeout) {
                let message = "escalations come one after the other, and before the review's timeout";
                findings.error("escalation_order", step.at("after"), message);
            }
            before = after;
        }
        let both: Option<(Written, Written)> = step.written("after").zip(step.written("to"));
        steps.extend(both.map(|(after, to)| Escalation { after, to }));
    }
    steps
}
