//! Which model a turn asks while one spikes (F389): that of the agent's ladder, or another one in its place. What is decided is an
//! event before the call is made; a run that does not take it (its turn is over, or the other model has failed it before) asks
//! whom it asked.

use std::sync::Arc;

use super::Under;
use crate::engine::command::Says;
use crate::exec::models::{Watched, measure};
use crate::model::agent::{Ask, Spiked, ToolSpec, Wanted};

impl Under<'_> {
    /// The turn as it is to be made, and who is told what came of it.
    pub(super) async fn placed(&self, tools: &[ToolSpec]) -> (Arc<Ask>, Option<Watched>) {
        let models = &self.services.executors.models;
        let unchanged = || self.ask.clone();
        let Wanted::Model { model, turn } = &self.ask.wanted else { return (unchanged(), None) };
        if self.ask.request.get("embed").is_some() {
            // Vectors of two models cannot be compared.
            return (unchanged(), None);
        }
        let Some(own) = self.ask.own.as_ref().or(models.default_model()).cloned() else {
            return (unchanged(), None);
        };
        let current = model.as_ref().unwrap_or(&own).clone();
        let asking = |model: &Arc<str>| {
            let wanted = Wanted::Model { model: Some(model.clone()), turn: *turn };
            Arc::new(Ask { wanted, ..Ask::clone(&self.ask) })
        };
        match models.watch(&own) {
            Ok(watched) if current == own => (unchanged(), watched),
            Ok(watched) => {
                let says = Says::Recovered { from: current.clone(), to: own.clone() };
                if self.say(says).await {
                    return (asking(&own), watched);
                }
                drop(watched);
                (unchanged(), models.watch(&current).ok().flatten())
            }
            Err(spike) => {
                let now = Some(&*current).filter(|current| **current != *own);
                let to = models.instead(&self.ask, &own, tools, now);
                let Some(to) = to.filter(|to| *to != current) else {
                    return (unchanged(), models.watch(&current).ok().flatten());
                };
                let spiked = Spiked {
                    from: current.clone(),
                    to: to.clone(),
                    measure: measure(&spike),
                    measured: spike.measured,
                    threshold: spike.threshold,
                };
                let ask = match self.say(Says::Spiked(Box::new(spiked))).await {
                    true => asking(&to),
                    false => unchanged(),
                };
                let asked =
                    if let Wanted::Model { model: Some(model), .. } = &ask.wanted { model } else { &own };
                let watched = models.watch(asked).ok().flatten();
                (ask, watched)
            }
        }
    }
}
