//! Frames of `aob/1`: however they are cut, and when they are not what they say they are.

use super::*;
use crate::wire::quic::put_varint;

const RUN: &str = "run_018bcfe568007fffbfffffffffffffff";

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    crate::wire::quic::frame(kind, &[body]).to_vec()
}

fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

fn an_event(seq: u64, data: &str) -> Vec<u8> {
    let run: RunId = RUN.parse().unwrap();
    let body = [&run.as_bytes()[..], &number(seq), data.as_bytes()].concat();
    frame(kind::EVENT, &body)
}

fn shown(said: &[Said]) -> Vec<String> {
    said.iter()
        .map(|said| match said {
            Said::Event(event) => format!("{} {} {}", event.id, event.event, event.data),
            Said::Refused(problem) => format!("refused {}", problem.code),
        })
        .collect()
}

fn sample() -> (Vec<u8>, Vec<String>) {
    let started = r#"{"seq":1,"type":"run.started","x":"ü"}"#;
    let long = format!(r#"{{"seq":70000,"type":"node.completed","x":"{}"}}"#, "y".repeat(20_000));
    let bytes = [
        frame(0x06, br#"{"version":1,"path":"/v1","stream":1}"#),
        an_event(1, started),
        frame(0x04, b""),
        frame(kind::ASIDE, br#"{"event":"node.delta","data":{"text":"a"}}"#),
        frame(0x3f, b"from a later version"),
        an_event(70_000, &long),
        frame(kind::CLOSING, br#"{"reason":"slow_consumer","seq":7,"run":"/v1/runs/x"}"#),
        frame(
            kind::REFUSED,
            br#"{"type":"t","title":"t","status":404,"code":"run_not_found","detail":"d","retryable":false}"#,
        ),
    ];
    let wanted = vec![
        format!("{RUN}:1 run.started {started}"),
        String::from(" node.delta {\"text\":\"a\"}"),
        format!("{RUN}:70000 node.completed {long}"),
        String::from(" slow_consumer {\"reason\":\"slow_consumer\",\"seq\":7,\"run\":\"/v1/runs/x\"}"),
        String::from("refused run_not_found"),
    ];
    (bytes.concat(), wanted)
}

// F033
#[test]
fn frames_are_the_same_cut_at_every_position_and_byte_by_byte() {
    let (bytes, wanted) = sample();
    for cut in 0..=bytes.len() {
        let (mut decoder, mut said) = (Decoder::default(), Vec::new());
        decoder.feed(&bytes[..cut], &mut said).unwrap();
        decoder.feed(&bytes[cut..], &mut said).unwrap();
        assert_eq!(said.len(), wanted.len(), "cut at {cut}");
        if cut % 997 == 0 {
            assert_eq!(shown(&said), wanted, "cut at {cut}");
        }
    }
    let (mut decoder, mut said) = (Decoder::default(), Vec::new());
    bytes.iter().for_each(|byte| decoder.feed(&[*byte], &mut said).unwrap());
    assert_eq!(shown(&said), wanted);
}

#[test]
fn what_is_no_frame_ends_the_stream_before_it_is_held() {
    let mut decoder = Decoder::default();
    let error = decoder.feed(&number(FRAME_BYTES_MAX as u64 + 1), &mut Vec::new()).unwrap_err();
    assert!(error.contains("16777280"), "{error}");
    for bad in [
        vec![0],
        frame(kind::EVENT, b"short"),
        an_event(1, "no JSON"),
        an_event(1, "{\"seq\":1}"),
        frame(kind::ASIDE, b"{}"),
        frame(kind::CLOSING, b"[]"),
        frame(kind::REFUSED, b"{}"),
        number(u64::MAX >> 2),
    ] {
        assert!(Decoder::default().feed(&bad, &mut Vec::new()).is_err(), "{bad:?}");
    }
}
