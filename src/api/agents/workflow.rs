//! Another workflow as an agent's tool: a run below the agent's, its inputs the call's arguments, its outputs what the tool gives.
//!
//! The run has an id that follows from the call, so a call that is made again finds it. It is as deep as any child, and counts
//! as one ([`crate::limits::CHILD_DEPTH_MAX`]), but nobody is told of its end: whoever makes the call waits for it. When the call
//! is given up, it is cancelled.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Under;
use crate::api::services::Services;
use crate::api::{errands, runs, start};
use crate::exec::tools::Described;
use crate::model::agent::ToolCall;
use crate::model::event::Parent;
use crate::model::tools::Other;
use crate::model::{Failure, RunId, Value};
use crate::time::Timestamp;

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

/// Cancels the run unless its end was seen.
struct Watch<'a> {
    services: &'a Services,
    parent: RunId,
    child: RunId,
    is_over: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            errands::cancel_later(self.services, self.parent, self.child);
        }
    }
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
    let child = id(under, turn, call);
    // An attempt has a number from 1: none is told of the end.
    let parent =
        Parent { run_id: under.run_id, place: under.dispatch.place.clone(), seq: 0, depth: under.depth + 1 };
    let mut watch = Watch { services: under.services, parent: under.run_id, child, is_over: false };
    let inputs = match &call.arguments {
        Value::Null => Value::Map(Arc::default()),
        arguments => arguments.clone(),
    };
    let started =
        errands::start_child(under.services, child, (&workflow, &inputs), (parent, &|| false)).await;
    if let Err(failure) = started {
        watch.is_over = true;
        return Err(failure);
    }
    let ended = runs::ended_within(under.services, child, u64::from(u32::MAX)).await;
    watch.is_over = ended.is_some();
    let ended = errands::result(under.services, child).await;
    ended.unwrap_or_else(|| Err(Failure::transient("child_lost", format!("{child} has not ended"))))
}

/// The same for the same call of the same turn.
fn id(under: &Under<'_>, turn: u32, call: &ToolCall) -> RunId {
    let hash = Sha256::new_with_prefix(b"tool\0")
        .chain_update(under.run_id.as_bytes())
        .chain_update(under.dispatch.path.as_bytes())
        .chain_update(turn.to_be_bytes())
        .chain_update(call.id.as_bytes())
        .finalize();
    let hash: [u8; 32] = hash.into();
    let created = Timestamp::from_micros(under.run_id.created_millis().saturating_mul(1_000));
    let mut random = [0; 10];
    random.iter_mut().zip(hash).for_each(|(into, from)| *into = from);
    RunId::new(created, under.run_id.partition(), random)
}
