//! Gaps that are allowed, and those that are not.

use std::time::Duration;

use super::super::letters;
use super::*;
use crate::compile::{self, Format};
use crate::engine::command::Start;
use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::{Failure, Partition, Place};
use crate::store::record::{self, Bursts};

struct Known {
    ir: Arc<Ir>,
    ended: Vec<RunId>,
}

impl engine::Graphs for Known {
    fn of(&mut self, _: &DocumentHash) -> Option<Arc<Ir>> {
        Some(self.ir.clone())
    }
}

impl Sources for Known {
    fn content(&mut self, content: &Content) -> Result<Value, String> {
        Err(format!("{content} is gone"))
    }

    fn ended(&mut self, run_id: RunId) -> Result<Option<Timestamp>, String> {
        Ok(self.ended.contains(&run_id).then(|| at(9)))
    }
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn start(run_id: RunId, ir: &Arc<Ir>) -> Start {
    Start {
        run_id,
        ir: ir.clone(),
        inputs: Value::Null,
        seed: 0,
        idempotency: None,
        run_key: None,
        mode: None,
        layered: None,
        deadline: None,
        parent: None,
    }
}

fn recovery() -> Recovery {
    let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 10 };
    Recovery::new(config, Arc::default())
}

fn fold(
    recovery: &mut Recovery,
    sources: &mut Known,
    (segment, head): (u64, BurstHead),
    events: &[EventBody],
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    record::append(&mut bytes, head, events).unwrap();
    let burst = Bursts::new(&bytes).unwrap().next().unwrap().unwrap();
    recovery.burst(&burst, FrameRef { segment, offset: 0 }, sources)
}

// I-1: found by simulation. A run began in one segment and ended in the next; the second was archived and is not read,
// the first is, because another run in it goes on.
#[test]
fn a_run_whose_end_was_not_read_has_ended_all_the_same() {
    let source = "aob: \"1\"\nname: w\nnodes: {a: {type: delay, with: {for: 1h}}}\n";
    let compiled = compile::compile(source.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap();
    let run_id = |byte| RunId::new(at(1), Partition::new(0), [byte; 10]);
    let mut known = Known { ir: compiled.ir.clone(), ended: vec![run_id(1), run_id(3)] };
    let mut recovery = recovery();
    recovery.archived(2, true);
    for byte in [1, 2, 3] {
        let head = BurstHead { run_id: run_id(byte), first_seq: 1, at: at(1) };
        let begun = Run::begin(&start(run_id(byte), &compiled.ir), at(1), 1);
        fold(&mut recovery, &mut known, (1, head), &[begun]).unwrap();
    }
    // What follows the skipped segment: the end of a run whose middle was in it.
    let head = BurstHead { run_id: run_id(3), first_seq: 7, at: at(8) };
    fold(&mut recovery, &mut known, (3, head), &[EventBody::RunCompleted { outputs: Value::Null }]).unwrap();
    let shard = recovery.finish(&mut known).unwrap();
    assert_eq!(shard.runs.keys().copied().collect::<Vec<_>>(), [run_id(2)]);
}

#[test]
fn a_gap_where_everything_was_read_is_refused() {
    let compiled = compile::compile(
        b"aob: \"1\"\nname: w\nnodes: {a: {type: function}}\n",
        Format::Yaml,
        &compile::Options::default(),
    );
    let mut known = Known { ir: compiled.unwrap().ir, ended: Vec::new() };
    let head = BurstHead { run_id: RunId::new(at(1), Partition::new(0), [1; 10]), first_seq: 2, at: at(8) };
    let gap =
        fold(&mut recovery(), &mut known, (1, head), &[EventBody::RunCompleted { outputs: Value::Null }]);
    assert!(matches!(gap, Err(Error::Misfit { seq: 2, .. })));
}

// F370: found by a power cut that took the rows of letters. The registry numbers what says no version itself; a graph that is
// compiled for recovery has not heard of it.
#[test]
fn a_letter_derived_again_names_the_version_the_run_started_as() {
    let source = "aob: \"1\"\nname: w\nnodes: {a: {type: http, with: {url: \"http://localhost/\"}}}\n";
    let ir = compile::compile(source.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap().ir;
    let mut named = Ir::clone(&ir);
    named.version = "7".into();
    let run_id = RunId::new(at(1), Partition::new(0), [1; 10]);
    let (mut recovery, mut known) = (recovery(), Known { ir: ir.clone(), ended: Vec::new() });
    let head = BurstHead { run_id, first_seq: 1, at: at(1) };
    let begun = Run::begin(&start(run_id, &Arc::new(named)), at(1), 1);
    fold(&mut recovery, &mut known, (1, head), &[begun]).unwrap();
    let failure = Failure::fatal("http_status", "the answer has status 404");
    let run = &recovery.shard.runs[&run_id].run;
    let letter = letters::letter(run, &Place::root(0), &failure, false).unwrap();
    assert_ne!(ir.version, letter.version);
    assert_eq!((&*letter.workflow, &*letter.version), ("w", "7"));
}
