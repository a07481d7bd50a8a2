//! Names of attempts as the world sees them: the idempotency key, which all attempts of a step share, and the trace.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::model::{Place, RunId, Seq};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key that all attempts of one step of a run carry (RELIABILITY 2.5): a hash of run, node, iteration and item. A
/// service that honours it has its effect once.
pub fn idempotency_key(run_id: RunId, place: &Place) -> String {
    let mut hash = Sha256::new().chain_update(b"aob step\0").chain_update(run_id.as_bytes());
    for (node, pass) in &place.scopes {
        hash.update(node.to_be_bytes());
        hash.update(pass.to_be_bytes());
    }
    hash.update(place.node.to_be_bytes());
    hex(hash.finalize().get(..16).unwrap_or_default())
}

/// The trace of a call (W3C trace context): the run is the trace, the attempt the span.
pub fn traceparent(run_id: RunId, seq: Seq) -> String {
    let span = Sha256::new().chain_update(run_id.as_bytes()).chain_update(seq.to_be_bytes()).finalize();
    format!("00-{}-{}-01", hex(run_id.as_bytes()), hex(span.get(..8).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    // F026
    #[test]
    fn a_step_has_one_key_and_an_attempt_one_span() {
        let run = |random| RunId::new(Timestamp::from_micros(9), Partition::new(1), [random; 10]);
        let mut item = Place::root(3);
        item.scopes.push((1, 4));
        let key = idempotency_key(run(1), &Place::root(3));
        assert_eq!(key.len(), 32);
        assert_eq!(key, idempotency_key(run(1), &Place::root(3)));
        assert_ne!(key, idempotency_key(run(2), &Place::root(3)));
        assert_ne!(key, idempotency_key(run(1), &item));
        let trace = traceparent(run(1), 7);
        assert_eq!((trace.len(), &trace[..3], &trace[52..]), (55, "00-", "-01"));
        assert_ne!(trace, traceparent(run(1), 8));
        assert_eq!(trace[..36], traceparent(run(1), 8)[..36]);
    }
}
