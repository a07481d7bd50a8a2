//! Bytes of the records, pinned; what is cut or changed is refused.

use proptest::prelude::*;

use super::*;
use crate::model::{Place, Value};

fn head() -> BurstHead {
    BurstHead {
        run_id: RunId::from_bytes([7; 16]),
        first_seq: 3,
        at: Timestamp::from_micros(0x0102_0304_0506),
    }
}

fn events() -> Vec<EventBody> {
    vec![
        EventBody::NodeStarted { place: Place::root(1), attempt: 1 },
        EventBody::NodeCompleted {
            place: Place { scopes: [(2, 9)].into_iter().collect(), node: 1 },
            output: Value::list(vec![Value::Int(-1), Value::string("x"), Value::Null]),
            edges: [true, false].into_iter().collect(),
        },
        EventBody::RunCompleted { outputs: Value::Null },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_burst_are_pinned() {
    let mut out = Vec::new();
    append(&mut out, head(), &events()).unwrap();
    let golden = [
        "01",
        "07070707070707070707070707070707",
        "0300000000000000",
        "0605040302010000",
        "03000000",
        "16000000",
        // node.started, node.completed, run.completed
        "01000101",
        "04010209010703030106017800020100",
        "0900",
    ];
    assert_eq!(hex(&out), golden.concat());
}

#[test]
fn events_come_back_with_their_numbers_and_time() {
    let mut out = Vec::new();
    append(&mut out, head(), &events()).unwrap();
    let other = BurstHead { run_id: RunId::from_bytes([9; 16]), first_seq: 1, ..head() };
    append(&mut out, other, &events()[..1]).unwrap();
    let bursts: Vec<_> = Bursts::new(&out).unwrap().map(Result::unwrap).collect();
    assert_eq!(bursts.len(), 2);
    assert_eq!((bursts[0].head, bursts[0].last_seq(), bursts[1].head), (head(), 5, other));
    let read: Vec<_> = bursts[0].events().map(Result::unwrap).collect();
    assert_eq!(read.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(read.iter().all(|event| event.at == head().at));
    assert_eq!(read.into_iter().map(|event| event.body).collect::<Vec<_>>(), events());
}

#[test]
fn a_burst_is_skipped_without_decoding_it() {
    let mut out = Vec::new();
    append(&mut out, head(), &events()).unwrap();
    let end = out.len();
    append(&mut out, head(), &events()).unwrap();
    out[1 + BURST_HEAD_BYTES..end].fill(0xff);
    let bursts: Vec<_> = Bursts::new(&out).unwrap().map(Result::unwrap).collect();
    assert!(bursts[0].events().next().unwrap().is_err());
    assert!(bursts[1].events().all(|event| event.is_ok()));
}

#[test]
fn no_events_leave_the_buffer_as_it_was() {
    let mut out = Vec::new();
    append(&mut out, head(), &[]).unwrap();
    assert!(out.is_empty());
    assert_eq!(Bursts::new(&out).unwrap().count(), 0);
}

#[test]
fn an_unknown_version_is_refused() {
    let error = Bursts::new(&[VERSION + 1]).unwrap_err();
    assert_eq!(error.code(), "record_invalid");
}

#[test]
fn a_payload_cut_anywhere_inside_a_burst_is_refused() {
    let mut out = Vec::new();
    append(&mut out, head(), &events()).unwrap();
    for end in 2..out.len() {
        assert!(Bursts::new(&out[..end]).unwrap().any(|burst| burst.is_err()), "cut at {end}");
    }
}

proptest! {
    /// Whatever the bytes, reading ends and does not panic.
    #[test]
    fn any_bytes_are_read_to_an_end(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), flip in any::<prop::sample::Index>()) {
        let mut out = Vec::new();
        append(&mut out, head(), &events()).unwrap();
        let at = flip.index(out.len());
        out[at] ^= bytes.first().copied().unwrap_or(1);
        bytes.insert(0, VERSION);
        for payload in [&out, &bytes] {
            if let Ok(bursts) = Bursts::new(payload) {
                for burst in bursts.flatten() {
                    prop_assert!(burst.events().count() <= burst.count as usize + 1);
                }
            }
        }
    }
}

/// A burst whose first value is kept by reference, and its table.
fn kept_burst() -> (Vec<EventBody>, Arc<Kept>) {
    let list = Value::list(vec![Value::Int(7); 300]);
    let content = Content { sha256: [0xab; 32], bytes: 601, items: Some(300) };
    let mut table = Kept::default();
    table.add(content, list.clone());
    let outputs = Value::map([("a", list)]);
    (vec![EventBody::RunCompleted { outputs }], Arc::new(table))
}

// docs/formats/cas.md
#[test]
fn the_bytes_of_a_reference_are_pinned() {
    let (events, table) = kept_burst();
    let mut out = Vec::new();
    kept::naming(Some(&table), || append(&mut out, head(), &events)).unwrap();
    let golden = [
        "01",
        "07070707070707070707070707070707",
        "0300000000000000",
        "0605040302010000",
        "01000000",
        "2b000000",
        // run.completed, a map of one, "a", the reference: tag, hash, bytes, items.
        "09",
        "0801",
        "0161",
        "09",
        &"ab".repeat(32),
        "d904",
        "01ac02",
    ];
    assert_eq!(hex(&out), golden.concat());
    let burst = Bursts::new(&out).unwrap().next().unwrap().unwrap();
    assert!(burst.events().next().unwrap().is_err(), "no reader takes it for something else");
    let shown = burst.shown().next().unwrap().unwrap();
    let EventBody::RunCompleted { outputs } = shown.body else { panic!() };
    let reference = format!(r#"{{"a":{{"$cas":"sha256:{}","bytes":601,"items":300}}}}"#, "ab".repeat(32));
    assert_eq!(outputs.to_json(), reference);
}

#[test]
fn what_is_folded_has_its_values_each_loaded_once() {
    let (events, table) = kept_burst();
    let mut out = Vec::new();
    for _ in 0..2 {
        kept::naming(Some(&table), || append(&mut out, head(), &events)).unwrap();
    }
    let (mut known, mut loads) = (None, 0);
    for burst in Bursts::new(&out).unwrap() {
        let mut load = |content: &Content| {
            loads += 1;
            assert_eq!(content.items, Some(300));
            Ok::<_, Error>(Value::list(vec![Value::Int(7); 300]))
        };
        let read = burst.unwrap().hydrated(&mut known, &mut load).unwrap();
        assert_eq!(read.into_iter().map(|event| event.body).collect::<Vec<_>>(), events);
    }
    // The first burst's values are gone by then, and nobody else had them.
    assert_eq!(loads, 2);
    let mut load = |_: &Content| Err(Error::Record { why: "it is gone".into() });
    let burst = Bursts::new(&out).unwrap().next().unwrap().unwrap();
    assert_eq!(burst.hydrated(&mut None, &mut load).unwrap_err().code(), "record_invalid");
}
