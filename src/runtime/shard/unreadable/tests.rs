//! Shards whose events name contents: folded again they are as they were, and without the contents nothing is guessed.

use std::time::Duration;

use super::super::{ShardConfig, Sources};
use super::*;
use crate::compile::{self, Format};
use crate::engine::command::{Envelope, Reply, ReplyTo, Start};
use crate::ir::Ir;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::{Content, Kept, Partition, Value, kept};
use crate::store::record::Bursts;
use crate::time::Timestamp;

const SOURCE: &str = r#"
aob: "1"
name: w
nodes:
  pass: {type: function, with: {expr: inputs.doc}}
  go: {type: wait, with: {signal: go}}
edges: [{from: pass, to: go}]
outputs: {doc: "${ nodes.pass.output }", said: "${ nodes.go.output }"}
"#;

fn ir() -> Arc<Ir> {
    let options = compile::Options::default();
    compile::compile(SOURCE.as_bytes(), Format::Yaml, &options).unwrap().ir
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn run_id(byte: u8) -> RunId {
    RunId::new(at(1), Partition::new(0), [byte; 10])
}

fn config() -> ShardConfig {
    ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 10 }
}

/// The contents of a value, as the interface keeps them.
fn contents(value: &Value) -> Arc<Kept> {
    let mut table = Kept::default();
    for part in kept::parts(value, 100) {
        let json = part.to_json();
        table.add(Content::of(&part, [json.len() as u8; 32], json.len() as u64), part);
    }
    Arc::new(table)
}

fn text(letter: &str, count: usize) -> Value {
    Value::string(letter.repeat(count))
}

fn inputs() -> Value {
    Value::map([("doc", text("d", 5_000))])
}

fn start(byte: u8) -> Command {
    let start = Start {
        run_id: run_id(byte),
        ir: ir(),
        inputs: inputs(),
        seed: 0,
        idempotency: Some(Idempotency { key: [byte; 16], fingerprint: [1; 16] }),
        run_key: None,
        mode: None,
        layered: None,
        deadline: None,
        parent: None,
    };
    let kept = contents(&start.inputs);
    Command::Start(Box::new(start)).keeping(run_id(byte), Some(kept))
}

fn signal(byte: u8, payload: &Value) -> Command {
    use crate::model::token::Token;
    let kept = contents(payload);
    let token = kept::naming(Some(&kept), || Token::signal(run_id(byte), "go", payload)).unwrap();
    let mut buffer = rkyv::util::AlignedVec::new();
    token.encode(&mut buffer).unwrap();
    assert!(buffer.len() < 1_000, "the token only names it");
    Command::Signal(buffer.to_vec()).keeping(run_id(byte), Some(kept))
}

fn give(shard: &mut Shard, command: Command) -> Vec<Reply> {
    let reply_to = ReplyTo { core: 0, slot: 0, generation: 0 };
    shard.command(Envelope { reply_to, command }, at(5));
    shard.releases().replies.drain(..).map(|(_, reply)| reply).collect()
}

fn frame(offset: u32) -> FrameRef {
    FrameRef { segment: 1, offset }
}

fn commit(shard: &mut Shard, offset: u32) -> Vec<u8> {
    let batch = shard.seal(Vec::new()).unwrap();
    shard.committed(frame(offset));
    shard.releases().replies.clear();
    batch
}

/// Has all contents, or none.
struct Stores(bool);

impl crate::engine::Graphs for Stores {
    fn of(&mut self, _: &DocumentHash) -> Option<Arc<Ir>> {
        Some(ir())
    }
}

impl Sources for Stores {
    fn content(&mut self, content: &Content) -> Result<Value, String> {
        let letter = if content.bytes > 4_000 { "d" } else { "s" };
        let value = text(letter, content.bytes as usize - 2);
        if self.0 { Ok(value) } else { Err(format!("{content} is gone")) }
    }

    fn ended(&mut self, _: RunId) -> Result<Option<Timestamp>, String> {
        Ok(None)
    }
}

fn folded(batches: &[Vec<u8>], stores: &mut Stores) -> Recovery {
    let mut recovery = Recovery::new(config(), Arc::default());
    for (offset, batch) in (0..).zip(batches) {
        for burst in Bursts::new(batch).unwrap() {
            recovery.burst(&burst.unwrap(), frame(offset), stores).unwrap();
        }
    }
    recovery
}

fn view(shard: &mut Shard) -> crate::engine::command::RunView {
    match give(shard, Command::Get(run_id(1))).pop() {
        Some(Reply::Run(view)) => *view,
        other => panic!("{other:?}"),
    }
}

// RELIABILITY I-3, F027, F059
#[test]
fn events_name_contents_and_a_fold_has_the_values_again() {
    let mut shard = Shard::new(config(), Arc::default());
    give(&mut shard, start(1));
    let first = commit(&mut shard, 0);
    assert!(first.len() < 1_000, "inputs and what passes them on: {}", first.len());
    let before = view(&mut shard);
    let shown =
        |view: &crate::engine::command::RunView| kept::naming(view.kept.as_ref(), || view.inputs.to_json());
    assert!(shown(&before).contains("$cas"));

    let recovery = folded(std::slice::from_ref(&first), &mut Stores(true));
    let mut again = recovery.finish(&mut Stores(true)).unwrap();
    let after = view(&mut again);
    assert_eq!((after.inputs.clone(), shown(&after)), (inputs(), shown(&before)));
    // What is folded goes on, and names the same contents.
    for shard in [&mut shard, &mut again] {
        give(shard, signal(1, &text("s", 3_000)));
        let second = commit(shard, 1);
        assert!(second.len() < 1_000, "{}", second.len());
        let ended = view(shard);
        let outputs = Value::map([("doc", text("d", 5_000)), ("said", text("s", 3_000))]);
        assert_eq!(ended.outputs.as_ref(), Some(&outputs));
        let shown = kept::naming(ended.kept.as_ref(), || outputs.to_json());
        assert!(shown.len() > 1_000, "one like it is not the same value");
        let shown = kept::naming(ended.kept.as_ref(), || ended.outputs.unwrap().to_json());
        assert!(shown.len() < 400, "{shown}");
        let rows = folded(&[first.clone(), second], &mut Stores(true)).take_rows();
        assert_eq!(rows[0].summary.status, Status::Completed);
    }
}

#[test]
fn a_run_whose_content_is_gone_is_set_aside_and_no_other() {
    let mut shard = Shard::new(config(), Arc::default());
    give(&mut shard, start(1));
    let small = Start {
        run_id: run_id(2),
        ir: ir(),
        inputs: Value::map([("doc", Value::Int(1))]),
        seed: 0,
        idempotency: None,
        run_key: None,
        mode: None,
        layered: None,
        deadline: None,
        parent: None,
    };
    give(&mut shard, Command::Start(Box::new(small)));
    let first = commit(&mut shard, 0);
    let mut left =
        folded(std::slice::from_ref(&first), &mut Stores(false)).finish(&mut Stores(false)).unwrap();
    let aside: Vec<_> = left.unreadable_runs().map(|(run_id, why)| (run_id, why.to_owned())).collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].0 == run_id(1) && aside[0].1.contains("sha256:"), "{aside:?}");
    let refused = |replies: Vec<Reply>| match &replies[..] {
        [Reply::Refused(Refusal::Unreadable { run_id: whose, why })] => {
            assert!(*whose == run_id(1) && why.contains("is gone"), "{why}");
        }
        other => panic!("{other:?}"),
    };
    refused(give(&mut left, Command::Get(run_id(1))));
    refused(give(&mut left, signal(1, &text("s", 3_000))));
    // Its key starts no other run.
    let Command::Keeping { mut command, .. } = start(3) else { panic!() };
    let Command::Start(again) = &mut *command else { panic!() };
    again.idempotency = Some(Idempotency { key: [1; 16], fingerprint: [1; 16] });
    refused(give(&mut left, *command));
    assert!(matches!(give(&mut left, Command::Get(run_id(2)))[..], [Reply::Run(_)]));
    // Its segment is not given back.
    let sealed = [1].map(|segment| crate::store::log::Sealed {
        segment,
        first: 1,
        last: 1,
        last_crc: 0,
        fence: crate::store::Fence::default(),
    });
    give(&mut left, Command::Terminate { run_id: run_id(2), reason: "".into() });
    commit(&mut left, 9);
    left.indexed(&[run_id(2)], at(6));
    let mut steps = Vec::new();
    left.segment_steps(&sealed, at(u64::MAX / 2), &mut steps);
    assert_eq!(steps, []);
}

#[test]
fn a_run_that_has_ended_needs_no_contents() {
    let mut shard = Shard::new(config(), Arc::default());
    give(&mut shard, start(1));
    let first = commit(&mut shard, 0);
    give(&mut shard, signal(1, &text("s", 3_000)));
    let second = commit(&mut shard, 1);
    let batches = [first, second];
    let rows = folded(&batches, &mut Stores(true)).take_rows();
    let mut without = folded(&batches, &mut Stores(false));
    assert_eq!(without.take_rows(), rows);
    assert_eq!(rows.len(), 1);
    assert_eq!(without.finish(&mut Stores(false)).unwrap().unreadable_runs().count(), 0);
}
