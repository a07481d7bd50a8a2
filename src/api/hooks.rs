//! Hooks: runs started by signed messages from outside (Standard Webhooks), and how hooks are made and looked after.
//!
//! A hook's id is 128 random bits and its workspace, so that it is found without a token; what proves a message is its
//! signature. Its `webhook-id` names the start: the same message again is answered with the same run. A secret is shown when it is
//! made and never again; it is kept sealed. Over its rate a hook answers 429, and whoever sends tries again.

mod deliver;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::request::Incoming;
use super::respond::{Body, json as respond};
use super::schedules::{check_name, nothing};
use super::services::Services;
use super::{admission, allow, body, no_route, request, start, triggers};
use crate::compile::parse_duration;
use crate::exec::standard_webhooks::{SECRET_BYTES, Secret};
use crate::expr::{Program, Reference};
use crate::limits;
use crate::model::Workspace;
use crate::store::triggers::{Change, Table};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::{Problem, Wrong};

type Refused = Box<Problem>;
type Answer = Result<http::Response<Body>, Refused>;

/// Hexadecimal digits of an id.
const DIGITS: usize = 32;

/// One hook, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hook {
    id: Arc<str>,
    name: Arc<str>,
    /// Name, name@version or name@tag.
    workflow: Arc<str>,
    /// Makes inputs of a message.
    mapping: Option<Arc<str>>,
    created_at: Timestamp,
    /// Sealed; the one in force.
    secret: Vec<u8>,
    /// Sealed; the one before, and until when it is good.
    previous: Option<(Vec<u8>, Timestamp)>,
}

/// Is this a message to a hook? It takes no token.
pub(super) fn is_delivery(method: &Method, path: &str) -> bool {
    let id = path.strip_prefix("/v1/hooks/");
    *method == Method::POST && id.is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

/// What is served below `/v1/hooks`.
pub(super) async fn route(services: &Services, head: &Parts, incoming: Incoming, rest: &[&str]) -> Answer {
    match rest {
        [] => {
            allow(head, "GET, HEAD, POST")?;
            if head.method == Method::POST {
                return create(services, head, incoming).await;
            }
            list(services, head).await
        }
        [id] => {
            allow(head, "GET, HEAD, POST, DELETE")?;
            match head.method {
                Method::POST => deliver::deliver(services, head, incoming, id).await,
                Method::DELETE => remove(services, head, id).await,
                _ => Ok(respond(StatusCode::OK, &show(&own(services, head, id).await?))),
            }
        }
        [id, "rotate"] => {
            allow(head, "POST")?;
            rotate(services, head, incoming, id).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

fn no_hook(id: &str) -> Refused {
    let id: String = id.chars().take(96).collect();
    Problem::new(404, "hook_not_found", format!("there is no hook {id:?}"))
}

/// `hook_`, 32 digits, and `_` and the workspace when that is not `default`.
fn new_id(random: &[u8; 32], workspace: &Workspace) -> String {
    let digits: String = random.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    match workspace {
        workspace if *workspace == Workspace::DEFAULT => format!("hook_{digits}"),
        other => format!("hook_{digits}_{}", other.name()),
    }
}

/// The workspace of an id, when it is one.
fn workspace_of(id: &str) -> Option<Workspace> {
    let (digits, rest) = id.strip_prefix("hook_")?.split_at_checked(DIGITS)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match rest.strip_prefix('_') {
        Some(name) if plain => name.parse().ok().filter(|workspace| *workspace != Workspace::DEFAULT),
        None if plain && rest.is_empty() => Some(Workspace::DEFAULT),
        _ => None,
    }
}

/// The key of an id that the caller may see.
fn own_key(head: &Parts, id: &str) -> Result<Vec<u8>, Refused> {
    let workspace = workspace_of(id).filter(|workspace| workspace == admission::workspace(head));
    Ok(triggers::key(&workspace.ok_or_else(|| no_hook(id))?, id))
}

async fn own(services: &Services, head: &Parts, id: &str) -> Result<Hook, Refused> {
    let found = triggers::get(&services.triggers, Table::Hooks, own_key(head, id)?).await?;
    found.ok_or_else(|| no_hook(id))
}

fn show(hook: &Hook) -> Json {
    json!({
        "id": hook.id,
        "name": hook.name,
        "workflow": hook.workflow,
        "mapping": hook.mapping,
        "url": format!("/v1/hooks/{}", hook.id),
        "created_at": hook.created_at.to_string(),
        "previous_secret_until": hook.previous.as_ref().map(|(_, until)| until.to_string()),
    })
}

/// The same with the secret: the only time that it is shown.
fn show_secret(hook: &Hook, secret: &Secret) -> Json {
    let mut shown = show(hook);
    if let Some(members) = shown.as_object_mut() {
        members.insert("secret".into(), secret.reveal().into());
    }
    shown
}

fn refused_member(member: &str, code: &'static str, detail: String) -> Refused {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(422, code, detail).at(&wrong)
}

/// The mapping, compiled: it knows `input` and nothing else.
fn program(mapping: &str) -> Result<Program, Refused> {
    let wrong = |detail: String| refused_member("mapping", "invalid_mapping", detail);
    let program = Program::compile(mapping).map_err(|error| wrong(error.to_string()))?;
    if program.references().iter().any(|reference| *reference != Reference::Input) {
        return Err(wrong("a mapping knows `input`, the message, and nothing else".into()));
    }
    Ok(program)
}

/// The secret that the other side has made, or a new one.
fn secret(services: &Services, text: Option<&str>) -> Result<Secret, Refused> {
    let made = match text {
        Some(text) => text.parse(),
        None => Secret::new(services.draw().get(..SECRET_BYTES).unwrap_or_default()),
    };
    // What was sent stands in no answer.
    made.map_err(|error| refused_member("secret", "invalid_secret", error.to_string()))
}

fn sealed(services: &Services, id: &str, secret: &Secret) -> Result<Vec<u8>, Refused> {
    let nonce = services.draw().first_chunk().copied().unwrap_or_default();
    let sealed = services.triggers.seal(id.as_bytes(), nonce, secret.bytes());
    sealed.ok_or_else(|| Problem::new(500, "internal", "a secret cannot be sealed"))
}

async fn create(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    request::require_json(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let [name, workflow, mapping, given] = body::members(&bytes, ["name", "workflow", "mapping", "secret"])?;
    let missing = |member| Problem::new(400, "invalid_body", format!("{member:?} is missing"));
    let name = body::only_text("name", name)?.ok_or_else(|| missing("name"))?;
    let workflow = body::only_text("workflow", workflow)?.ok_or_else(|| missing("workflow"))?;
    let mapping = body::text("mapping", mapping)?;
    check_name("hook", &name)?;
    if let Some(mapping) = mapping.as_deref() {
        program(mapping)?;
    }
    let workspace = admission::workspace(head).clone();
    let (named, version) = super::schedules::named(&workflow);
    start::find(services, &workspace, named, version).await?;
    let secret = secret(services, body::text("secret", given)?.as_deref())?;
    let id: Arc<str> = new_id(&services.draw(), &workspace).into();
    let sealed = sealed(services, &id, &secret)?;
    let created_at = services.clock.now();
    let hook = Hook { id, name, workflow, mapping, created_at, secret: sealed, previous: None };
    let (shared, row) = (services.triggers.clone(), triggers::encode(&hook));
    let key = triggers::key(&workspace, &hook.id);
    triggers::update(&services.triggers, Table::Hooks, key, move |_| {
        let most = limits::HOOKS_PER_WORKSPACE_MAX;
        if triggers::count(&shared, Table::Hooks, &workspace, most)? >= most {
            let detail = format!("this workspace has {most} hooks; remove one first");
            return Err(Problem::new(422, "limit_exceeded", detail).limit("hooks_per_workspace_max"));
        }
        Ok((Change::Put { row, look_at: None }, ()))
    })
    .await?;
    Ok(respond(StatusCode::CREATED, &show_secret(&hook, &secret)))
}

async fn list(services: &Services, head: &Parts) -> Answer {
    let [limit, cursor] = request::parameters(head, ["limit", "cursor"])?;
    let limit = request::page_limit(limit.as_deref())?;
    let place = (admission::workspace(head), cursor.as_deref().unwrap_or_default());
    let mut rows: Vec<Hook> = triggers::page(&services.triggers, Table::Hooks, place, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| last.id.to_string());
    let shown: Vec<_> = rows.iter().map(show).collect();
    let page = respond(StatusCode::OK, &json!({"hooks": shown, "next_cursor": next}));
    Ok(triggers::linked(page, ("/v1/hooks", limit), next.as_deref()))
}

async fn remove(services: &Services, head: &Parts, id: &str) -> Answer {
    let removed = triggers::update(&services.triggers, Table::Hooks, own_key(head, id)?, |row| {
        Ok((if row.is_some() { Change::Remove } else { Change::Keep }, row.is_some()))
    });
    if removed.await? { Ok(nothing()) } else { Err(no_hook(id)) }
}

/// A new secret; the one before is good for a while, so that nobody has to change both sides in one moment.
async fn rotate(services: &Services, head: &Parts, incoming: Incoming, id: &str) -> Answer {
    let key = own_key(head, id)?;
    let bytes = request::body(head, incoming).await?;
    let [overlap, given] = match &bytes[..] {
        b"" => [None, None],
        bytes => {
            request::require_json(&head.headers)?;
            body::members(bytes, ["overlap", "secret"])?
        }
    };
    let overlap = match body::text("overlap", overlap)? {
        None => Duration::from_secs(limits::HOOK_OVERLAP_SECONDS),
        Some(text) => parse_duration(&text)
            .filter(|overlap| *overlap <= Duration::from_secs(limits::HOOK_OVERLAP_SECONDS_MAX))
            .ok_or_else(|| {
                let (text, most): (String, _) =
                    (text.chars().take(60).collect(), limits::HOOK_OVERLAP_SECONDS_MAX);
                refused_member(
                    "overlap",
                    "invalid_duration",
                    format!("overlap {text:?} is no duration up to {most}s"),
                )
            })?,
    };
    let secret = secret(services, body::text("secret", given)?.as_deref())?;
    let (sealed, until) = (sealed(services, id, &secret)?, services.clock.now().saturating_add(overlap));
    let owned = id.to_owned();
    let hook = triggers::update(&services.triggers, Table::Hooks, key, move |row| {
        let mut hook: Hook = triggers::decode(row.ok_or_else(|| no_hook(&owned))?)?;
        hook.previous = Some((std::mem::replace(&mut hook.secret, sealed), until));
        Ok((Change::Put { row: triggers::encode(&hook), look_at: None }, hook))
    });
    Ok(respond(StatusCode::OK, &show_secret(&hook.await?, &secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_workspace_and_nothing_else_is_one() {
        let acme: Workspace = "acme_1".parse().unwrap();
        for workspace in [Workspace::DEFAULT, acme] {
            assert_eq!(workspace_of(&new_id(&[7; 32], &workspace)), Some(workspace));
        }
        let digits = "0".repeat(DIGITS);
        for wrong in [
            String::new(),
            format!("hook_{digits}0"),
            format!("hook_{digits}_"),
            format!("hook_{digits}_default"),
            format!("hook_{}", digits.replace('0', "G")),
            format!("hook_{digits}_ACME"),
            digits,
        ] {
            assert_eq!(workspace_of(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_message_goes_without_a_token() {
        for (method, path, without) in [
            (Method::POST, "/v1/hooks/hook_1", true),
            (Method::POST, "/v1/hooks", false),
            (Method::POST, "/v1/hooks/", false),
            (Method::POST, "/v1/hooks/hook_1/rotate", false),
            (Method::GET, "/v1/hooks/hook_1", false),
            (Method::DELETE, "/v1/hooks/hook_1", false),
        ] {
            assert_eq!(is_delivery(&method, path), without, "{method} {path}");
        }
    }

    #[test]
    fn a_mapping_knows_the_message_alone() {
        assert!(program("{'n': input.data.count + 1}").is_ok());
        for wrong in ["inputs.x", "nodes.a.output", "input +", "unknown"] {
            assert_eq!(program(wrong).unwrap_err().code, "invalid_mapping", "{wrong}");
        }
    }
}
