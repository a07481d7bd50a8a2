//! Commands with a key at a shard: done once, answered the same, and by whoever asks.

use super::super::signals::tests::{
    ASKING, NOW, address, commit, give, refused, run_id, seq, settle, shard, token, update, updated,
};
use crate::engine::Settled;
use crate::engine::command::{Command, Envelope, Refusal, Reply};
use crate::limits;
use crate::model::event::{Done, Idempotency};
use crate::model::{RunSummary, Value};

fn once(byte: u8, command: Command) -> Command {
    command.once(run_id(), Some(&Idempotency { key: [byte; 16], fingerprint: [byte; 16] }))
}

fn signal(name: &str) -> Command {
    Command::Signal(token(name, "1"))
}

/// The only answer: the run as it was, and whether that was before.
fn told(mut replies: Vec<(u32, Reply)>) -> (RunSummary, bool) {
    match (replies.pop(), replies.pop()) {
        (Some((_, Reply::Accepted(run))), None) => (run, false),
        (Some((_, Reply::Repeated(run, Done::Signal { .. }))), None) => (run, true),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signal_is_taken_once_and_its_second_answer_is_the_first() {
    let mut shard = shard(ASKING);
    let before = seq(&shard);
    let (first, again) = told(give(&mut shard, 1, once(1, signal("later"))));
    assert!(!again);
    assert_eq!((first.seq, seq(&shard)), (before + 2, before + 2));
    told(give(&mut shard, 2, once(2, signal("later"))));
    let now = seq(&shard);
    let (second, again) = told(give(&mut shard, 3, once(1, signal("later"))));
    assert!(again);
    assert_eq!((second, seq(&shard)), (first, now), "nothing is recorded");
    // Another request under the key, whatever it asks for.
    let other = Idempotency { key: [1; 16], fingerprint: [9; 16] };
    let refusal = refused(give(&mut shard, 4, signal("later").once(run_id(), Some(&other))));
    assert_eq!(refusal, Refusal::KeyReused);
    // Nor is it looked at what the run is by now.
    let guarded = signal("later").guarded(run_id(), Some(vec![before]));
    assert!(told(give(&mut shard, 5, once(1, guarded))).1);
    give(&mut shard, 6, Command::Terminate { run_id: run_id(), reason: "now".into() });
    assert_eq!(seq(&shard), now + 2);
}

#[test]
fn of_two_in_one_batch_the_second_waits_for_what_the_first_has_done() {
    let mut shard = shard(ASKING);
    for slot in [1, 2] {
        let command = once(1, signal("later"));
        shard.command(Envelope { reply_to: address(slot), command }, NOW);
    }
    assert!(shard.releases().replies.is_empty(), "nothing leaves before its cause is durable");
    let replies = commit(&mut shard);
    assert!(matches!(replies[..], [(1, Reply::Accepted(_)), (2, Reply::Repeated(..))]), "{replies:?}");
    assert_eq!(shard.runs[&run_id()].run.signals_kept(), 1);
}

#[test]
fn what_is_refused_is_not_remembered() {
    let mut shard = shard(ASKING);
    let before = seq(&shard);
    let misfit = update("go", r#"{"n": "one"}"#, true);
    assert!(matches!(refused(give(&mut shard, 1, once(1, misfit))), Refusal::Unfit { .. }));
    let early = once(1, update("never", "1", true));
    assert!(matches!(refused(give(&mut shard, 2, early)), Refusal::NotAwaited { .. }));
    assert_eq!(seq(&shard), before);
    updated(give(&mut shard, 3, once(1, update("go", r#"{"n": 1}"#, false))), 3);
}

#[test]
fn an_update_that_waits_is_waited_for_by_whoever_sends_it_again() {
    let mut shard = shard(ASKING);
    let asked = |wait| once(1, update("go", r#"{"n": 1}"#, wait));
    assert!(give(&mut shard, 1, asked(true)).is_empty());
    let before = seq(&shard);
    assert!(give(&mut shard, 2, asked(true)).is_empty(), "it waits, too");
    let early = updated(give(&mut shard, 3, asked(false)), 3);
    assert_eq!((early.settled, early.replayed), (None, true));
    assert_eq!(seq(&shard), before);
    let replies = settle(&mut shard, 4, Ok(Value::map([("n", Value::Int(41))])));
    let answers: Vec<_> = replies
        .iter()
        .filter_map(|(slot, reply)| match reply {
            Reply::Updated(updated) => Some((*slot, updated.replayed, updated.seq, updated.settled.clone())),
            _ => None,
        })
        .collect();
    let done = Some(Settled::Completed(Value::Int(42)));
    assert_eq!(answers, [(1, false, early.seq, done.clone()), (2, true, early.seq, done.clone())]);
    let late = updated(give(&mut shard, 5, asked(true)), 5);
    assert_eq!((late.settled, late.replayed, &*late.node), (done, true, "ask"));
}

#[test]
fn a_run_that_remembers_all_it_may_takes_what_has_no_key() {
    let mut shard = shard(ASKING);
    let key = |number: usize| Idempotency { key: (number as u128).to_le_bytes(), fingerprint: [0; 16] };
    for number in 0..limits::KEYS_PER_RUN_MAX {
        let entry = shard.runs.get_mut(&run_id()).unwrap();
        let event = entry.run.remember(key(number), Done::Signal { seq: 1, taken: None });
        crate::engine::apply(&mut entry.run, &event, NOW).unwrap();
    }
    let refusal = refused(give(&mut shard, 1, signal("later").once(run_id(), Some(&key(usize::MAX)))));
    assert!(matches!(refusal, Refusal::Limit { limit: "keys_per_run_max", .. }), "{refusal:?}");
    let (_, again) = told(give(&mut shard, 2, signal("later").once(run_id(), Some(&key(0)))));
    assert!(again);
    assert!(matches!(give(&mut shard, 3, signal("later"))[..], [(3, Reply::Accepted(_))]));
}
