//! `aob approvals list`, `aob approvals show` and `aob approve`: what waits for a human, and the human's answer.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::{Output, harmless};
use super::{Error, read_json};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List what waits for a decision, or how decisions went, that of the newest runs first
    List {
        /// Only what this one may decide
        #[arg(long)]
        reviewer: Option<String>,
        /// Those that wait, or those that ended so
        #[arg(long, value_parser = ["pending", "approved", "rejected", "expired"])]
        state: Option<String>,
        /// Only of this workflow
        #[arg(long)]
        workflow: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a review: what is asked, whom, until when, and what was decided
    Show {
        /// Its ticket (tkt_...), or review_RUN_NODE
        ticket: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The review's ticket (tkt_...), or review_RUN_NODE
    ticket: String,
    /// What is decided
    #[arg(value_parser = ["approve", "reject"])]
    decision: String,
    /// Why; kept with the decision
    #[arg(long)]
    reason: Option<String>,
    /// What the review's form asks for: JSON that begins with { or [, a JSON file, or - for standard input
    #[arg(long, value_name = "JSON")]
    form: Option<String>,
    /// Decide as this reviewer: where no token is needed, or with the role admin
    #[arg(long = "as", value_name = "REVIEWER")]
    reviewer: Option<String>,
    /// Only if the review still shows this (`digest` of `aob approvals show`)
    #[arg(long)]
    digest: Option<String>,
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { reviewer, state, workflow, limit, cursor } => {
                let mut query = format!("/v1/approvals?limit={limit}");
                let over = state.as_deref().is_some_and(|state| state != "pending");
                let given =
                    [("reviewer", reviewer), ("state", state), ("workflow", workflow), ("cursor", cursor)];
                for (name, value) in given {
                    if let Some(value) = value {
                        query.push_str(&format!("&{name}={}", percent_encoded(&value)));
                    }
                }
                let answer: Value = client.json(Call::get(query)).await?;
                let waits = ["ticket", "workflow", "node", "reviewers", "created_at", "timeout_at"];
                let ended = ["ticket", "workflow", "node", "status", "decided_by", "ended_at", "reason"];
                if over {
                    output.rows(&answer, "approvals", &ended)
                } else {
                    output.rows(&answer, "approvals", &waits)
                }
            }
            Self::Show { ticket } => {
                let review: Value = client.json(Call::get(path(&ticket, ""))).await?;
                show(&review, output)
            }
        }
    }
}

impl Approve {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let form = self.form.as_deref().map(form).transpose()?;
        let mut body = format!("{{\"decision\":{}", Value::from(self.decision));
        for (member, value) in [("reason", self.reason), ("reviewer", self.reviewer), ("digest", self.digest)]
        {
            if let Some(value) = value {
                body.push_str(&format!(",\"{member}\":{}", Value::from(value)));
            }
        }
        if let Some(form) = form {
            body.push_str(&format!(",\"form\":{}", form.to_json()));
        }
        body.push('}');
        let call = Call::post(path(&self.ticket, "/decision"), "application/json", body);
        let settled: Value = client.json(call).await?;
        show(&settled, output)
    }
}

/// JSON as an argument, or in a file.
fn form(text: &str) -> Result<crate::model::Value, Error> {
    if !text.starts_with(['{', '[']) {
        return read_json(text);
    }
    crate::model::Value::from_json(text.as_bytes())
        .map_err(|error| Error::Usage(format!("--form is no JSON: {error}")))
}

fn path(ticket: &str, rest: &str) -> String {
    format!("/v1/approvals/{}{rest}", percent_encoded(ticket))
}

fn show(review: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(review);
    }
    let members = [
        "ticket",
        "status",
        "workflow",
        "run_id",
        "node",
        "created_at",
        "timeout_at",
        "escalations",
        "digest",
    ];
    for member in members {
        match review.get(member) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => output.line(&format!("{member:12}{}", harmless(text)))?,
            Some(other) => output.line(&format!("{member:12}{other}"))?,
        }
    }
    for member in ["reviewers", "data", "form", "decision"] {
        match review.get(member) {
            None | Some(Value::Null) => {}
            Some(Value::Array(empty)) if empty.is_empty() => {}
            Some(value) => output.line(&format!("{member}\n{value:#}"))?,
        }
    }
    Ok(())
}
