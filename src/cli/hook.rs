//! `aob hook`: workflows that are started by signed messages from outside.

use clap::Subcommand;
use serde_json::Value;

use super::Error;
use super::output::{Output, harmless, say};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a hook; its secret is shown now and never again
    Add {
        /// Its name
        name: String,
        /// What is started: a name, name@version or name@tag
        workflow: String,
        /// Makes inputs of a message: an expression over `input`; without, the message is the inputs
        #[arg(long, value_name = "EXPRESSION")]
        mapping: Option<String>,
        /// The secret that the other side has made (whsec_...), from a file; - is standard input
        #[arg(long, value_name = "FILE")]
        secret: Option<String>,
    },
    /// List hooks
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Remove a hook; what it has started goes on
    Remove {
        /// Its id (hook_...)
        hook: String,
    },
    /// Make a new secret; the one before is good for a while
    Rotate {
        /// Its id (hook_...)
        hook: String,
        /// How long the secret before is good [default: 24h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
        /// The secret that the other side has made (whsec_...), from a file; - is standard input
        #[arg(long, value_name = "FILE")]
        secret: Option<String>,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Add { name, workflow, mapping, secret } => {
                let secret = secret.map(read).transpose()?;
                let members = [
                    ("name", Some(name)),
                    ("workflow", Some(workflow)),
                    ("mapping", mapping),
                    ("secret", secret),
                ];
                let body = body(members);
                made(client, Call::post("/v1/hooks", "application/json", body.to_string()), output).await
            }
            Self::List { limit, cursor } => {
                let cursor = cursor.map(|cursor| format!("&cursor={}", percent_encoded(&cursor)));
                let path = format!("/v1/hooks?limit={limit}{}", cursor.unwrap_or_default());
                let answer: Value = client.json(Call::get(path)).await?;
                output.rows(
                    &answer,
                    "hooks",
                    &["id", "name", "workflow", "created_at", "previous_secret_until"],
                )
            }
            Self::Remove { hook } => {
                client.call(Call::delete(path(&hook, ""))).await?;
                say(&format!("hook {hook} is removed"));
                Ok(())
            }
            Self::Rotate { hook, overlap, secret } => {
                let secret = secret.map(read).transpose()?;
                let body = body([("overlap", overlap), ("secret", secret)]);
                let call = Call::post(path(&hook, "/rotate"), "application/json", body.to_string());
                made(client, call, output).await
            }
        }
    }
}

fn path(hook: &str, rest: &str) -> String {
    format!("/v1/hooks/{}{rest}", percent_encoded(hook))
}

fn body<const N: usize>(members: [(&str, Option<String>); N]) -> Value {
    members.into_iter().filter_map(|(member, value)| Some((member, value?))).collect()
}

/// A secret is no argument: those are seen by everybody on the machine.
fn read(file: String) -> Result<String, Error> {
    let text = String::from_utf8(super::read(&file)?);
    text.map(|text| text.trim().to_owned()).map_err(|_| Error::Invalid(format!("{file}: this is no text")))
}

async fn made(mut client: Client, call: Call, output: &mut Output) -> Result<(), Error> {
    let hook: Value = client.json(call).await?;
    if !output.is_table() {
        return output.document(&hook);
    }
    for member in ["id", "name", "workflow", "mapping", "url", "secret", "previous_secret_until"] {
        if let Some(text) = hook.get(member).and_then(Value::as_str) {
            output.line(&format!("{member:22}{}", harmless(text)))?;
        }
    }
    Ok(())
}
