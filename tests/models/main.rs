//! The gateway to models before a mock of both interfaces that somebody else wrote. `tests/models/run` starts it and says where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test takes apart what it built, and fails loudly"
)]

use std::sync::Arc;
use std::time::Duration;

use aob::exec::models::{CallName, Deltas, Jobs, Kind, Model, Models, Provider, Settings, base_url, serve};
use aob::exec::{Rule, Secrets};
use aob::model::agent::{Answer, Ask, Returned, Said, Stop, ToolSpec, Wanted};
use aob::model::money::{PerToken, Price, Tokens};
use aob::model::{Failure, Partition, Place, RunId, Value};
use aob::time::Timestamp;

fn mock() -> Option<String> {
    let mock = std::env::var("AOB_MODEL_MOCK").ok();
    if mock.is_none() {
        println!("tests/models/run runs this");
    }
    mock
}

fn gateway(mock: &str, kind: Kind, stream: bool) -> (Models, Jobs, aob::exec::Settings) {
    let base_url = base_url(mock).unwrap();
    let allow = format!("{}:{}", base_url.host_str().unwrap(), base_url.port().unwrap());
    let per = |dollars| PerToken::per_million(dollars).unwrap();
    let provider = Provider {
        name: "mock".into(),
        kind,
        base_url,
        credential: None,
        headers: Default::default(),
        timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        max_in_flight: 4,
        stream,
    };
    let model = Model {
        name: "m".into(),
        provider: Arc::new(provider),
        id: "some-model".into(),
        context_tokens: 100_000,
        max_output_tokens: 1_000,
        max_tokens_key: "max_tokens".into(),
        bytes_per_token: 1,
        price: Some(Price { input: per("3"), output: per("15"), ..Price::default() }),
    };
    let settings = Settings { models: [("m".into(), model)].into(), ..Settings::default() };
    let (models, jobs) = Models::new(&settings);
    let reach = aob::exec::Settings { allow: vec![Rule::parse(&allow).unwrap()], ..Default::default() };
    (models, jobs, reach)
}

async fn answer(
    models: &Models,
    task: &str,
    said: Vec<Said>,
    deltas: Option<Deltas>,
) -> Result<Answer, Failure> {
    let schema = r#"{"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}"#;
    let parameters = Value::from_json(schema.as_bytes()).unwrap();
    let tools: Arc<[ToolSpec]> =
        [ToolSpec { name: "find".into(), description: "Finds.".into(), parameters }].into();
    let turn = u32::try_from(said.len()).unwrap();
    let wanted = Wanted::Model { model: Some("m".into()), turn };
    let request = Value::map([("task", Value::string(task)), ("system", "You are kind.".into())]);
    let ask = Arc::new(Ask { request, said: Arc::new(said), wanted, own: None });
    let name = CallName {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]),
        path: "a".into(),
        place: Place::root(0),
        seq: 3,
        attempt: 1,
        epoch: 1,
        turn,
        workflow: "w".into(),
        lost: false,
    };
    let quote = models.quote(&ask, &tools)?;
    models.call(&name, ask, tools, &quote, deltas).await
}

/// Asks for vectors of these texts.
async fn vectors(models: &Models, request: &str) -> Result<Answer, Failure> {
    let wanted = Wanted::Model { model: Some("m".into()), turn: 0 };
    let request = Value::from_json(request.as_bytes()).unwrap();
    let ask = Arc::new(Ask { request, said: Arc::default(), wanted, own: None });
    let name = CallName {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]),
        path: "a".into(),
        place: Place::root(0),
        seq: 3,
        attempt: 1,
        epoch: 1,
        turn: 0,
        workflow: "w".into(),
        lost: false,
    };
    let quote = models.quote(&ask, &[])?;
    models.call(&name, ask, [].into(), &quote, None).await
}

// F430
#[test]
fn texts_become_vectors_where_the_interface_has_them() {
    let Some(mock) = mock() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        // That answers of words are streamed changes nothing here.
        let (models, jobs, reach) = gateway(&mock, Kind::OpenAi, true);
        tokio::task::spawn_local(serve(reach, Secrets::default(), jobs));
        let answer = vectors(&models, r#"{"embed": ["a fixed text", "another"]}"#).await.unwrap();
        assert_eq!(&*answer.content, "[[0.25,-0.5,1.0],[0.25,-0.5,1.0]]");
        // It says that it took nothing, which cannot be.
        assert_eq!((answer.measured, answer.tokens.output), (false, 0));
        assert!(answer.cost.unwrap() > aob::model::money::Usd::default());
        let failure = vectors(&models, r#"{"embed": "a fixed text", "dimensions": 2}"#).await.unwrap_err();
        assert_eq!(&*failure.code, "model_answer_invalid", "three numbers are not two: {failure}");
    });
}

/// Runs a test with each interface, plain and streamed.
fn each(test: impl AsyncFn(&Models, bool)) {
    let Some(mock) = mock() else { return };
    for kind in [Kind::OpenAi, Kind::Anthropic] {
        for stream in [false, true] {
            println!("{kind:?}, streamed: {stream}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let (models, jobs, reach) = gateway(&mock, kind, stream);
                tokio::task::spawn_local(serve(reach, Secrets::default(), jobs));
                test(&models, stream).await;
            });
        }
    }
}

// F436, F394
#[test]
fn both_interfaces_answer_plain_and_streamed() {
    each(async |models, stream| {
        let (deltas, mut heard) = Deltas::channel();
        let answer = answer(models, "Is all well?", vec![], Some(deltas)).await.unwrap();
        assert_eq!(
            (&*answer.content, answer.stop),
            ("All is well, and has been for quite a while.", Stop::End)
        );
        assert_eq!(
            (answer.tokens, answer.measured),
            (Tokens { input: 40, output: 12, ..Tokens::default() }, true)
        );
        assert_eq!(answer.cost.unwrap().to_string(), "0.0003");
        assert_eq!(&*answer.answered_by, "some-model");
        assert!(!answer.response_id.is_empty());
        let pieces: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
        assert_eq!(pieces.concat(), &*answer.content);
        assert_eq!(pieces.len() > 1, stream, "{pieces:?}");
        let cut = self::answer(models, "Please say less", vec![], None).await.unwrap();
        assert_eq!((&*cut.content, cut.stop), ("All is", Stop::Length));
    });
}

// F436, F029
#[test]
fn a_conversation_with_a_tool_goes_round() {
    each(async |models, _| {
        let first = answer(models, "Please find it", vec![], None).await.unwrap();
        assert_eq!((first.stop, first.calls.len()), (Stop::Tools, 2));
        let (find, other) = (&first.calls[0], &first.calls[1]);
        assert_eq!(
            (&*find.name, find.arguments.to_json(), find.refused.is_none()),
            ("find", r#"{"q":"it"}"#.into(), true)
        );
        assert_eq!(other.refused.as_ref().map(|failure| &*failure.code), Some("tool_not_allowed"));
        let brought = |call: &aob::model::agent::ToolCall, outcome| Returned {
            id: call.id.clone(),
            name: call.name.clone(),
            outcome,
            took_ms: 1,
        };
        let refused = (**other.refused.as_ref().unwrap()).clone();
        let results = vec![brought(find, Ok(Value::string("at home"))), brought(other, Err(refused))];
        let said = vec![Said::Model(Box::new(first)), Said::Tools(results)];
        let last = answer(models, "Please find it", said, None).await.unwrap();
        assert_eq!((&*last.content, last.stop, last.tokens.total()), ("It is at home.", Stop::End, 66));
    });
}

// F436, F373, F353
#[test]
fn what_it_refuses_is_told_by_code() {
    each(async |models, stream| {
        for (task, code, waits) in [
            ("You ask too often", "rate_limited", true),
            ("You are too busy", "overloaded", true),
            ("This is too long", "context_overflow", false),
            // It is strict: it has nothing to say, and says 503.
            ("Nobody has an answer to this", "api_error", false),
        ] {
            let failure = answer(models, task, vec![], None).await.unwrap_err();
            assert_eq!((&*failure.code, failure.retry_after().is_some()), (code, waits), "{failure}");
        }
        if stream {
            let failure = answer(models, "Now break off", vec![], None).await.unwrap_err();
            assert!(failure.retryable(), "{failure}");
            assert!(matches!(&*failure.code, "connection_lost" | "model_answer_invalid"), "{failure}");
        }
    });
}
