//! `aob schedule`: workflows that are started by the clock.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::output::{Output, harmless, say};
use super::{Error, keyed, read_json};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start a workflow by the clock
    Create(Box<Create>),
    /// List schedules, by name
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a schedule: when it is due next, and what became of the times that it was due
    Get {
        /// Its name
        name: String,
    },
    /// Change what is given, and nothing else
    Update(Box<Update>),
    /// Start nothing more
    Pause {
        /// Its name
        name: String,
    },
    /// Go on from now; what was due meanwhile is not made up for
    Resume {
        /// Its name
        name: String,
    },
    /// Start a run now, whatever lives
    Trigger {
        /// Its name
        name: String,
        /// Sent again with the same key, it starts one run
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Remove it; its runs go on
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// What is started: a name, name@version or name@tag
    workflow: String,
    /// When: minute hour day month weekday, or with seconds first
    #[arg(long)]
    cron: String,
    /// On whose wall clock, for example Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Its inputs, as JSON; - is standard input
    #[arg(long, value_name = "FILE")]
    inputs: Option<String>,
    /// What to do when a run of it lives [default: skip]
    #[arg(long, value_parser = ["skip", "allow", "cancel_other", "buffer_one"])]
    overlap: Option<String>,
    /// Make up for what was missed less than so long ago, for example 1h [default: 1h]
    #[arg(long, value_name = "DURATION")]
    catch_up: Option<String>,
    /// Put each start off by up to so much
    #[arg(long, value_name = "DURATION")]
    jitter: Option<String>,
    /// Begin paused
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Its name
    name: String,
    /// What is started: a name, name@version or name@tag
    #[arg(long)]
    workflow: Option<String>,
    /// When; what was due by the pattern before is not made up for
    #[arg(long)]
    cron: Option<String>,
    /// On whose wall clock, for example Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// A JSON Merge Patch (RFC 7396) of its inputs; - is standard input
    #[arg(long, value_name = "FILE")]
    inputs: Option<String>,
    /// What to do when a run of it lives
    #[arg(long, value_parser = ["skip", "allow", "cancel_other", "buffer_one"])]
    overlap: Option<String>,
    /// Make up for what was missed less than so long ago, for example 1h
    #[arg(long, value_name = "DURATION")]
    catch_up: Option<String>,
    /// Put each start off by up to so much; 0s not at all
    #[arg(long, value_name = "DURATION")]
    jitter: Option<String>,
}

impl Update {
    fn patch(self) -> Result<(String, Value), Error> {
        let texts = [
            ("workflow", self.workflow),
            ("cron", self.cron),
            ("timezone", self.timezone),
            ("overlap", self.overlap),
            ("catch_up", self.catch_up),
            ("jitter", self.jitter),
        ];
        let given = |(member, text): (&str, Option<String>)| Some((member.to_owned(), text?.into()));
        let mut patch: Map<String, Value> = texts.into_iter().filter_map(given).collect();
        if let Some(file) = self.inputs {
            patch.insert("inputs".into(), inputs(&file)?);
        }
        Ok((self.name, Value::Object(patch)))
    }
}

fn inputs(file: &str) -> Result<Value, Error> {
    let inputs = read_json(file)?.to_json();
    serde_json::from_str(&inputs).map_err(|error| Error::Invalid(error.to_string()))
}

impl Create {
    fn body(self) -> Result<Value, Error> {
        let texts = [("name", self.name), ("workflow", self.workflow), ("cron", self.cron)];
        let mut body: Map<String, Value> =
            texts.into_iter().map(|(member, text)| (member.into(), text.into())).collect();
        let texts = [
            ("timezone", self.timezone),
            ("overlap", self.overlap),
            ("catch_up", self.catch_up),
            ("jitter", self.jitter),
        ];
        for (member, value) in texts {
            if let Some(value) = value {
                body.insert(member.into(), value.into());
            }
        }
        if self.paused {
            body.insert("paused".into(), true.into());
        }
        if let Some(file) = self.inputs {
            body.insert("inputs".into(), inputs(&file)?);
        }
        Ok(Value::Object(body))
    }
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let mut key = None;
        let (name, verb) = match self {
            Self::Create(create) => {
                let body = create.body()?.to_string();
                let made = client.json(Call::post("/v1/schedules", "application/json", body)).await?;
                return show(&made, output);
            }
            Self::List { limit, cursor } => {
                let cursor = cursor.map(|cursor| format!("&cursor={}", percent_encoded(&cursor)));
                let path = format!("/v1/schedules?limit={limit}{}", cursor.unwrap_or_default());
                let answer: Value = client.json(Call::get(path)).await?;
                let columns = ["name", "workflow", "cron", "timezone", "overlap", "paused", "next"];
                return output.rows(&answer, "schedules", &columns);
            }
            Self::Get { name } => {
                let found = client.json(Call::get(path(&name, ""))).await?;
                return show(&found, output);
            }
            Self::Delete { name } => {
                client.call(Call::delete(path(&name, ""))).await?;
                say(&format!("schedule {name} is removed"));
                return Ok(());
            }
            Self::Update(update) => {
                let (name, patch) = update.patch()?;
                let call = Call::patch(path(&name, ""), "application/merge-patch+json", patch.to_string());
                let changed = client.json(call).await?;
                return show(&changed, output);
            }
            Self::Pause { name } => (name, "pause"),
            Self::Resume { name } => (name, "resume"),
            Self::Trigger { name, idempotency_key } => {
                key = idempotency_key;
                (name, "trigger")
            }
        };
        let call = Call::post(path(&name, &format!("/{verb}")), "application/json", String::new());
        let answer: Value = client.json(keyed(call, key.as_deref())).await?;
        match answer.get("run_id").and_then(Value::as_str) {
            Some(run_id) if output.is_table() => output.line(&harmless(run_id)),
            Some(_) => output.document(&answer),
            None => show(&answer, output),
        }
    }
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/schedules/{}{rest}", percent_encoded(name))
}

fn show(schedule: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(schedule);
    }
    let members = ["name", "workflow", "cron", "timezone", "overlap", "catch_up", "jitter", "paused"];
    for member in members {
        match schedule.get(member) {
            Some(Value::String(text)) => output.line(&format!("{member:12}{}", harmless(text)))?,
            Some(other) => output.line(&format!("{member:12}{other}"))?,
            None => {}
        }
    }
    let list = |member: &str| schedule.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    for due in list("next") {
        output.line(&format!("next        {}", harmless(due.as_str().unwrap_or_default())))?;
    }
    for entry in list("history") {
        let text = |member: &str| harmless(entry.get(member).and_then(Value::as_str).unwrap_or_default());
        let failure = entry.pointer("/failure/code").and_then(Value::as_str).unwrap_or_default();
        let failure = harmless(failure);
        let line = format!("{}  {}  {}{failure}", text("due"), text("outcome"), text("run_id"));
        output.line(line.trim_end())?;
    }
    Ok(())
}
