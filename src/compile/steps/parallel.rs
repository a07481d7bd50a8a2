//! `parallel` in the steps spelling: the steps it names become its branches.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compile::document::Reading;
use crate::compile::fields::Fields;
use crate::compile::finding::{did_you_mean, quoted};
use crate::compile::graph::Sugars;
use crate::compile::node;
use crate::limits;
use crate::model::Value;
use crate::model::node::Kind;
use crate::model::workflow::{Graph, ON_SUCCESS};

/// Is this step a `parallel` whose branches are other steps?
pub(super) fn is_one(step: &Fields<'_>) -> bool {
    let kind = step.get("type").and_then(Value::as_str).and_then(node::canonical_kind);
    kind == Some("parallel") && !step.has("with")
}

/// Puts the branches of step `id` into it. What they lead to must be the same for all, and comes after it.
pub(super) fn gather(
    graph: &mut Graph,
    sugars: &mut Sugars,
    (id, names): (Arc<str>, Vec<(Arc<str>, String)>),
    reading: &mut Reading<'_>,
) {
    let most = limits::PARALLEL_BRANCHES_MAX;
    if names.is_empty() || names.len() > most {
        let at = graph.nodes.get(&id).map_or_else(String::new, |node| node.at.clone());
        let message = format!(
            "step {} has {} next_steps as branches; 1 to {most} are allowed (limit parallel_branches_max)",
            quoted(&id),
            names.len()
        );
        return reading.findings.error("parallel_branches_max", at, message);
    }
    let mut branches = BTreeMap::new();
    let mut leads: Option<Vec<Arc<str>>> = None;
    for (name, at) in &names {
        let (Some(node), Some(sugar)) = (graph.nodes.remove(name), sugars.remove(name)) else {
            let help = did_you_mean(name, graph.nodes.keys().map(|id| &**id));
            let message = format!(
                "step {} names the branch {}, which is no step, or another's branch",
                quoted(&id),
                quoted(name)
            );
            return reading.findings.error_with("dangling_edge", at, message, help);
        };
        let plain = sugar.leads.iter().all(|(_, on, _)| &**on == ON_SUCCESS);
        if !plain || matches!(node.kind, Kind::Conditional { .. } | Kind::Parallel { .. }) || *name == id {
            let message = format!("the branch {} must be a step by itself", quoted(name));
            let help = Some("write the nodes and edges as maps for branches with steps of their own".into());
            return reading.findings.error_with("parallel_branch", at, message, help);
        }
        let mut next: Vec<Arc<str>> = sugar.leads.iter().map(|(to, _, _)| to.clone()).collect();
        next.sort();
        if leads.get_or_insert_with(|| next.clone()) != &next {
            let message = format!("the branch {} leads to other steps than the ones before it", quoted(name));
            let help = Some("what comes after a parallel step comes after all of its branches".into());
            return reading.findings.error_with("parallel_branch", at, message, help);
        }
        let body = Graph { nodes: BTreeMap::from([("".into(), node)]), anonymous: true, ..Graph::default() };
        branches.insert(name.clone(), body);
    }
    if let Some(sugar) = sugars.get_mut(&id) {
        let at = names.first().map_or_else(String::new, |(_, at)| at.clone());
        let next = leads.unwrap_or_default().into_iter();
        sugar.leads.extend(next.map(|to| (to, Arc::from(ON_SUCCESS), at.clone())));
    }
    if let Some(node) = graph.nodes.get_mut(&id) {
        let results = Some(names.into_iter().map(|(name, _)| name).collect());
        node.kind = Kind::Parallel { branches: branches.into_iter().collect(), results };
    }
}
