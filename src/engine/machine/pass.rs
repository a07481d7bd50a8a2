//! The end of a pass through a body: its output, or why there is none.

use super::{Step, Way, unjudged};
use crate::engine::Outcome;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::passes;
use crate::engine::run::Run;
use crate::engine::scope::{Passes, Phase};
use crate::model::event::Verdicts;
use crate::model::{EventBody, Failure, Place, Value};

/// A pass is over. Its output is the body's template, its only last node's, or an object of its last nodes'.
pub(super) fn finish(run: &Run, pass: &Place, out: &mut Outcome) {
    let output = match unjudged(run, pass) {
        Some((failure, _)) => Err(failure),
        None => output(run, pass).and_then(|output| check("its output", &output).map(|()| output)),
    };
    let (place, edges) = (pass.clone(), Verdicts::new());
    out.push(match output {
        Ok(output) => EventBody::NodeCompleted { place, output, edges },
        Err(failure) => EventBody::NodeFailed { place, failure, edges, continued: false },
    });
}

fn output(run: &Run, pass: &Place) -> Result<Value, Failure> {
    let (Some(scope), Some(graph)) = (run.scope(pass), run.graph_of(pass)) else { return Ok(Value::Null) };
    if let Some(template) = &graph.output {
        return Surroundings::new(run, pass).fill(template);
    }
    let last = graph.nodes.iter().zip(&scope.nodes);
    let mut last = last.filter(|(node, _)| node.outgoing.is_empty() && !node.is_removed());
    Ok(match (last.next(), last.next()) {
        (Some((_, only)), None) => only.output.clone(),
        _ => last_outputs(run, pass),
    })
}

/// Outputs of the nodes of a scope that nothing follows, by id; those that did not complete are left out.
pub(super) fn last_outputs(run: &Run, place: &Place) -> Value {
    let (Some(scope), Some(graph)) = (run.scope(place), run.graph_of(place)) else { return Value::Null };
    let last = graph.nodes.iter().zip(&scope.nodes);
    let last = last.filter(|(node, state)| {
        node.outgoing.is_empty() && state.phase == Phase::Completed && !node.is_removed()
    });
    Value::map(last.map(|(node, state)| (node.id.clone(), state.output.clone())))
}

/// The failure that counts for all passes, with the pass's name in front.
pub(super) fn failure(passes: &Passes, name: impl Fn(u32) -> String) -> Option<Step> {
    let (pass, failure) = passes.failure.as_ref()?;
    let message = format!("{}: {}", name(*pass), failure.message);
    Some(Step::Failed(Failure { message: message.into(), ..failure.clone() }, false))
}

/// The end of a node with a single pass, called `what`.
pub(super) fn only(passes: &Passes, what: &str) -> Step {
    failure(passes, |_| what.to_owned()).unwrap_or_else(|| {
        let output = passes::results(passes).next().cloned().unwrap_or_default();
        Step::Done(output, Way::Plain)
    })
}
