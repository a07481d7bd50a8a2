//! Tools end to end, on one thread: a node's door in front, servers of every manner behind.

#[cfg(feature = "mcp")]
mod manners;
#[cfg(feature = "mcp")]
mod program;
#[cfg(feature = "mcp")]
mod service;

#[path = "tests/http.rs"]
mod http_tools;

use std::collections::BTreeMap;

use super::*;
use crate::exec::{Rule, Settings as Reachable};
use crate::model::Partition;
use crate::time::Timestamp;

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

fn name() -> CallName {
    CallName {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]),
        place: Place::root(0),
        path: "a".into(),
        seq: 3,
        turn: 1,
        attempt: 1,
        epoch: 7,
        lost: false,
        workflow: "w".into(),
    }
}

fn asks(tool: &str, arguments: &str) -> ToolCall {
    ToolCall { id: "call_1".into(), name: tool.into(), arguments: json(arguments), refused: None }
}

/// What a node is made of for a test.
#[derive(Default)]
struct Parts {
    servers: BTreeMap<Arc<str>, Server>,
    allow: Vec<String>,
    secrets: Secrets,
    http_calls_per_minute: u64,
}

impl Parts {
    fn run<F: Future<Output = ()>>(self, test: impl FnOnce(Tools) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let allow = self.allow.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
            let reach = Reachable { allow, calls_max: 64, calls_per_host_max: 8, ..Reachable::default() };
            let (http, calls) = Http::new();
            tokio::task::spawn_local(crate::exec::serve(reach.clone(), self.secrets.clone(), calls));
            let (tools, jobs) = Tools::new();
            let settings = Settings {
                servers: self.servers,
                http_calls_per_minute: self.http_calls_per_minute,
                launcher: None,
            };
            let outside = Outside { reach, secrets: self.secrets, http };
            let served = tokio::task::spawn_local(serve(settings, outside, jobs));
            test(tools).await;
            served.await.unwrap().unwrap();
        });
    }
}

/// A directory with one secret.
fn secrets(name: &str, value: &str) -> (tempfile::TempDir, Secrets) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(name), value).unwrap();
    let secrets = Secrets { directory: Some(directory.path().to_owned()), credentials: None };
    (directory, secrets)
}

impl Tools {
    async fn ask(&self, allowed: &Value, tool: &str, arguments: &str) -> Result<Value, Failure> {
        let returned = self.call(&name(), allowed, &asks(tool, arguments)).await;
        assert_eq!((&*returned.id, &*returned.name), ("call_1", tool));
        returned.outcome
    }

    async fn fails(&self, allowed: &Value, tool: &str, arguments: &str) -> Failure {
        self.ask(allowed, tool, arguments).await.unwrap_err()
    }
}

// F414
#[test]
fn what_others_perform_is_offered_here_and_made_there() {
    Parts::default().run(async |tools| {
        let allowed = json(r#"["patch", "workflow:tidy"]"#);
        let workflows = |name: &str, version: Option<&str>| {
            assert_eq!((name, version), ("tidy", None));
            Some(Described { description: "Tidies up.".into(), inputs: Value::Null })
        };
        let offered = tools.offered_with(&allowed, &workflows).await.unwrap();
        let names: Vec<_> = offered.iter().map(|spec| &*spec.name).collect();
        assert_eq!(names, ["propose_patch", "workflow__tidy"]);
        assert!(offered[0].parameters.to_json().contains("base_version"));
        let refused = tools.offered(&allowed).await.unwrap_err();
        assert_eq!(&*refused.code, "tool_unavailable");
        for tool in names {
            assert_eq!(&*tools.fails(&allowed, tool, "{}").await.code, "tool_not_allowed");
            assert!(Tools::names_of_others(&allowed).unwrap().contains_key(tool));
        }
        assert_eq!(&*tools.fails(&allowed, "rm", "{}").await.code, "tool_not_allowed");
        assert_eq!(&*tools.fails(&json(r#"["rm"]"#), "rm", "{}").await.code, "tools_invalid");
        let unknown = tools.fails(&json(r#"["mcp:nobody/x"]"#), "nobody__x", "{}").await;
        assert!(unknown.message.contains("mcp.servers.nobody"), "{unknown}");
        let refused = ToolCall {
            refused: Some(Box::new(Failure::fatal("tool_not_allowed", "no"))),
            ..asks("propose_patch", "{}")
        };
        let returned = tools.call(&name(), &allowed, &refused).await;
        assert_eq!((returned.took_ms, &*returned.outcome.unwrap_err().message), (0, "no"));
    });
}
