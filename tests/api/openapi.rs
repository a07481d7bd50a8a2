//! The description of the interface: it names the routes of the source with their methods, and each of its examples is
//! answered as it says.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use aob::time::{Clock as _, SystemClock};
use serde_json::{Value as Json, json};
use syn::visit::Visit;

use super::double::with_node;
use super::{Answer, get, post, raw, request};

fn document() -> Json {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

/// Every operation as (path, method, description).
fn operations(document: &Json) -> Vec<(String, String, Json)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(|(method, it)| (path.clone(), method.to_uppercase(), it.clone()))
    });
    all.collect()
}

/// A path with its parameters unnamed.
fn unnamed(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

/// What the slice patterns of a function lead to, each as a path without its parameters' names.
struct Arms<'a> {
    prefix: &'a str,
    paths: BTreeSet<String>,
}

impl Arms<'_> {
    fn take(&mut self, pattern: &syn::Pat) {
        match pattern {
            syn::Pat::Or(or) => or.cases.iter().for_each(|case| self.take(case)),
            syn::Pat::Slice(slice) => {
                let mut all = vec![String::from(self.prefix)];
                for element in &slice.elems {
                    let parts = parts(element);
                    all = all
                        .iter()
                        .flat_map(|path| parts.iter().map(move |part| format!("{path}/{part}")))
                        .collect();
                }
                // `..` stands for what another function takes apart.
                self.paths.extend(all.into_iter().filter(|path| !path.ends_with("..")));
            }
            _ => {}
        }
    }
}

/// The texts that one element of a slice pattern fits.
fn parts(pattern: &syn::Pat) -> Vec<String> {
    match pattern {
        syn::Pat::Lit(literal) => match &literal.lit {
            syn::Lit::Str(text) => vec![text.value()],
            _ => panic!("a segment is no text"),
        },
        syn::Pat::Or(or) => or.cases.iter().flat_map(parts).collect(),
        syn::Pat::Paren(inner) => parts(&inner.pat),
        syn::Pat::Ident(name) => name.subpat.as_ref().map_or(vec!["{}".into()], |(_, inner)| parts(inner)),
        syn::Pat::Rest(_) => vec!["..".into()],
        _ => panic!("an unknown kind of pattern"),
    }
}

impl<'ast> Visit<'ast> for Arms<'_> {
    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.take(&arm.pat);
        syn::visit::visit_arm(self, arm);
    }

    fn visit_macro(&mut self, made: &'ast syn::Macro) {
        if made.path.is_ident("matches") {
            let parse = |input: syn::parse::ParseStream<'_>| {
                input.parse::<syn::Expr>()?;
                input.parse::<syn::Token![,]>()?;
                syn::Pat::parse_multi_with_leading_vert(input)
            };
            self.take(&made.parse_body_with(parse).unwrap());
        }
    }
}

/// Paths that the source serves.
fn paths_of_the_source() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (source, function, prefix) in [
        ("api.rs", "route", ""),
        ("api/routes.rs", "run_route", "/v1/runs/{}"),
        ("api/routes.rs", "record_route", "/v1/runs/{}"),
        ("api/routes.rs", "patch_route", "/v1/runs/{}/patches"),
        ("api/routes.rs", "workflow_route", "/v1/workflows"),
        ("api/routes.rs", "overlay_route", "/v1/workflows/{}/patches"),
        ("api/routes.rs", "approval_route", "/v1/approvals"),
        ("api/routes.rs", "audit_route", "/v1/audit"),
        ("api/routes.rs", "webhook_route", "/v1/webhooks"),
        ("api/routes.rs", "letter_route", "/v1/dlq"),
        ("api/routes.rs", "compat_route", "/workflows"),
        ("api/agents/list.rs", "route", "/v1/agents"),
        ("api/batch.rs", "route", "/v1/batch"),
        ("api/schedules.rs", "route", "/v1/schedules"),
        ("api/hooks.rs", "route", "/v1/hooks"),
    ] {
        let source = format!("{}/src/{source}", env!("CARGO_MANIFEST_DIR"));
        let file = syn::parse_file(&std::fs::read_to_string(source).unwrap()).unwrap();
        let item = file.items.iter().find_map(|item| match item {
            syn::Item::Fn(item) if item.sig.ident == function => Some(item),
            _ => None,
        });
        let mut arms = Arms { prefix, paths: BTreeSet::new() };
        arms.visit_item_fn(item.unwrap_or_else(|| panic!("no function {function}")));
        found.extend(arms.paths);
    }
    found
}

#[test]
fn the_description_names_the_routes_of_the_source_and_their_methods() {
    let all = operations(&document());
    let described: BTreeSet<String> = all.iter().map(|(path, ..)| unnamed(path)).collect();
    assert_eq!(described, paths_of_the_source());
    let ids: BTreeSet<&str> = all.iter().map(|(_, _, it)| it["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "an operationId stands twice");
    with_node(async |address| {
        for path in all.iter().map(|(path, ..)| path).collect::<BTreeSet<_>>() {
            // No route takes BREW (RFC 2324): each says what it takes.
            let refused = raw(address, vec![request(&format!("BREW {path}"), &[], b"")]).await;
            assert_eq!(refused.status, 405, "{path}: {}", refused.text());
            let allowed = refused.header("allow").unwrap().split(", ").filter(|method| *method != "HEAD");
            let described = all.iter().filter(|(own, ..)| own == path).map(|(_, method, _)| method.as_str());
            assert_eq!(described.collect::<BTreeSet<_>>(), allowed.collect::<BTreeSet<_>>(), "{path}");
        }
    });
}

/// A value against a schema of the document.
fn check(document: &Json, schema: &Json, value: &Json, place: &str) {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&whole).unwrap();
    let wrong: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{place}: {wrong:?}\n{value:#}");
}

fn resolved<'a>(document: &'a Json, it: &'a Json) -> &'a Json {
    match it["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).unwrap(),
        None => it,
    }
}

/// A run that waits, to be named in a path.
async fn waiting_run(address: SocketAddr, path: &str) -> String {
    let run = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
    let run = run["run_id"].as_str().unwrap().to_owned();
    if path.ends_with("/events") {
        post(address, &format!("/v1/runs/{run}/cancel"), &[], "{}").await;
    }
    run
}

/// The same, after its end.
async fn ended_run(address: SocketAddr, path: &str) -> String {
    let run = waiting_run(address, path).await;
    post(address, &format!("/v1/runs/{run}/terminate"), &[], "{}").await;
    run
}

const HOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A hook, to be named in a path.
async fn new_hook(address: SocketAddr) -> String {
    let body = format!(r#"{{"name":"one","workflow":"greet","secret":"{HOOK_SECRET}"}}"#);
    let made = post(address, "/v1/hooks", &[], &body).await.json();
    made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// The headers of a message that is signed now.
fn signed(body: &[u8]) -> Vec<String> {
    let secret: aob::exec::standard_webhooks::Secret = HOOK_SECRET.parse().unwrap();
    let now = SystemClock.now().as_micros() / 1_000_000;
    let signature = secret.sign("msg_1", now, body);
    vec![format!("webhook-timestamp: {now}"), format!("webhook-signature: {signature}")]
}

/// A patch of the run in a path.
async fn patch_of(address: SocketAddr, path: &str) -> String {
    let patches = path.split("/{patch_id}").next().unwrap();
    let node = if path.ends_with("/approve") || path.ends_with("/reject") {
        r#"{"type":"task","with":{"queue":"q"}}"#
    } else {
        r#"{"type":"function","with":{"expr":"1"}}"#
    };
    let body = format!(r#"{{"operations":[{{"op":"add","path":"/nodes/more","value":{node}}}]}}"#);
    let made = post(address, patches, &[], &body).await.json();
    made["patch_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// A patch set of the workflow in a path.
async fn set_of(address: SocketAddr, path: &str) -> String {
    let path = path.replace("{set}", "gone");
    let lines = ["content-type: application/json"];
    let put = request(&format!("PUT {path}"), &lines, br#"{"patches":[]}"#);
    assert_eq!(raw(address, vec![put]).await.status, 200);
    "gone".into()
}

/// A patch of the workflow in a path.
async fn overlay_of(address: SocketAddr, path: &str) -> String {
    let patches = path.split("/{wpatch_id}").next().unwrap();
    let verb = path.rsplit('/').next().unwrap().trim_matches(['{', '}']);
    let node = if verb == "approve" || verb == "reject" {
        r#"{"type":"task","with":{"queue":"q"}}"#
    } else {
        r#"{"type":"function","with":{"expr":"1"}}"#
    };
    let body = format!(r#"{{"operations":[{{"op":"add","path":"/nodes/{verb}","value":{node}}}]}}"#);
    let made = post(address, patches, &[], &body).await.json();
    made["patch_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// Sends the example of an operation.
async fn sent(address: SocketAddr, document: &Json, (path, method, it): &(String, String, Json)) -> Answer {
    let (mut path, mut query, mut headers) = (path.clone(), Vec::new(), Vec::new());
    for parameter in it["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let (name, example) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
        check(document, &parameter["schema"], example, &format!("{path} {name}"));
        let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        match parameter["in"].as_str().unwrap() {
            // A feed has no end, and cannot be of runs too.
            "query" if path == "/v1/events" && matches!(name, "workflow" | "after") => {}
            "query" if path == "/v1/events" && name == "run" => {
                query.push(format!("run={}:0", ended_run(address, "/events").await));
            }
            "query" => query.push(format!("{name}={text}")),
            "header" => headers.push(format!("{name}: {text}")),
            _ => {
                let text = match name {
                    "run_id" if method == "DELETE" => ended_run(address, &path).await,
                    "run_id" | "execution_id" => waiting_run(address, &path).await,
                    "ticket" => waiting_run(address, &path).await.replace("run_", "tkt_") + "_2",
                    "letter" => waiting_run(address, &path).await.replace("run_", "dead_") + "_2",
                    "lease" => super::double::lease(),
                    "hook" => new_hook(address).await,
                    "schedule" => {
                        let body = r#"{"name":"nightly","workflow":"greet","cron":"0 0 1 1 *"}"#;
                        post(address, "/v1/schedules", &[], body).await;
                        text
                    }
                    "batch_id" => {
                        let body = r#"{"action":"cancel","filter":{"workflow":"nothing"}}"#;
                        let made = post(address, "/v1/batch", &[], body).await.json();
                        made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
                    }
                    "name" if path.starts_with("/v1/agents/") => crew(address).await,
                    "webhook_id" => webhook(address).await,
                    "patch_id" => patch_of(address, &path).await,
                    "set" if method == "DELETE" => set_of(address, &path).await,
                    "wpatch_id" => overlay_of(address, &path).await,
                    _ => text,
                };
                path = path.replace(&format!("{{{name}}}"), &text);
            }
        }
    }
    let mut body = Vec::new();
    if let Some(taken) = it["requestBody"]["content"].get("application/json") {
        let example = &taken["examples"]["one"]["value"];
        check(document, &taken["schema"], example, &path);
        headers.push(String::from("content-type: application/json"));
        body = example.to_string().into_bytes();
    }
    if it["operationId"] == "callHook" {
        headers.retain(|header| {
            !header.starts_with("webhook-timestamp") && !header.starts_with("webhook-signature")
        });
        headers.extend(signed(&body));
    }
    let line = format!("{method} {path}?{}", query.join("&"));
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    raw(address, vec![request(line.trim_end_matches('?'), &headers, &body)]).await
}

/// A workflow that has an agent.
async fn crew(address: SocketAddr) -> String {
    let body = r#"{"name":"crew","version":"1","agents":{"writer":{"model":"big"}},"nodes":{"a":{"type":"function"}}}"#;
    post(address, "/v1/workflows", &[], body).await;
    "crew".into()
}

/// A webhook that is there.
async fn webhook(address: SocketAddr) -> String {
    let made = post(address, "/v1/webhooks", &[], r#"{"url":"http://127.0.0.1:1/"}"#).await;
    made.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn every_example_is_answered_as_described() {
    // F427
    with_node(async |address| {
        let document = document();
        post(
            address,
            "/v1/workflows",
            &[],
            r#"{"name":"slow","version":"1","limits":{"budget":{"usd":"1.00"}},"nodes":{"a":{"type":"function"}}}"#,
        )
        .await;
        let mut all = operations(&document);
        // What is named by the others is registered first; tags are put before they are taken.
        all.sort_by_key(|(_, _, it)| {
            (it["operationId"] != "registerWorkflow", it["operationId"] != "createSchedule")
        });
        for operation in &all {
            let (path, method, it) = operation;
            // A form with the key of a page that was shown before: tests/browser sends it.
            if it["operationId"] == "sendReview" {
                continue;
            }
            let answer = sent(address, &document, operation).await;
            let place = format!("{method} {path}");
            assert!((200..300).contains(&answer.status), "{place}: {}", answer.text());
            if answer.status == 204 {
                continue;
            }
            let described = &it["responses"][answer.status.to_string()]["content"];
            let kind = answer.header("content-type").unwrap();
            let content = described.get(kind);
            let schema =
                &content.unwrap_or_else(|| panic!("{place}: {kind} is not in {described}"))["schema"];
            let value = if kind.contains("json") { answer.json() } else { json!(answer.text()) };
            check(&document, schema, &value, &place);
        }
    });
}

#[test]
fn a_part_of_a_content_is_as_described_whatever_bytes_it_has() {
    with_node(async |address| {
        let document = document();
        let path = "/v1/cas/{hash}";
        let (_, _, it) = operations(&document).into_iter().find(|(own, ..)| own == path).unwrap();
        let example = document["components"]["parameters"]["hash"]["example"].as_str().unwrap();
        let line = format!("GET {}", path.replace("{hash}", example));
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            let header = format!("range: {range}");
            let answer = raw(address, vec![request(&line, &[&header], b"")]).await;
            assert_eq!(answer.status, 206, "{range}: {}", answer.text());
            let kind = answer.header("content-type").unwrap();
            let described = it["responses"]["206"]["content"].get(kind).unwrap_or_else(|| panic!("{kind}"));
            // What has a schema has to be JSON and fit it, as for any other answer.
            if let Some(schema) = described.get("schema") {
                let value = serde_json::from_slice(&answer.body);
                check(&document, schema, &value.unwrap_or_else(|why| panic!("{range}: {why}")), range);
            }
        }
    });
}

#[test]
fn the_description_is_served_and_problems_are_as_described() {
    with_node(async |address| {
        let answer = get(address, "/openapi.json").await;
        assert_eq!(answer.status, 200);
        assert!(answer.json() == document(), "another description is served than committed");
        let document = document();
        let problem = json!({"$ref": "#/components/schemas/Problem"});
        for path in ["/v1/runs/none", "/v1/workflows/none", "/nowhere", "/v1/runs?limit=0"] {
            let refused = get(address, path).await;
            assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path}");
            check(&document, &problem, &refused.json(), path);
        }
    });
}
