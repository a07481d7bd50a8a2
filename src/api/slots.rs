//! Between the runs that wait to be admitted and the book that says whose turn it is: claims go in, admissions go out.
//!
//! A run is told until it has heard; one that gave its claim up meanwhile drops what it is told, and its slot is free again
//! when its own word of that arrives. A child that wants a slot of its workflow is looked at first: it waits for ever for
//! one that a run above it has, so it fails.

use std::rc::Rc;
use std::time::Duration;

use super::errands::{Pause, is_passing};
use super::services::Services;
use crate::engine::command::{Claiming, Command, Reply};
use crate::exec::slots::{Look, News};
use crate::limits;
use crate::model::{Claim, Failure, RunId, Seq};
use crate::time::Clock as _;

/// A run's claim has changed. Those of one run come in order.
pub(super) fn claim(services: &Rc<Services>, run_id: RunId, claiming: Claiming) {
    let now_us = services.clock.monotonic_us();
    let slots = &services.executors.slots;
    match claiming {
        Claiming::Release(claim) => {
            crate::failpoint::pass("admission::given_up");
            spread(services, slots.release(run_id, &claim.workflow, now_us))
        }
        Claiming::Ask(claim) => {
            crate::failpoint::pass("admission::asked");
            let (look_first, news) = slots.ask(run_id, (*claim).clone(), now_us);
            spread(services, news);
            if look_first {
                let services = services.clone();
                crate::io::spawn_local(async move { look_at(&services, run_id, *claim).await });
            }
        }
    }
}

/// The claims of all shards are in; called once, by the first control core.
pub fn open(services: &Rc<Services>) {
    let news = services.executors.slots.open(services.clock.monotonic_us());
    spread(services, news);
}

/// Tells those who may begin, and comes back when others may.
fn spread(services: &Rc<Services>, news: News) {
    for grant in news.grants {
        let services = services.clone();
        crate::io::spawn_local(async move { tell(&services, (grant.run_id, grant.seq), None).await });
    }
    for look in news.looks {
        let services = services.clone();
        crate::io::spawn_local(async move { look_later(&services, look).await });
    }
}

async fn look_later(services: &Rc<Services>, look: Look) {
    let wait_us = look.at_us.saturating_sub(services.clock.monotonic_us());
    tokio::time::sleep(Duration::from_micros(wait_us)).await;
    // Not before its time, whatever the sleep did.
    let now_us = services.clock.monotonic_us().max(look.at_us);
    spread(services, services.executors.slots.look(&look, now_us));
}

/// Tells a run that it may begin, or why it never will, until it has heard.
async fn tell(services: &Services, (run_id, seq): (RunId, Seq), denied: Option<Box<Failure>>) {
    let mut pause = Pause::default();
    loop {
        match services.ask(run_id, Command::Admit { run_id, seq, denied: denied.clone() }).await {
            Err(problem) if is_passing(&problem) => pause.wait().await,
            _ => return,
        }
    }
}

async fn look_at(services: &Rc<Services>, run_id: RunId, claim: Claim) {
    if let Some(failure) = waits_for_itself(services, &claim).await {
        return tell(services, (run_id, claim.seq), Some(Box::new(failure))).await;
    }
    let now_us = services.clock.monotonic_us();
    spread(services, services.executors.slots.looked_at(run_id, &claim.workflow, now_us));
}

/// Does a run above it have a slot of the same key, and wait for it?
async fn waits_for_itself(services: &Services, claim: &Claim) -> Option<Failure> {
    let wanted = &claim.wanted.concurrency.as_ref()?.key;
    let mut above = claim.parent;
    let mut pause = Pause::default();
    let mut looked = 0;
    while let Some(run_id) = above.filter(|_| looked < limits::CHILD_DEPTH_MAX) {
        let view = match services.ask(run_id, Command::Get(run_id)).await {
            Ok(Reply::Run(view)) => view,
            Err(problem) if is_passing(&problem) => {
                pause.wait().await;
                continue;
            }
            // It is over, and waits for nobody.
            _ => return None,
        };
        let admission = view.admission.as_ref().and_then(|(admission, _)| admission.concurrency.as_ref());
        let same = view.summary.workflow == claim.workflow && admission.is_some_and(|own| own.key == *wanted);
        if same && !view.summary.status.is_terminal() {
            let message = format!(
                "{run_id}, above it, is of the same workflow and has a slot of the same key (limits.concurrency); \
                 each would wait for the other"
            );
            return Some(Failure::fatal("concurrency_deadlock", message));
        }
        above = view.parent;
        looked += 1;
    }
    None
}
