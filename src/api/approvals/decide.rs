//! `POST /v1/approvals/{ticket}/decision`: who decides, what, and whether it was decided before.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, Response, StatusCode};

use super::super::request::Incoming;
use super::past::End;
use super::{Answer, digest, named, no_approval, past, waiting};
use crate::api::respond::{Body, json, with};
use crate::api::services::{Services, unexpected};
use crate::api::{admission, body, request};
use crate::auth::Role;
use crate::engine::command::{Command, Decide, Refusal, Reply, TicketView, Which};
use crate::limits;
use crate::model::event::Decision;
use crate::model::{RunId, Ticket, Value, kept};
use crate::telemetry::log::{self, Target};
use crate::wire::Shown;
use crate::wire::approval::{Decided, Settled};
use crate::wire::problem::{Problem, Wrong};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What a body says.
pub(in crate::api) struct Asked {
    pub(in crate::api) approved: bool,
    pub(in crate::api) reviewer: Arc<str>,
    pub(in crate::api) reason: Option<Arc<str>>,
    pub(in crate::api) form: Option<Value>,
    /// Of what the reviewer was shown.
    pub(in crate::api) digest: Option<[u8; 32]>,
}

/// `POST /v1/approvals/{ticket}/decision`
pub(in crate::api) async fn decide(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    text: &str,
) -> Answer {
    let bytes = request::body(head, incoming).await?;
    request::require_json(&head.headers)?;
    settle(services, head, &asked(head, &bytes)?, text).await
}

/// Settles a review, wherever the answer came from.
pub(in crate::api) async fn settle(services: &Services, head: &Parts, asked: &Asked, text: &str) -> Answer {
    let (run_id, which) = named(services, head, text).await?;
    if let Some(view) = waiting(services, run_id, &which).await? {
        let decision = fitting(&view, asked).await?;
        if let Some(answer) = sent(services, &view, decision).await? {
            let by = admission::who(head);
            let ticket = Ticket { run_id, seq: view.open.seq };
            let (reviewer, approved) = (&asked.reviewer, asked.approved);
            log::info(
                Target::Api,
                format_args!(
                    "audit: review decided ticket={ticket} approved={approved} reviewer={reviewer:?} by={by:?}"
                ),
            );
            return Ok(answer);
        }
    }
    decided_before(services, (run_id, &which), asked, text).await
}

fn wrong(member: &str, detail: String) -> Box<Problem> {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(400, "invalid_body", detail).at(&wrong)
}

/// Reads the body, and who it is from.
fn asked(head: &Parts, bytes: &[u8]) -> Result<Asked, Box<Problem>> {
    let known = ["approved", "decision", "reason", "form", "reviewer", "digest"];
    let [approved, decision, reason, form, reviewer, digest] = body::members(bytes, known)?;
    let approved = match (approved, body::only_text("decision", decision)?) {
        (Some(Value::Bool(approved)), None) => approved,
        (Some(other), None) => return Err(body::wrong_type("approved", "true or false", &other)),
        (None, Some(word)) if &*word == "approve" => true,
        (None, Some(word)) if &*word == "reject" => false,
        (None, Some(_)) => return Err(wrong("decision", String::from("decision is approve or reject"))),
        _ => {
            let detail = "either \"approved\": true or false, or \"decision\": \"approve\" or \"reject\"";
            return Err(wrong("approved", detail.to_owned()));
        }
    };
    let reason = body::text("reason", reason)?;
    short(reason.as_deref())?;
    let digest = body::text("digest", digest)?.map(|text| {
        kept::parse_name(&text).ok_or_else(|| {
            wrong("digest", String::from("digest is sha256: and 64 digits 0-9 a-f, as the review shows it"))
        })
    });
    let reviewer = reviewer_of(head, body::text("reviewer", reviewer)?)?;
    Ok(Asked { approved, reviewer, reason, form, digest: digest.transpose()? })
}

/// No reason is longer than it may be.
pub(in crate::api) fn short(reason: Option<&str>) -> Result<(), Box<Problem>> {
    let Some(reason) = reason.filter(|reason| reason.len() > limits::REASON_BYTES_MAX) else { return Ok(()) };
    let detail = format!("a reason of {} bytes; at most {}", reason.len(), limits::REASON_BYTES_MAX);
    Err(Problem::new(422, "limit_exceeded", detail).limit("reason_bytes_max"))
}

/// Who decides: whom the token answers reviews as, by its own name when it does not say. Only the role admin may name
/// another; where no tokens are needed, the body says it.
pub(in crate::api) fn reviewer_of(head: &Parts, given: Option<Arc<str>>) -> Result<Arc<str>, Box<Problem>> {
    let caller = admission::caller(head);
    let reviewer = match (caller.reviewer.as_ref().or(caller.token.as_ref()), given) {
        (Some(own), None) => own.clone(),
        (Some(own), Some(given)) if *own == given || caller.role == Role::Admin => given,
        (Some(own), Some(given)) => {
            let given: String = given.chars().take(limits::NAME_BYTES_MAX).collect();
            let detail = format!("this token decides as {own:?}, not as {given:?}");
            return Err(Problem::new(403, "not_a_reviewer", detail));
        }
        (None, Some(given)) => given,
        (None, None) => {
            let detail = "\"reviewer\" is missing: this node needs no tokens, so the body says who decides";
            return Err(Problem::new(422, "invalid_parameter", detail));
        }
    };
    if reviewer.is_empty() || reviewer.len() > limits::NAME_BYTES_MAX {
        let detail = format!("a reviewer's name has 1 to {} bytes", limits::NAME_BYTES_MAX);
        return Err(Problem::new(422, "limit_exceeded", detail).limit("name_bytes_max"));
    }
    Ok(reviewer)
}

/// The decision, when it is one that this review waits for.
async fn fitting(view: &TicketView, asked: &Asked) -> Result<Decision, Box<Problem>> {
    if !view.open.asks(&asked.reviewer) {
        let names: Vec<&str> = view.open.reviewers.iter().map(AsRef::as_ref).collect();
        let refusal = Refusal::NotAsked { reviewer: asked.reviewer.clone(), asked: names.join(", ") };
        return Err(unexpected(Reply::Refused(refusal)));
    }
    let shown = digest(view).await?;
    if asked.digest.is_some_and(|digest| digest != shown) {
        let detail = format!(
            "the decision is about {}, but the review shows {}; read it again",
            asked.digest.map(|digest| kept::name(&digest)).unwrap_or_default(),
            kept::name(&shown)
        );
        return Err(Problem::new(409, "stale_digest", detail));
    }
    if view.reason_required && asked.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        let detail =
            format!("the review {:?} takes a reason with every decision (with.reason)", view.open.node);
        let wrong = Wrong { pointer: Some("/reason".into()), detail: detail.clone(), ..Wrong::default() };
        return Err(Problem::new(422, "reason_required", detail).at(&wrong));
    }
    let form = asked.form.clone().unwrap_or_default();
    // Who rejects need not fill in anything.
    if let Some(wanted) = view.form.as_ref().filter(|_| asked.approved || asked.form.is_some()) {
        wanted.schema.check(&form, limits::DIAGNOSTICS_MAX).map_err(|found| {
            let detail = format!("the form does not fit its schema: {} finding(s)", found.len());
            found.into_iter().fold(Problem::new(422, "invalid_form", detail), |problem, found| {
                let pointer = Some(format!("/form{}", found.pointer));
                problem.at(&Wrong { pointer, detail: found.message, ..Wrong::default() })
            })
        })?;
    }
    Ok(Decision {
        approved: asked.approved,
        reviewer: asked.reviewer.clone(),
        reason: asked.reason.clone(),
        form,
        digest: shown,
    })
}

/// Brings the decision to its run. `None`: it waits no more.
async fn sent(
    services: &Services,
    view: &TicketView,
    decision: Decision,
) -> Result<Option<Response<Body>>, Box<Problem>> {
    let run_id = view.run.run_id;
    let kept = services.keep_for(run_id, &decision.form).await?;
    let (place, seq) = (view.place.clone(), view.open.seq);
    let command = Command::Decide(Box::new(Decide { run_id, place, seq, decision: decision.clone() }));
    match services.ask(run_id, command.keeping(run_id, kept.clone())).await? {
        Reply::Accepted(_) => {
            let ticket = Ticket { run_id, seq };
            let settled = || settled(ticket, &view.open.node, Decided::new(&decision, None));
            Ok(Some(kept::naming(kept.as_ref(), settled)))
        }
        Reply::Refused(Refusal::NoReview { .. } | Refusal::NotFound(_)) => Ok(None),
        other => Err(unexpected(other)),
    }
}

fn settled(ticket: Ticket, node: &str, decision: Decided<'_>) -> Response<Body> {
    let (run_id, status) = (Shown(ticket.run_id), decision.status());
    json(StatusCode::OK, &Settled { ticket: Shown(ticket), run_id, node, status, decision })
}

/// The review waits no more: the same decision again is answered as the first was, anything else is refused.
async fn decided_before(
    services: &Services,
    (run_id, which): (RunId, &Which),
    asked: &Asked,
    text: &str,
) -> Answer {
    let (_, past) = past(services, run_id, which).await?.ok_or_else(|| no_approval(text))?;
    let ticket = Ticket { run_id, seq: past.seq };
    if !past.asked(&asked.reviewer) {
        let asked_for = past.reviewers().join(", ");
        let refusal = Refusal::NotAsked { reviewer: asked.reviewer.clone(), asked: asked_for };
        return Err(unexpected(Reply::Refused(refusal)));
    }
    match &past.end {
        End::Decided(first, at) => {
            if is_same(services, first, asked) {
                let answer = settled(ticket, &past.node, Decided::new(first, Some(*at)));
                return Ok(with(answer, REPLAYED, "true"));
            }
            let how = if first.approved { "approved" } else { "rejected" };
            let detail = format!("{ticket} was {how} by {:?} at {at}", first.reviewer);
            Err(not_applied(Problem::new(409, "already_decided", detail)))
        }
        End::Expired => {
            let due = past.review.due.map(|due| format!(" at {due}")).unwrap_or_default();
            let detail = format!("{ticket} expired{due}: nobody had decided in time");
            Err(not_applied(Problem::new(409, "approval_expired", detail)))
        }
        End::Cancelled => {
            let node = &past.node;
            let detail = format!("{ticket} waits no more: its run has ended, or went on without {node:?}");
            Err(not_applied(Problem::new(409, "approval_cancelled", detail)))
        }
    }
}

fn not_applied(mut problem: Box<Problem>) -> Box<Problem> {
    problem.outcome = Some("not_applied".into());
    problem
}

/// Is it what was decided first? What is kept by reference is not compared.
fn is_same(services: &Services, first: &Decision, asked: &Asked) -> bool {
    let form = asked.form.clone().unwrap_or_default();
    let by_reference = !kept::parts(&form, services.contents.inline_max()).is_empty();
    (first.approved, &first.reviewer) == (asked.approved, &asked.reviewer)
        && (by_reference || first.form == form)
}
