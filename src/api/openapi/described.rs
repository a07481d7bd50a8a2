//! Every operation of the interface, and the document that they make.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::operation::operation;
use super::parameters::{RUN, parameters};
use super::shapes::{self, nullable, object, request, text};
use crate::limits;
use crate::wire::run::{Full, Line, Page};
use crate::wire::workflow::{Registered, Verdict};
use crate::wire::{node::NodeInfo, problem::Problem};

pub(super) type Paths = Map<String, Json>;

/// References to the schemas of our own types.
struct Types {
    line: Json,
    full: Json,
    page: Json,
    registered: Json,
    verdict: Json,
    node: Json,
}

/// The whole description.
pub(super) fn document() -> Json {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let types = Types {
        line: of::<Line<'static>>(&mut generator),
        full: of::<Full<'static>>(&mut generator),
        page: of::<Page<'static>>(&mut generator),
        registered: of::<Registered<'static, ()>>(&mut generator),
        verdict: of::<Verdict<'static, ()>>(&mut generator),
        node: of::<NodeInfo>(&mut generator),
    };
    of::<Problem>(&mut generator);
    let mut paths = Paths::new();
    starts(&types, &mut paths);
    runs(&types, &mut paths);
    steering(&types, &mut paths);
    super::updates::updates(&mut generator, &mut paths);
    histories(&mut paths);
    super::patches::patches(&mut paths);
    super::overlays::overlays(&mut paths);
    super::approvals::approvals(&mut generator, &mut paths);
    super::letters::letters(&mut generator, &mut paths);
    super::audit::audit(&mut paths);
    super::streams::streams(&mut paths);
    super::money::money(&mut paths, &types.line);
    super::agents::agents(&mut paths);
    super::money::budgets(&mut paths);
    super::contents::contents(&mut paths);
    super::batch::batches(&mut paths);
    super::triggers::triggers(&mut paths);
    workflows(&types, &mut paths);
    tags(&mut paths);
    super::workers::workers(&mut generator, &mut paths);
    node(&types, &mut paths);
    compat(&types, &mut paths);
    let bearer = json!({"type": "http", "scheme": "bearer",
        "description": "Needed when the node has auth.tokens_file; GET takes the role read, all else write."});
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "aob", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "A durable orchestration node. Whatever is not a success is a problem document (RFC 9457)."},
        "servers": [{"url": "/"}], "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"bearer": bearer},
            "parameters": parameters(),
        },
    })
}

pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Json {
    generator.subschema_for::<T>().into()
}

/// Whatever the workflow's own schema of them says.
fn inputs() -> Json {
    json!({"description": "What the workflow's schema of its inputs says; any value without one"})
}

fn run_key() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": limits::RUN_KEY_BYTES_MAX, "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
        "description": "The caller's name for the run; at most one unfinished run of the workflow has it"})
}

pub(super) fn limit() -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": limits::PAGE_ROWS_MAX, "default": limits::PAGE_ROWS_DEFAULT})
}

pub(super) const NO_RUN: (&str, &str) = ("404", "There is no such run in this workspace");
const NO_WORKFLOW: (&str, &str) = ("404", "There is no such workflow in this workspace");
pub(super) const BAD: (&str, &str) = ("400", "The request is malformed; `errors` says where");
pub(super) const UNFIT: (&str, &str) = ("422", "The request is well formed and cannot be done as it stands");

fn starts(types: &Types, paths: &mut Paths) {
    let reference = json!({"type": ["string", "object"], "description": "A name, name@version, name@tag, or a whole document"});
    let members = [
        ("workflow", reference),
        ("tag", text()),
        ("version", nullable(text())),
        ("inputs", inputs()),
        ("run_key", run_key()),
        (
            "on_conflict",
            json!({"enum": ["reject", "return", "replace"], "default": "reject",
            "description": "When an unfinished run of the workflow has the run_key: refuse, answer with it, or end it and start"}),
        ),
        (
            "mode",
            json!({"enum": ["full", "fast"],
            "description": "What is written down of the run: everything, or what cannot be decided again; the document's when left out"}),
        ),
        (
            "patch_set",
            json!({"type": "string", "description": "The patch set that the run is an arm of; drawn by weight when left out"}),
        ),
    ];
    let mut start = request(0, &members);
    start["oneOf"] = json!([{"required": ["workflow"]}, {"required": ["tag"]}]);
    start["dependentRequired"] = json!({"on_conflict": ["run_key"]});
    let either = json!({"anyOf": [types.full, types.line]});
    for (route, id, named) in [("POST /v1/runs", "startRun", "workflow"), ("POST /runs", "submitRun", "tag")]
    {
        operation(route, id, "Start a run")
            .header("Idempotency-Key")
            .header("Prefer")
            .body(
                &start,
                &json!({named: "greet@1", "inputs": {"who": "you"}, "run_key": id, "on_conflict": "replace"}),
                true,
            )
            .answers(202, "It is durable and under way", &types.line)
            .answers(
                200,
                "It ended within the wait, or (`Aob-Existing-Run: true`) an unfinished run has the run_key",
                &either,
            )
            .problems(&[
                BAD,
                NO_WORKFLOW,
                ("409", "An unfinished run has the run_key; `run_id` names it"),
                UNFIT,
            ])
            .add(paths);
    }
}

fn runs(types: &Types, paths: &mut Paths) {
    let status = "(pending|running|paused|completed|failed|cancelled)";
    let statuses = json!({"type": "string", "pattern": format!("^{status}(,{status}){{0,5}}$")});
    let time = json!({"type": "string", "format": "date-time"});
    let listed = json!({"type": "string", "pattern": "^run_[0-9a-f]{12}7[0-9a-f]{19}$"});
    operation("GET /v1/runs", "listRuns", "Runs, newest first, in pages")
        .query(
            "status",
            &statuses,
            &json!("running,paused"),
            "Only runs with one of these, with commas between",
        )
        .query("workflow", &text(), &json!("greet"), "Only runs of this workflow")
        .query("version", &text(), &json!("1"), "Only runs of this version")
        .query("run_key", &text(), &json!("order-1"), "Only runs with this business key")
        .query("started_after", &time, &json!("2026-01-01T00:00:00Z"), "Only runs started then or later")
        .query("started_before", &time, &json!("2126-01-01T00:00:00Z"), "Only runs started earlier")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query("cursor", &listed, &json!(RUN), "`next_cursor` of the page before")
        .answers(200, "A page; `Link: rel=\"next\"` leads on", &types.page)
        .problems(&[BAD])
        .add(paths);
    operation("GET /v1/runs/{run_id}", "getRun", "One run in full")
        .header("Prefer")
        .or_not_modified()
        .answers(200, "The run; its ETag is the number of its last event", &types.full)
        .problems(&[BAD, NO_RUN])
        .add(paths);
    operation(
        "DELETE /v1/runs/{run_id}",
        "eraseRun",
        "Forget a run that has ended, and its events, for good",
    )
    .answers_nothing(204, "It is forgotten, durably; its events are taken from the files soon")
    .problems(&[BAD, NO_RUN, ("409", "The run has not ended")])
    .add(paths);
}

fn steering(types: &Types, paths: &mut Paths) {
    for (route, id, summary) in [
        ("POST /v1/runs/{run_id}/pause", "pauseRun", "Start no further node"),
        ("POST /v1/runs/{run_id}/resume", "resumeRun", "Go on after a pause"),
        ("POST /v1/runs/{run_id}/cancel", "cancelRun", "End it, with its cleanup"),
        ("POST /v1/runs/{run_id}/terminate", "terminateRun", "End it at once"),
    ] {
        let reason = nullable(json!({"type": "string", "maxLength": limits::REASON_BYTES_MAX}));
        steered(operation(route, id, summary), types)
            .body(&request(0, &[("reason", reason)]), &json!({"reason": "lunch"}), false)
            .add(paths);
    }
    steered(
        operation("POST /v1/runs/{run_id}/signals/{signal}", "signalRun", "Send a signal to a run"),
        types,
    )
    .header("Idempotency-Key")
    .body(&request(0, &[("payload", json!({}))]), &json!({"payload": {"approved": true}}), false)
    .add(paths);
}

fn steered(operation: super::operation::Operation, types: &Types) -> super::operation::Operation {
    operation
        .header("If-Match")
        .answers(202, "It is durable, and the run goes on", &types.line)
        .answers(200, "It is durable, and the run has ended", &types.line)
        .problems(&[BAD, NO_RUN, ("409", "The run has ended, or its status does not allow it"), UNFIT])
        .problems(&[("412", "The run's last event is not what If-Match names")])
}

/// Of an event.
pub(super) fn number() -> Json {
    json!({"type": "integer", "minimum": 0, "maximum": u64::MAX})
}

fn histories(paths: &mut Paths) {
    operation("GET /v1/runs/{run_id}/timeline", "getTimeline", "What happened, in order")
        .query("after", &number(), &json!(0), "Events after this number")
        .query(
            "cursor",
            &json!({"type": "string", "pattern": "^[0-9]{1,19}$"}),
            &json!("0"),
            "`next_cursor` of the page before; goes before `after`",
        )
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query(
            "edges",
            &json!({"type": "boolean"}),
            &json!(true),
            "Ends of nodes have `edges`: which of those behind them are live",
        )
        .query(
            "summaries",
            &json!({"type": "boolean"}),
            &json!(true),
            "Rows have a `summary`: what happened, in fifteen words at most",
        )
        .answers(200, "A page of events", &shapes::timeline())
        .problems(&[BAD, NO_RUN])
        .add(paths);
    operation("GET /v1/runs/{run_id}/graph", "getGraph", "The document, and the state of each node")
        .answers(200, "The graph", &shapes::graph())
        .problems(&[BAD, NO_RUN])
        .add(paths);
}

fn workflows(types: &Types, paths: &mut Paths) {
    let document = json!({"type": "object", "description": "A workflow document",
        "externalDocs": {"url": "/v1/schema/workflow.json"}});
    let example =
        json!({"name": "greet", "version": "1", "nodes": {"a": {"type": "function", "with": {"expr": "1"}}}});
    operation("POST /v1/workflows", "registerWorkflow", "Register a document")
        .query("name", &text(), &json!("greet"), "The name, when the document has none")
        .query("version", &text(), &json!("1"), "The version, when the document has none")
        .body(&document, &example, true)
        .or_yaml()
        .answers(201, "It is registered", &types.registered)
        .answers(200, "This very document was registered before", &types.registered)
        .problems(&[BAD, ("409", "Another document stands under this name and version"), UNFIT])
        .add(paths);
    operation("POST /v1/workflows/validate", "validateWorkflow", "Check a document without registering it")
        .body(&document, &example, true)
        .or_yaml()
        .answers(200, "It is valid", &types.verdict)
        .problems(&[BAD, ("422", "It is not valid; `errors` says where")])
        .add(paths);
    operation("GET /v1/workflows", "listWorkflows", "Registered versions, by name, in pages")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query(
            "cursor",
            &json!({"type": "string", "pattern": "@"}),
            &json!("a@1"),
            "`next_cursor` of the page before",
        )
        .answers(200, "A page; `Link: rel=\"next\"` leads on", &shapes::workflows())
        .problems(&[BAD])
        .add(paths);
    for (route, id, summary) in [
        ("GET /v1/workflows/{name}", "getWorkflow", "The version registered last"),
        ("GET /v1/workflows/{name}/versions/{version}", "getWorkflowVersion", "One version"),
    ] {
        operation(route, id, summary)
            .or_effective()
            .answers(200, "The document; its ETag is its hash", &shapes::workflow())
            .problems(&[BAD, NO_WORKFLOW, UNFIT])
            .add(paths);
    }
}

fn tags(paths: &mut Paths) {
    operation("GET /v1/workflows/{name}/tags", "listTags", "Tags of a workflow")
        .answers(200, "All of them", &shapes::tags())
        .problems(&[NO_WORKFLOW])
        .add(paths);
    operation("PUT /v1/workflows/{name}/tags/{tag}", "putTag", "Point a tag at a version")
        .body(&request(1, &[("version", text())]), &json!({"version": "1"}), true)
        .answers(200, "It is durable", &shapes::tag())
        .problems(&[BAD, NO_WORKFLOW, ("409", "A version has this name"), UNFIT])
        .add(paths);
    operation("DELETE /v1/workflows/{name}/tags/{tag}", "deleteTag", "Take a tag away")
        .answers(200, "It is durable", &shapes::tag())
        .problems(&[NO_WORKFLOW, UNFIT])
        .add(paths);
}

fn node(types: &Types, paths: &mut Paths) {
    operation("GET /v1/node", "getNode", "The node as a whole")
        .answers(200, "Planes, threads, queues", &types.node)
        .add(paths);
    let version = object(&[("name", text()), ("version", text())]);
    operation("GET /version", "getVersion", "Name and version of the binary")
        .public()
        .answers(200, "Both", &version)
        .add(paths);
    for (route, id, summary) in [
        ("GET /livez", "isAlive", "Answers while the process does"),
        ("GET /healthz", "isHealthy", "Answers while the process does"),
        ("GET /readyz", "isReady", "May requests be sent here?"),
    ] {
        operation(route, id, summary)
            .public()
            .answers_with((200, "text/plain; charset=utf-8"), "Yes", &text())
            .problems(&[("503", "Not now")])
            .add(paths);
    }
    let metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    operation("GET /metrics", "getMetrics", "Counters; takes the role admin")
        .answers_with((200, metrics), "OpenMetrics text", &text())
        .add(paths);
    operation("GET /v1/schema/workflow.json", "getWorkflowSchema", "JSON Schema of workflow documents")
        .answers_with((200, crate::wire::schema::MEDIA_TYPE), "The schema", &json!({"type": "object"}))
        .add(paths);
    operation("GET /openapi.json", "getDescription", "This description")
        .answers_with((200, super::MEDIA_TYPE), "OpenAPI 3.1", &json!({"type": "object"}))
        .add(paths);
}

/// Routes of earlier interfaces.
fn compat(types: &Types, paths: &mut Paths) {
    let line = object(&[("execution_id", text()), ("status", text())]);
    let start = [("workflow_name", text()), ("inputs", inputs())];
    operation("POST /workflows/execute", "executeWorkflow", "Start a run; another name for startRun")
        .header("Idempotency-Key")
        .body(&request(1, &start), &json!({"workflow_name": "greet", "inputs": {"who": "you"}}), true)
        .answers(202, "It is durable; the status is `started`", &line)
        .problems(&[BAD, NO_WORKFLOW, ("409", "Another run has the execution's id"), UNFIT])
        .add(paths);
    let whole = json!({"allOf": [types.full, object(&[("execution_id", text())])]});
    operation("GET /workflows/{execution_id}", "getExecution", "One run in full; another name for getRun")
        .answers(200, "The run, with its id as execution_id too", &whole)
        .problems(&[BAD, NO_RUN])
        .add(paths);
    for (route, id, summary) in [
        ("POST /workflows/{execution_id}/pause", "pauseExecution", "Another name for pauseRun"),
        ("POST /workflows/{execution_id}/resume", "resumeExecution", "Another name for resumeRun"),
    ] {
        operation(route, id, summary)
            .header("If-Match")
            .body(&request(0, &[("reason", nullable(text()))]), &json!({"reason": "lunch"}), false)
            .answers(202, "It is durable; the status is `paused` or `resumed`", &line)
            .problems(&[BAD, NO_RUN, ("409", "The run has ended, or its status does not allow it"), UNFIT])
            .problems(&[("412", "The run's last event is not what If-Match names")])
            .add(paths);
    }
}
