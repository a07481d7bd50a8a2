//! Tells webhooks what happens to reviews: one task of one core, through the door that all calls go through (ADR 12).
//!
//! What is to be told is durable before this hears of it, and is taken away only when it has arrived or is given up, so a
//! crash repeats a delivery under its own id and loses none. At most [`limits::WEBHOOK_CALLS_MAX`] are under way at once; what fails is
//! tried again, later each time, until it is a dead letter (`reviews.webhook_attempts_max`). Where storage fails nothing is lost: it is tried
//! again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::signing;
use crate::api::reviews;
use crate::api::services::{Services, blocking};
use crate::engine::command::next_attempt;
use crate::exec::Call;
use crate::exec::standard_webhooks::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::limits;
use crate::model::approval::{Row, State};
use crate::model::webhook::{Delivery, DeliveryId, Webhook};
use crate::model::{Failure, Place, Value};
use crate::store::approvals::Attempted;
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::Problem;
use crate::wire::webhook::CloudEvent;

/// Notices taken at once.
const NOTICES: usize = 128;
/// Deliveries looked at for one that may go.
const LOOKED_AT: usize = 512;
/// Of one webhook under way at once: one that hangs must not hold up the others.
const PER_WEBHOOK: usize = 4;
/// How long it rests after an error of the store, and at most when nothing is due.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

type UnderWay = Rc<RefCell<BTreeSet<DeliveryId>>>;

/// Delivers as long as the core serves.
pub async fn deliver_webhooks(services: Rc<Services>) {
    let under_way = UnderWay::default();
    loop {
        let rest = match turn(&services, &under_way).await {
            Ok(next) => {
                let now = services.clock.now();
                next.map_or(LONGEST_REST, |at| now.until(at).min(LONGEST_REST))
            }
            Err(problem) => {
                crate::api::records::background("telling webhooks", &problem);
                REST
            }
        };
        let _ = tokio::time::timeout(rest, services.reviewing.noticed.notified()).await;
    }
}

/// Takes what is new and sends what is due; when to look again, if nobody calls before.
async fn turn(services: &Rc<Services>, under_way: &UnderWay) -> Result<Option<Timestamp>, Box<Problem>> {
    let approvals = services.reviewing.approvals.clone();
    let now = services.clock.now();
    let told =
        blocking(move || approvals.spread(now, NOTICES)).await?.map_err(|error| super::failed(&error))?;
    told.iter().for_each(say);
    let room = limits::WEBHOOK_CALLS_MAX.saturating_sub(under_way.borrow().len());
    if services.stopping.get() || room == 0 {
        return Ok(None);
    }
    let approvals = services.reviewing.approvals.clone();
    // Those under way are due as well: they stand first. One that arrives while this looks may be found due all the same, so
    // it counts as under way until the next look, which its end has asked for.
    let before = under_way.borrow().clone();
    let found = blocking(move || approvals.due(now, LOOKED_AT)).await?;
    let (due, next) = found.map_err(|error| super::failed(&error))?;
    for (delivery, webhook) in due {
        if before.contains(&delivery.id) || !admits(&mut under_way.borrow_mut(), delivery.id) {
            continue;
        }
        let (services, under_way) = (services.clone(), under_way.clone());
        crate::io::spawn_local(async move {
            let id = delivery.id;
            if let Err(problem) = attempt(&services, delivery, webhook).await {
                crate::api::records::background("telling webhooks", &problem);
            }
            under_way.borrow_mut().remove(&id);
            // Others may have waited for room.
            services.reviewing.noticed.notify_one();
        });
    }
    // There was more than one turn takes.
    let more = told.len() == NOTICES;
    Ok(if more { Some(now) } else { next.filter(|at| *at > now) })
}

/// Is there room for one more? Then it is under way.
fn admits(under_way: &mut BTreeSet<DeliveryId>, id: DeliveryId) -> bool {
    let same = under_way.iter().filter(|other| other.webhook == id.webhook).count();
    under_way.len() < limits::WEBHOOK_CALLS_MAX && same < PER_WEBHOOK && under_way.insert(id)
}

/// The log is told of everything.
fn say(row: &Row) {
    let (ticket, event, node) = (row.ticket, row.event(), &row.request.node);
    let run_id = ticket.run_id;
    match row.state {
        State::Pending => {
            let reviewers = row.reviewers().join(",");
            log::info(
                Target::Api,
                format_args!("{event} ticket={ticket} run_id={run_id} node={node:?} reviewers={reviewers:?}"),
            );
        }
        state => {
            let by = row.verdict.as_ref().map_or("nobody", |verdict| &*verdict.reviewer);
            let state = state.as_str();
            log::info(
                Target::Api,
                format_args!(
                    "{event} ticket={ticket} run_id={run_id} node={node:?} status={state} by={by:?}"
                ),
            );
        }
    }
}

/// Tells a webhook once, and writes down how that went.
async fn attempt(services: &Services, delivery: Delivery, webhook: Webhook) -> Result<(), Box<Problem>> {
    let now = services.clock.now();
    let call = call(services, &delivery, &webhook, now);
    let most = Duration::from_secs(limits::WEBHOOK_ATTEMPT_SECONDS_MAX);
    let outcome = tokio::time::timeout(most, services.executors.http.call(call)).await;
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Failure::transient("timeout", format!("no answer within {} s", most.as_secs())))
    });
    let (id, attempts) = (delivery.id, delivery.attempts + 1);
    let how = match outcome {
        Ok(_) => Attempted::Arrived,
        // The node stops: as if it had not been tried.
        Err(failure) if &*failure.code == "executor_stopped" => return Ok(()),
        Err(failure) => {
            let pauses =
                (services.reviewing.attempts.1, Duration::from_millis(limits::WEBHOOK_PAUSE_MILLIS_MAX));
            let [a, b, c, d, ..] = services.random();
            let draw = u32::from_le_bytes([a, b, c, d]);
            let next = (attempts < services.reviewing.attempts.0)
                .then(|| next_attempt(delivery.attempts, pauses, draw, &failure, services.clock.now()));
            let why: String = format!("{}: {}", failure.code, failure.message).chars().take(512).collect();
            let (webhook, message, dead) = (webhook.id, signing::message_id(&id), next.is_none());
            log::warn(
                Target::Api,
                format_args!("webhook {webhook} not told id={message} attempt={attempts} dead={dead}: {why}"),
            );
            Attempted::Failed(why.into(), next)
        }
    };
    let (approvals, now) = (services.reviewing.approvals.clone(), services.clock.now());
    blocking(move || approvals.attempted(id, &how, now)).await?.map_err(|error| super::failed(&error))
}

/// The request, signed.
fn call(services: &Services, delivery: &Delivery, webhook: &Webhook, now: Timestamp) -> Call {
    let (row, id) = (&delivery.row, signing::message_id(&delivery.id));
    let (own, others) = links(services, row, webhook, now);
    let body = crate::wire::to_json(&CloudEvent::new(row, &own, &others));
    let seconds = now.as_micros() / 1_000_000;
    let secret = signing::secret(&services.executors.leases, webhook.id);
    let signature = secret.sign(&id, seconds, &body);
    let text = |text: String| Value::string(text);
    let headers = Value::map([
        ("content-type", text("application/cloudevents+json".into())),
        ("idempotency-key", text(id.clone())),
        (ID_HEADER, text(id)),
        (TIMESTAMP_HEADER, text(seconds.to_string())),
        (SIGNATURE_HEADER, text(signature)),
    ]);
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = Value::map([
        ("method", text("POST".into())),
        ("url", Value::String(webhook.url.clone())),
        ("headers", headers),
        ("body", text(body)),
    ]);
    // Numbers that no event of a run has, one for each webhook: calls under way are told apart by them.
    let [a, b, c, d, e, f, ..] = webhook.id.0;
    let seq = (1 << 63) | u64::from_be_bytes([0, 0, a, b, c, d, e, f]) ^ (row.last.0 << 16);
    Call {
        run_id: row.ticket.run_id,
        place: Place::root(u32::MAX - 1),
        path: String::from("webhook"),
        seq,
        attempt: delivery.attempts + 1,
        epoch: 0,
        lost: false,
        workflow: row.request.workflow.clone(),
        request,
        due: None,
        // Deliveries have pauses of their own, and a redrive is not to be refused.
        unguarded: true,
    }
}

/// Where it is decided: by whom the webhook is for, and by each who was asked.
fn links(
    services: &Services,
    row: &Row,
    webhook: &Webhook,
    now: Timestamp,
) -> (String, BTreeMap<String, String>) {
    let reviewers = match &webhook.reviewer {
        Some(only) => vec![only.clone()],
        None => row.reviewers(),
    };
    let link = |reviewer: Option<Arc<str>>| reviews::link(services, row, reviewer, now);
    let mut all: BTreeMap<String, String> =
        reviewers.iter().map(|name| (name.to_string(), link(Some(name.clone())))).collect();
    let own = match &reviewers[..] {
        [] => link(None),
        [_] => all.pop_first().map(|(_, own)| own).unwrap_or_default(),
        _ => format!("{}/reviews/{}", services.reviewing.url, row.ticket),
    };
    (own, all)
}
