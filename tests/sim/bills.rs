//! What agents did and what it cost, folded from their events by other means than the node's, and held to what models and
//! tools have written down (RELIABILITY 2.10, I-18).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::agents::{Account, is_agent};
use super::check::{Dump, Dumps, must};
use super::world::World;

fn nanos(amount: &Json) -> u64 {
    let text = amount.as_str().unwrap_or("0");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{part:0<9}").parse::<u64>().unwrap()
}

/// A run's money, folded from what it shows of its events, by other means than the node's.
#[derive(Default)]
struct Purse {
    limit: Option<u64>,
    spent: u64,
    /// What calls of unknown outcome took.
    lost: u64,
    /// What was spent before it was forked.
    inherited: u64,
    /// By node: the event that its turn follows from, answers so far, and what is reserved.
    turns: BTreeMap<String, (u64, u32, Option<u64>)>,
    /// Turns for which something was reserved.
    reserved: BTreeSet<(String, u64)>,
    /// Turns that were recorded: the event that says so.
    answered: BTreeMap<(String, u32), u64>,
    returned: BTreeMap<(String, u32), u64>,
    /// Answers that are this run's own: id and cost.
    own: Vec<(String, u64)>,
}

impl Purse {
    fn of(run_id: &str, workflow: &str, events: &[Json]) -> Self {
        let limit = (workflow != "agent").then_some(BUDGET_NANOS);
        let mut purse = Self { limit, ..Self::default() };
        for event in events {
            purse.take(event);
            let open: u64 = purse.turns.values().filter_map(|(.., reserved)| *reserved).sum();
            let over = purse.limit.is_some_and(|limit| purse.spent + open > limit);
            assert!(!over, "{run_id}: {} and {open} of {:?} at {event}", purse.spent, purse.limit);
        }
        let open: Vec<u64> = purse.turns.values_mut().filter_map(|turn| turn.2.take()).collect();
        open.into_iter().for_each(|quote| purse.lose(quote));
        purse
    }

    fn lose(&mut self, quote: u64) {
        self.spent += quote;
        self.lost += quote;
    }

    fn take(&mut self, event: &Json) {
        let (seq, node) = (event["seq"].as_u64().unwrap(), event["node"].as_str().unwrap_or_default());
        let kind = event["type"].as_str().unwrap();
        match kind {
            "budget.raised" => {
                self.limit = self.limit.map(|limit| limit + nanos(&event["usd"]));
                return;
            }
            "run.forked" => {
                self.inherited = self.spent;
                self.own.clear();
                // The other run pays for the calls that were under way there.
                self.turns.values_mut().for_each(|turn| turn.2 = None);
                return;
            }
            _ => {}
        }
        let turn = self.turns.entry(node.to_owned()).or_default();
        match kind {
            "model.called" => {
                let before = turn.2.replace(nanos(&event["reserved_usd"]));
                assert!(before.is_none(), "a turn was reserved twice: {event}");
                self.reserved.insert((node.to_owned(), turn.0));
            }
            "model.answered" => {
                assert!(turn.2.take().is_some(), "an answer that was not reserved: {event}");
                let cost = nanos(&event["cost_usd"]);
                self.answered.insert((node.to_owned(), turn.1), seq);
                self.own.push((event["response_id"].as_str().unwrap().to_owned(), cost));
                turn.1 += 1;
                self.spent += cost;
            }
            _ => {
                if kind == "tool.returned" {
                    self.returned.insert((node.to_owned(), turn.1), seq);
                }
                let begins = matches!(
                    kind,
                    "node.waiting"
                        | "tool.called"
                        | "tool.returned"
                        | "agent.corrected"
                        | "model.degraded"
                        | "context.trimmed"
                        | "node.lost"
                );
                // Another model in the place of one that spikes: the same turn, for which nothing is reserved yet.
                let begins = begins && event["measured"].is_null();
                if begins {
                    turn.0 = seq;
                }
                let ends = matches!(kind, "node.retry_scheduled" | "node.failed" | "timer.fired");
                if let (true, Some(quote)) = (begins || ends, turn.2.take()) {
                    let code = event["error"]["code"].as_str().unwrap_or_default();
                    // A provider that finds a conversation too long bills nothing.
                    let is_free = kind == "context.trimmed"
                        || matches!(code, "rate_limited" | "overloaded" | "context_overflow");
                    if !is_free {
                        self.lose(quote);
                    }
                }
            }
        }
    }
}

/// What the documents of these workflows allow.
const BUDGET_NANOS: u64 = 8_000_000;

/// Checks the runs of agents, one by one.
pub(super) fn all(world: &World, dumps: &Dumps) {
    let account = world.account.borrow();
    let mut recorded = BTreeSet::new();
    for (run_id, dump) in dumps {
        let Some(Dump { run, events }) = dump else { continue };
        let workflow = run["workflow"].as_str().unwrap();
        if !is_agent(workflow) {
            continue;
        }
        seen(world, events);
        if run["status"] == "failed" {
            let stops = matches!(workflow, "spender" | "frugal");
            assert!(stops && run["error"]["code"] == "budget_exceeded", "failed: {run}");
        }
        if world.may_forget() {
            continue;
        }
        let purse = Purse::of(run_id, workflow, events);
        for (id, cost) in &purse.own {
            assert_eq!(account.answers.get(id), Some(cost), "{run_id}: {id} is not what the model billed");
            assert!(recorded.insert(id.clone()), "{run_id}: {id} was recorded twice");
        }
        asked(run_id, &purse, &account);
        used(run_id, (&purse, events), &account);
    }
}

/// What models were asked for a run follows from what stands in its log.
fn asked(run_id: &str, purse: &Purse, account: &Account) {
    let mut turns = BTreeSet::new();
    let mut billed = 0;
    for call in account.called.iter().filter(|call| call.run_id == *run_id) {
        let turn = (call.node.clone(), call.seq);
        assert!(purse.reserved.contains(&turn), "nothing was reserved for {call:?}");
        assert!(turns.insert(turn), "a turn was made twice: {call:?}");
        let answered = purse.answered.get(&(call.node.clone(), call.turn));
        assert!(answered.is_none_or(|at| call.seq < *at), "{call:?} was answered by event {answered:?}");
        billed += call.billed;
    }
    let spent = purse.spent - purse.inherited;
    assert!(billed <= spent, "{run_id}: the model billed {billed}, the run has spent {spent}");
}

/// What tools were asked, too.
fn used(run_id: &str, (purse, events): (&Purse, &[Json]), account: &Account) {
    let mut before = BTreeSet::new();
    for call in account.used.iter().filter(|call| call.run_id == *run_id) {
        let cause = &events[usize::try_from(call.seq).unwrap() - 1];
        let kind = cause["type"].as_str().unwrap();
        let again = !before.insert((&call.node, call.turn, &call.id));
        let causes: &[&str] = if again {
            &["node.lost", "node.waiting"]
        } else {
            &["tool.called", "node.lost", "node.waiting"]
        };
        assert!(causes.contains(&kind), "{call:?} follows from {cause}");
        assert!(!call.lost || kind != "tool.called", "{call:?} was not lost: {cause}");
        let returned = purse.returned.get(&(call.node.clone(), call.turn));
        assert!(returned.is_none_or(|at| call.seq < *at), "{call:?} had returned by event {returned:?}");
    }
}

/// What came up.
fn seen(world: &World, events: &[Json]) {
    let has = |wanted: &dyn Fn(&Json) -> bool| events.iter().any(wanted);
    let kind = |name: &'static str| move |event: &Json| event["type"] == name;
    let patched = |event: &Json| {
        event["type"] == "patch.created"
            && event["author"].as_str().is_some_and(|author| author.starts_with("agent:"))
    };
    for (name, found) in [
        ("an agent used a tool", has(&kind("tool.returned"))),
        ("an agent patched its run", has(&patched)),
        ("an agent was corrected", has(&kind("agent.corrected"))),
        ("an agent went down its ladder", has(&kind("model.degraded"))),
        ("a budget was reached", has(&kind("budget.exceeded"))),
        (
            "a run was forked in the middle of a turn",
            events.windows(2).any(|two| two[0]["type"] == "model.called" && two[1]["type"] == "run.forked"),
        ),
    ] {
        world.sometimes_so_often(name, u64::from(found));
    }
}

/// The node's bill is what stands in the log: what models counted, and what was lost.
pub(super) async fn told(world: &World, dumps: &Dumps) {
    for (run_id, dump) in dumps {
        let Some(Dump { run, events }) = dump else { continue };
        let workflow = run["workflow"].as_str().unwrap();
        if !is_agent(workflow) || world.may_forget() {
            continue;
        }
        let (status, bill) = must(world, &format!("/v1/runs/{run_id}/cost")).await;
        if status == 404 {
            continue;
        }
        let purse = Purse::of(run_id, workflow, events);
        let told = (nanos(&bill["usd"]), nanos(&bill["unknown_usd"]), nanos(&bill["reserved_usd"]));
        assert_eq!(told, (purse.spent, purse.lost, 0), "{run_id}: {bill}");
        assert_eq!(nanos(&bill["inherited_usd"]), purse.inherited, "{run_id}: {bill}");
        world.sometimes("an agent's bill was checked");
    }
}
