//! Who makes a call: found by the agent's list, guarded, counted. Runs on the tools' thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::guard::{Bounds, Guard};
use super::mcp::{Context, Listed, McpServer};
use super::{Asked, CallName, Counts, Outside, Settings, Specs, arguments, http, invalid, result};
use crate::exec::connect::{Connector, Lookup};
use crate::exec::secret::Redactor;
use crate::exec::{Call, Http, Reach, idempotency_key, request, traceparent};
use crate::io::trust;
use crate::limits;
use crate::model::agent::Returned;
use crate::model::tools::{Entry, HttpTool, read, shown_name};
use crate::model::{Class, Failure, Map, Value};
use crate::time::{Clock as _, SystemClock};

/// Everything the thread has.
pub(super) struct Work {
    servers: BTreeMap<Arc<str>, Rc<McpServer>>,
    http: Http,
    http_bounds: Bounds,
    /// Of hosts of HTTP tools.
    hosts: RefCell<BTreeMap<String, Rc<Guard>>>,
    counts: Arc<Counts>,
}

/// What a call is known by where it goes.
pub(super) struct Marks {
    /// The same for every try of this call, and no other's.
    pub(super) key: String,
    pub(super) traceparent: String,
}

impl Marks {
    fn of(name: &CallName, id: &str) -> Self {
        let mut hash = Sha256::new().chain_update(b"aob tool\0");
        hash.update(idempotency_key(name.run_id, &name.place));
        hash.update(name.turn.to_be_bytes());
        hash.update(id);
        let hash = hash.finalize();
        let bytes = hash.iter().take(16);
        let key = bytes.map(|byte| format!("{byte:02x}")).collect();
        Self { key, traceparent: traceparent(name.run_id, name.seq) }
    }
}

impl Work {
    pub(super) fn new(
        settings: Settings,
        outside: Outside,
        counts: Arc<Counts>,
        lookup: Lookup,
    ) -> Result<Rc<Self>, String> {
        let Outside { reach, secrets, http } = outside;
        let tls =
            trust::client_config(reach.ca_file.as_deref()).map_err(|why| format!("http.ca_file {why}"))?;
        let context = Rc::new(Context {
            connector: Rc::new(Connector::new(Reach::new(&reach), tls, lookup)),
            secrets,
            launcher: settings.launcher,
        });
        let server = |(name, server)| {
            let made = McpServer::new(Arc::clone(&name), server, context.clone());
            (name, Rc::new(made))
        };
        Ok(Rc::new(Self {
            servers: settings.servers.into_iter().map(server).collect(),
            http,
            http_bounds: Bounds {
                calls_per_minute: settings.http_calls_per_minute,
                max_in_flight: reach.calls_per_host_max,
            },
            hosts: RefCell::default(),
            counts,
        }))
    }

    fn server(&self, name: &str) -> Result<&Rc<McpServer>, Failure> {
        self.servers.get(name).ok_or_else(|| {
            let message = format!("the node has no tool server {name} (mcp.servers.{name})");
            Failure::fatal("tool_unavailable", message)
        })
    }

    /// What the servers of these entries have.
    pub(super) async fn offered(&self, entries: &[Entry]) -> Specs {
        let mut specs = Vec::new();
        for entry in entries {
            let Entry::Mcp { server, tool } = entry else { continue };
            let all = self.server(server)?.list(false).await?;
            match tool {
                None => specs.extend(all.iter().map(|listed| listed.spec.clone())),
                Some(tool) => specs.push(found(&all, server, &entry.name(), tool)?.spec.clone()),
            }
        }
        Ok(specs)
    }

    /// Makes one call.
    pub(super) async fn call(&self, asked: &Asked) -> Returned {
        let began_us = SystemClock.monotonic_us();
        let outcome = self.perform(asked).await;
        let took_us = SystemClock.monotonic_us().saturating_sub(began_us);
        self.counts.ended(&asked.call.name, &outcome, took_us);
        let (id, name) = (asked.call.id.clone(), asked.call.name.clone());
        Returned { id, name, outcome, took_ms: took_us / 1_000 }
    }

    async fn perform(&self, asked: &Asked) -> Result<Value, Failure> {
        let entries = read(&asked.allowed).map_err(|wrong| invalid(&wrong))?;
        let name = &*asked.call.name;
        for entry in &entries {
            match entry {
                Entry::Http(tool) if &*tool.spec.name == name => return self.call_http(asked, tool).await,
                Entry::Mcp { server, tool: Some(tool) } if &*shown_name(server, tool) == name => {
                    let all = self.server(server)?.list(true).await?;
                    return self.call_mcp(asked, server, found(&all, server, name, tool)?).await;
                }
                Entry::Mcp { server, tool: None } if is_of(server, name) => {
                    let all = self.server(server)?.list(true).await?;
                    return self.call_mcp(asked, server, found(&all, server, name, name)?).await;
                }
                Entry::Patch | Entry::Workflow { .. } if &*entry.name() == name => {
                    let message = format!("{name} is performed by the agent's run, not here");
                    return Err(Failure::fatal("tool_not_allowed", message));
                }
                _ => {}
            }
        }
        let message = format!("{name:.80?} is not one of this agent's tools");
        Err(Failure::fatal("tool_not_allowed", message))
    }

    async fn call_mcp(&self, asked: &Asked, server: &str, tool: &Listed) -> Result<Value, Failure> {
        let arguments = arguments::check(&asked.call.arguments, &tool.spec.parameters)?;
        again(asked, tool.repeatable)?;
        let marks = Marks::of(&asked.name, &asked.call.id);
        self.server(server)?.call(tool, arguments, &marks).await
    }

    async fn call_http(&self, asked: &Asked, tool: &HttpTool) -> Result<Value, Failure> {
        let arguments = arguments::check(&asked.call.arguments, &tool.spec.parameters)?;
        again(asked, tool.idempotent)?;
        let request = self.http_request(asked, tool, &arguments)?;
        let url = request.get("url").and_then(Value::as_str).unwrap_or_default();
        let target = request::parse(url).and_then(|url| request::target(&url));
        let target = target.map_err(|failure| Failure { code: "tools_invalid".into(), ..failure })?;
        let guard = self.host(&format!("{}:{}", target.host, target.port));
        let CallName { run_id, place, path, seq, attempt, epoch, workflow, .. } = asked.name.clone();
        // Tools have breakers of their own.
        let (lost, due, unguarded) = (false, None, true);
        let call = Call { run_id, place, path, seq, attempt, epoch, lost, workflow, request, due, unguarded };
        let timeout = tool.timeout.unwrap_or(Duration::from_secs(limits::TOOL_SECONDS_DEFAULT));
        let answer = guard
            .call(timeout, true, || async {
                self.http.call(call).await.map_err(|failure| as_tools(failure, tool))
            })
            .await?;
        let shown = ["status", "body"].map(|key| (key, answer.get(key).cloned().unwrap_or_default()));
        // The door took the secrets out.
        result::fit(Value::map(shown), &Redactor::default())
    }

    /// A call that may be made again carries a key; one that may not says that it carries none.
    fn http_request(&self, asked: &Asked, tool: &HttpTool, arguments: &Map) -> Result<Value, Failure> {
        let marks = Marks::of(&asked.name, &asked.call.id);
        let request = http::request(tool, arguments, tool.idempotent.then_some(&*marks.key))?;
        if tool.idempotent {
            return Ok(request);
        }
        let Value::Map(map) = &request else { return Ok(request) };
        let mut map = (**map).clone();
        let mut headers = match map.get("headers") {
            Some(Value::Map(headers)) => (**headers).clone(),
            _ => Map::default(),
        };
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("idempotency-key")) {
            headers.insert("idempotency-key".into(), Value::Null);
        }
        map.insert("headers".into(), Value::Map(headers.into()));
        Ok(Value::Map(map.into()))
    }

    fn host(&self, name: &str) -> Rc<Guard> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(guard) = hosts.get(name) {
            return guard.clone();
        }
        if hosts.len() >= limits::TOOL_HOSTS_MAX {
            hosts.retain(|_, guard| Rc::strong_count(guard) > 1 || !guard.is_idle());
        }
        if hosts.len() >= limits::TOOL_HOSTS_MAX {
            hosts.pop_first();
        }
        let guard = Rc::new(Guard::new(name.to_owned(), self.http_bounds));
        hosts.insert(name.to_owned(), guard.clone());
        guard
    }
}

/// Was a tool of this server meant?
fn is_of(server: &str, name: &str) -> bool {
    name.strip_prefix(server).is_some_and(|rest| rest.starts_with("__"))
}

fn found<'l>(all: &'l [Listed], server: &str, name: &str, tool: &str) -> Result<&'l Listed, Failure> {
    all.iter().find(|listed| &*listed.spec.name == name).ok_or_else(|| {
        let message = format!("the tool server {server} has no tool {tool:.80?}");
        Failure::transient("tool_unavailable", message)
    })
}

/// A call that was under way when a node went down is made again only when that is safe.
fn again(asked: &Asked, repeatable: bool) -> Result<(), Failure> {
    if !asked.name.lost || repeatable {
        return Ok(());
    }
    let message = format!(
        "the node went down while {} was called; its effect is unknown, and nothing says that it may be called again",
        asked.call.name
    );
    Err(Failure::fatal("outcome_unknown", message))
}

/// How the call of an HTTP tool failed, in the words for tools.
fn as_tools(failure: Failure, tool: &HttpTool) -> Failure {
    let cause = failure.code.clone();
    let mut details = vec![("cause", Value::String(cause.clone()))];
    let wait = failure.details.get("retry_after_ms").cloned();
    details.extend(wait.map(|wait| ("retry_after_ms", wait)));
    if let Some(answer) = failure.details.get("answer") {
        let shown = ["status", "body"].map(|key| (key, answer.get(key).cloned().unwrap_or_default()));
        let shown = result::fit(Value::map(shown), &Redactor::default());
        details.extend(shown.ok().map(|shown| ("answer", shown)));
    }
    let unavailable =
        matches!(&*cause, "connection_refused" | "connection_lost" | "name_not_found" | "tls_failed");
    let message = format!("{}: {}", tool.spec.name, failure.message);
    let status = failure.details.get("answer").and_then(|answer| answer.get("status")).cloned();
    let class = failure.class;
    let failed = match (&*cause, status) {
        ("outcome_unknown" | "executor_stopped" | "secret_not_found", _) => return failure,
        ("answer_too_large", _) => Failure::fatal("tool_result_too_large", message),
        ("rate_limit", _) => {
            Failure { class: Class::Recoverable, ..Failure::fatal("tool_rate_limited", message) }
        }
        (_, Some(Value::Int(500..))) => Failure { class, ..Failure::fatal("tool_unavailable", message) },
        _ if unavailable => Failure { class, ..Failure::fatal("tool_unavailable", message) },
        _ => Failure { class, ..Failure::fatal("tool_failed", message) },
    };
    Failure { details: Value::map(details), ..failed }
}
