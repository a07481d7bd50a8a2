//! Which handler answers which route, noun by noun.
//!
//! Each arm says first which methods it takes: everything else is 405 before a body is read.

use http::request::Parts;
use http::{Method, Response};

use super::request::Incoming;
use super::respond::Body;
use super::services::Services;
use super::{
    admission, allow, approvals, artifacts, audit, budget, compat, cost, history, letters, no_route,
    overlays, patches, replay, request, runs, signals, streams, tags, webhooks, workflows,
};
use crate::engine::command::Verb;
use crate::wire::problem::Problem;

pub(super) async fn run_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    (id, rest): (&str, &[&str]),
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] => {
            allow(head, "GET, HEAD, DELETE")?;
            if head.method == Method::DELETE {
                return runs::erase(services, head, admission::run(services, head, id).await?).await;
            }
            runs::get(services, head, admission::run(services, head, id).await?).await
        }
        [verb @ ("pause" | "resume" | "cancel" | "terminate")] => {
            allow(head, "POST")?;
            let verb = match *verb {
                "pause" => Verb::Pause,
                "resume" => Verb::Resume,
                "cancel" => Verb::Cancel,
                _ => Verb::Terminate,
            };
            runs::steer(services, head, body, (admission::run(services, head, id).await?, verb)).await
        }
        ["signals", name] => {
            allow(head, "POST")?;
            let name = signal_name(name)?;
            signals::signal(services, head, body, (admission::run(services, head, id).await?, &name)).await
        }
        ["updates", name] => {
            allow(head, "POST")?;
            let name = signal_name(name)?;
            signals::update(services, head, body, (admission::run(services, head, id).await?, &name)).await
        }
        ["patch"] => {
            allow(head, "POST")?;
            patches::propose(services, head, body, admission::run(services, head, id).await?).await
        }
        ["patches", rest @ ..] => patch_route(services, head, body, (id, rest)).await,
        ["artifacts"] => {
            allow(head, "GET, HEAD")?;
            artifacts::list(services, head, admission::run(services, head, id).await?).await
        }
        ["budget"] => {
            allow(head, "POST")?;
            budget::raise(services, head, body, admission::run(services, head, id).await?).await
        }
        _ => record_route(services, head, body, (id, rest)).await,
    }
}

fn signal_name(name: &str) -> Result<std::borrow::Cow<'_, str>, Box<Problem>> {
    let name = request::percent_decoded(name, false).filter(|name| !name.is_empty());
    name.ok_or_else(|| Problem::new(400, "invalid_path", "the signal's name is no percent-encoded UTF-8"))
}

/// What a run was and became, and runs that go on from it.
async fn record_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    (id, rest): (&str, &[&str]),
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        ["graph"] => {
            allow(head, "GET, HEAD")?;
            history::graph(services, head, admission::run(services, head, id).await?).await
        }
        ["graph", "diff"] => {
            allow(head, "GET, HEAD")?;
            patches::of_graph(services, head, admission::run(services, head, id).await?).await
        }
        ["blame"] => {
            allow(head, "GET, HEAD")?;
            patches::blame(services, head, admission::run(services, head, id).await?).await
        }
        ["timeline"] => {
            allow(head, "GET, HEAD")?;
            history::timeline(services, head, admission::run(services, head, id).await?).await
        }
        ["cost"] => {
            allow(head, "GET, HEAD")?;
            cost::cost(services, head, admission::run(services, head, id).await?).await
        }
        ["audit"] => {
            allow(head, "GET, HEAD")?;
            audit::run(services, head, admission::run(services, head, id).await?).await
        }
        ["bundle"] => {
            allow(head, "GET, HEAD")?;
            replay::bundle(services, head, admission::run(services, head, id).await?).await
        }
        ["state"] => {
            allow(head, "GET, HEAD")?;
            replay::state(services, head, admission::run(services, head, id).await?).await
        }
        ["fork"] => {
            allow(head, "POST")?;
            replay::fork(services, head, body, admission::run(services, head, id).await?).await
        }
        ["replay"] => {
            allow(head, "POST")?;
            replay::replay(services, head, body, admission::run(services, head, id).await?).await
        }
        ["events"] => {
            allow(head, "GET")?;
            streams::of_run(services, head, admission::run(services, head, id).await?).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

async fn patch_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    (id, rest): (&str, &[&str]),
) -> Result<Response<Body>, Box<Problem>> {
    let read_id = |text: &str| {
        text.parse().map_err(|error| {
            let text: String = text.chars().take(64).collect();
            Problem::new(404, "patch_not_found", format!("there is no patch {text:?}: {error}"))
        })
    };
    match rest {
        [] if head.method == Method::POST => {
            patches::propose(services, head, body, admission::run(services, head, id).await?).await
        }
        [] => {
            allow(head, "GET, HEAD, POST")?;
            patches::list(services, head, admission::run(services, head, id).await?).await
        }
        [patch] => {
            allow(head, "GET, HEAD")?;
            let run_id = admission::run(services, head, id).await?;
            patches::show(services, head, (run_id, read_id(patch)?)).await
        }
        [patch, "diff"] => {
            allow(head, "GET, HEAD")?;
            let run_id = admission::run(services, head, id).await?;
            patches::of_patch(services, head, (run_id, read_id(patch)?)).await
        }
        [patch, verb @ ("approve" | "reject")] => {
            allow(head, "POST")?;
            let decided = (admission::run(services, head, id).await?, read_id(patch)?);
            if *verb == "approve" {
                return patches::approve(services, head, body, decided).await;
            }
            patches::decline(services, head, body, decided).await
        }
        [patch, "revoke"] => {
            allow(head, "POST")?;
            let run_id = admission::run(services, head, id).await?;
            patches::revoke(services, head, body, (run_id, read_id(patch)?)).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn audit_route(
    services: &Services,
    head: &Parts,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] => {
            allow(head, "GET, HEAD")?;
            audit::list(services, head).await
        }
        ["verify"] => {
            allow(head, "GET, HEAD")?;
            audit::verify(services, head).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn approval_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] => {
            allow(head, "GET, HEAD")?;
            approvals::list(services, head).await
        }
        [ticket] => {
            allow(head, "GET, HEAD")?;
            approvals::get(services, head, ticket).await
        }
        [ticket, "decision"] => {
            allow(head, "POST")?;
            approvals::decide(services, head, body, ticket).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn webhook_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] if head.method == Method::POST => webhooks::create(services, head, body).await,
        [] => {
            allow(head, "GET, HEAD, POST")?;
            webhooks::list(services, head).await
        }
        [webhook] => {
            allow(head, "GET, HEAD, DELETE")?;
            if head.method == Method::DELETE {
                return webhooks::remove(services, head, webhook).await;
            }
            webhooks::get(services, head, webhook).await
        }
        [webhook, "deliveries"] => {
            allow(head, "GET, HEAD")?;
            webhooks::deliveries(services, head, webhook).await
        }
        [webhook, "redrive"] => {
            allow(head, "POST")?;
            webhooks::redrive(services, head, webhook).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn letter_route(
    services: &Services,
    head: &Parts,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] => {
            allow(head, "GET, HEAD, DELETE")?;
            if head.method == Method::DELETE {
                return letters::purge_some(services, head).await;
            }
            letters::list(services, head).await
        }
        [letter] => {
            allow(head, "GET, HEAD, DELETE")?;
            if head.method == Method::DELETE {
                return letters::remove(services, head, letter).await;
            }
            letters::get(services, head, letter).await
        }
        [letter, "redrive"] => {
            allow(head, "POST")?;
            letters::redrive(services, head, letter).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn workflow_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] if head.method == Method::POST => workflows::register(services, head, body).await,
        [] => {
            allow(head, "GET, HEAD, POST")?;
            workflows::list(services, head).await
        }
        ["validate"] if head.method == Method::POST => workflows::validate(services, head, body).await,
        [name] => {
            allow(head, if *name == "validate" { "POST" } else { "GET, HEAD" })?;
            workflows::get(services, head, name, None).await
        }
        [name, "tags"] => {
            allow(head, "GET, HEAD")?;
            tags::list(services, head, name).await
        }
        [name, "patches", rest @ ..] => overlay_route(services, head, body, (name, rest)).await,
        [name, "patch-sets"] => {
            allow(head, "GET, HEAD")?;
            overlays::list_sets(services, head, name).await
        }
        [name, "patch-sets", set] => {
            allow(head, "PUT, DELETE")?;
            overlays::put_set(services, head, body, (name, set)).await
        }
        [name, "experiments"] => {
            allow(head, "GET, HEAD")?;
            overlays::experiments(services, head, name).await
        }
        [name, "tags", tag, "history"] => {
            allow(head, "GET, HEAD")?;
            tags::history(services, head, (name, tag)).await
        }
        [name, "tags", tag] => {
            allow(head, "PUT, DELETE")?;
            tags::put(services, head, body, (name, tag)).await
        }
        [name, "versions", version] => {
            allow(head, "GET, HEAD")?;
            workflows::get(services, head, name, Some(version)).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

async fn overlay_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    (name, rest): (&str, &[&str]),
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        [] if head.method == Method::POST => overlays::propose(services, head, body, name).await,
        [] => {
            allow(head, "GET, HEAD, POST")?;
            overlays::list(services, head, name).await
        }
        [patch] => {
            allow(head, "GET, HEAD")?;
            overlays::show(services, head, (name, patch)).await
        }
        [patch, verb @ ("approve" | "reject")] => {
            allow(head, "POST")?;
            overlays::decide(services, head, body, (name, patch, *verb == "approve")).await
        }
        [patch, "revoke"] => {
            allow(head, "POST")?;
            overlays::revoke(services, head, body, (name, patch)).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

pub(super) async fn compat_route(
    services: &Services,
    head: &Parts,
    body: Incoming,
    rest: &[&str],
) -> Result<Response<Body>, Box<Problem>> {
    match rest {
        ["execute"] => {
            allow(head, "POST")?;
            compat::execute(services, head, body).await
        }
        [id] => {
            allow(head, "GET, HEAD")?;
            compat::get(services, head, id).await
        }
        [id, verb @ ("pause" | "resume")] => {
            allow(head, "POST")?;
            compat::steer(services, head, body, (id, verb)).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}
