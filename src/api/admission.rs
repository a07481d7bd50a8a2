//! Who asks, and may they: judged before any route is looked at. And the one way from an id in a path to a run.
//!
//! The URL of a callback is a token of its own, and so is the signature of a message to a hook. Without a tokens file everybody is [`Caller::ANYONE`]. With one, each route but those in [`PUBLIC`] takes a token: GET the
//! role `read`, everything else `write`; `/metrics` and `/v1/admin`, which are about all workspaces, take `admin`. What is in
//! another workspace does not exist for a caller: it is answered 404, like what there is not.

use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderName};
use http::request::Parts;

use super::services::{Services, no_run};
use super::{hooks, request};
use crate::auth::{Caller, Role};
use crate::model::{RunId, Workspace, run_key};
use crate::wire::problem::Problem;

/// Served to anybody: probes and the version.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/healthz", "/version"];
const WORKSPACE: HeaderName = HeaderName::from_static("aob-workspace");

type Refused = Box<Problem>;

/// Whoever holds a lease's URL may answer for its attempt: the lease is sealed, and proves that this node gave it out.
const CALLBACKS: &str = "/v1/callbacks/";

/// Lets a request in, and notes on it who sent it; 401 or 403 otherwise.
pub(super) fn admit(services: &Services, head: &mut Parts) -> Result<(), Refused> {
    if super::reviews::admit(services, head)? {
        return Ok(());
    }
    let path = head.uri.path();
    if is_probe(path) || path.starts_with(CALLBACKS) || hooks::is_delivery(&head.method, path) {
        return Ok(());
    }
    let known = match &services.door.tokens {
        Some(tokens) => {
            let unknown = || {
                Problem::new(401, "unauthenticated", "this token is not known here; it may have been revoked")
            };
            let caller = tokens.find(bearer(head)?).ok_or_else(unknown)?;
            if let Err(refused) = role(&caller, needed(&head.method, path), head) {
                // Who it was is recorded.
                head.extensions.insert(caller);
                return Err(refused);
            }
            Some(caller)
        }
        None => None,
    };
    let chosen = match chosen(head, known.as_deref().unwrap_or(&Caller::ANYONE)) {
        Ok(chosen) => chosen,
        Err(refused) => {
            known.map(|caller| head.extensions.insert(caller));
            return Err(refused);
        }
    };
    match (known, chosen) {
        (None, None) => {}
        (Some(caller), None) => drop(head.extensions.insert(caller)),
        (known, Some(workspace)) => {
            let caller = Caller { workspace, ..known.map_or(Caller::ANYONE, Arc::unwrap_or_clone) };
            head.extensions.insert(Arc::new(caller));
        }
    }
    Ok(())
}

/// Is it served to anybody?
pub(super) fn is_probe(path: &str) -> bool {
    PUBLIC.contains(&path)
}

/// Whoever sent an admitted request.
pub(super) fn caller(head: &Parts) -> &Caller {
    static ANYONE: Caller = Caller::ANYONE;
    head.extensions.get::<Arc<Caller>>().map_or(&ANYONE, |caller| caller)
}

/// Whoever sent a request, admitted or not, when that is known.
pub(super) fn known<'a>(services: &Services, head: &'a Parts) -> Option<&'a Caller> {
    let found = head.extensions.get::<Arc<Caller>>().map(|caller| &**caller);
    found.or_else(|| services.door.tokens.is_none().then(|| caller(head)))
}

/// The same by name, for the record.
pub(super) fn who(head: &Parts) -> &str {
    caller(head).token.as_deref().unwrap_or("anyone")
}

/// The workspace that an admitted request is about.
pub(super) fn workspace(head: &Parts) -> &Workspace {
    &caller(head).workspace
}

/// The role that a request takes.
fn needed(method: &Method, path: &str) -> Role {
    let administers = path == "/v1/audit"
        || path.starts_with("/v1/audit/")
        || path == "/metrics"
        || path == "/v1/admin"
        || path.starts_with("/v1/admin/");
    match *method {
        _ if administers => Role::Admin,
        Method::GET | Method::HEAD => Role::Read,
        _ => Role::Write,
    }
}

fn role(caller: &Caller, needed: Role, head: &Parts) -> Result<(), Refused> {
    if caller.role >= needed {
        return Ok(());
    }
    let what: String = format!("{} {}", head.method, head.uri.path()).chars().take(256).collect();
    let (name, own) = (caller.token.as_deref().unwrap_or_default(), caller.role.as_str());
    let detail = format!("{what} takes the role {}; token {name:?} has {own}", needed.as_str());
    Err(Problem::new(403, "forbidden", detail))
}

/// The token of `Authorization: Bearer`.
fn bearer(head: &Parts) -> Result<&[u8], Refused> {
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let token = values.next().and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    });
    token.filter(|_| values.next().is_none()).ok_or_else(|| {
        Problem::new(401, "unauthenticated", "one header `Authorization: Bearer aob_...` is needed here")
    })
}

/// The workspace that the request names, when that is not the caller's own.
fn chosen(head: &Parts, caller: &Caller) -> Result<Option<Workspace>, Refused> {
    let Some(value) = head.headers.get(WORKSPACE) else { return Ok(None) };
    let shown = String::from_utf8_lossy(value.as_bytes());
    let workspace: Workspace =
        shown.parse().map_err(|error| Problem::new(422, "invalid_name", format!("the workspace {error}")))?;
    if workspace == caller.workspace {
        return Ok(None);
    }
    if caller.role < Role::Admin {
        let detail = format!("another workspace ({shown}) than the token's own takes the role admin");
        return Err(Problem::new(403, "forbidden", detail));
    }
    Ok(Some(workspace))
}

/// The run that a path names, when it is the caller's: every route with a run's id gets it here. An execution id is the
/// business key of a run, and is looked up.
pub(super) async fn run(services: &Services, head: &Parts, id: &str) -> Result<RunId, Refused> {
    if let Some(claim) = run_key::execution_claim(workspace(head), id) {
        let found = services.keyed(workspace(head), (id, &claim)).await?;
        return found
            .ok_or_else(|| Problem::new(404, "run_not_found", format!("there is no execution {id}")));
    }
    let run_id = request::run_id(id)?;
    if services.workspace_of(run_id).await? == *workspace(head) { Ok(run_id) } else { Err(no_run(run_id)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_written_and_administered_takes_its_role() {
        for (method, path, role) in [
            (Method::GET, "/v1/runs", Role::Read),
            (Method::HEAD, "/v1/runs/x", Role::Read),
            (Method::POST, "/v1/runs", Role::Write),
            (Method::DELETE, "/v1/workflows/w/tags/t", Role::Write),
            (Method::GET, "/metrics", Role::Admin),
            (Method::GET, "/v1/admin/tokens", Role::Admin),
            (Method::GET, "/v1/administer", Role::Read),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn a_token_comes_in_one_header_of_one_scheme() {
        let head = |values: &[&str]| {
            let mut request = http::Request::new(());
            for value in values {
                request.headers_mut().append(header::AUTHORIZATION, value.parse().unwrap());
            }
            request.into_parts().0
        };
        assert_eq!(bearer(&head(&["bEARER  aob_1 "])).unwrap(), b"aob_1");
        for refused in [&[][..], &["Basic aob_1"], &["Bearer"], &["Bearer aob_1", "Bearer aob_1"]] {
            assert_eq!(bearer(&head(refused)).unwrap_err().status, 401, "{refused:?}");
        }
    }
}
