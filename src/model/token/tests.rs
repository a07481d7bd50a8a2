//! The token's bytes: read back, golden, cut, flipped, foreign.

use proptest::prelude::*;

use super::*;

fn sample() -> Token {
    Token {
        run_id: std::array::from_fn(|i| i as u8),
        scopes: vec![Step { node: 3, item: 7 }],
        node: 2,
        attempt: 1,
        epoch: 5,
        ir_version: 1,
        deadline_us: 1_700_000_000_000_000,
        trace: Trace { trace_id: [0xaa; 16], span_id: [0xbb; 8], flags: 1 },
        kind: Kind::Completed,
        priority: Priority::High,
        name: String::new(),
        payload: Payload::Inline(postcard::to_stdvec(&Value::Int(42)).unwrap()),
    }
}

fn encoded(token: &Token) -> AlignedVec {
    let mut buffer = AlignedVec::new();
    token.encode(&mut buffer).unwrap();
    buffer
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_token_is_read_in_place_as_it_was_written() {
    let bytes = encoded(&sample());
    let token = Token::access(&bytes).unwrap();
    assert_eq!(token.run().as_bytes(), &sample().run_id);
    assert_eq!(token.place().unwrap(), Place { scopes: smallvec::smallvec![(3, 7)], node: 2 });
    assert_eq!(token.value().unwrap(), Value::Int(42));
    assert_eq!(token.deadline(), Some(Timestamp::from_micros(1_700_000_000_000_000)));
    assert_eq!((token.kind, token.priority), (ArchivedKind::Completed, ArchivedPriority::High));
    assert_eq!((token.trace.trace_id, token.trace.flags), ([0xaa; 16], 1));
}

#[test]
fn the_bytes_are_the_golden_ones() {
    // docs/formats/token.md, version 1. A change here is a new version.
    assert_eq!(hex(&encoded(&sample())), include_str!("token_v1.hex").trim());
}

#[test]
fn a_signal_carries_its_name_and_payload_and_names_no_node() {
    let run_id = RunId::from_bytes(sample().run_id);
    let payload = Value::map([("approved", Value::Bool(true))]);
    let bytes = encoded(&Token::signal(run_id, "review", &payload).unwrap());
    let token = Token::access(&bytes).unwrap();
    assert_eq!((token.run(), token.name.as_str(), token.place()), (run_id, "review", None));
    assert_eq!(token.value().unwrap(), payload);
    let long = "n".repeat(limits::NAME_BYTES_MAX + 1);
    let error = Token::signal(run_id, &long, &payload).unwrap_err();
    assert!(error.to_string().contains("name_bytes_max"), "{error}");
}

#[test]
fn bytes_that_start_anywhere_are_copied_once() {
    let bytes = encoded(&sample());
    let mut shifted = AlignedVec::<16>::new();
    shifted.extend_from_slice(&[0]);
    shifted.extend_from_slice(&bytes);
    assert_eq!(Token::access(&shifted[1..]).unwrap_err(), Error::Misaligned);
    let mut buffer = AlignedVec::new();
    assert_eq!(Token::access_copied(&shifted[1..], &mut buffer).unwrap().node.to_native(), 2);
}

#[test]
fn a_buffer_is_used_again() {
    let mut buffer = encoded(&sample());
    let start = buffer.as_ptr();
    sample().encode(&mut buffer).unwrap();
    assert_eq!((buffer.as_ptr(), buffer.len()), (start, encoded(&sample()).len()));
}

#[test]
fn foreign_and_future_bytes_are_refused_with_the_reason() {
    let good = encoded(&sample());
    for (at, byte, error) in [(0, b'x', Error::Magic), (4, 2, Error::Version(2)), (6, 1, Error::Version(1))] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert_eq!(Token::access(&bytes).unwrap_err(), error);
    }
    for end in 0..good.len() {
        let mut cut = AlignedVec::<16>::new();
        cut.extend_from_slice(&good[..end]);
        // A cut body ends elsewhere, so its root is other bytes: it must be refused or at least not panic.
        let _ = Token::access(&cut).map(ArchivedToken::value);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..400),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut foreign = AlignedVec::<16>::new();
        foreign.extend_from_slice(&MAGIC);
        foreign.extend_from_slice(&[1, 0, 0, 0]);
        foreign.extend_from_slice(&body);
        let mut damaged = encoded(&sample());
        for (at, byte) in flips {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        for bytes in [&foreign, &damaged] {
            if let Ok(token) = Token::access(bytes) {
                let _ = (token.run(), token.place(), token.deadline(), token.value());
            }
        }
        let _ = Token::access_copied(&body, &mut AlignedVec::new());
    }
}
