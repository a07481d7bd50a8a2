//! The gateway before providers that answer well, badly, slowly, or not at all.

#[path = "hostile.rs"]
mod hostile;
#[path = "service.rs"]
mod service;

use std::time::Duration;

use self::service::{Act, Service, events, ok, service, status, stream};
use super::prompt::tests::{ask, tool};
use super::settings::tests::model;
use super::*;
use crate::exec::{Rule, idempotency_key, traceparent};
use crate::limits;
use crate::model::agent::{Stop, is_billed};
use crate::model::money::Tokens;
use crate::model::{Partition, Value};
use crate::time::Timestamp;

const CANARY: &str = "cAnary-0123456789";
const OPENAI: &str = r#"{"id": "r1", "model": "x-1", "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20}}"#;
const ANTHROPIC: &str = r#"{"id": "r1", "model": "x-1", "content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 100, "output_tokens": 20}}"#;

fn name() -> CallName {
    CallName {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]),
        path: "a".into(),
        place: Place::root(0),
        seq: 3,
        attempt: 2,
        epoch: 7,
        turn: 4,
        workflow: "w".into(),
        lost: false,
    }
}

/// A gateway with a model `m` at a service, with what `change` makes of it.
fn settings(service: &Service, kind: Kind, change: impl FnOnce(&mut Model, &mut Provider)) -> Settings {
    let mut model = model(kind, &format!("http://{}", service.address));
    let mut provider = (*model.provider).clone();
    change(&mut model, &mut provider);
    model.provider = Arc::new(provider);
    Settings {
        default: Some("m".into()),
        models: [("m".into(), model)].into(),
        ladder: vec!["m".into()],
        ..Settings::default()
    }
}

fn allowed(service: &Service) -> crate::exec::Settings {
    let allow = vec![Rule::parse(&service.address.to_string()).unwrap()];
    crate::exec::Settings { allow, calls_max: 64, calls_per_host_max: 8, ..Default::default() }
}

fn run<F: Future<Output = ()>>(
    (settings, reach, secrets): (Settings, crate::exec::Settings, Secrets),
    test: impl FnOnce(Models) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (models, jobs) = Models::new(&settings);
        tokio::task::spawn_local(serve_with(reach, secrets, jobs, system()));
        test(models).await;
    });
}

fn secrets(files: &[(&str, &str)]) -> (tempfile::TempDir, Secrets) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let secrets = Secrets { directory: Some(directory.path().to_owned()), credentials: None };
    (directory, secrets)
}

async fn answer(models: &Models) -> Result<Answer, Failure> {
    told(models, None).await
}

async fn told(models: &Models, deltas: Option<Deltas>) -> Result<Answer, Failure> {
    let asked = Arc::new(ask(r#"{"task": "Well?"}"#, vec![]));
    let tools: Arc<[ToolSpec]> = [tool("find")].into();
    let quote = models.quote(&asked, &tools)?;
    models.call(&name(), asked, tools, &quote, deltas).await
}

// F394, F406, F430, F436
#[test]
fn both_interfaces_are_asked_and_answer() {
    for (kind, body, path, key) in [
        (Kind::OpenAi, OPENAI, "/v1/chat/completions", "authorization: Bearer "),
        (Kind::Anthropic, ANTHROPIC, "/v1/messages", "x-api-key: "),
    ] {
        let service = service(vec![ok(body), ok(body)]);
        let settings = settings(&service, kind, |_, provider| {
            provider.credential = Some("KEY".into());
            provider.headers = [("x-gate".to_owned(), "a ${secret:GATE} b".to_owned())].into();
        });
        let (_kept, secrets) = secrets(&[("KEY", CANARY), ("GATE", "open-sesame")]);
        run((settings, allowed(&service), secrets), async |models| {
            let answer = answer(&models).await.unwrap();
            assert_eq!((&*answer.content, answer.stop), ("Yes.", Stop::End));
            assert_eq!((&*answer.answered_by, &*answer.response_id), ("x-1", "r1"));
            assert_eq!(
                (answer.tokens, answer.measured),
                (Tokens { input: 100, output: 20, ..Tokens::default() }, true)
            );
            assert_eq!(answer.cost.unwrap().to_string(), "0.0006");
            self::answer(&models).await.unwrap();
            let counted = models.counted().next().unwrap();
            let counts = &counted.counts;
            assert_eq!((counts.succeeded.value(), counts.input.value(), counts.output.value()), (2, 200, 40));
            assert_eq!((counts.cost_nanos.value(), counts.unmeasured.value()), (1_200_000, 0));
            assert_eq!(counts.durations.iter().map(crate::telemetry::Cell::value).sum::<u64>(), 2);
        });
        let asked = service.asked();
        assert_eq!((asked.len(), service.connections()), (2, 1), "a connection is used again");
        let first = &asked[0];
        assert!(first.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{first}");
        let run_id = name().run_id;
        for header in [
            format!("{key}{CANARY}"),
            "x-gate: a open-sesame b".into(),
            format!("idempotency-key: {}-4", idempotency_key(run_id, &Place::root(0))),
            format!("traceparent: {}", traceparent(run_id, 3)),
            format!("aob-run-id: {run_id}"),
            "aob-attempt: 2".into(),
            "aob-epoch: 7".into(),
            "content-type: application/json".into(),
            format!("host: {}", service.address),
            concat!("user-agent: aob/", env!("CARGO_PKG_VERSION")).into(),
        ] {
            assert!(first.contains(&format!("\r\n{header}\r\n")), "{header} is not in {first}");
        }
        assert_eq!(first.contains("anthropic-version: 2023-06-01"), kind == Kind::Anthropic);
    }
}

// F430, F394, F406, F381: vectors come through the same door as words, are paid as words are, and no key is in what goes wrong.
#[test]
fn vectors_are_asked_for_and_counted_as_words_are() {
    let vectors = r#"{"object": "list", "model": "x-1", "data": [{"index": 0, "embedding": [0.25, -1]}, {"index": 1, "embedding": [1, 0]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7}}"#;
    let fewer = r#"{"data": [{"index": 0, "embedding": [0.25, -1]}], "usage": {"prompt_tokens": 7}}"#;
    let refused = format!(r#"{{"error": {{"message": "no such key: {CANARY}"}}}}"#);
    let service = service(vec![ok(vectors), ok(fewer), status(401, "", &refused)]);
    let settings = settings(&service, Kind::OpenAi, |model, provider| {
        (model.max_output_tokens, provider.stream) = (0, true);
        provider.credential = Some("KEY".into());
    });
    let (_kept, secrets) = secrets(&[("KEY", CANARY)]);
    run((settings, allowed(&service), secrets), async |models| {
        let embed = async || {
            let asked = Arc::new(ask(r#"{"embed": ["a", "b"], "dimensions": 2}"#, vec![]));
            let quote = models.quote(&asked, &[])?;
            models.call(&name(), asked, [].into(), &quote, None).await
        };
        let answer = embed().await.unwrap();
        assert_eq!((&*answer.content, answer.stop), ("[[0.25,-1.0],[1.0,0.0]]", Stop::End));
        assert_eq!((answer.tokens, answer.measured), (Tokens { input: 7, ..Tokens::default() }, true));
        assert_eq!(answer.cost.unwrap().to_string(), "0.000021");
        assert_eq!(&*embed().await.unwrap_err().code, "model_answer_invalid");
        let failure = embed().await.unwrap_err();
        assert_eq!(&*failure.code, "model_unauthorized");
        assert!(!format!("{failure:?}").contains("cAnary"), "{failure:?}");
        let counts = models.counted().next().unwrap().counts;
        assert_eq!((counts.succeeded.value(), counts.failed.value(), counts.input.value()), (1, 2, 7));
    });
    let first = &service.asked()[0];
    assert!(first.starts_with("POST /v1/embeddings HTTP/1.1\r\n"), "{first}");
    for part in [
        format!("authorization: Bearer {CANARY}"),
        format!("idempotency-key: {}-4", idempotency_key(name().run_id, &Place::root(0))),
        format!("traceparent: {}", traceparent(name().run_id, 3)),
        "accept: application/json".into(),
    ] {
        assert!(first.contains(&format!("\r\n{part}\r\n")), "{part} is not in {first}");
    }
    assert!(first.ends_with(r#"{"dimensions":2,"input":["a","b"],"model":"their-m"}"#), "{first}");
}

// F436, F411
#[test]
fn both_interfaces_are_heard_as_they_speak() {
    let openai = openai::tests::STREAM;
    let anthropic = anthropic::tests::STREAM;
    for (kind, data, tokens) in [
        (Kind::OpenAi, &openai[..], Tokens { input: 9, output: 3, ..Tokens::default() }),
        (Kind::Anthropic, &anthropic[..], Tokens { input: 25, output: 15, cache_read: 3, cache_write: 0 }),
    ] {
        let service = service(vec![stream(data), stream(data)]);
        let settings = settings(&service, kind, |_, provider| provider.stream = true);
        run((settings, allowed(&service), Secrets::default()), async |models| {
            for _ in 0..2 {
                let (deltas, mut heard) = Deltas::channel();
                let answer = told(&models, Some(deltas)).await.unwrap();
                assert_eq!((&*answer.content, answer.stop, answer.tokens), ("Let me.", Stop::Tools, tokens));
                assert!(answer.measured);
                // The arguments are a number, and a text is wanted.
                let refused = answer.calls[0].refused.as_ref().unwrap();
                assert_eq!(&*refused.code, "tool_arguments_invalid");
                let pieces: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
                assert_eq!(pieces, ["Let ", "me."].map(Arc::<str>::from));
            }
        });
        let asked = service.asked();
        assert_eq!(service.connections(), 1, "a connection is used again after a stream, too");
        assert!(
            asked[0].contains("\"stream\":true") && asked[0].contains("accept-encoding: identity"),
            "{}",
            asked[0]
        );
    }
}

// F373, F352, F353
#[test]
fn what_a_provider_refuses_has_a_code_and_a_time() {
    let overflow =
        format!(r#"{{"error": {{"code": "context_length_exceeded", "message": "{CANARY} is too long"}}}}"#);
    // A cut comes in the middle of the key.
    let pad = "x".repeat(limits::MODEL_WORDS_MAX - 3);
    let cut = format!(r#"{{"error": {{"code": "{pad}{CANARY}", "message": "{pad}{CANARY}"}}}}"#);
    for (act, code, after, billed) in [
        (status(401, "", &cut), "model_unauthorized", None, false),
        (status(429, "retry-after: 7\r\n", ""), "rate_limited", Some(7_000), false),
        (status(529, "", "{}"), "overloaded", Some(60_000), false),
        (status(500, "", "<html>"), "api_error", None, true),
        (
            status(401, "", r#"{"error": {"message": "no such key: cAnary-0123456789"}}"#),
            "model_unauthorized",
            None,
            false,
        ),
        (status(400, "", &overflow), "context_overflow", None, false),
        (status(307, "location: http://127.0.0.1:1/\r\n", ""), "redirect_refused", None, false),
    ] {
        let service = service(vec![act]);
        let settings =
            settings(&service, Kind::OpenAi, |_, provider| provider.credential = Some("KEY".into()));
        let (_kept, secrets) = secrets(&[("KEY", CANARY)]);
        run((settings, allowed(&service), secrets), async |models| {
            let failure = answer(&models).await.unwrap_err();
            assert_eq!(&*failure.code, code, "{failure}");
            assert_eq!(failure.retry_after(), after.map(Duration::from_millis), "{failure}");
            assert_eq!(is_billed(&failure.code), billed, "{failure}");
            assert!(!format!("{failure:?}").contains("cAn"), "{failure:?}");
            assert_eq!(models.counted().next().unwrap().counts.failed.value(), 1);
        });
        assert!(service.asked()[0].contains(CANARY), "it was sent");
    }
}

// F435
#[test]
fn a_provider_on_this_machine_takes_no_key_and_is_open_only_when_it_is_allowed() {
    let service = service(vec![ok(OPENAI)]);
    let settings = settings(&service, Kind::OpenAi, |model, _| model.price = None);
    run((settings.clone(), crate::exec::Settings::default(), Secrets::default()), async |models| {
        let failure = answer(&models).await.unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("address_refused", false), "{failure}");
        assert!(failure.message.contains("http.allow"), "{failure}");
    });
    assert!(service.asked().is_empty(), "nobody came");
    run((settings, allowed(&service), Secrets::default()), async |models| {
        let answer = answer(&models).await.unwrap();
        // D15: unpriced, not free.
        assert_eq!((answer.cost, answer.measured), (None, true));
        assert_eq!(models.known("m").unwrap().price, None);
    });
    let asked = service.asked().concat().to_ascii_lowercase();
    assert!(!asked.contains("authorization") && !asked.contains("api-key"), "{asked}");
}

#[test]
fn a_key_is_the_workspaces_own_before_it_is_the_nodes() {
    let service = service(vec![ok(OPENAI), ok(OPENAI)]);
    let settings = settings(&service, Kind::OpenAi, |_, provider| provider.credential = Some("KEY".into()));
    let (_kept, secrets) = secrets(&[("KEY", "of-the-node"), ("acme/KEY", "of-acme")]);
    run((settings.clone(), allowed(&service), secrets), async |models| {
        let asked = Arc::new(ask(r#"{"task": "Well?"}"#, vec![]));
        let quote = models.quote(&asked, &[]).unwrap();
        for workspace in ["acme", "other"] {
            let workspace: crate::model::Workspace = workspace.parse().unwrap();
            let name = CallName { workflow: workspace.inside(&"w".into()), ..name() };
            models.call(&name, asked.clone(), [].into(), &quote, None).await.unwrap();
        }
    });
    let asked = service.asked();
    assert!(asked[0].contains("Bearer of-acme") && asked[1].contains("Bearer of-the-node"), "{asked:?}");
    run((settings, allowed(&service), Secrets::default()), async |models| {
        let failure = answer(&models).await.unwrap_err();
        assert_eq!((&*failure.code, is_billed(&failure.code)), ("secret_not_found", false));
    });
}

#[test]
fn a_call_that_is_given_up_closes_its_connection() {
    for streams in [false, true] {
        let begun = if streams { events(&openai::tests::STREAM[..2]) } else { vec![] };
        let mut service = service(vec![begun.into_iter().chain([Act::Wait]).collect()]);
        let settings = settings(&service, Kind::OpenAi, |_, provider| provider.stream = streams);
        run((settings, allowed(&service), Secrets::default()), async |models| {
            tokio::select! {
                answer = answer(&models) => panic!("{answer:?}"),
                news = service.news.recv() => assert_eq!(news, Some(true), "it was asked"),
            }
            assert_eq!(service.news.recv().await, Some(false), "the caller has gone");
            let counted = models.counted().next().unwrap();
            assert_eq!((counted.counts.given_up.value(), counted.counts.failed.value()), (1, 0));
        });
    }
}

// F364, F367, F389, F437
#[test]
fn a_model_that_fails_is_left_alone_and_one_that_refuses_is_not() {
    let failing = || status(500, "", "");
    let unauthorized = || status(401, "", "");
    let mut script: Vec<_> = (0..6).map(|_| unauthorized()).collect();
    script.extend((0..5).map(|_| failing()));
    let service = service(script);
    let mut settings = settings(&service, Kind::OpenAi, |_, _| {});
    let model = settings.models["m"].clone();
    settings.models.insert("small".into(), Model { name: "small".into(), ..model.clone() });
    settings.models.insert("big".into(), Model { name: "big".into(), ..model });
    settings.ladder = ["big".into(), "m".into(), "small".into()].into();
    run((settings, allowed(&service), Secrets::default()), async |models| {
        for _ in 0..6 {
            assert_eq!(&*answer(&models).await.unwrap_err().code, "model_unauthorized");
        }
        assert_eq!(models.known("m").unwrap().breaker, State::Closed);
        assert_eq!(models.below("big").map(|name| &**name), Some("m"));
        for _ in 0..5 {
            assert_eq!(&*answer(&models).await.unwrap_err().code, "api_error");
        }
        let failure = answer(&models).await.unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("circuit_breaker_open", true));
        let after = failure.retry_after().unwrap();
        assert!(after > Duration::from_secs(50) && after <= Duration::from_secs(60), "{after:?}");
        let since = failure.details.get("last_failure_at").and_then(Value::as_str).unwrap();
        assert!(since.ends_with('Z'), "{since}");
        assert_eq!(failure.details.get("service"), Some(&"p/m".into()));
        let known = models.known("m").unwrap();
        assert_eq!((known.breaker, known.rung), (State::Open, Some(1)));
        assert_eq!(
            models.below("big").map(|name| &**name),
            Some("small"),
            "what is left alone is passed over"
        );
        assert_eq!((models.below("small"), models.below("nobody")), (None, None));
        let counted = models.counted().find(|counted| &*counted.model == "m").unwrap();
        assert_eq!((counted.counts.refused.value(), counted.state), (1, State::Open));
    });
    assert_eq!(service.asked().len(), 11, "the last one was not made");
}

// F381
#[test]
fn so_many_calls_are_under_way_and_the_next_waits() {
    let mut service = service(vec![vec![Act::Wait], ok(OPENAI)]);
    let settings = settings(&service, Kind::OpenAi, |_, provider| provider.max_in_flight = 1);
    run((settings, allowed(&service), Secrets::default()), async |models| {
        let first = tokio::task::spawn_local({
            let models = models.clone();
            async move { answer(&models).await }
        });
        assert_eq!(service.news.recv().await, Some(true));
        let mut second = Box::pin(answer(&models));
        tokio::select! {
            answer = &mut second => panic!("{answer:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(service.asked().len(), 1, "the second waits");
        first.abort();
        // The first has gone and the second has come, in whichever order the service sees it.
        let mut news = [service.news.recv().await, service.news.recv().await];
        news.sort_unstable();
        assert_eq!(news, [Some(false), Some(true)]);
        assert_eq!(&*second.await.unwrap().content, "Yes.");
    });
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let service = service(vec![]);
    let mut settings = settings(&service, Kind::OpenAi, |_, _| {});
    settings.default = None;
    run((settings, allowed(&service), Secrets::default()), async |models| {
        assert_eq!(models.default_model(), None);
        let mut asked = ask(r#"{"task": "Well?"}"#, vec![]);
        let code = |asked: &Ask| models.quote(asked, &[]).map_err(|failure| failure.code.to_string());
        assert_eq!(code(&asked), Err("no_model".into()));
        asked.wanted = Wanted::Model { model: Some("gpt".into()), turn: 0 };
        assert_eq!(code(&asked), Err("model_unknown".into()));
        asked.wanted = Wanted::Model { model: Some("m".into()), turn: 0 };
        assert_eq!(code(&asked).unwrap().model, Arc::<str>::from("m"));
        asked.wanted = Wanted::Tools(vec![]);
        assert_eq!(code(&asked), Err("internal".into()));
        assert!(models.known("gpt").is_none());
    });
    let (none, _jobs) = Models::new(&Settings::default());
    assert_eq!(&*none.quote(&ask(r#"{"task": "Well?"}"#, vec![]), &[]).unwrap_err().code, "no_model");
    assert_eq!(none.suggest(Complexity::Simple, None), Some("gemini-2.0-flash-exp"));
}

#[test]
fn nobody_waits_for_a_thread_that_has_gone() {
    let (models, jobs) = {
        let service = service(vec![]);
        Models::new(&settings(&service, Kind::OpenAi, |_, _| {}))
    };
    drop(jobs);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let failure = runtime.block_on(answer(&models)).unwrap_err();
    assert_eq!((&*failure.code, failure.retryable()), ("executor_stopped", true));
}
