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
