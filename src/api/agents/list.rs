//! Agents, told (F285, F395): the roles of registered workflows, what each is made of, and what its calls of models came to.
//!
//! What must hold: a workspace sees its own. An agent is one role of the version of its workflow that was registered last. What
//! finished runs spent comes from the index (`usage`); what goes on, from this process (`live`), so it is empty after a restart.
//! Nothing is decided here. A page looks through [`limits::AGENTS_WORKFLOWS_SCANNED_MAX`] workflows at most and may be short
//! for it; its cursor leads on.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value as Json;

use crate::api::catalog::{self, Catalog};
use crate::api::cost::Sums;
use crate::api::ports::Registration;
use crate::api::respond::{Body, json, with};
use crate::api::services::{Services, blocking};
use crate::api::{admission, request, workflows};
use crate::exec::Models;
use crate::exec::models::{Doing, Failed};
use crate::limits;
use crate::model::Workspace;
use crate::model::money::Usd;
use crate::model::usage::{DayUsage, Part};
use crate::model::workspace::shown;
use crate::time::{Clock as _, Timestamp};
use crate::wire::Shown;
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

const DAY_SECONDS: u64 = 86_400;
/// Days of usage that are told, today included.
const DAYS: u32 = 30;

/// A role as its document has it.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub(super) struct Role {
    workflow: Arc<str>,
    version: Arc<str>,
    role: Arc<str>,
    description: Json,
    /// Names of models, the best first.
    models: Vec<Arc<str>>,
    /// What its agents may use, as the document lists it; of HTTP tools their names.
    tools: Vec<Json>,
    limits: Limits,
}

/// What the document says; null: nothing, so the default holds.
#[derive(Clone, Debug, Serialize, PartialEq)]
struct Limits {
    max_turns: Json,
    max_output_tokens: Json,
    temperature: Json,
    capture: Json,
    /// Of the whole run.
    budget: Json,
}

/// What is going on, as far as this process has seen.
#[derive(Serialize)]
struct Live {
    under_way: u64,
    calls: u64,
    answers: u64,
    failures: u64,
    usd: Usd,
    tokens: u64,
    /// Of the last answer: how much of its context the agent fills.
    context_tokens: u64,
    last_model: Option<Arc<str>>,
    last_called_at: Option<Shown<Timestamp>>,
    last_failure: Option<FailedShown>,
}

#[derive(Serialize)]
struct FailedShown {
    at: Shown<Timestamp>,
    model: Arc<str>,
    code: Arc<str>,
    message: Arc<str>,
}

/// A model of its ladder.
#[derive(Serialize)]
struct Rung {
    name: Arc<str>,
    /// The node's configuration has it.
    known: bool,
    provider: Option<Arc<str>>,
    context_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    priced: Option<bool>,
    /// `closed`, `half_open` or `open`: whether it is called at the moment.
    breaker: Option<&'static str>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    role: Role,
    live: Live,
}

#[derive(Serialize)]
struct Page {
    agents: Vec<Row>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Full {
    #[serde(flatten)]
    role: Role,
    system: Json,
    ladder: Vec<Rung>,
    live: Live,
    usage: Usage,
}

/// Of runs that ended on the last days.
#[derive(Serialize)]
struct Usage {
    days: u32,
    /// There are more sums than are looked at.
    cut: bool,
    #[serde(flatten)]
    sums: Sums,
}

/// `/v1/agents`, `/v1/agents/{workflow}/{role}`
pub(in crate::api) async fn route(services: &Services, head: &Parts, rest: &[&str]) -> Answer {
    match rest {
        [] => {
            crate::api::allow(head, "GET, HEAD")?;
            list(services, head).await
        }
        [name, role] => {
            crate::api::allow(head, "GET, HEAD")?;
            show(services, head, (name, role)).await
        }
        _ => Err(crate::api::no_route(head.uri.path())),
    }
}

async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [workflow, limit, cursor] = request::parameters(head, ["workflow", "limit", "cursor"])?;
    let limit = request::page_limit(limit.as_deref())?;
    let after = match cursor.as_deref().map(|cursor| cursor.split_once('/')) {
        None => None,
        Some(Some((name, role))) => Some((String::from(name), String::from(role))),
        Some(None) => {
            return Err(Problem::new(400, "invalid_cursor", "a cursor of this listing is workflow/role"));
        }
    };
    let (catalog, workspace) = (services.catalog.clone(), admission::workspace(head).clone());
    let looking = Looking { workspace: workspace.clone(), workflow, limit };
    let (roles, next_cursor) = blocking(move || looking.page(&catalog, after)).await??;
    let models = &services.executors.models;
    let row = |role: Role| Row { live: live(models, &workspace, &role), role };
    let page = Page { agents: roles.into_iter().map(row).collect(), next_cursor };
    // A role may be called anything.
    let next = page.next_cursor.as_deref().map(crate::api::runs::percent_encoded);
    let response = json(StatusCode::OK, &page);
    Ok(match next {
        Some(next) => {
            with(response, header::LINK, format!("</v1/agents?cursor={next}&limit={limit}>; rel=\"next\""))
        }
        None => response,
    })
}

/// What a page of roles is made of.
struct Looking {
    workspace: Workspace,
    /// Only of this one.
    workflow: Option<String>,
    limit: usize,
}

impl Looking {
    /// The roles behind a workflow and a role, by name, and where the next page begins.
    fn page(
        &self,
        catalog: &Catalog,
        after: Option<(String, String)>,
    ) -> Result<(Vec<Role>, Option<String>), catalog::Error> {
        let mut roles: Vec<Role> = Vec::new();
        let mut behind = after;
        for _ in 0..limits::AGENTS_WORKFLOWS_SCANNED_MAX {
            let Some(registration) = self.next(catalog, behind.as_ref())? else { return Ok((roles, None)) };
            let name = shown(&registration.name).to_owned();
            let done = behind.as_ref().filter(|(seen, role)| *seen == name && !role.is_empty());
            let done = done.map(|(_, role)| role.clone());
            for role in roles_of(&registration) {
                if done.as_deref().is_some_and(|done| *role.role <= *done) {
                    continue;
                }
                if roles.len() >= self.limit {
                    let next = roles.last().map(|last| format!("{}/{}", last.workflow, last.role));
                    return Ok((roles, next));
                }
                roles.push(role);
            }
            behind = Some((name, String::new()));
        }
        Ok((roles, behind.map(|(name, _)| format!("{name}/"))))
    }

    /// The newest version of the next workflow: of the one that is named when a role of it was told last, else of that behind it.
    fn next(
        &self,
        catalog: &Catalog,
        behind: Option<&(String, String)>,
    ) -> Result<Option<Registration>, catalog::Error> {
        let newest = |name: &str| match self.workspace.qualified(name) {
            Some(inside) => catalog.newest(&inside),
            None => Ok(None),
        };
        match (&self.workflow, behind) {
            (Some(_), Some((_, role))) if role.is_empty() => Ok(None),
            (Some(name), _) => newest(name),
            (None, Some((name, role))) if !role.is_empty() => match newest(name)? {
                Some(found) => Ok(Some(found)),
                None => self.beyond(catalog, name),
            },
            (None, Some((name, _))) => self.beyond(catalog, name),
            (None, None) => self.beyond(catalog, ""),
        }
    }

    fn beyond(&self, catalog: &Catalog, name: &str) -> Result<Option<Registration>, catalog::Error> {
        // Behind all versions of this name: no version goes beyond that.
        let after = (!name.is_empty()).then_some((name, "\u{7f}"));
        let found = workflows::own(catalog, &self.workspace, after, 1)?;
        match found.first() {
            Some(found) => catalog.newest(&found.name),
            None => Ok(None),
        }
    }
}

/// The roles of a document, by name.
fn roles_of(registration: &Registration) -> Vec<Role> {
    let document: Json = serde_json::from_slice(&registration.canonical).unwrap_or_default();
    let Some(agents) = document.get("agents").and_then(Json::as_object) else { return Vec::new() };
    let member = |value: &Json, key: &str| value.get(key).cloned().unwrap_or_default();
    let budget = document.pointer("/limits/budget").cloned().unwrap_or_default();
    let role = |(name, settings): (&String, &Json)| {
        let models = [settings.get("model"), settings.get("fallback")].into_iter().flatten();
        let models = models.flat_map(|models| match models {
            Json::Array(models) => models.iter().filter_map(Json::as_str).map(Arc::from).collect(),
            one => one.as_str().map(Arc::from).into_iter().collect::<Vec<_>>(),
        });
        let tools = settings.get("tools").and_then(Json::as_array).into_iter().flatten();
        Role {
            workflow: shown(&registration.name).into(),
            version: registration.version.as_str().into(),
            role: name.as_str().into(),
            description: member(settings, "description"),
            models: models.collect(),
            tools: tools.map(|tool| tool.get("name").unwrap_or(tool).clone()).collect(),
            limits: Limits {
                max_turns: member(settings, "max_turns"),
                max_output_tokens: member(settings, "max_output_tokens"),
                temperature: member(settings, "temperature"),
                capture: member(settings, "capture"),
                budget: budget.clone(),
            },
        }
    };
    let roles = agents.iter().filter(|(name, settings)| !name.starts_with("x-") && settings.is_object());
    let mut roles: Vec<Role> = roles.map(role).collect();
    roles.sort_by(|one, other| one.role.cmp(&other.role));
    roles
}

async fn show(services: &Services, head: &Parts, (name, role): (&str, &str)) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let missing = || {
        let short = |text: &str| text.chars().take(64).collect::<String>();
        let detail = format!("there is no agent {:?} of a workflow {:?}", short(role), short(name));
        Problem::new(404, "agent_not_found", detail)
    };
    let wanted = request::percent_decoded(role, false).ok_or_else(missing)?.into_owned();
    let name = request::percent_decoded(name, false).ok_or_else(missing)?;
    let workspace = admission::workspace(head).clone();
    let inside = workspace.qualified(&name).ok_or_else(missing)?.into_owned();
    let today = u32::try_from(services.clock.now().as_micros() / 1_000_000 / DAY_SECONDS).unwrap_or(u32::MAX);
    let (catalog, runs, owner) = (services.catalog.clone(), services.runs.clone(), workspace.clone());
    let wanted_inside = inside.clone();
    let found = blocking(move || -> Result<_, Box<Problem>> {
        let Some(registration) = catalog.newest(&wanted_inside)? else { return Ok(None) };
        let Some(role) = roles_of(&registration).into_iter().find(|role| *role.role == *wanted) else {
            return Ok(None);
        };
        let document: Json = serde_json::from_slice(&registration.canonical).unwrap_or_default();
        let settings = document.get("agents").and_then(|agents| agents.get(&wanted));
        let system = settings.and_then(|settings| settings.get("system")).cloned().unwrap_or_default();
        let days = (today.saturating_sub(DAYS - 1), today);
        let rows = runs.usage(&owner, days, limits::USAGE_ROWS_MAX + 1)?;
        Ok(Some((role, system, used(&rows, &wanted_inside, &wanted))))
    })
    .await??;
    let (role, system, usage) = found.ok_or_else(missing)?;
    let models = &services.executors.models;
    let (ladder, live) = (ladder(models, &role), live(models, &workspace, &role));
    Ok(json(StatusCode::OK, &Full { role, system, ladder, live, usage }))
}

fn used(rows: &[DayUsage], workflow: &str, role: &str) -> Usage {
    let mut sum = Part::default();
    let own = |row: &&DayUsage| *row.workflow == *workflow && *row.role == *role;
    rows.iter().take(limits::USAGE_ROWS_MAX).filter(own).for_each(|row| sum.add(&row.part));
    Usage { days: DAYS, cut: rows.len() > limits::USAGE_ROWS_MAX, sums: (&sum).into() }
}

/// Its models; without any of its own, the node's default.
fn ladder(models: &Models, role: &Role) -> Vec<Rung> {
    let default = models.default_model().filter(|_| role.models.is_empty());
    let rung = |name: &Arc<str>| {
        let known = models.known(name);
        Rung {
            name: name.clone(),
            known: known.is_some(),
            provider: known.as_ref().map(|known| known.provider.clone()),
            context_tokens: known.as_ref().map(|known| known.context_tokens),
            max_output_tokens: known.as_ref().map(|known| known.max_output_tokens),
            priced: known.as_ref().map(|known| known.price.is_some()),
            breaker: known.as_ref().map(|known| known.breaker.as_str()),
        }
    };
    role.models.iter().chain(default).map(rung).collect()
}

fn live(models: &Models, workspace: &Workspace, role: &Role) -> Live {
    let inside = workspace.inside(&role.workflow);
    let doing = models.doing(&inside, &role.role).unwrap_or_default();
    let Doing { under_way, calls, answers, failures, usd, tokens, context_tokens, .. } = doing;
    let shown = |Failed { at, model, code, message }| FailedShown { at: Shown(at), model, code, message };
    Live {
        under_way,
        calls,
        answers,
        failures,
        usd,
        tokens,
        context_tokens,
        last_model: doing.called_at.map(|_| doing.model),
        last_called_at: doing.called_at.map(Shown),
        last_failure: doing.last_failure.map(shown),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registered(document: &Json) -> Registration {
        Registration {
            name: "acme/w".into(),
            version: "2".into(),
            hash: [0; 32],
            canonical: document.to_string().into_bytes(),
        }
    }

    // F285
    #[test]
    fn a_role_is_told_with_its_ladder_its_tools_and_its_limits() {
        let http = json!({"name": "look", "url": "https://x", "headers": {"k": "${secret:K}"}});
        let roles = roles_of(&registered(&json!({
            "limits": {"budget": {"usd": "1.00"}},
            "agents": {
                "z": {"model": "big", "fallback": "small", "tools": ["patch", http], "max_turns": 3},
                "a": {"description": "d"},
                "x-note": "no role",
            },
        })));
        assert_eq!(roles.iter().map(|role| &*role.role).collect::<Vec<_>>(), ["a", "z"]);
        let told = serde_json::to_value(&roles[1]).unwrap();
        assert_eq!((&told["workflow"], &told["version"]), (&json!("w"), &json!("2")));
        assert_eq!(told["models"], json!(["big", "small"]));
        assert_eq!(told["tools"], json!(["patch", "look"]), "no headers");
        assert_eq!(told["limits"]["max_turns"], 3);
        assert_eq!(told["limits"]["budget"]["usd"], "1.00");
        assert_eq!(roles[0].models, [] as [Arc<str>; 0]);
        assert_eq!(roles_of(&registered(&json!({"nodes": {}}))), []);
    }

    // F395
    #[test]
    fn only_what_this_role_of_this_workflow_spent_is_summed() {
        let row = |workflow: &str, role: &str, nanos| DayUsage {
            day: 1,
            workflow: workflow.into(),
            role: role.into(),
            model: "m".into(),
            runs: 1,
            part: Part { usd: Usd::from_nanos(nanos), answers: 1, ..Part::default() },
        };
        let rows = [row("a/w", "r", 1), row("a/w", "s", 2), row("a/v", "r", 4), row("a/w", "r", 8)];
        let told = serde_json::to_value(used(&rows, "a/w", "r")).unwrap();
        assert_eq!(
            (&told["usd"], &told["answers"], &told["cut"]),
            (&json!("0.000000009"), &json!(2), &json!(false))
        );
    }
}
