//! `aob webhook`: who is told what happens to reviews, what is on its way, and what was given up.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Error;
use super::output::{Output, harmless};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Tell a URL of reviews; prints the secret that deliveries are signed with, once
    Add {
        /// http:// or https://
        #[arg(value_name = "URL")]
        address: String,
        /// Only of these: approval.requested, approval.escalated, approval.decided
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
        /// Only of reviews that this one may decide
        #[arg(long)]
        reviewer: Option<String>,
    },
    /// List webhooks
    List,
    /// Remove a webhook, with what is on its way to it
    Remove {
        /// wh_...
        webhook: String,
    },
    /// List what has not arrived
    Deliveries {
        /// wh_...
        webhook: String,
        /// Only what is not tried any more
        #[arg(long)]
        dead: bool,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Try again what was given up
    Redrive {
        /// wh_...
        webhook: String,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Add { address, events, reviewer } => {
                let body = json!({"url": address, "events": events, "reviewer": reviewer});
                let call = Call::post("/v1/webhooks", "application/json", body.to_string());
                let made: Value = client.json(call).await?;
                if !output.is_table() {
                    return output.document(&made);
                }
                for member in ["id", "url", "secret"] {
                    let text = made.get(member).and_then(Value::as_str).unwrap_or_default();
                    output.line(&format!("{member:8}{}", harmless(text)))?;
                }
                output.line("the secret is not shown again")
            }
            Self::List => {
                let answer: Value = client.json(Call::get("/v1/webhooks")).await?;
                let columns = ["id", "url", "events", "reviewer", "delivered", "delivered_at"];
                output.rows(&answer, "webhooks", &columns)
            }
            Self::Remove { webhook } => {
                client.call(Call::delete(path(&webhook, ""))).await?;
                output.line(&format!("{} is removed", harmless(&webhook)))
            }
            Self::Deliveries { webhook, dead, limit } => {
                let only = if dead { "&status=dead" } else { "" };
                let query = path(&webhook, &format!("/deliveries?limit={limit}{only}"));
                let answer: Value = client.json(Call::get(query)).await?;
                let columns = ["id", "event", "ticket", "status", "attempts", "next_at", "error"];
                output.rows(&answer, "deliveries", &columns)
            }
            Self::Redrive { webhook } => {
                let call = Call::post(path(&webhook, "/redrive"), "application/json", "{}");
                let done: Value = client.json(call).await?;
                if !output.is_table() {
                    return output.document(&done);
                }
                let count = done.get("redriven").and_then(Value::as_u64).unwrap_or_default();
                output.line(&format!("{count} tried again"))
            }
        }
    }
}

fn path(webhook: &str, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", percent_encoded(webhook))
}
