//! Records of real runs: bundled, broken, shown, forked and made again.

use std::sync::Arc;

use super::bundle::{BUNDLE_VERSION, Bundle};
use super::shadow::{Change, shadow};
use super::{Burst, Documents, Error, Record, fork, freeze, state};
use crate::compile::{self, Format};
use crate::engine::command::Start;
use crate::engine::{Input, Outcome, Run, Work, advance};
use crate::limits;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::{Event, EventBody, Kept, Partition, RunId, Value, kept};
use crate::store::record::{BurstHead, append};
use crate::time::Timestamp;

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/bundle-v1.bin");

const DOCUMENT: &[u8] = br#"{"aob": "1", "name": "golden", "version": "7", "nodes": {
    "first": {"type": "function", "with": {"expr": "{'sum': inputs.n + 1, 'text': inputs.text}"}},
    "call": {"type": "http", "retry": {"max_attempts": 3, "initial": "1s"}, "with": {"url": "http://localhost/", "body": "${ nodes.first.output.sum }"}},
    "each": {"type": "map", "with": {"over": "[1, 2, 3]", "body": {"type": "function", "with": {"expr": "item * inputs.n"}}}},
    "last": {"type": "function", "with": {"expr": "[nodes.each.output, nodes.call.output]"}}},
    "edges": [{"from": "first", "to": "call"}, {"from": "first", "to": "each"}, {"from": "call", "to": "last"}, {"from": "each", "to": "last"}],
    "outputs": {"all": "${ nodes.last.output }"}}"#;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

fn compiled(document: &[u8]) -> compile::Compiled {
    compile::compile(document, Format::Json, &compile::Options::default()).unwrap()
}

/// Plays the shard: one input, one burst.
fn give(
    record: &mut Record,
    run: &mut Run,
    input: Input<'_>,
    now: Timestamp,
    mut head: Vec<EventBody>,
) -> Outcome {
    let mut out = Outcome::default();
    let first_seq = run.seq() + 1 - head.len() as u64;
    advance(run, input, now, limits::STEPS_PER_SLICE, &mut out).unwrap();
    head.append(&mut out.events);
    if !head.is_empty() {
        record.bursts.push(Burst { first_seq, at: now, events: head });
    }
    out
}

/// A run whose first call fails and whose second answers.
fn recorded() -> (Record, Run) {
    let compiled = compiled(DOCUMENT);
    let text = Value::string("x".repeat(300));
    let inputs = Value::map([("n", Value::Int(4)), ("text", text)]);
    let start = Start {
        run_id: RunId::new(at(0), Partition::new(3), [9; 10]),
        ir: compiled.ir,
        inputs,
        seed: 77,
        idempotency: Some(Idempotency { key: [1; 16], fingerprint: [2; 16] }),
        deadline: None,
        parent: None,
        run_key: None,
        mode: None,
        layered: None,
    };
    let body = Run::begin(&start, at(0), 3);
    let event = Event { seq: 1, at: at(0), body };
    let mut run = Run::from_started(start.run_id, start.ir.clone(), &event).unwrap();
    let mut record = Record::new(start.run_id);
    give(&mut record, &mut run, Input::Continue, at(0), vec![event.body]);
    let mut failure = crate::model::Failure::fatal("http_status", "busy");
    failure.class = crate::model::Class::Transient;
    for (seconds, result) in [(1, Err(failure)), (9, Ok(Value::Int(42)))] {
        let dispatch = run.dispatches().remove(0);
        assert!(matches!(dispatch.work, Work::Call { .. }));
        let input = Input::Settle { place: &dispatch.place, seq: dispatch.seq, result: &result };
        give(&mut record, &mut run, input, at(seconds), Vec::new());
        if let Some((due, timer)) = run.timers().next() {
            give(&mut record, &mut run, Input::Timer(&timer), due, Vec::new());
        }
    }
    assert!(run.status().is_terminal(), "{:?}", run.view());
    (record, run)
}

/// As a node writes it: a large value is a content.
fn bundled() -> Bundle {
    let (record, _) = recorded();
    let mut bundle = Bundle::new(record.run_id);
    let mut table = Kept::default();
    let EventBody::RunStarted(started) = &record.bursts[0].events[0] else { panic!() };
    for part in kept::parts(&started.inputs, 100) {
        let json = part.to_json().into_bytes();
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(&json).into();
        table.add(crate::model::Content::of(&part, sha256, json.len() as u64), part);
        bundle.blobs.insert(sha256, json);
    }
    assert_eq!(bundle.blobs.len(), 1);
    let table = Arc::new(table);
    for burst in &record.bursts {
        let head = BurstHead { run_id: record.run_id, first_seq: burst.first_seq, at: burst.at };
        kept::naming(Some(&table), || append(&mut bundle.events, head, &burst.events)).unwrap();
    }
    let compiled = compiled(DOCUMENT);
    bundle.documents.insert(compiled.hash, compiled.canonical.as_bytes().to_vec());
    bundle
}

fn verified(bundle: &Bundle) -> Result<freeze::Verified, Error> {
    let (record, _) = bundle.record()?;
    freeze(&record, &mut bundle.documents(&record)?, None)
}

// F092, N4, F303: what an earlier build wrote is read, verified, and written the same.
#[test]
fn a_golden_bundle_is_read_and_verified() {
    let bundle = bundled();
    if std::env::var_os("AOB_GOLDEN_BLESS").is_some() {
        std::fs::write("tests/golden/bundle-v1.bin", bundle.to_bytes().unwrap()).unwrap();
        return;
    }
    let golden = Bundle::from_bytes(GOLDEN).unwrap();
    assert_eq!(golden, bundle);
    assert_eq!(golden.to_bytes().unwrap(), GOLDEN);
    assert_eq!(golden.to_bytes().unwrap().len(), golden.size());
    let verified = verified(&golden).unwrap();
    assert_eq!(verified.hash, recorded().1.state_hash().unwrap());
    assert_eq!((verified.from, verified.to), (1, recorded().0.last_seq()));
}

// RELIABILITY: hostile files
#[test]
fn a_file_that_is_no_bundle_is_refused_wherever_it_is_wrong() {
    let whole = bundled().to_bytes().unwrap();
    for cut in 0..whole.len() {
        let error = Bundle::from_bytes(&whole[..cut]).unwrap_err();
        assert!(matches!(error, Error::Bundle(_)), "{error}");
    }
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        assert!(Bundle::from_bytes(&bytes).is_err(), "byte {byte}");
        // The checksum made right again: refused, or read, and never believed to be the run's when it is not.
        let end = bytes.len() - 32;
        let sum: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes[..end]).into();
        bytes[end..].copy_from_slice(&sum);
        if let Ok(bundle) = Bundle::from_bytes(&bytes) {
            let _ = verified(&bundle);
        }
    }
    let mut other = whole.clone();
    other[4] = BUNDLE_VERSION + 1;
    assert!(Bundle::from_bytes(&other).unwrap_err().to_string().contains("version 2; this program knows 1"));
    let mut long = whole;
    long.resize(limits::BUNDLE_BYTES_MAX + 1, 0);
    assert!(matches!(Bundle::from_bytes(&long), Err(Error::Limit { limit: "bundle_bytes_max", .. })));
}

// N4
#[test]
fn what_a_bundle_lacks_is_named() {
    let bundle = bundled();
    let mut without = Bundle { blobs: Default::default(), ..bundle.clone() };
    assert!(verified(&without).unwrap_err().to_string().contains("is not in it"));
    without = Bundle { documents: Default::default(), ..bundle.clone() };
    assert!(matches!(verified(&without), Err(Error::Document { seq: 1, .. })));
    let other = Bundle { semantics: 99, ..bundle.clone() };
    assert_eq!(verified(&other), Err(Error::Semantics { found: 99 }));
    let other = Bundle { slice_bytes: 1, ..bundle.clone() };
    assert!(verified(&other).unwrap_err().to_string().contains("slices"));
    let other = Bundle { run_id: RunId::from_bytes([7; 16]), ..bundle };
    assert!(matches!(verified(&other), Err(Error::Bundle(_))));
}

fn documents() -> Documents {
    Documents::of(compiled(DOCUMENT))
}

// F188
#[test]
fn verification_begins_where_a_node_does_and_leaves_what_is_before_alone() {
    let (mut record, _) = recorded();
    let from = |record: &Record, node: &str| freeze(record, &mut documents(), Some(node));
    let last = from(&record, "last").unwrap();
    let call = from(&record, "call").unwrap();
    assert!(1 < call.from && call.from < last.from && last.from < last.to, "{call:?} {last:?}");
    assert_eq!(from(&record, "each[1]").unwrap().hash, last.hash);
    assert_eq!(from(&record, "nowhere"), Err(Error::NoNode("nowhere".into())));
    let mut begun = record.clone();
    begun.bursts.truncate(1);
    assert_eq!(from(&begun, "last"), Err(Error::NotBegun("last".into())));
    // A change before it is not looked at, one behind is.
    for burst in &mut record.bursts {
        for event in &mut burst.events {
            if let EventBody::NodeRetryScheduled { draw, .. } = event {
                *draw ^= 1;
            }
        }
    }
    assert_eq!(from(&record, "last").unwrap().to, last.to);
    let Err(Error::Diverged(found)) = from(&record, "call") else { panic!("not found") };
    assert_eq!(
        (found.event, found.node.as_deref(), found.field.as_str()),
        ("node.retry_scheduled", Some("call"), "draw")
    );
}

// F084, F090
#[test]
fn a_state_is_the_fold_up_to_its_event_and_its_hash_is_not_the_runs_id() {
    let (record, run) = recorded();
    let last = record.last_seq();
    let hash = |seq| state::at(&record, &mut documents(), seq).unwrap().state_hash().unwrap();
    assert_eq!(hash(last), run.state_hash().unwrap());
    for seq in 1..=last {
        assert_eq!(hash(seq), hash(seq));
        let forked = fork::prefix(&record, &mut documents(), (RunId::from_bytes([5; 16]), seq));
        match forked {
            Ok(prefix) => {
                assert_eq!(prefix.run.state_hash().unwrap(), hash(seq), "the same under another id");
                assert_eq!(prefix.bursts.last().unwrap().last_seq(), seq);
            }
            Err(error) => assert!(matches!(error, Error::NoFork { .. }), "{error}"),
        }
    }
    for seq in [0, last + 1] {
        let none = state::at(&record, &mut documents(), seq);
        assert_eq!(none.map(drop), Err(Error::NoEvent { seq, last }));
    }
}

// N5
#[test]
fn a_shadow_has_the_recorded_answers_and_differs_where_its_inputs_do() {
    let (record, run) = recorded();
    let same = shadow(&record, documents(), Change::default()).unwrap();
    assert!(same.same, "{:#}", same.to_json());
    assert_eq!((same.answered, same.calls_made), (2, 0), "two attempts");
    let inputs = Value::map([("n", Value::Int(5)), ("text", Value::string("".to_owned()))]);
    let other = shadow(&record, documents(), Change { inputs: Some(inputs), workflow: None }).unwrap();
    let nodes: Vec<_> = other.nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(nodes, ["each", "each[0]", "each[1]", "each[2]", "first", "last"]);
    assert_eq!(other.outputs.shadow.unwrap().to_json(), r#"{"all":[[5,10,15],42]}"#);
    assert_eq!(other.outputs.recorded, run.view().outputs);
    assert_eq!(other.requests_changed.len(), 2, "{:?}", other.requests_changed);
}

/// Nobody has a document.
struct Nobody;

impl crate::engine::Graphs for Nobody {
    fn of(&mut self, _: &DocumentHash) -> Option<Arc<crate::ir::Ir>> {
        None
    }
}

#[test]
fn a_record_without_its_document_or_its_beginning_says_so() {
    let (mut record, _) = recorded();
    assert!(matches!(freeze(&record, &mut Nobody, None), Err(Error::Document { seq: 1, .. })));
    record.bursts.remove(0);
    assert!(matches!(freeze(&record, &mut documents(), None), Err(Error::Unfit { .. })));
    assert_eq!(Record::new(record.run_id).last_seq(), 0);
}
