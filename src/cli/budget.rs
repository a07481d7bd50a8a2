//! `aob budget show`, `aob budget raise`, `aob run cost` and `aob usage`: what runs have spent, what is left, and more of it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Error;
use super::output::{Output, harmless};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show how the budgets that runs share stand
    List,
    /// Show what a run may spend, what it has spent, and what is left
    Show {
        /// The run's id
        run: String,
    },
    /// Give a run more to spend
    Raise {
        /// The run's id
        run: String,
        /// So many dollars more, such as 5 or 0.25
        #[arg(long, required_unless_present = "tokens")]
        usd: Option<String>,
        /// So many tokens more
        #[arg(long)]
        tokens: Option<u64>,
        /// Why; kept with the run
        #[arg(long)]
        reason: String,
        /// Go on at once when it is paused
        #[arg(long)]
        resume: bool,
        /// Sent again with the same key, it is given once
        #[arg(long)]
        idempotency_key: Option<String>,
    },
}

/// What finished runs spent
#[derive(Debug, Args)]
pub(super) struct Usage {
    /// From this day on, such as 2026-01-31 [default: 30 days before the last]
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Up to this day, which counts [default: today]
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// What is told apart, with commas between: workflow, agent, model, day
    #[arg(long, default_value = "workflow")]
    by: String,
}

impl Usage {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let mut query = format!("/v1/usage?by={}", percent_encoded(&self.by));
        for (name, day) in [("from", self.from), ("to", self.to)] {
            if let Some(day) = day {
                query.push_str(&format!("&{name}={}", percent_encoded(&day)));
            }
        }
        let usage: Value = client.json(Call::get(query)).await?;
        if !output.is_table() {
            return output.rows(&usage, "usage", &[]);
        }
        let names = ["day", "workflow", "agent", "model"];
        let names = names.into_iter().filter(|name| self.by.split(',').any(|by| by == *name));
        let columns: Vec<&str> = names.chain(COLUMNS.into_iter().skip(1)).collect();
        output.rows(&widened(&usage, "usage"), "usage", &columns)?;
        let text = |member: &str| usage.get(member).and_then(Value::as_str).map(harmless).unwrap_or_default();
        output.line("")?;
        output.line(&format!("${} from {} to {}", text("usd"), text("from"), text("to")))?;
        if usage.get("cut") == Some(&Value::Bool(true)) {
            output.line("not all of it: ask for fewer days")?;
        }
        Ok(())
    }
}

/// Columns of a breakdown.
const COLUMNS: [&str; 8] =
    ["name", "usd", "reserved_usd", "unknown_usd", "answers", "tokens_in", "tokens_out", "took_ms"];

/// Columns of budgets that runs share.
const SHARED: [&str; 9] =
    ["scope", "per", "usd", "spent_usd", "reserved_usd", "left_usd", "left_tokens", "warned", "on_breach"];

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List => {
                let budgets: Value = client.json(Call::get("/v1/budgets".to_owned())).await?;
                output.rows(&budgets, "budgets", &SHARED)
            }
            Self::Show { run } => {
                let cost: Value = client.json(Call::get(path(&run, "cost"))).await?;
                if output.is_table() { totals(&cost, output) } else { output.document(&cost) }
            }
            Self::Raise { run, usd, tokens, reason, resume, idempotency_key } => {
                let body = json!({"usd": usd, "tokens": tokens, "reason": reason, "resume": resume});
                let call = Call::post(path(&run, "budget"), "application/json", body.to_string());
                let call = match idempotency_key {
                    Some(key) => call.header("idempotency-key", key),
                    None => call,
                };
                let raised: Value = client.json(call).await?;
                if !output.is_table() {
                    return output.document(&raised);
                }
                let text = |member: &str| raised.get(member).and_then(Value::as_str).unwrap_or_default();
                output.line(&format!("{}  {}", harmless(text("run_id")), harmless(text("status"))))
            }
        }
    }
}

/// `aob run cost RUN`
pub(super) async fn cost(mut client: Client, run: &str, output: &mut Output) -> Result<(), Error> {
    let cost: Value = client.json(Call::get(path(run, "cost"))).await?;
    if !output.is_table() {
        return output.document(&cost);
    }
    totals(&cost, output)?;
    for (title, member) in [("by node", "by_node"), ("by role", "by_role"), ("by model", "by_model")] {
        output.line("")?;
        output.line(title)?;
        output.rows(&widened(&cost, member), member, &COLUMNS)?;
    }
    Ok(())
}

fn path(run: &str, rest: &str) -> String {
    format!("/v1/runs/{}/{rest}", percent_encoded(run))
}

/// The rows of a breakdown with a column for what was read, cached or not, and one for what was written.
fn widened(cost: &Value, member: &str) -> Value {
    let rows = cost.get(member).and_then(Value::as_array).into_iter().flatten();
    let rows = rows.map(|row| {
        let mut row = row.clone();
        let [input, output] = both(&row);
        let nameless = row.get("name").and_then(Value::as_str) == Some("");
        if let Some(columns) = row.as_object_mut() {
            columns.insert("tokens_in".into(), input.into());
            columns.insert("tokens_out".into(), output.into());
            if nameless {
                columns.insert("name".into(), "-".into());
            }
        }
        row
    });
    json!({member: rows.collect::<Vec<_>>()})
}

/// Tokens read and written.
fn both(row: &Value) -> [u64; 2] {
    let count = |member: &str| row.pointer(&format!("/tokens/{member}")).and_then(Value::as_u64).unwrap_or(0);
    let read = ["input", "cache_read", "cache_write"].map(count);
    [read.into_iter().fold(0, u64::saturating_add), count("output")]
}

fn totals(cost: &Value, output: &mut Output) -> Result<(), Error> {
    told(cost).iter().try_for_each(|line| output.line(line))
}

/// The sums for a person.
fn told(cost: &Value) -> Vec<String> {
    let text = |member: &str| harmless(cost.get(member).and_then(Value::as_str).unwrap_or("0.00"));
    let count = |member: &str| cost.get(member).and_then(Value::as_u64).unwrap_or(0);
    let [input, output] = both(cost);
    let mut lines = vec![
        format!("{:12}{}", "run_id", text("run_id")),
        format!("{:12}{}", "status", text("status")),
        format!(
            "{:12}${} (${} of it of calls of which nobody knows what they took)",
            "spent",
            text("usd"),
            text("unknown_usd")
        ),
        format!("{:12}${}, {} tokens", "reserved", text("reserved_usd"), count("reserved_tokens")),
        format!("{:12}{input} read, {output} written", "tokens"),
        format!(
            "{:12}{}, {} of them without a price",
            "answers",
            count("answers"),
            count("unpriced_answers")
        ),
    ];
    if let Some(by) = cost.get("refused_by").filter(|by| by.is_object()) {
        let part = |pointer: &str| by.pointer(pointer).filter(|part| !part.is_null()).map(shown);
        let left = match (part("/left_usd"), part("/usd")) {
            (Some(left), Some(of)) => format!(", ${left} of ${of} left"),
            _ => String::new(),
        };
        lines.push(format!(
            "{:12}by the budget of {} per {}{left}: the next call of {} may take ${}, {} tokens",
            "refused",
            part("/scope").unwrap_or_default(),
            part("/per").unwrap_or_default(),
            part("/refused/model").unwrap_or_default(),
            part("/refused/usd").unwrap_or_default(),
            part("/refused/tokens").unwrap_or_default()
        ));
    }
    let Some(budget) = cost.get("budget").filter(|budget| budget.is_object()) else {
        lines.push(format!("{:12}none", "budget"));
        return lines;
    };
    let part = |member: &str| budget.get(member).filter(|part| !part.is_null()).map(shown);
    if let (Some(left), Some(of)) = (part("left_usd"), part("usd")) {
        lines.push(format!("{:12}${left} of ${of} left", "budget"));
    }
    if let (Some(left), Some(of)) = (part("left_tokens"), part("tokens")) {
        lines.push(format!("{:12}{left} of {of} tokens left", "budget"));
    }
    lines.push(format!("{:12}{}", "at its end", part("on_breach").unwrap_or_default()));
    if let Some(refused) = budget.get("refused") {
        let part = |member: &str| refused.get(member).map(shown).unwrap_or_default();
        lines.push(format!(
            "{:12}the next call of {} may take ${}, {} tokens",
            "refused",
            part("model"),
            part("usd"),
            part("tokens")
        ));
    }
    lines
}

fn shown(value: &Value) -> String {
    harmless(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    // F400, F405
    #[test]
    fn sums_are_told_with_what_is_left_and_what_was_refused() {
        let cost = json!({
            "run_id": "run_1", "status": "paused", "usd": "0.42", "unknown_usd": "0.02", "reserved_usd": "0.10",
            "reserved_tokens": 7, "tokens": {"input": 1, "output": 2, "cache_read": 3, "cache_write": 4}, "answers": 5,
            "unpriced_answers": 0,
            "budget": {"usd": "1.00", "left_usd": "0.48", "tokens": null, "left_tokens": null, "on_breach": "pause",
                "refused": {"model": "big\u{1b}", "usd": "0.50", "tokens": 9}},
            "by_role": [{"name": "", "tokens": {"input": 1, "output": 2}}],
        });
        let lines = told(&cost);
        for line in [
            "spent       $0.42 ($0.02 of it of calls of which nobody knows what they took)",
            "reserved    $0.10, 7 tokens",
            "tokens      8 read, 2 written",
            "budget      $0.48 of $1.00 left",
            "at its end  pause",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line:?} in {lines:#?}");
        }
        let refused = lines.last().unwrap();
        assert!(refused.ends_with("may take $0.50, 9 tokens") && !refused.contains('\u{1b}'), "{refused:?}");
        let wide = json!({"refused_by": {"scope": "node", "per": "hour", "usd": "5.00", "left_usd": "0.10",
            "refused": {"model": "big", "usd": "0.50", "tokens": 9}}});
        let line = "refused     by the budget of node per hour, $0.10 of $5.00 left: the next call of big may take $0.50, 9 tokens";
        assert!(told(&wide).iter().any(|told| told == line), "{:#?}", told(&wide));
        let rows = widened(&cost, "by_role");
        let row = &rows["by_role"][0];
        assert_eq!(
            (&row["name"], &row["tokens_in"], &row["tokens_out"]),
            (&json!("-"), &json!(1), &json!(2))
        );
    }
}
