//! Another workflow as an agent's tool: a run below the agent's, its inputs the call's arguments, its outputs what the tool gives.
//!
//! The run has an id that follows from the call, so a call that is made again finds it. It is as deep as any child, and counts
//! as one ([`crate::limits::CHILD_DEPTH_MAX`]), but nobody is told of its end: whoever makes the call waits for it. When the
//! agent gives the call up, its run has the other one called back, as any child (`engine::calls`); a node that stops only ceases
//! to wait, at once: nobody knows how long the other run takes, and after the restart the call is made again and finds it.

use std::sync::Arc;

use super::{STOPPED, Under};
use crate::api::errands::Pause;
use crate::api::{errands, runs, start};
use crate::engine::command::run_of_tool;
use crate::exec::tools::Described;
use crate::model::agent::ToolCall;
use crate::model::event::Parent;
use crate::model::tools::Other;
use crate::model::{Failure, Value};

/// A workflow that an agent may run.
pub(super) struct Known {
    pub(super) name: Arc<str>,
    pub(super) version: Option<Arc<str>>,
    pub(super) described: Described,
}

/// The workflows on the agent's list, as they are now. One that is not there is left out: the list says which.
pub(super) async fn described(under: &Under<'_>) -> Result<Vec<Known>, Failure> {
    let mut known = Vec::new();
    for other in under.others()?.into_values() {
        let Other::Workflow { name, version } = other else { continue };
        let found = start::find(under.services, &under.workspace(), &name, version.as_deref()).await;
        let Ok(entry) = found else { continue };
        let document = &entry.compiled.document;
        let about = document.get("metadata").and_then(|metadata| metadata.get("description"));
        let description = match about.and_then(Value::as_str) {
            Some(about) => about.into(),
            None => format!("Runs the workflow {name}").into(),
        };
        let inputs = document.get("inputs").cloned().unwrap_or_default();
        known.push(Known { name, version, described: Described { description, inputs } });
    }
    Ok(known)
}

/// Runs the workflow, and waits for its end.
pub(super) async fn run(
    under: &Under<'_>,
    turn: u32,
    call: &ToolCall,
    (name, version): (&Arc<str>, Option<&str>),
) -> Result<Value, Failure> {
    let workflow: Arc<str> = match version {
        Some(version) => format!("{name}@{version}").into(),
        None => name.clone(),
    };
    let child = run_of_tool(under.run_id, &under.dispatch.path, turn, call);
    // An attempt has a number from 1: none is told of the end.
    let parent =
        Parent { run_id: under.run_id, place: under.dispatch.place.clone(), seq: 0, depth: under.depth + 1 };
    let inputs = match &call.arguments {
        Value::Null => Value::Map(Arc::default()),
        arguments => arguments.clone(),
    };
    errands::start_child(under.services, child, (&workflow, &inputs), (parent, &|| false)).await?;
    let mut pause = Pause::default();
    loop {
        // Without an answer too many wait for it, or its shard is in trouble: it is looked at all the same.
        tokio::select! {
            biased;
            () = under.services.until_stopping() => {
                return Err(Failure::transient(STOPPED, "the node is stopping"));
            }
            _ = runs::ended_within(under.services, child, u64::from(u32::MAX)) => {}
        }
        match errands::result(under.services, child).await {
            Some(ended) => return ended,
            None => pause.wait().await,
        }
    }
}
