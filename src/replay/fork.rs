//! What another run begins with: the record up to some event, word for word, and the state that it adds up to.

use super::freeze::beginning;
use super::{Burst, Error, Folding, Record};
use crate::engine::{Graphs, Run};
use crate::model::{EventBody, RunId, Seq};
use crate::time::Timestamp;

/// What a fork goes on from.
#[derive(Debug)]
pub struct Prefix {
    /// The state, under the new run's id.
    pub run: Run,
    /// The events that it is of.
    pub bursts: Vec<Burst>,
    /// When the last of them was decided.
    pub since: Timestamp,
}

/// Where a run is forked so that a node of it is done again: the event before the node's first one.
///
/// # Errors
/// There is no such node, or it has not begun, or it begins with the run.
pub fn before(record: &Record, graphs: &mut dyn Graphs, node: &str) -> Result<Seq, Error> {
    let (burst, events) = beginning(record, graphs, node)?;
    let burst = record.bursts.get(burst).ok_or_else(|| Error::NotBegun(node.to_owned()))?;
    let seq = burst.first_seq.saturating_add(events as u64).saturating_sub(1);
    // In fast mode a first slice may hold it without saying where: then all of the run is done again.
    Ok(seq.max(1))
}

/// The beginning of a run that goes on where the one of this record was after its event `seq`.
///
/// # Errors
/// There is no such event, or no run can go on from it.
pub fn prefix(
    record: &Record,
    graphs: &mut dyn Graphs,
    (run_id, seq): (RunId, Seq),
) -> Result<Prefix, Error> {
    let last = record.last_seq();
    if seq == 0 || seq > last {
        return Err(Error::NoEvent { seq, last });
    }
    let mut folding = Folding::new(run_id, graphs);
    let mut bursts = Vec::new();
    for burst in record.bursts.iter().take_while(|burst| burst.first_seq <= seq) {
        let mut taken = burst.clone();
        taken.events.truncate(usize::try_from(seq - burst.first_seq + 1).unwrap_or(usize::MAX));
        taken.events().try_for_each(|event| folding.event(&event))?;
        bursts.push(taken);
    }
    // What is approved is made in the same step: nobody else may come between.
    let last_event = bursts.last().and_then(|burst| burst.events.last());
    if matches!(last_event, Some(EventBody::PatchDecided(decided)) if decided.approved) {
        let why =
            "a patch was approved there and is about to be made; choose the event before, or one after it";
        return Err(Error::NoFork { seq, why: why.to_owned() });
    }
    let since = bursts.last().map(|burst| burst.at).unwrap_or_default();
    let run = folding.run.ok_or(Error::NoEvent { seq, last })?;
    run.may_fork().map_err(|why| Error::NoFork { seq, why: why.to_owned() })?;
    Ok(Prefix { run, bursts, since })
}
