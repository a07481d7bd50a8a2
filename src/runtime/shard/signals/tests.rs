//! Updates at a shard: taken once or refused, and answered once.

use std::time::Duration;

use rkyv::util::AlignedVec;

use crate::engine::Settled;
use crate::engine::command::{
    Command, Envelope, Errand, Refusal, Reply, ReplyTo, Settle, Start, Update, Updated,
};
use crate::model::token::Token;
use crate::model::{Failure, FrameRef, Partition, RunId, Seq, Status, Value};
use crate::runtime::shard::{Shard, ShardConfig};
use crate::time::Timestamp;

pub(in crate::runtime::shard) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

pub(in crate::runtime::shard) fn run_id() -> RunId {
    RunId::new(NOW, Partition::new(0), [1; 10])
}

/// A shard with one run of a document.
pub(in crate::runtime::shard) fn shard(document: &str) -> Shard {
    let config =
        ShardConfig { index: 0, epoch: 1, retention: Duration::from_secs(3_600), runs_live_max: 100 };
    let mut shard = Shard::new(config, std::sync::Arc::default());
    let compiled =
        crate::compile::compile(document.as_bytes(), crate::compile::Format::Yaml, &Default::default());
    let start = Start {
        run_id: run_id(),
        ir: compiled.unwrap_or_else(|found| panic!("{found:?}")).ir,
        inputs: Value::Null,
        seed: 1,
        idempotency: None,
        run_key: None,
        mode: None,
        layered: None,
        deadline: None,
        parent: None,
    };
    give(&mut shard, 0, Command::Start(Box::new(start)));
    shard
}

/// Gives a command; what was decided becomes durable. The answers that leave, by slot.
pub(in crate::runtime::shard) fn give(shard: &mut Shard, slot: u32, command: Command) -> Vec<(u32, Reply)> {
    shard.command(Envelope { reply_to: address(slot), command }, NOW);
    commit(shard)
}

pub(in crate::runtime::shard) fn commit(shard: &mut Shard) -> Vec<(u32, Reply)> {
    if shard.seal(Vec::new()).is_some() {
        let offset = u32::try_from(shard.outbox.open()).unwrap() * 4_096;
        shard.committed(FrameRef { segment: 1, offset });
    }
    shard.releases().replies.drain(..).map(|(to, reply)| (to.slot, reply)).collect()
}

pub(in crate::runtime::shard) fn address(slot: u32) -> ReplyTo {
    ReplyTo { core: 0, slot, generation: 0 }
}

pub(in crate::runtime::shard) fn token(name: &str, payload: &str) -> Vec<u8> {
    let mut buffer = AlignedVec::new();
    let payload = Value::from_json(payload.as_bytes()).unwrap();
    Token::signal(run_id(), name, &payload).unwrap().encode(&mut buffer).unwrap();
    buffer.to_vec()
}

pub(in crate::runtime::shard) fn update(name: &str, payload: &str, wait: bool) -> Command {
    Command::Update(Update { run_id: run_id(), token: token(name, payload), wait })
}

/// The one answer, to this slot.
pub(in crate::runtime::shard) fn updated(mut replies: Vec<(u32, Reply)>, slot: u32) -> Updated {
    match (replies.pop(), replies.pop()) {
        (Some((to, Reply::Updated(updated))), None) if to == slot => *updated,
        other => panic!("{other:?}"),
    }
}

pub(in crate::runtime::shard) fn refused(mut replies: Vec<(u32, Reply)>) -> Refusal {
    match (replies.pop(), replies.pop()) {
        (Some((_, Reply::Refused(refusal))), None) => refusal,
        other => panic!("{other:?}"),
    }
}

pub(in crate::runtime::shard) fn seq(shard: &Shard) -> Seq {
    shard.runs[&run_id()].run.seq()
}

/// The job that was handed out last ends.
pub(in crate::runtime::shard) fn settle(
    shard: &mut Shard,
    slot: u32,
    result: Result<Value, Failure>,
) -> Vec<(u32, Reply)> {
    let mut handed = shard.releases().errands.drain(..).filter_map(|errand| match errand {
        Errand::Dispatch { dispatch, .. } => Some((dispatch.place, dispatch.seq)),
        _ => None,
    });
    let (place, seq) = handed.next_back().unwrap();
    drop(handed);
    give(shard, slot, Command::Settle(Box::new(Settle { run_id: run_id(), place, seq, result })))
}

/// `ask` accepts a whole number, `do` is a job, and `tell` answers.
pub(in crate::runtime::shard) const ASKING: &str = "
name: w
nodes:
  ask: {type: wait, with: {signal: go, accepts: {type: object, properties: {n: {type: integer}}}, reply: tell}}
  do: {type: task, needs: [ask], on_error: continue}
  tell: {type: function, needs: [do], with: {expr: 'input.n + 1'}}
  stay: {type: wait, needs: [tell], with: {signal: never}}
";

#[test]
fn without_a_reply_the_answer_is_the_payload_and_leaves_when_it_is_durable() {
    let mut shard = shard(
        "{name: w, nodes: {ask: {type: wait, with: {signal: go}}, stay: {type: wait, needs: [ask], with: {signal: never}}}}",
    );
    let before = seq(&shard);
    shard.command(Envelope { reply_to: address(1), command: update("go", "7", false) }, NOW);
    assert!(shard.releases().replies.is_empty(), "nothing leaves before its cause is durable");
    let taken = updated(commit(&mut shard), 1);
    assert_eq!((taken.seq, &*taken.node, taken.reply), (before + 1, "ask", None));
    assert_eq!(taken.settled, Some(Settled::Completed(Value::Int(7))));
    assert_eq!((taken.run.status, taken.run.seq), (Status::Running, seq(&shard)));
    // It is asked once.
    let before = seq(&shard);
    let refusal = refused(give(&mut shard, 2, update("go", "7", true)));
    let Refusal::NotAwaited { name, awaited, .. } = &refusal else { panic!("{refusal:?}") };
    assert_eq!((&**name, &awaited[..]), ("go", &["never".into()][..]));
    assert!(refusal.to_string().contains("never"), "{refusal}");
    assert_eq!((seq(&shard), shard.runs[&run_id()].run.signals_kept()), (before, 0), "nothing is recorded");
}

#[test]
fn what_does_not_fit_is_refused_with_its_place_and_nothing_is_recorded() {
    let mut shard = shard(ASKING);
    let before = seq(&shard);
    for command in [update("go", r#"{"n": "one"}"#, true), Command::Signal(token("go", r#"{"n": "one"}"#))] {
        let refusal = refused(give(&mut shard, 1, command));
        let Refusal::Unfit { node, found } = &refusal else { panic!("{refusal:?}") };
        assert_eq!((&**node, found.len(), &*found[0].pointer), ("ask", 1, "/n"));
        assert!(!refusal.to_string().contains("one\""), "{refusal}");
    }
    assert_eq!(seq(&shard), before);
    assert!(shard.runs[&run_id()].waiters.is_empty());
    updated(give(&mut shard, 2, update("go", r#"{"n": 1}"#, false)), 2);
}

#[test]
fn with_a_reply_the_answer_waits_for_its_node_or_says_that_it_has_not_settled() {
    let mut shard = shard(ASKING);
    assert!(give(&mut shard, 1, update("go", r#"{"n": 1}"#, true)).is_empty(), "it waits");
    assert!(!shard.runs[&run_id()].waiters.is_empty());
    let replies = settle(&mut shard, 2, Ok(Value::map([("n", Value::Int(41))])));
    let (mut answers, others): (Vec<_>, Vec<_>) = replies.into_iter().partition(|(slot, _)| *slot == 1);
    assert!(matches!(others[..], [(2, Reply::Accepted(_))]));
    let taken = updated(std::mem::take(&mut answers), 1);
    assert_eq!((&*taken.node, taken.reply.as_deref()), ("ask", Some("tell")));
    assert_eq!(taken.settled, Some(Settled::Completed(Value::Int(42))));
    assert!(shard.runs[&run_id()].waiters.is_empty());
}

#[test]
fn who_does_not_wait_is_answered_at_once_and_who_stops_is_answered_then() {
    let mut shard = shard(ASKING);
    let taken = updated(give(&mut shard, 1, update("go", r#"{"n": 1}"#, false)), 1);
    assert_eq!((taken.settled, taken.reply.as_deref()), (None, Some("tell")));
    let mut shard = self::shard(ASKING);
    assert!(give(&mut shard, 1, update("go", r#"{"n": 1}"#, true)).is_empty());
    let replies = give(&mut shard, 2, Command::StopWaiting { run_id: run_id(), waiter: address(1) });
    let [(1, Reply::Updated(taken)), (2, Reply::Done)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((taken.settled.clone(), taken.seq + 3), (None, seq(&shard)));
    let replies = settle(&mut shard, 3, Ok(Value::map([("n", Value::Int(41))])));
    assert!(
        matches!(replies[..], [(3, Reply::Accepted(_))]),
        "it was taken, and is answered once: {replies:?}"
    );
    assert_eq!(shard.runs[&run_id()].run.graph().nodes[2].state, "completed");
}

#[test]
fn a_node_that_fails_is_skipped_or_is_gone_answers_too() {
    // A failure, whatever becomes of it.
    let mut shard = shard(ASKING);
    give(&mut shard, 1, update("go", r#"{"n": 1}"#, true));
    let replies = settle(&mut shard, 2, Ok(Value::Null));
    let taken = updated(replies.into_iter().filter(|(slot, _)| *slot == 1).collect(), 1);
    let Some(Settled::Failed(failure)) = taken.settled else { panic!("{taken:?}") };
    assert_eq!((&*failure.code, taken.run.status), ("expression_type", Status::Failed));
    // The run is ended by somebody else.
    let mut shard = self::shard(ASKING);
    give(&mut shard, 1, update("go", r#"{"n": 1}"#, true));
    let replies = give(&mut shard, 2, Command::Terminate { run_id: run_id(), reason: "now".into() });
    let taken = updated(replies.into_iter().filter(|(slot, _)| *slot == 1).collect(), 1);
    assert_eq!((taken.settled, taken.run.status), (Some(Settled::Gone), Status::Cancelled));
    // Its pass is dropped, and the run goes on.
    let mut shard = self::shard(
        "
name: w
nodes:
  both:
    type: parallel
    on_error: continue
    with:
      branches:
        one:
          nodes:
            ask: {type: wait, with: {signal: go, reply: tell}}
            tell: {type: wait, needs: [ask], with: {signal: later}}
        two:
          nodes:
            boom: {type: wait, with: {signal: boom}}
            fail: {type: function, needs: [boom], with: {expr: '1 / 0'}}
  stay: {type: wait, needs: [both], with: {signal: never}}
",
    );
    assert!(give(&mut shard, 1, update("go", "1", true)).is_empty());
    let replies = give(&mut shard, 2, update("boom", "1", false));
    let of = |slot| replies.iter().filter(move |(to, _)| *to == slot).collect::<Vec<_>>();
    let [(_, Reply::Updated(gone))] = of(1)[..] else { panic!("{replies:?}") };
    assert_eq!((gone.settled.clone(), gone.run.status), (Some(Settled::Gone), Status::Running));
    assert_eq!((&*gone.node, gone.reply.as_deref()), ("both[one].ask", Some("both[one].tell")));
    assert_eq!(of(2).len(), 1);
}

#[test]
fn a_run_in_fast_mode_answers_with_what_it_does_not_write_down() {
    let mut shard = shard(
        "
name: w
mode: fast
nodes:
  ask: {type: wait, with: {signal: go, reply: tell}}
  tell: {type: function, needs: [ask], with: {expr: 'input * 2'}}
  stay: {type: wait, needs: [tell], with: {signal: never}}
",
    );
    let taken = updated(give(&mut shard, 1, update("go", "21", false)), 1);
    assert_eq!(taken.settled, Some(Settled::Completed(Value::Int(42))));
    let run = &shard.runs[&run_id()].run;
    assert!(run.seq() < 8, "most of it is only counted: {}", run.seq());
}

#[test]
fn a_run_that_ends_or_ended_and_one_that_is_cancelled_take_none() {
    let mut shard = shard("{name: w, nodes: {ask: {type: wait, with: {signal: go}}, do: {type: task}}}");
    give(&mut shard, 1, Command::Cancel { run_id: run_id(), reason: "enough".into() });
    let refusal = refused(give(&mut shard, 2, update("go", "1", true)));
    assert!(
        matches!(refusal, Refusal::Illegal { verb: "updated, for it is being cancelled", .. }),
        "{refusal:?}"
    );
    give(&mut shard, 3, Command::Terminate { run_id: run_id(), reason: "enough".into() });
    let refusal = refused(give(&mut shard, 4, update("go", "1", true)));
    assert!(matches!(refusal, Refusal::Finished { status: Status::Cancelled, .. }), "{refusal:?}");
    let mut shard = self::shard("{name: w, nodes: {ask: {type: wait, with: {signal: go}}}}");
    let taken = updated(give(&mut shard, 1, update("go", "1", true)), 1);
    assert_eq!(
        (taken.settled, taken.run.status),
        (Some(Settled::Completed(Value::Int(1))), Status::Completed)
    );
}

#[test]
fn who_waits_when_the_log_fails_is_told_once_that_nobody_knows() {
    let mut shard = shard(ASKING);
    give(&mut shard, 1, update("go", r#"{"n": 1}"#, true));
    shard.fence("the disk is gone".into());
    let replies: Vec<_> = shard.releases().replies.drain(..).collect();
    assert!(
        matches!(
            replies[..],
            [(ReplyTo { slot: 1, .. }, Reply::Refused(Refusal::Fenced { untouched: false, .. }))]
        ),
        "{replies:?}"
    );
}

#[test]
fn a_payload_larger_than_a_slice_is_the_answer_all_the_same() {
    let mut shard = shard(
        "{name: w, nodes: {ask: {type: wait, with: {signal: go}}, stay: {type: wait, needs: [ask], with: {signal: never}}}}",
    );
    let text = "x".repeat(2 << 20);
    assert!(
        give(&mut shard, 1, update("go", &format!("{text:?}"), false)).is_empty(),
        "the next slice ends it"
    );
    shard.work(NOW, 1);
    let taken = updated(commit(&mut shard), 1);
    assert_eq!(taken.settled, Some(Settled::Completed(Value::string(text))));
}

#[test]
fn of_too_many_who_wait_the_next_is_answered_at_once() {
    let mut shard = shard(ASKING);
    for slot in 0..u32::try_from(crate::limits::WAITERS_PER_RUN_MAX).unwrap() {
        assert!(give(&mut shard, slot, Command::AwaitEnd(run_id())).is_empty());
    }
    let taken = updated(give(&mut shard, 9_999, update("go", r#"{"n": 1}"#, true)), 9_999);
    assert_eq!((taken.settled, taken.reply.as_deref()), (None, Some("tell")));
}
