//! Starts the fanout cores.

use tokio::sync::watch;

use super::Machine;
use super::wiring::Shared;
use crate::engine::command::{Reply, ReplyTo};
use crate::fanout::{Asking, Hub, Push, hub};
use crate::queue::Receiver;
use crate::runtime::Error;
use crate::runtime::thread::{Plane, Threads};
use crate::wire::stream::ToHub;

type Receivers = (Vec<Receiver<(ReplyTo, Reply)>>, Vec<Receiver<Push>>, Vec<Receiver<ToHub>>);

/// Starts the hubs; what stops them.
pub(super) fn start(
    threads: &mut Threads,
    machine: &Machine<'_>,
    (replies, pushes, requests): Receivers,
    shared: &Shared,
) -> Result<watch::Sender<bool>, Error> {
    let (stop, stopped) = watch::channel(false);
    let first = u16::try_from(machine.plan.control.len()).unwrap_or(u16::MAX);
    let ends = replies.into_iter().zip(pushes).zip(requests);
    for ((at, core), ((replies, pushes), requests)) in machine.plan.fanout.iter().enumerate().zip(ends) {
        let ends = Ends { replies, pushes, requests, stopped: stopped.clone() };
        start_hub(threads, (at, *core, first), ends, shared)?;
    }
    Ok(stop)
}

/// What one hub holds alone.
struct Ends {
    replies: Receiver<(ReplyTo, Reply)>,
    pushes: Receiver<Push>,
    requests: Receiver<ToHub>,
    stopped: watch::Receiver<bool>,
}

/// Starts hub `at` on `core`; its reply queue comes after the `first` ones, which are the control cores'.
fn start_hub(
    threads: &mut Threads,
    (at, core, first): (usize, usize, u16),
    ends: Ends,
    shared: &Shared,
) -> Result<(), Error> {
    let Ends { replies, pushes, requests, mut stopped } = ends;
    let parts = hub::Parts {
        core: first.saturating_add(u16::try_from(at).unwrap_or(u16::MAX)),
        index: u16::try_from(at).unwrap_or(u16::MAX),
        shards: shared.commands.clone(),
        replies,
        pushes,
        requests,
        asking: Asking::new(shared.asked.clone()),
        source: shared.runs.clone(),
        subscribers: shared.subscribers.get(at).cloned().unwrap_or_default(),
    };
    let main = move || async move {
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        Hub::new(parts).run(stop).await;
    };
    Ok(threads.spawn(Plane::Fanout, &format!("aob-fanout-{at}"), Some(core), main)?)
}
