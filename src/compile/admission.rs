//! `limits.concurrency` and `limits.rate`: read here, their keys compiled where names are known. A key may name the run's
//! inputs and the run itself; nodes have no output yet where it is evaluated.

use std::time::Duration;

use super::document::Reading;
use super::fields::{Fields, wrong};
use super::finding::{Findings, quoted};
use super::names::{Names, Pass, Seen, View};
use crate::ir::{Admission, Limited, Template};
use crate::limits;
use crate::model::Value;
use crate::model::workflow::{self, Written};

/// Reads both, when they are there.
pub(super) fn read(limits: &Fields<'_>, findings: &mut Findings) -> workflow::Admission {
    let concurrency = member(limits, "concurrency", &["key", "max"], findings);
    let rate = member(limits, "rate", &["key", "max", "per"], findings);
    let rate = rate.and_then(|fields| {
        let limited = limited(&fields, findings);
        Some((limited?, per(&fields, findings)?))
    });
    workflow::Admission { concurrency: concurrency.and_then(|fields| limited(&fields, findings)), rate }
}

fn member<'v>(limits: &Fields<'v>, key: &str, known: &[&str], findings: &mut Findings) -> Option<Fields<'v>> {
    let fields = Fields::new(limits.get(key)?, limits.at(key), key, findings)?;
    fields.only(known, key, findings);
    for needed in known.iter().filter(|needed| !fields.has(needed)) {
        let message = format!("limits.{key} has no `{needed}`");
        findings.error("missing_key", fields.at.clone(), message);
    }
    Some(fields)
}

fn limited(fields: &Fields<'_>, findings: &mut Findings) -> Option<workflow::Limited> {
    let max = fields.number("max", 1, limits::ADMISSION_MAX, findings);
    let key = fields.written("key")?;
    if !matches!(key.value, Value::String(_)) {
        wrong(findings, key.at, "key", "text", &key.value);
        return None;
    }
    Some(workflow::Limited { key, max: max? })
}

fn per(fields: &Fields<'_>, findings: &mut Findings) -> Option<Duration> {
    let per = fields.duration("per", findings)?;
    let most = limits::RATE_SECONDS_MAX;
    if per < Duration::from_millis(1) || per > Duration::from_secs(most) {
        let message = format!("per must be from 1ms to {most}s (limit rate_seconds_max), not {per:?}");
        findings.error("out_of_range", fields.at("per"), message);
        return None;
    }
    Some(per)
}

/// Compiles the keys.
pub(super) fn lower(
    written: &workflow::Admission,
    names: &Names<'_>,
    reading: &mut Reading<'_>,
) -> Option<Box<Admission>> {
    // Before a node that is none: no node comes before it.
    let view = View::new(names, Seen::Before(u32::MAX), None, Pass::Other);
    let mut lowered = |limited: &workflow::Limited| {
        let key = view.template(&limited.key, reading)?;
        check_fixed(&key, &limited.key, reading.findings);
        Some(Limited { key, max: limited.max })
    };
    let concurrency = written.concurrency.as_ref().and_then(&mut lowered);
    let rate = written.rate.as_ref().and_then(|(limited, per)| Some((lowered(limited)?, *per)));
    (concurrency.is_some() || rate.is_some()).then(|| Box::new(Admission { concurrency, rate }))
}

/// A key without an expression is known now.
fn check_fixed(key: &Template, written: &Written, findings: &mut Findings) {
    let Template::Value(Value::String(text)) = key else { return };
    let most = limits::ADMISSION_KEY_BYTES_MAX;
    if text.is_empty() {
        findings.error("admission_key", written.at.clone(), "the key is empty");
    } else if text.len() > most {
        let message = format!(
            "the key has {} bytes; at most {most} are allowed (limit admission_key_bytes_max)",
            text.len()
        );
        findings.error("admission_key_bytes_max", written.at.clone(), message);
    } else if text.starts_with("inputs.") || text.starts_with("run.") {
        let message = format!(
            "{} is a fixed text, the same for all runs; an expression is written ${{ ... }}",
            quoted(text)
        );
        findings.warning("admission_key", written.at.clone(), message);
    }
}
