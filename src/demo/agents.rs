//! `aobd demo --agents`: three agents that research, analyse and report; their workflow grows by a human's review while it runs.
//!
//! The model is a stub within the process, which answers by a script: nothing leaves the machine and nothing is paid. Everything else
//! is as anywhere: the turns are events, the prices are those of the configuration, and the patch and the decision go over the API,
//! each under a key of its own, so a demo that was killed and is started again ends the same run. Who sits at a terminal is asked;
//! where there is none, the demo decides and says so.

use std::io::IsTerminal as _;

use aob_stub_model::Stub;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{END_WITHIN, failed, fresh, on_this_thread, open, own_url, register, text, where_to_look};
use crate::client::{self, Call, Client, Streamed};
use crate::config::Sources;
use crate::runtime::{Error, Node};

/// As it was handed to us, letter for letter.
const RESEARCH: &str = include_str!("../../examples/seeds/research_and_report.yaml");
/// What the stub answers, by what it is asked.
const SCRIPT: &str = include_str!("agents.json");
const TOPIC: &str = "tides";
/// Where the review is put, and who is asked.
const GATE: &str = "check";
const REVIEWER: &str = "demo";
/// Characters of a line of text.
const LINE: usize = 96;

/// A fresh directory and a free port as for any demo; the stub, and the node told of it. It serves until it is dropped.
///
/// # Errors
/// The directory cannot be made, or the stub does not serve.
pub fn prepare(sources: &mut Sources) -> Result<Stub, Error> {
    fresh(sources)?;
    let script = serde_json::from_str(SCRIPT).map_err(failed)?;
    let options = aob_stub_model::Options { script: Some(script), ..aob_stub_model::Options::default() };
    let stub = Stub::start_blocking(options)
        .map_err(|error| failed(format!("the demo's model does not start: {error}")))?;
    open(sources, stub.address);
    let provider = format!(r#"{{kind = "openai", base_url = "{}"}}"#, stub.url());
    let price = r#"{input_per_million = "3", output_per_million = "15"}"#;
    let model = format!(
        r#"{{provider = "demo", model = "demo", context_tokens = 32000, max_output_tokens = 1000, price = {price}}}"#
    );
    for (key, value) in
        [("models.providers.demo", provider), ("models.names.demo", model), ("models.default", "demo".into())]
    {
        sources.set.push((String::from(key), value));
    }
    Ok(stub)
}

/// Runs the research, patches it on the way, has it approved and shows the report.
///
/// # Errors
/// The node refuses something, or the run fails.
pub fn run(node: &Node, keep: bool) -> Result<(), Error> {
    on_this_thread(async {
        let mut client = super::client(node, REVIEWER)?;
        register(&mut client, RESEARCH).await?;
        let body = json!({"workflow": "research_and_report", "inputs": {"topic": TOPIC}}).to_string();
        let start = Call::post("/v1/runs", "application/json", body).header("idempotency-key", "demo-agents");
        let started: Value = client.json(start).await.map_err(failed)?;
        let run_id = text(&started, "/run_id").to_owned();
        anstream::println!("\nThree agents research, analyse and report on {TOPIC}, {run_id}");
        anstream::println!(
            "  Their model is a stub in this process that answers by a script: nothing is paid."
        );
        anstream::println!("  Dollars are what a model at 3 and 15 a million tokens would have cost.\n");
        let mut follower = Follower { client, run_id: run_id.clone(), spent: Decimal::ZERO, answers: 0 };
        let ended = crate::io::net::within(END_WITHIN, follower.follow()).await;
        let run = ended.ok_or_else(|| failed("the demo's run did not end in ten minutes"))??;
        follower.summary(&run)?;
        where_to_look(node, (&run_id, "--agents --keep", "examples/seeds/research_and_report.yaml"), keep);
        if keep {
            anstream::println!("  curl {}/v1/runs/{run_id}/blame      whose every node is", own_url(node));
        }
        Ok(())
    })
}

/// Follows one run, and does what a human would do about it.
struct Follower {
    client: Client,
    run_id: String,
    spent: Decimal,
    answers: u32,
}

impl Follower {
    /// Tells every event that says something, until the run is over; gives the run.
    async fn follow(&mut self) -> Result<Value, Error> {
        let mut events = self.client.another().events(&self.run_id, 0);
        while let Some(streamed) = events.next().await.map_err(failed)? {
            if let Streamed::Event(event) = streamed {
                let row = serde_json::from_str(&event.data).map_err(failed)?;
                self.event(&row).await?;
            }
        }
        self.client.json(Call::get(format!("/v1/runs/{}", self.run_id))).await.map_err(failed)
    }

    async fn event(&mut self, row: &Value) -> Result<(), Error> {
        let node = text(row, "/node");
        match text(row, "/type") {
            "model.called" => {
                let (model, most) = (text(row, "/model"), text(row, "/reserved_usd"));
                anstream::println!("  {node:<18} asks {model}; it may cost ${most}");
                if node == "research" {
                    self.patch().await?;
                }
            }
            "model.answered" => self.answered(node, row),
            "tool.called" => anstream::println!("  {node:<18} uses tools"),
            "patch.created" => self.patched(row).await?,
            "node.waiting" if text(row, "/waiting_for") == "review" => self.decide().await?,
            "approval.decided" => {
                let approved = row.get("approved").and_then(Value::as_bool) == Some(true);
                let what = if approved { "approved" } else { "rejected" };
                anstream::println!("  {node:<18} {what} by {}", text(row, "/reviewer"));
            }
            "node.failed" | "node.skipped" => {
                anstream::println!("  {node:<18} {}", text(row, "/type").trim_start_matches("node."));
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, node: &str, row: &Value) {
        let cost = text(row, "/cost_usd");
        self.answers += 1;
        self.spent += cost.parse::<Decimal>().unwrap_or_default();
        let count =
            |pointer| row.pointer(pointer).and_then(Value::as_u64).map_or("?".into(), |n| n.to_string());
        let (read, wrote) = (count("/tokens/input"), count("/tokens/output"));
        let took = count("/took_ms");
        anstream::println!(
            "  {node:<18} answered in {took} ms: {read} tokens read, {wrote} written, ${cost}"
        );
        if node != "report_generation" {
            quote(text(row, "/content"));
        }
    }

    /// Puts a review in front of the report, while the research is still under way. Once, however often the demo is started.
    async fn patch(&mut self) -> Result<(), Error> {
        let body = json!({
            "justification": "nobody writes a report before somebody has read the analysis",
            "operations": [
                {"op": "test", "path": "/edges/analysis~1report_generation/from", "value": "analysis"},
                {"op": "add", "path": format!("/nodes/{GATE}"), "value": {"type": "human_review",
                    "with": {"reviewers": [REVIEWER], "data": "${ nodes.analysis.output }"}}},
                {"op": "add", "path": "/edges/-", "value": {"from": "analysis", "to": GATE}},
                {"op": "add", "path": "/edges/-",
                    "value": {"from": GATE, "to": "report_generation", "on": "approved"}},
                {"op": "remove", "path": "/edges/analysis~1report_generation"},
            ],
        });
        let path = format!("/v1/runs/{}/patches", self.run_id);
        let call = Call::post(path, "application/json", body.to_string());
        self.client.call(call.header("idempotency-key", "demo-agents")).await.map_err(failed)?;
        Ok(())
    }

    /// Who changed what.
    async fn patched(&mut self, row: &Value) -> Result<(), Error> {
        let path = format!("/v1/runs/{}/patches/{}/diff", self.run_id, text(row, "/patch_id"));
        let call = Call::get(path).header("accept", "text/plain");
        let (_, difference) = self.client.call(call).await.map_err(failed)?;
        anstream::println!("  The workflow is patched while it runs, by {}:", text(row, "/author"));
        anstream::println!("    \"{}\"", text(row, "/justification"));
        for line in String::from_utf8_lossy(&difference).lines() {
            anstream::println!("    {line}");
        }
        Ok(())
    }

    /// Asks whoever sits there; where nobody does, approves, and says so.
    async fn decide(&mut self) -> Result<(), Error> {
        let ticket = format!("/v1/approvals/review_{}_{GATE}", self.run_id);
        let shown: Value = self.client.json(Call::get(ticket.as_str())).await.map_err(failed)?;
        anstream::println!("  {GATE:<18} a human has to approve the analysis before the report is written");
        if text(&shown, "/status") != "pending" {
            // Decided before this process was started.
            return Ok(());
        }
        let verdict = match asked().await {
            Some(approved) => approved,
            None => {
                anstream::println!("    no terminal to ask at: the demo approves by itself");
                true
            }
        };
        let verdict = if verdict { "approve" } else { "reject" };
        let body = json!({"decision": verdict, "reviewer": REVIEWER, "digest": shown.get("digest")});
        let decision = Call::post(format!("{ticket}/decision"), "application/json", body.to_string());
        self.client.call(decision).await.map_err(failed)?;
        Ok(())
    }

    fn summary(&self, run: &Value) -> Result<(), Error> {
        let status = text(run, "/status");
        if status != "completed" {
            return Err(failed(format!("the run is {status}: {}", run.get("error").unwrap_or(&Value::Null))));
        }
        match run.pointer("/outputs/report_generation/final_report").and_then(Value::as_str) {
            Some(report) => {
                anstream::println!("\nReport\n");
                quote(report);
            }
            None => anstream::println!("\nNo report: the analysis was not approved."),
        }
        let (answers, spent) = (self.answers, self.spent.normalize());
        anstream::println!("\n  {answers} answers of a model, one patch, one decision; ${spent} in all\n");
        Ok(())
    }
}

/// The answer of whoever sits at the terminal, when there is one.
async fn asked() -> Option<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return None;
    }
    loop {
        anstream::println!("    Approve it? yes or no, then Enter:");
        match client::line().await?.to_lowercase().as_str() {
            "y" | "yes" => return Some(true),
            "n" | "no" => return Some(false),
            _ => {}
        }
    }
}

/// Text in lines that fit.
fn quote(text: &str) {
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + word.chars().count() >= LINE {
                anstream::println!("    {line}");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        anstream::println!("    {line}");
    }
}
