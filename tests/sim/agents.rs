//! Agents: a model and tools that live on when the node does not, and write down what they were asked and what they billed.
//! What a model says follows from the conversation alone, so a turn that is made again says the same.
//!
//! What must hold of every run (`bills`): a model is called for turns whose cost stands reserved in the log, once for each; a
//! turn that is recorded is never asked for again; at every event spent and reserved are within the budget; the node's bill is
//! what the model counted, and what was lost.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot};

use super::clock;
use super::net::post;
use super::world::World;
use crate::exec::{models, tools};
use crate::model::agent::{Answer, Ask, Returned, Said, Stop, ToolCall};
use crate::model::money::{PerToken, Price, Tokens};
use crate::model::{Failure, Value};

/// Dollars that a paused run is given.
const RAISE: &str = "0.02";

/// A call of a model that arrived.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) run_id: String,
    pub(super) node: String,
    /// The turn: the event that it follows from, and the answers before it.
    pub(super) seq: u64,
    pub(super) turn: u32,
    /// What the provider bills, in billionths; nothing when it refused.
    pub(super) billed: u64,
}

/// A call of a tool that arrived.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) run_id: String,
    pub(super) node: String,
    pub(super) seq: u64,
    pub(super) turn: u32,
    pub(super) id: String,
    pub(super) lost: bool,
}

type Use = (tools::CallName, ToolCall, oneshot::Sender<Returned>);

/// What models and tools have written down.
#[derive(Default)]
pub(super) struct Account {
    models: Option<mpsc::UnboundedSender<models::Asked>>,
    tools: Option<mpsc::UnboundedSender<Use>>,
    pub(super) called: Vec<Called>,
    pub(super) used: Vec<Used>,
    /// What an answer cost, by its id.
    pub(super) answers: BTreeMap<String, u64>,
}

/// Runs of these are agents.
pub(super) fn is_agent(workflow: &str) -> bool {
    matches!(workflow, "agent" | "spender" | "thrifty" | "frugal")
}

/// Models of the node.
pub(super) fn models() -> models::Settings {
    let provider = Arc::new(models::Provider {
        name: "sim".into(),
        kind: models::Kind::OpenAi,
        base_url: models::base_url("http://model.example").unwrap(),
        credential: None,
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        max_in_flight: 64,
        stream: false,
    });
    let per = |dollars| PerToken::per_million(dollars).unwrap();
    let model = |name: &str, input, output| models::Model {
        name: name.into(),
        provider: provider.clone(),
        id: name.to_owned(),
        context_tokens: 100_000,
        max_output_tokens: 500,
        max_tokens_key: "max_tokens".into(),
        bytes_per_token: 1,
        price: Some(Price { input: per(input), output: per(output), ..Price::default() }),
    };
    let all = [model("big", "1", "2"), model("small", "0.1", "0.2")];
    models::Settings {
        default: Some("big".into()),
        models: all.into_iter().map(|model| (model.name.clone(), model)).collect(),
        ..models::Settings::default()
    }
}

/// Starts the models and the tools.
pub(super) fn start(world: &Rc<World>) {
    let (models, mut asked) = mpsc::unbounded_channel();
    let (tools, mut used) = mpsc::unbounded_channel();
    {
        let mut account = world.account.borrow_mut();
        (account.models, account.tools) = (Some(models), Some(tools));
    }
    let (here, there) = (world.clone(), world.clone());
    tokio::task::spawn_local(async move {
        while let Some(asked) = asked.recv().await {
            tokio::task::spawn_local(ask(here.clone(), asked));
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(used) = used.recv().await {
            tokio::task::spawn_local(use_tool(there.clone(), used));
        }
    });
}

/// Takes what one life of the node asks models and tools to them.
pub(super) fn forward(world: &Rc<World>, mut asked: models::Jobs, mut used: tools::Jobs) {
    let (here, there) = (world.clone(), world.clone());
    tokio::task::spawn_local(async move {
        while let Some(asked) = asked.next().await {
            if let Some(models) = &here.account.borrow().models {
                let _ = models.send(asked);
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(used) = used.next().await {
            if let Some(tools) = &there.account.borrow().tools {
                let _ = tools.send(used);
            }
        }
    });
}

/// The number that a run was given.
fn number(ask: &Ask) -> u64 {
    let task = ask.request.get("task").and_then(Value::as_str).unwrap_or_default();
    task.trim_start_matches("n=").parse().unwrap()
}

/// What the model says at this point of the conversation.
fn says(ask: &Ask) -> (String, Vec<ToolCall>) {
    let n = number(ask);
    let answers = ask.said.iter().filter(|said| matches!(said, Said::Model(_))).count() as u64;
    let corrected = ask.said.iter().any(|said| matches!(said, Said::Correction(_)));
    if answers < n % 4 {
        let call = |at: u64, name: &str, arguments: Value| ToolCall {
            id: format!("call_{answers}_{at}").into(),
            name: name.into(),
            arguments,
            refused: None,
        };
        let mut calls = vec![call(0, "find", Value::map([("n", Value::unsigned(n))]))];
        if answers == 1 {
            let node = format!(
                r#"{{"operations": [{{"op": "add", "path": "/nodes/y{}", "value": {{"type": "function", "with": {{"expr": "1"}}}}}}], "justification": "it is needed"}}"#,
                n % 5
            );
            calls.push(call(1, "propose_patch", Value::from_json(node.as_bytes()).unwrap()));
        } else {
            let mut refused = call(1, "rm", Value::Null);
            refused.refused = Some(Box::new(Failure::fatal("tool_not_allowed", "it is not yours")));
            calls.push(refused);
        }
        return (String::new(), calls);
    }
    if n % 5 == 1 && !corrected {
        return ("It is a number.".into(), Vec::new());
    }
    (json!({"n": 3 * n, "said": "so it is"}).to_string(), Vec::new())
}

/// One call of a model.
async fn ask(world: Rc<World>, asked: models::Asked) {
    let models::Asked { name, ask, model, price, mut reply, .. } = asked;
    let options = &world.options;
    let at = {
        let mut account = world.account.borrow_mut();
        account.called.push(Called {
            run_id: name.run_id.to_string(),
            node: name.path.clone(),
            seq: name.seq,
            turn: name.turn,
            billed: 0,
        });
        account.called.len() - 1
    };
    world.tell(format_args!("{model} is asked by {} {} turn {}", name.run_id, name.seq, name.turn));
    if name.lost {
        world.sometimes("a model was asked again after a crash");
    }
    clock::sleep_ms(world.draw(options.work_ms)).await;
    let refusal = |code: &str, wait: u64| {
        let details = Value::map([("retry_after_ms", Value::unsigned(wait))]);
        let class = crate::model::Class::Recoverable;
        Failure { details, class, ..Failure::fatal(code, "not now") }
    };
    if &*model == "big" && number(&ask).is_multiple_of(7) {
        return drop(reply.send(Err(Failure::fatal("context_overflow", "too long"))));
    }
    if world.chance(options.fails) {
        world.sometimes("a model refused for now");
        let code = ["rate_limited", "overloaded"][world.draw(2) as usize];
        return drop(reply.send(Err(refusal(code, world.draw(300)))));
    }
    let (content, calls) = says(&ask);
    let stop = if calls.is_empty() { Stop::End } else { Stop::Tools };
    let said = ask.said.len() as u64;
    let tokens = Tokens { input: 50 + 10 * said, output: 20 + said, ..Tokens::default() };
    let cost = price.map(|price| price.of(&tokens));
    // From here on it is billed, whoever hears of it.
    let billed = cost.unwrap_or_default().as_nanos();
    let id = format!("r{at}");
    {
        let mut account = world.account.borrow_mut();
        account.called[at].billed = billed;
        account.answers.insert(id.clone(), billed);
    }
    if world.chance(options.hangs) {
        return reply.closed().await;
    }
    if world.chance(options.loses_answer) {
        world.sometimes("the answer of a model was lost");
        return drop(reply.send(Err(Failure::transient("connection_lost", "it broke"))));
    }
    let answer = Answer {
        model: model.clone(),
        provider: "sim".into(),
        answered_by: model,
        response_id: id.into(),
        content: content.into(),
        calls,
        stop,
        tokens,
        measured: true,
        cost,
        took_ms: 1,
    };
    if reply.send(Ok(answer)).is_err() {
        world.sometimes("a model answered a node that was gone");
    }
}

/// One call of a tool.
async fn use_tool(world: Rc<World>, (name, call, mut reply): Use) {
    let options = &world.options;
    world.tell(format_args!("{} is used by {} {} turn {}", call.name, name.run_id, name.seq, name.turn));
    world.account.borrow_mut().used.push(Used {
        run_id: name.run_id.to_string(),
        node: name.path,
        seq: name.seq,
        turn: name.turn,
        id: call.id.to_string(),
        lost: name.lost,
    });
    clock::sleep_ms(world.draw(options.work_ms)).await;
    if world.chance(options.hangs) {
        return reply.closed().await;
    }
    let outcome = match world.chance(options.fails) {
        true => Err(Failure::transient("tool_failed", "not today")),
        false => Ok(Value::map([("found", call.arguments)])),
    };
    let _ = reply.send(Returned { id: call.id, name: call.name, outcome, took_ms: 1 });
}

/// A run that its budget has paused is given more, and goes on.
pub(super) async fn raise(world: &World, run_id: &str) {
    world.sometimes("a budget paused a run");
    let body = json!({"usd": RAISE, "reason": "worth it", "resume": true});
    let answer = post(world, &format!("/v1/runs/{run_id}/budget"), body).await;
    world.tell(format_args!("budget of {run_id}: {answer:?}"));
}

/// Is it paused for money?
pub(super) fn is_short(run: &Json) -> bool {
    run["pauses"].as_array().into_iter().flatten().any(|pause| pause["reason"] == "budget")
}
