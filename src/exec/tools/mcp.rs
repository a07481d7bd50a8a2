//! One tool server that speaks the Model Context Protocol, of both eras: connected to when it is first needed, again with growing
//! pauses when the connection goes, and asked what it has no more often than it says.
//!
//! What must hold: nothing of ours is offered to a server (no sampling, no roots, no questions to people); what it sends is
//! bounded before it is read; a connection that was cut for that is not mistaken for one that broke.

mod answer;
mod stdio;
mod trouble;
mod web;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation,
    PaginatedRequestParams, ProtocolVersion, RequestMetaObject, Tool,
};
use rmcp::service::{
    ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, NotificationContext, RunningService,
    serve_client_with_lifecycle,
};
use rmcp::transport::IntoTransport;
use rmcp::{ClientHandler, RoleClient, ServiceError};
use tokio::sync::Mutex;

use self::trouble::Trouble;
use super::guard::{Bounds, Guard};
use super::work::Marks;
use super::{At, Server, result};
use crate::exec::Secrets;
use crate::exec::connect::Shared;
use crate::exec::secret::Redactor;
use crate::limits;
use crate::model::agent::ToolSpec;
use crate::model::tools::shown_name;
use crate::model::{Failure, Map, Value, Workspace};
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock};

/// What all servers share.
pub(super) struct Context {
    pub(super) connector: Shared,
    pub(super) secrets: Secrets,
    pub(super) launcher: Option<PathBuf>,
}

/// A tool of a server.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// As the server calls it.
    pub(super) tool: Arc<str>,
    pub(super) spec: ToolSpec,
    /// The server says that calling it again does no harm.
    pub(super) repeatable: bool,
}

/// One server.
pub(super) struct McpServer {
    name: Arc<str>,
    server: Server,
    context: Rc<Context>,
    guard: Guard,
    live: Mutex<Live>,
    /// Held while the list is asked for, so that it is asked for once.
    listing: Mutex<Option<List>>,
    known: RefCell<Known>,
}

/// Secrets that were ever sent to it.
#[derive(Default)]
struct Known {
    values: BTreeSet<String>,
    redactor: Rc<Redactor>,
}

#[derive(Default)]
struct Live {
    connection: Option<Rc<Connection>>,
    /// Connections in a row that brought no answer to any call.
    failures: u32,
    not_before_us: u64,
}

struct List {
    tools: Arc<[Listed]>,
    /// As the server says.
    until_us: u64,
    /// For calls.
    usable_us: u64,
}

struct Connection {
    service: RunningService<RoleClient, Quiet>,
    trouble: Arc<Trouble>,
    /// Killed when this goes.
    _child: Option<stdio::Child>,
}

/// A client that has nothing to give: what a server asks of it is refused.
struct Quiet {
    trouble: Arc<Trouble>,
}

impl ClientHandler for Quiet {
    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.trouble.list_changed();
    }

    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("aob", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), own)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }
}

fn now_us() -> u64 {
    SystemClock.monotonic_us()
}

impl McpServer {
    pub(super) fn new(name: Arc<str>, server: Server, context: Rc<Context>) -> Self {
        let bounds =
            Bounds { calls_per_minute: server.calls_per_minute, max_in_flight: server.max_in_flight };
        let guard = Guard::new(format!("the tool server {name}"), bounds);
        let (live, listing, known) = (Mutex::default(), Mutex::default(), RefCell::default());
        Self { name, server, context, guard, live, listing, known }
    }

    fn unreached(&self, why: &str) -> Failure {
        let why = result::words(why, &self.redactor());
        let message = format!("the tool server {} cannot be reached: {why}", self.name);
        Failure::transient("tool_unavailable", message)
    }

    fn redactor(&self) -> Rc<Redactor> {
        self.known.borrow().redactor.clone()
    }

    /// `text` with its secrets, which do not come back from now on.
    fn put(&self, text: &str) -> Result<String, Failure> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${secret:") {
            let Some((name, after)) = after.split_once('}') else { break };
            let value = self.context.secrets.get(Workspace::DEFAULT_NAME, name)?;
            self.know(&value);
            filled.push_str(before);
            filled.push_str(&value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn know(&self, value: &str) {
        let mut known = self.known.borrow_mut();
        if known.values.insert(value.to_owned()) {
            let mut redactor = Redactor::default();
            known.values.iter().for_each(|value| redactor.add(value));
            known.redactor = Rc::new(redactor);
        }
    }

    fn put_all(&self, texts: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, Failure> {
        texts.iter().map(|(name, text)| Ok((name.clone(), self.put(text)?))).collect()
    }

    /// The connection there is, or a new one.
    async fn connected(self: &Rc<Self>) -> Result<Rc<Connection>, Failure> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &live.connection {
            if !connection.service.is_transport_closed() {
                return Ok(connection.clone());
            }
            log::info(Target::Node, format_args!("the tool server {} has ended", self.name));
            live.connection = None;
            live.failed();
        }
        let wait_us = live.not_before_us.saturating_sub(now_us());
        if wait_us > 0 {
            let failure = self.unreached("it went, and rests before it is tried again");
            let details = Value::map([("retry_after_ms", Value::unsigned(wait_us.div_ceil(1_000)))]);
            return Err(Failure { details, ..failure });
        }
        let most = Duration::from_secs(limits::TOOL_SERVER_CONNECT_SECONDS_MAX).min(self.server.timeout);
        let made = tokio::time::timeout(most, self.connect()).await;
        match made.unwrap_or_else(|_| Err(self.unreached(&format!("it has said nothing within {most:?}")))) {
            Ok(connection) => {
                let connection = Rc::new(connection);
                live.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(failure) => {
                live.failed();
                Err(failure)
            }
        }
    }

    async fn connect(self: &Rc<Self>) -> Result<Connection, Failure> {
        let trouble = Arc::<Trouble>::default();
        match &self.server.at {
            At::Command { command, environment, directory } => {
                let environment = self.put_all(environment)?;
                let order = stdio::Order { command, environment, directory: directory.as_deref() };
                let started = stdio::start(&order, self.context.launcher.as_deref());
                let (child, pipes) = started.map_err(|error| self.unreached(&error.to_string()))?;
                stdio::log_errors(pipes.errors, self.name.clone(), self.redactor());
                let transport = (stdio::Watched::new(pipes.output, trouble.clone()), pipes.input);
                self.speak(transport, trouble, Some(child)).await
            }
            At::Url { url, .. } => {
                let transport = web::transport(url, self.clone(), trouble.clone());
                self.speak(transport, trouble, None).await
            }
        }
    }

    /// Finds out which era the server is of.
    async fn speak<T, E, A>(
        &self,
        transport: T,
        trouble: Arc<Trouble>,
        child: Option<stdio::Child>,
    ) -> Result<Connection, Failure>
    where
        T: IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        let quiet = Quiet { trouble: trouble.clone() };
        let service = serve_client_with_lifecycle(quiet, transport, lifecycle).await.map_err(|error| {
            let why = match &error {
                ClientInitializeError::TransportError { error, .. } => trouble::chain(&*error.error),
                other => trouble::chain(other),
            };
            self.unreached(&trouble.why(true).unwrap_or(why))
        })?;
        // Lists are kept here, within our own bounds.
        let mut nothing = ClientCacheConfig::default();
        nothing.enabled = false;
        service.set_response_cache_config(nothing).await;
        Ok(Connection { service, trouble, _child: child })
    }

    /// What it has; kept for as long as it says. A call (`called`) makes do with a list that is a little older: it only looks up
    /// what its model was told of.
    pub(super) async fn list(self: &Rc<Self>, called: bool) -> Result<Arc<[Listed]>, Failure> {
        let mut listing = self.listing.lock().await;
        let connection = self.live.try_lock().ok().and_then(|live| live.connection.clone());
        let changed = connection.is_some_and(|connection| connection.trouble.take_list_changed());
        let until_us = |list: &List| if called { list.usable_us.max(list.until_us) } else { list.until_us };
        if let Some(list) = listing.as_ref().filter(|list| !changed && now_us() < until_us(list)) {
            return Ok(list.tools.clone());
        }
        let list = self.guard.call(self.server.timeout, false, || self.ask_for_list()).await?;
        let tools = list.tools.clone();
        *listing = Some(list);
        Ok(tools)
    }

    async fn ask_for_list(self: &Rc<Self>) -> Result<List, Failure> {
        let connection = self.connected().await?;
        connection.trouble.begin();
        let (mut tools, mut ttl_ms, mut cursor) = (Vec::<Tool>::new(), None::<u64>, None);
        for _ in 0..limits::TOOL_SERVER_TOOLS_MAX {
            let asked = PaginatedRequestParams::default().with_cursor(cursor);
            let page = connection.service.list_tools(Some(asked)).await;
            let page = page.map_err(|error| self.broken(&connection, &error, true))?;
            tools.extend(page.tools);
            ttl_ms = page.ttl_ms.map(|ttl| ttl_ms.map_or(ttl, |least| least.min(ttl))).or(ttl_ms);
            if tools.len() > limits::TOOL_SERVER_TOOLS_MAX {
                let message = format!(
                    "the tool server {} lists {} tools or more; {} are taken (limit tool_server_tools_max)",
                    self.name,
                    tools.len(),
                    limits::TOOL_SERVER_TOOLS_MAX
                );
                return Err(Failure::fatal("tools_max", message));
            }
            cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
            if cursor.is_none() {
                break;
            }
        }
        let kept = ttl_ms.map_or(limits::TOOL_LIST_SECONDS_DEFAULT * 1_000, |ttl| ttl);
        let kept_us = kept.min(limits::TOOL_LIST_SECONDS_MAX * 1_000) * 1_000;
        let redactor = self.redactor();
        let listed = tools.iter().filter_map(|tool| self.listed(tool, &redactor)).collect();
        let usable_us = now_us().saturating_add(limits::TOOL_LIST_SECONDS_DEFAULT * 1_000_000);
        Ok(List { tools: listed, until_us: now_us().saturating_add(kept_us), usable_us })
    }

    /// A tool that can be offered. One whose arguments nobody could check cannot.
    fn listed(&self, tool: &Tool, redactor: &Redactor) -> Option<Listed> {
        if redactor.text(&tool.name) != *tool.name {
            let why = format_args!("a tool of {} is left out: its name holds a secret", self.name);
            log::warn(Target::Node, why);
            return None;
        }
        let schema = serde_json::to_vec(&*tool.input_schema).ok()?;
        let fits = schema.len() <= limits::TOOL_SCHEMA_BYTES_MAX;
        let parameters = Value::from_json(&schema).ok().filter(|_| fits);
        let parameters = parameters.filter(|it| it.get("type").and_then(Value::as_str) == Some("object"));
        let Some(parameters) = parameters else {
            let name = result::words(&tool.name, redactor);
            log::warn(
                Target::Node,
                format_args!("the tool {name:?} of {} is left out: its schema cannot be used", self.name),
            );
            return None;
        };
        let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
        let description = redactor.text(description);
        let description = result::cut(&description, limits::TOOL_DESCRIPTION_BYTES_MAX);
        let hint = |read: fn(&rmcp::model::ToolAnnotations) -> Option<bool>| {
            tool.annotations.as_ref().and_then(read).unwrap_or_default()
        };
        Some(Listed {
            tool: (&*tool.name).into(),
            spec: ToolSpec {
                name: shown_name(&self.name, &tool.name),
                description: description.into(),
                parameters: redactor.value(parameters),
            },
            repeatable: hint(|hints| hints.read_only_hint) || hint(|hints| hints.idempotent_hint),
        })
    }

    /// Makes a call.
    pub(super) async fn call(
        self: &Rc<Self>,
        tool: &Listed,
        arguments: Map,
        marks: &Marks,
    ) -> Result<Value, Failure> {
        let called =
            self.guard.call(self.server.timeout, true, || self.call_now(tool, arguments, marks)).await;
        if self.guard.is_open() {
            // Whatever it hangs in, the next try begins anew.
            self.live.lock().await.connection = None;
        }
        called
    }

    async fn call_now(
        self: &Rc<Self>,
        tool: &Listed,
        arguments: Map,
        marks: &Marks,
    ) -> Result<Value, Failure> {
        let connection = self.connected().await?;
        connection.trouble.begin();
        let arguments = match serde_json::to_value(Value::Map(arguments.into())) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let mut asked = CallToolRequestParams::new(tool.tool.to_string()).with_arguments(arguments);
        let mut meta = RequestMetaObject::default();
        meta.0.insert("traceparent".into(), marks.traceparent.clone().into());
        meta.0.insert("aob/idempotency-key".into(), marks.key.clone().into());
        asked.meta = Some(meta);
        let answered = connection.service.peer().call_tool_once(asked).await;
        let answer = answered.map_err(|error| self.broken(&connection, &error, tool.repeatable))?;
        // Whoever holds it connects anew, and counts from there.
        if let Ok(mut live) = self.live.try_lock() {
            live.failures = 0;
        }
        match answer {
            CallToolResponse::Complete(answer) => answer::value(answer, &self.redactor()),
            CallToolResponse::InputRequired(_) => {
                let message =
                    format!("{} asks the node for something (a model, a person): that is refused", tool.tool);
                Err(Failure::fatal("tool_failed", message))
            }
            _ => {
                let message = format!("{} answers with a task, which cannot be waited for", tool.tool);
                Err(Failure::fatal("tool_failed", message))
            }
        }
    }

    /// Why there is no answer.
    fn broken(&self, connection: &Connection, error: &ServiceError, repeatable: bool) -> Failure {
        let why = match error {
            ServiceError::McpError(error) => {
                let message = result::words(&error.message, &self.redactor());
                let details = Value::map([("code", Value::Int(i64::from(error.code.0)))]);
                return Failure { details, ..Failure::fatal("tool_failed", message) };
            }
            ServiceError::UnexpectedResponse => {
                let message = format!("the tool server {} gave an answer that is none", self.name);
                return Failure::fatal("tool_failed", message);
            }
            ServiceError::TransportSend(error) => trouble::chain(&*error.error),
            other => trouble::chain(other),
        };
        // Why we closed it, if it was us.
        let closed = connection.service.is_transport_closed();
        let why = connection.trouble.why(closed).unwrap_or(why);
        if why.contains(trouble::TOO_LARGE) {
            let most = limits::TOOL_SERVER_MESSAGE_BYTES_MAX;
            let message = format!(
                "the tool server {} sent a message of more than {most} bytes ({})",
                self.name,
                trouble::TOO_LARGE
            );
            return Failure::fatal("tool_result_too_large", message);
        }
        let failure = self.unreached(&why);
        if repeatable {
            return failure;
        }
        let message = format!("{}; the effect of the call is unknown", failure.message);
        Failure::fatal("tool_unavailable", message)
    }
}

impl Live {
    /// One more connection came to nothing, or went.
    fn failed(&mut self) {
        let doubled = limits::TOOL_SERVER_PAUSE_MILLIS_MIN << self.failures.min(16);
        let pause_ms = doubled.min(limits::TOOL_SERVER_PAUSE_MILLIS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before_us = now_us().saturating_add(pause_ms * 1_000);
    }
}
