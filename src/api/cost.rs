//! `GET /v1/runs/{id}/cost`: what a run has spent, in all and by node, role and model, and what is left of its budget.
//!
//! Told from the run's events alone, in one pass ([`Bill`]), so it is the same while the run goes on, after its end, and for as
//! long as its history is kept. Amounts are exact; the rows of each breakdown come to the total (F396). What child runs spent
//! is theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::ports::{Location, Runs, StorageError};
use super::request;
use super::respond::{Body, json};
use super::services::Services;
use crate::engine::command::{Bill, Ir, Whose};
use crate::model::agent::Quote;
use crate::model::budget::{Budget, Wider};
use crate::model::money::{Tokens, Usd};
use crate::model::usage::Part;
use crate::model::{Place, RunId, Seq, Status};
use crate::wire::Shown;
use crate::wire::problem::Problem;

#[derive(Serialize)]
struct Shape {
    run_id: Shown<RunId>,
    status: Status,
    seq: Seq,
    #[serde(flatten)]
    total: Sums,
    /// Of it: what was spent before this run was forked from another one.
    inherited_usd: Usd,
    budget: Option<Left>,
    /// The last call that a budget wider than the run refused, until one was made.
    refused_by: Option<Wide>,
    by_node: Vec<Row>,
    by_role: Vec<Row>,
    by_model: Vec<Row>,
}

/// A part as it is shown.
#[derive(Serialize)]
pub(super) struct Sums {
    usd: Usd,
    reserved_usd: Usd,
    unknown_usd: Usd,
    tokens: Tokens,
    reserved_tokens: u64,
    unknown_tokens: u64,
    calls: u64,
    answers: u64,
    unpriced_answers: u64,
    estimated_answers: u64,
    took_ms: u64,
}

#[derive(Serialize)]
struct Row {
    name: Arc<str>,
    /// Of a node: how many tokens its last call had, both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_tokens: Option<u64>,
    #[serde(flatten)]
    sums: Sums,
}

/// A budget, and what is left of it.
#[derive(Serialize)]
struct Left {
    /// With what it was given by hand.
    usd: Option<Usd>,
    tokens: Option<u64>,
    raised_usd: Usd,
    raised_tokens: u64,
    warn_at: f64,
    on_breach: &'static str,
    left_usd: Option<Usd>,
    left_tokens: Option<u64>,
    /// The call for which too little was left last.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// A budget that the run shares with others, as it was when it refused a call.
#[derive(Serialize)]
struct Wide {
    scope: Arc<str>,
    per: Arc<str>,
    usd: Option<Usd>,
    left_usd: Option<Usd>,
    tokens: Option<u64>,
    left_tokens: Option<u64>,
    on_breach: &'static str,
    refused: Refused,
}

#[derive(Serialize)]
struct Refused {
    model: Arc<str>,
    usd: Option<Usd>,
    tokens: u64,
}

impl From<&Part> for Sums {
    fn from(part: &Part) -> Self {
        Self {
            usd: part.usd,
            reserved_usd: part.reserved,
            unknown_usd: part.unknown,
            tokens: part.tokens,
            reserved_tokens: part.tokens_reserved,
            unknown_tokens: part.tokens_unknown,
            calls: part.calls,
            answers: part.answers,
            unpriced_answers: part.unpriced,
            estimated_answers: part.estimated,
            took_ms: part.took_ms,
        }
    }
}

/// `GET /v1/runs/{id}/cost`
pub(super) async fn cost(
    services: &Services,
    head: &Parts,
    run_id: RunId,
) -> Result<Response<Body>, Box<Problem>> {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    services
        .read(move || {
            let (bill, graph) = billed(&*runs, &location)?;
            let budget = graph.as_ref().and_then(|graph| graph.budget.as_deref());
            Ok::<_, StorageError>(json(StatusCode::OK, &shape(&location, &bill, budget)))
        })
        .await
}

/// Goes over the events of a run.
pub(super) fn billed(runs: &dyn Runs, location: &Location) -> Result<(Bill, Option<Arc<Ir>>), StorageError> {
    let graph = runs.graph(location)?;
    let name = |place: &Place| graph.as_ref().map_or_else(|| "?".into(), |graph| plain(&graph.path(place)));
    let mut bill = Bill::default();
    runs.each(location, &mut |body| bill.take(body, graph.as_deref(), &name))?;
    Ok((bill, graph))
}

/// A path without the numbers of passes: `each[3].score` is `each[].score`.
fn plain(path: &str) -> Arc<str> {
    let mut plain = String::with_capacity(path.len());
    for (at, part) in path.split('[').enumerate() {
        match part.split_once(']') {
            Some((pass, rest)) if at > 0 && pass.bytes().all(|byte| byte.is_ascii_digit()) => {
                plain.push_str("[]");
                plain.push_str(rest);
            }
            _ if at > 0 => {
                plain.push('[');
                plain.push_str(part);
            }
            _ => plain.push_str(part),
        }
    }
    plain.into()
}

fn shape(location: &Location, bill: &Bill, budget: Option<&Budget>) -> Shape {
    let total = bill.total();
    let summary = &location.summary;
    let context = |name: &Arc<str>| bill.context.get(name).copied();
    Shape {
        run_id: Shown(summary.run_id),
        status: summary.status,
        seq: summary.seq,
        total: (&total).into(),
        inherited_usd: bill.inherited.values().map(|part| part.usd).sum(),
        budget: budget.map(|budget| left(budget, bill, &total)),
        refused_by: wide(bill),
        by_node: rows(bill, |whose| &whose.node, context),
        by_role: rows(bill, |whose| &whose.role, |_| None),
        by_model: rows(bill, |whose| &whose.model, |_| None),
    }
}

fn rows(
    bill: &Bill,
    by: impl Fn(&Whose) -> &Arc<str>,
    context: impl Fn(&Arc<str>) -> Option<u64>,
) -> Vec<Row> {
    let mut rows: BTreeMap<&Arc<str>, Part> = BTreeMap::new();
    for (whose, part) in bill.own.iter().chain(&bill.inherited) {
        rows.entry(by(whose)).or_default().add(part);
    }
    let row = |(name, part): (&Arc<str>, Part)| Row {
        name: name.clone(),
        context_tokens: context(name),
        sums: (&part).into(),
    };
    rows.into_iter().map(row).collect()
}

fn left(budget: &Budget, bill: &Bill, total: &Part) -> Left {
    let (raised_usd, raised_tokens) = bill.raised;
    let usd = budget.usd.map(|usd| usd.plus(raised_usd));
    let tokens = budget.tokens.map(|tokens| tokens.saturating_add(raised_tokens));
    let taken = total.tokens_taken().saturating_add(total.tokens_reserved);
    Left {
        usd,
        tokens,
        raised_usd,
        raised_tokens,
        warn_at: f64::from(budget.warn_at_permille) / 1_000.0,
        on_breach: budget.on_breach.as_str(),
        left_usd: usd.map(|usd| usd.less(total.usd.plus(total.reserved))),
        left_tokens: tokens.map(|tokens| tokens.saturating_sub(taken)),
        refused: bill.refused.as_ref().filter(|_| bill.refused_by.is_none()).map(Refused::from),
    }
}

fn wide(bill: &Bill) -> Option<Wide> {
    let Wider { scope, per, usd, tokens, on_breach } = bill.refused_by.as_ref()?;
    Some(Wide {
        scope: scope.clone(),
        per: per.clone(),
        usd: usd.map(|(_, of)| of),
        left_usd: usd.map(|(left, _)| left),
        tokens: tokens.map(|(_, of)| of),
        left_tokens: tokens.map(|(left, _)| left),
        on_breach: on_breach.as_str(),
        refused: bill.refused.as_ref()?.into(),
    })
}

impl From<&Quote> for Refused {
    fn from(Quote { model, cost, tokens }: &Quote) -> Self {
        Self { model: model.clone(), usd: *cost, tokens: *tokens }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::agent::{Answer, Capture, Stop};
    use crate::model::budget::{OnBreach, Over};
    use crate::model::event::Waiting;
    use crate::model::{EventBody, FrameRef, RunSummary, Value};
    use crate::time::Timestamp;

    #[test]
    fn passes_have_no_rows_of_their_own() {
        for (path, name) in [
            ("ask", "ask"),
            ("each[3].score", "each[].score"),
            ("each[3]", "each[]"),
            ("fan[left].ask[fallback]", "fan[left].ask[fallback]"),
            ("a[1][22].b", "a[][].b"),
        ] {
            assert_eq!(&*plain(path), name);
        }
    }

    fn nanos(usd: u64) -> Usd {
        Usd::from_nanos(usd)
    }

    fn location() -> Location {
        let run_id = RunId::new(Timestamp::from_micros(1), crate::model::Partition::new(0), [0; 10]);
        let summary = RunSummary {
            run_id,
            workflow: "w".into(),
            version: "1".into(),
            status: Status::Running,
            seq: 9,
            epoch: 1,
            started_at: Timestamp::from_micros(1),
            ended_at: None,
            run_key: None,
        };
        let frames = vec![FrameRef { segment: 1, offset: 0 }];
        Location { summary, document: [0; 32], graph: None, version: 1, shard: 0, frames }
    }

    fn called(node: u32, model: &str, cost: u64) -> EventBody {
        let quote = Quote { model: model.into(), cost: Some(nanos(cost)), tokens: 100 };
        EventBody::ModelCalled { place: Place::root(node), quote: Box::new(quote) }
    }

    fn answered(node: u32, model: &str, cost: u64, input: u64) -> EventBody {
        let answer = Answer {
            model: model.into(),
            provider: "p".into(),
            answered_by: "m".into(),
            response_id: "r".into(),
            content: "".into(),
            calls: Vec::new(),
            stop: Stop::End,
            tokens: Tokens { input, output: 5, ..Tokens::default() },
            measured: true,
            cost: Some(nanos(cost)),
            took_ms: 7,
        };
        EventBody::ModelAnswered {
            place: Place::root(node),
            answer: Box::new(answer),
            capture: Capture::None,
        }
    }

    // F339, F394-F396, F400, N7
    #[test]
    fn the_parts_come_to_the_whole_and_what_is_left_is_said() {
        let role = |node, role| EventBody::NodeWaiting {
            place: Place::root(node),
            waiting: Waiting::Call {
                request: Some(Value::map([("role", Value::string(role))])),
                due: Timestamp::from_micros(9),
            },
        };
        let refused = Quote { model: "big".into(), cost: Some(nanos(70)), tokens: 9 };
        let mut bill = Bill::default();
        for body in [
            role(0, "writer"),
            role(1, "critic"),
            called(0, "big", 50),
            called(1, "small", 20),
            answered(0, "big", 30, 10),
            answered(1, "small", 1, 20),
            called(0, "small", 10),
            EventBody::NodeLost { place: Place::root(0) },
            called(1, "big", 9),
            EventBody::BudgetExceeded { place: Place::root(0), quote: Box::new(refused) },
        ] {
            bill.take(&body, None, &|place| format!("n{}", place.node).into());
        }
        let budget = Budget {
            usd: Some(nanos(100)),
            tokens: Some(1_000),
            warn_at_permille: 800,
            on_breach: OnBreach::Pause,
            allow_unpriced: false,
        };
        let told = serde_json::to_value(shape(&location(), &bill, Some(&budget))).unwrap();
        assert_eq!(
            (&told["usd"], &told["unknown_usd"], &told["reserved_usd"]),
            (&json!("0.000000041"), &json!("0.00000001"), &json!("0.000000009"))
        );
        assert_eq!(told["budget"]["left_usd"], "0.00000005");
        assert_eq!(told["budget"]["left_tokens"], 1_000 - 40 - 100 - 100);
        assert_eq!(told["budget"]["on_breach"], "pause");
        assert_eq!(told["budget"]["refused"], json!({"model": "big", "usd": "0.00000007", "tokens": 9}));
        assert_eq!(told["refused_by"], Json::Null);
        assert_eq!(told["by_node"][1]["context_tokens"], 25);
        let names = |by: &str| {
            let rows = told[by].as_array().unwrap();
            rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("by_role"), ["critic", "writer"]);
        assert_eq!(names("by_model"), ["big", "small"]);
        for by in ["by_node", "by_role", "by_model"] {
            let rows = told[by].as_array().unwrap();
            for sum in ["usd", "reserved_usd", "unknown_usd"] {
                let usd = |row: &Json| row[sum].as_str().unwrap().parse::<Usd>().unwrap();
                assert_eq!(rows.iter().map(usd).sum::<Usd>(), usd(&told), "{by} {sum}");
            }
            for count in ["calls", "answers", "took_ms", "reserved_tokens", "unknown_tokens"] {
                let all: u64 = rows.iter().map(|row| row[count].as_u64().unwrap()).sum();
                assert_eq!(told[count], all, "{by} {count}");
            }
        }
    }

    // F404
    #[test]
    fn a_shared_budget_that_refused_the_last_call_is_named_until_one_is_made() {
        let usd = Some((nanos(5), nanos(60)));
        let (scope, per) = ("node".into(), "hour".into());
        let by = Wider { scope, per, usd, tokens: None, on_breach: OnBreach::Degrade };
        let quote = Quote { model: "big".into(), cost: Some(nanos(8)), tokens: 1 };
        let mut bill = Bill::default();
        let over = Box::new(Over { quote, by });
        bill.take(&EventBody::WiderExceeded { place: Place::root(0), over }, None, &|_| "n0".into());
        let told = serde_json::to_value(shape(&location(), &bill, None)).unwrap();
        assert_eq!(
            (&told["budget"], &told["refused_by"]),
            (
                &Json::Null,
                &json!({"scope": "node", "per": "hour", "usd": "0.00000006", "left_usd": "0.000000005", "tokens": null,
                    "left_tokens": null, "on_breach": "degrade",
                    "refused": {"model": "big", "usd": "0.000000008", "tokens": 1}})
            )
        );
        bill.take(&called(0, "small", 1), None, &|_| "n0".into());
        let told = serde_json::to_value(shape(&location(), &bill, None)).unwrap();
        assert_eq!(told["refused_by"], Json::Null);
    }
}
