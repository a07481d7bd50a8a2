//! Webhooks of a workspace: made, listed, removed; what is on its way to them, and what was given up.
//!
//! A webhook belongs to its workspace, and does not exist for others. Its secret is shown once, in the answer to its making.

mod deliver;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode, header};

pub use self::deliver::deliver_webhooks;

use super::request::Incoming;
use super::respond::{Body, bytes, json, with};
use super::services::{Services, blocking};
use super::{admission, body, request};
use crate::exec::webhook as signing;
use crate::limits;
use crate::model::webhook::{EVENTS, Webhook, WebhookId};
use crate::model::{Value, Workspace};
use crate::store::Approvals;
use crate::store::approvals::Which;
use crate::telemetry::log::{self, Target};
use crate::time::Clock as _;
use crate::wire;
use crate::wire::problem::{Problem, Wrong};
use crate::wire::webhook::{Deliveries, List, OnItsWay, Redriven};

type Answer = Result<Response<Body>, Box<Problem>>;

/// What is known of reviews that are over, and who is told of all.
#[derive(Clone)]
pub struct Reviewing {
    /// Where it is kept.
    pub approvals: Arc<dyn Approvals>,
    /// Wakes whoever tells others.
    pub noticed: Arc<tokio::sync::Notify>,
    /// Where reviewers reach this node: what links begin with.
    pub url: Arc<str>,
    /// Attempts of a delivery before it is a dead letter, and the pause after the first.
    pub attempts: (u32, Duration),
}

/// `GET /v1/webhooks/{id}`
pub(super) async fn get(services: &Services, head: &Parts, id: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let webhook = named(services, head, id).await?;
    Ok(json(StatusCode::OK, &wire::webhook::Webhook::new(&webhook)))
}

fn no_webhook(text: &str) -> Box<Problem> {
    let text: String = text.chars().take(64).collect();
    Problem::new(404, "webhook_not_found", format!("there is no webhook {text:?}"))
}

fn failed(error: &crate::store::Error) -> Box<Problem> {
    Problem::unavailable("storage_failed", error.to_string())
}

/// The webhook that a path names, when it is of the caller's workspace.
async fn named(services: &Services, head: &Parts, text: &str) -> Result<Webhook, Box<Problem>> {
    let id: WebhookId = text.parse().map_err(|_| no_webhook(text))?;
    let (approvals, workspace) = (services.reviewing.approvals.clone(), admission::workspace(head).clone());
    let found = blocking(move || approvals.webhook(&workspace, id)).await?;
    found.map_err(|error| failed(&error))?.ok_or_else(|| no_webhook(text))
}

fn unfit(member: &str, detail: String) -> Box<Problem> {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(422, "invalid_parameter", detail).at(&wrong)
}

/// Where to tell: http or https, whatever the door lets through when it comes to it.
fn url(text: Option<Arc<str>>) -> Result<Arc<str>, Box<Problem>> {
    let text = text
        .ok_or_else(|| Problem::new(400, "invalid_body", "\"url\" is missing: where the webhook is told"))?;
    if text.len() > limits::WEBHOOK_URL_BYTES_MAX {
        let detail = format!("a url of {} bytes; at most {}", text.len(), limits::WEBHOOK_URL_BYTES_MAX);
        return Err(Problem::new(422, "limit_exceeded", detail).limit("webhook_url_bytes_max"));
    }
    let parsed = url::Url::parse(&text).map_err(|error| unfit("url", format!("the url: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() {
        return Err(unfit("url", String::from("the url begins with http:// or https://, and has a host")));
    }
    Ok(parsed.as_str().into())
}

fn events(given: Option<Value>) -> Result<Vec<u8>, Box<Problem>> {
    let all = || (0..).zip(EVENTS).map(|(number, _)| number).collect();
    let items = match given {
        None => return Ok(all()),
        Some(Value::List(items)) if items.is_empty() => return Ok(all()),
        Some(Value::List(items)) => items,
        Some(other) => return Err(body::wrong_type("events", "a list of names", &other)),
    };
    let mut found = Vec::new();
    for item in items.iter() {
        let Value::String(name) = item else {
            return Err(body::wrong_type("events", "a list of names", item));
        };
        let number = (0..).zip(EVENTS).find(|(_, event)| *event == &**name);
        let (number, _) = number.ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            unfit("events", format!("{name:?} is none of {}", EVENTS.join(", ")))
        })?;
        found.push(number);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// `POST /v1/webhooks`
pub(super) async fn create(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    let given = request::body(head, incoming).await?;
    request::require_json(&head.headers)?;
    let [address, wanted, reviewer] = body::members(&given, ["url", "events", "reviewer"])?;
    let reviewer = body::text("reviewer", reviewer)?;
    if reviewer.as_ref().is_some_and(|name| name.is_empty() || name.len() > limits::NAME_BYTES_MAX) {
        let detail = format!("a reviewer's name has 1 to {} bytes", limits::NAME_BYTES_MAX);
        return Err(Problem::new(422, "limit_exceeded", detail).limit("name_bytes_max"));
    }
    let webhook = Webhook {
        id: WebhookId(services.random()),
        workspace: admission::workspace(head).name().into(),
        url: url(body::text("url", address)?)?,
        events: events(wanted)?,
        reviewer,
        created_at: services.clock.now(),
        delivered: 0,
        delivered_at: None,
    };
    let (approvals, added) = (services.reviewing.approvals.clone(), webhook.clone());
    if !blocking(move || approvals.add(&added)).await?.map_err(|error| failed(&error))? {
        let most = limits::WEBHOOKS_PER_WORKSPACE_MAX;
        let detail = format!("this workspace has {most} webhooks; no more may be added");
        return Err(Problem::new(422, "limit_exceeded", detail).limit("webhooks_per_workspace_max"));
    }
    let (id, who) = (webhook.id, admission::who(head));
    log::info(Target::Api, format_args!("audit: webhook added id={id} url={:?} by={who:?}", webhook.url));
    let secret = signing::secret(&services.executors.leases, id).reveal();
    let shown = wire::webhook::Webhook { secret: Some(secret), ..wire::webhook::Webhook::new(&webhook) };
    let answer = with(json(StatusCode::CREATED, &shown), header::LOCATION, format!("/v1/webhooks/{id}"));
    Ok(with(answer, header::CACHE_CONTROL, "no-store"))
}

/// `GET /v1/webhooks`
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let workspace: Workspace = admission::workspace(head).clone();
    let approvals = services.reviewing.approvals.clone();
    let found = blocking(move || approvals.webhooks(&workspace)).await?.map_err(|error| failed(&error))?;
    let webhooks = found.iter().map(wire::webhook::Webhook::new).collect();
    Ok(json(StatusCode::OK, &List { webhooks }))
}

/// `DELETE /v1/webhooks/{id}`
pub(super) async fn remove(services: &Services, head: &Parts, text: &str) -> Answer {
    let id: WebhookId = text.parse().map_err(|_| no_webhook(text))?;
    let (approvals, workspace) = (services.reviewing.approvals.clone(), admission::workspace(head).clone());
    if !blocking(move || approvals.remove(&workspace, id)).await?.map_err(|error| failed(&error))? {
        return Err(no_webhook(text));
    }
    let who = admission::who(head);
    log::info(Target::Api, format_args!("audit: webhook removed id={id} by={who:?}"));
    let mut response = bytes(StatusCode::NO_CONTENT, "application/json", "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// `GET /v1/webhooks/{id}/deliveries`
pub(super) async fn deliveries(services: &Services, head: &Parts, text: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [status, limit] = request::parameters(head, ["status", "limit"])?;
    let limit = request::page_limit(limit.as_deref())?;
    let id = named(services, head, text).await?.id;
    let which = match status.as_deref() {
        None => Which::Of(id),
        Some("dead") => Which::Dead(id),
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let detail =
                format!("status is {other:?}; without one all are listed, with \"dead\" those given up");
            return Err(Problem::new(400, "invalid_parameter", detail));
        }
    };
    let approvals = services.reviewing.approvals.clone();
    let found = blocking(move || approvals.deliveries(which, limit)).await?;
    let found = found.map_err(|error| failed(&error))?;
    let deliveries =
        found.iter().map(|delivery| OnItsWay::new(signing::message_id(&delivery.id), delivery)).collect();
    Ok(json(StatusCode::OK, &Deliveries { deliveries }))
}

/// `POST /v1/webhooks/{id}/redrive`
pub(super) async fn redrive(services: &Services, head: &Parts, text: &str) -> Answer {
    let id = named(services, head, text).await?.id;
    let (approvals, now) = (services.reviewing.approvals.clone(), services.clock.now());
    let redriven = blocking(move || approvals.redrive(id, now)).await?.map_err(|error| failed(&error))?;
    services.reviewing.noticed.notify_one();
    Ok(json(StatusCode::OK, &Redriven { redriven }))
}
