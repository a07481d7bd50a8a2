//! `POST /v1/runs/{id}/budget`: more to spend for a run, and, when asked for, the end of its pause.
//!
//! Takes the role of whoever decides reviews: `write`. What is given stands in the run's events, with who gave it and why
//! (`budget.raised`). Sent twice it is given twice, unless both have the same `Idempotency-Key`; `If-Match` with the run's last
//! event makes the second one fail.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::request::Incoming;
use super::respond::Body;
use super::services::{Services, unexpected};
use super::{admission, approvals, body, conditions, keys, request, runs};
use crate::engine::command::{Command, Raise, Refusal, Reply};
use crate::model::budget::Budget;
use crate::model::money::Usd;
use crate::model::{RunId, Value};
use crate::telemetry::log::{self, Target};
use crate::wire::problem::{Problem, Wrong};

/// What a body asks for.
struct Asked {
    usd: Usd,
    tokens: u64,
    reason: Arc<str>,
    /// It is to go on, if it is paused.
    resume: bool,
}

/// `POST /v1/runs/{id}/budget`
pub(super) async fn raise(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    run_id: RunId,
) -> Result<Response<Body>, Box<Problem>> {
    let expected = conditions::expected(&head.headers)?;
    let given = request::idempotency_key(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    request::require_json(&head.headers)?;
    let asked = asked(&bytes)?;
    limited(services, run_id, &asked).await?;
    let key = given.map(|given| keys::of(given, (run_id, "budget"), &asked.meaning()));
    let Asked { usd, tokens, reason, resume } = asked;
    let by = admission::who(head);
    let raise = Box::new(Raise { usd, tokens, by: by.into(), reason, resume, key: None });
    let command = Command::Raise { run_id, raise }.guarded(run_id, expected.clone());
    match services.ask(run_id, command.once(run_id, key.as_ref())).await? {
        Reply::Accepted(run) => {
            log::info(
                Target::Api,
                format_args!("audit: budget raised run_id={run_id} usd={usd} tokens={tokens} by={by:?}"),
            );
            Ok(runs::accepted(services, &run))
        }
        Reply::Repeated(run, _) => Ok(keys::replayed(runs::accepted(services, &run))),
        Reply::Refused(Refusal::NotFound(_)) => {
            if let Some(again) = keys::before(services, run_id, key.as_ref()).await? {
                return Ok(keys::replayed(runs::accepted(services, &again.summary())));
            }
            Err(runs::over(services, run_id, expected).await?)
        }
        other => Err(unexpected(other)),
    }
}

impl Asked {
    /// What it says, however it is spelt.
    fn meaning(&self) -> [String; 4] {
        [self.usd.to_string(), self.tokens.to_string(), self.reason.to_string(), self.resume.to_string()]
    }
}

fn asked(bytes: &[u8]) -> Result<Asked, Box<Problem>> {
    let [usd, tokens, reason, resume] = body::members(bytes, ["usd", "tokens", "reason", "resume"])?;
    let usd = match usd {
        None | Some(Value::Null) => Usd::ZERO,
        Some(Value::String(text)) => amount(&text)?,
        // Through no float: as it was written, when that is exact.
        Some(number @ (Value::Int(_) | Value::Float(_))) => amount(&number.to_json())?,
        Some(other) => return Err(body::wrong_type("usd", "an amount such as \"5.00\"", &other)),
    };
    let tokens = match tokens {
        None | Some(Value::Null) => 0,
        Some(Value::Int(tokens)) => u64::try_from(tokens)
            .map_err(|_| wrong("tokens", format!("{tokens} tokens: a budget is raised, never lowered")))?,
        // JSON does not tell a whole number that is too large, or has a point, from others.
        Some(number @ (Value::UInt(_) | Value::Float(_))) => {
            let most = i64::MAX;
            return Err(wrong(
                "tokens",
                format!("tokens: {} is no whole number up to {most}", number.to_json()),
            ));
        }
        Some(other) => return Err(body::wrong_type("tokens", "a whole number", &other)),
    };
    let resume = match resume {
        None | Some(Value::Null) => false,
        Some(Value::Bool(resume)) => resume,
        Some(other) => return Err(body::wrong_type("resume", "true or false", &other)),
    };
    if usd == Usd::ZERO && tokens == 0 {
        let detail = "neither usd nor tokens is more than nothing";
        return Err(Problem::new(422, "invalid_body", detail));
    }
    let reason = body::only_text("reason", reason)?.filter(|reason| !reason.trim().is_empty());
    let reason = reason.ok_or_else(|| {
        Problem::new(422, "reason_required", "who raises a budget says why; \"reason\" is missing")
    })?;
    approvals::short(Some(&reason))?;
    Ok(Asked { usd, tokens, reason, resume })
}

fn amount(text: &str) -> Result<Usd, Box<Problem>> {
    text.parse().map_err(|error| wrong("usd", format!("usd: {error}")))
}

fn wrong(member: &str, detail: String) -> Box<Problem> {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(422, "invalid_body", detail).at(&wrong)
}

/// What has no limit cannot be raised.
async fn limited(services: &Services, run_id: RunId, asked: &Asked) -> Result<(), Box<Problem>> {
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    let graph = services.read(move || runs.graph(&location)).await?;
    let budget = graph.as_ref().and_then(|graph| graph.budget.as_deref());
    match missing(budget, asked) {
        None => Ok(()),
        Some(what) => {
            let detail = format!("the document of {run_id} has no {what}: there is nothing to raise");
            let mut problem = Problem::new(409, "no_budget", detail);
            problem.outcome = Some("not_applied".into());
            Err(problem)
        }
    }
}

fn missing(budget: Option<&Budget>, asked: &Asked) -> Option<&'static str> {
    match budget {
        _ if asked.usd > Usd::ZERO && budget.is_none_or(|budget| budget.usd.is_none()) => {
            Some("limits.budget.usd")
        }
        _ if asked.tokens > 0 && budget.is_none_or(|budget| budget.tokens.is_none()) => {
            Some("limits.budget.tokens")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::budget::OnBreach;

    // F403, N7
    #[test]
    fn what_is_asked_for_is_exact_and_has_a_reason() {
        let read = |body: &str| {
            let told = |problem: Box<Problem>| (problem.status, problem.code.to_string());
            asked(body.as_bytes())
                .map(|asked| (asked.usd.to_string(), asked.tokens, asked.resume))
                .map_err(told)
        };
        for (body, usd, tokens, resume) in [
            (r#"{"usd": "5", "reason": "r"}"#, "5.00", 0, false),
            (r#"{"usd": 0.1, "reason": "r", "resume": true}"#, "0.10", 0, true),
            (r#"{"tokens": 7, "usd": null, "reason": "r"}"#, "0.00", 7, false),
        ] {
            assert_eq!(read(body), Ok((usd.into(), tokens, resume)), "{body}");
        }
        for (body, status, code) in [
            (r#"{"usd": "5"}"#, 422, "reason_required"),
            (r#"{"usd": "5", "reason": " "}"#, 422, "reason_required"),
            (r#"{"usd": "0", "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"reason": "r"}"#, 422, "invalid_body"),
            (r#"{"usd": "-5", "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"usd": 1e99, "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"tokens": -1, "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"tokens": 1e20, "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"tokens": true, "reason": "r"}"#, 400, "invalid_body"),
            (r#"{"tokens": 1.5, "reason": "r"}"#, 422, "invalid_body"),
            (r#"{"usd": "5", "why": "r"}"#, 400, "unknown_member"),
        ] {
            assert_eq!(read(body), Err((status, code.into())), "{body}");
        }
        let long =
            format!(r#"{{"usd": "5", "reason": "{}"}}"#, "r".repeat(crate::limits::REASON_BYTES_MAX + 1));
        assert_eq!(read(&long), Err((422, "limit_exceeded".into())));
    }

    #[test]
    fn only_what_is_limited_can_be_raised() {
        let budget = |usd: Option<&str>, tokens| Budget {
            usd: usd.map(|usd| usd.parse().unwrap()),
            tokens,
            warn_at_permille: 800,
            on_breach: OnBreach::Pause,
            allow_unpriced: false,
        };
        let asked = |usd: &str, tokens| Asked {
            usd: usd.parse().unwrap(),
            tokens,
            reason: "r".into(),
            resume: false,
        };
        assert_eq!(missing(None, &asked("1", 0)), Some("limits.budget.usd"));
        assert_eq!(missing(Some(&budget(None, Some(5))), &asked("1", 1)), Some("limits.budget.usd"));
        assert_eq!(missing(Some(&budget(Some("1"), None)), &asked("1", 1)), Some("limits.budget.tokens"));
        assert_eq!(missing(Some(&budget(Some("1"), None)), &asked("1", 0)), None);
    }
}
