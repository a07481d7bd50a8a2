//! Watches single events: what a fold asks of the world is the difference that it makes to what a restart would find.

use crate::engine::fold::fold;
use crate::engine::{Dispatch, Effects, Recalled, Run, Timer, Work};
use crate::ir::{Executor, ParentClose};
use crate::model::agent::Wanted;
use crate::model::{Event, EventBody};
use crate::time::Timestamp;

/// Folds one event and looks at what it asks for.
pub(super) fn folded(run: &mut Run, body: &EventBody, now: Timestamp) -> Effects {
    let timers: Vec<_> = run.timers().collect();
    let work = run.dispatches();
    let mut effects = Effects::default();
    fold(run, body, now, &mut effects).unwrap();
    let (timers_now, work_now): (Vec<_>, _) = (run.timers().collect(), run.dispatches());
    let ending = body.ends_run() || matches!(body, EventBody::RunCancelRequested { .. });
    let grace = |timer: &Timer| *timer == Timer::Grace && run.under_way == 0;
    for timer in timers_now.iter().filter(|(_, timer)| !grace(timer)) {
        let asked = effects.timers.iter().filter(|other| *other == timer).count();
        let before = timers.contains(timer);
        assert!(asked == 1 || (asked == 0 && before), "armed {asked} times by {body:?}: {timer:?}");
    }
    assert!(effects.timers.iter().all(|timer| timers_now.contains(timer)), "armed for nothing: {body:?}");
    // What no worker has taken is handed out again when the run goes on after a pause.
    let resumed = matches!(body, EventBody::RunResumed);
    for dispatch in &work_now {
        let asked = effects.dispatches.iter().filter(|other| *other == dispatch).count();
        let before = work.iter().any(|other| untaken(other) == untaken(dispatch));
        let again = resumed && before && dispatch.worker.is_none() && is_for_later(&dispatch.work);
        // A turn that begins in a pause is handed out when the run goes on.
        let held_back = run.is_paused()
            && matches!(dispatch.work, Work::Agent(_))
            && !matches!(body, EventBody::NodeLost { .. });
        let wanted = usize::from((!before && !held_back) || again);
        assert_eq!(asked, wanted, "handed out {asked} times by {body:?}");
    }
    assert!(effects.dispatches.iter().all(|dispatch| work_now.contains(dispatch)), "for nothing: {body:?}");
    for gone in work.iter().filter(|gone| work_now.iter().all(|now| untaken(now) != untaken(gone))) {
        if matches!(body, EventBody::NodeLost { place } if *place == gone.place) {
            // Whoever made it is gone.
            continue;
        }
        let abandoned = matches!(gone.work, Work::Child { parent_close: ParentClose::Abandon, .. });
        let own = body.place() == Some(&gone.place) && !matches!(body, EventBody::TimerFired { .. });
        let told = effects.recalls.iter().filter(|recall| {
            (&recall.place, recall.seq) == (&gone.place, gone.seq) && is_for(recall.whom, &gone.work)
        });
        let wanted = usize::from(!abandoned && (!own || ending));
        assert_eq!(told.count(), wanted, "called back by {body:?}: {gone:?} of {:?}", effects.recalls);
    }
    effects
}

/// The attempt, whoever has taken it, and whichever model its turn asks: a turn that asks another one is the same turn.
fn untaken(dispatch: &Dispatch) -> Dispatch {
    let mut dispatch = Dispatch { worker: None, ..dispatch.clone() };
    if let Work::Agent(ask) = &mut dispatch.work {
        ask.said = std::sync::Arc::default();
        if let Wanted::Model { model, .. } = &mut ask.wanted {
            *model = None;
        }
    }
    dispatch
}

/// Has nobody begun it?
fn is_for_later(work: &Work) -> bool {
    matches!(work, Work::Call { executor: Executor::Task, .. } | Work::Agent(_))
}

fn is_for(whom: Recalled, work: &Work) -> bool {
    match (whom, work) {
        (Recalled::Executor(whom), Work::Call { executor, .. }) => whom == *executor,
        (Recalled::Executor(whom), Work::Agent(_)) => whom == Executor::Agent,
        (Recalled::Child(whom), Work::Child { run_id, .. }) => whom == *run_id,
        _ => false,
    }
}

/// An event in words.
pub(super) fn told(run: &Run, event: &Event) -> String {
    let path = event.body.place().map(|place| run.ir().path(place)).unwrap_or_default();
    let more = match &event.body {
        EventBody::NodeFailed { failure, .. } | EventBody::NodeRetryScheduled { failure, .. } => {
            &failure.message
        }
        _ => "",
    };
    format!("{} {} {path} {more}", event.at.as_micros() % 1_000_000_000, event.body.type_name())
}
