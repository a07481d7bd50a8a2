//! Pieces of a model's answer as they come, for whoever watches the run.
//!
//! What must hold: they hold nothing up and are never kept; a slow reader, or a hub with much to do, misses some. How much is
//! shown follows from `capture`: of `none` and `hash` there are no pieces, of `redacted` whole words only, so that nothing that
//! looks like a key goes out in two halves. While nobody reads a stream of the run's fanout core, nothing is sent there.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::Under;
use crate::exec::models::Deltas;
use crate::limits;
use crate::model::agent::Capture;
use crate::model::{RunId, Value, credential};
use crate::queue::Sender;
use crate::wire::frame::Frame;
use crate::wire::stream::ToHub;

/// Where the pieces of this turn's answer go; `None`: nobody is to see them, or nobody looks.
pub(super) fn listen(under: &Under<'_>, turn: u32) -> Option<Deltas> {
    let named = under.ask.request.get("capture").and_then(Value::as_str).and_then(Capture::named);
    let capture = named.unwrap_or_default();
    if matches!(capture, Capture::None | Capture::Hash) {
        return None;
    }
    let services = under.services;
    let which = usize::from(under.run_id.partition().index()) % services.hubs.len().max(1);
    let hub = services.hubs.get(which)?.clone();
    if services.subscribers.get(which)?.open.value() == 0 {
        return None;
    }
    let (deltas, heard) = Deltas::channel();
    let to = To { run_id: under.run_id, node: under.dispatch.path.as_str().into(), turn, hub };
    crate::io::spawn_local(tell(heard, to, capture));
    Some(deltas)
}

/// Whose pieces they are, and where they go.
struct To {
    run_id: RunId,
    node: Arc<str>,
    turn: u32,
    hub: Sender<ToHub>,
}

async fn tell(mut heard: Receiver<Arc<str>>, to: To, capture: Capture) {
    let mut pending = String::new();
    while let Some(piece) = heard.recv().await {
        pending.push_str(&piece);
        while let Ok(more) = heard.try_recv() {
            pending.push_str(&more);
        }
        to.send(&settled(&mut pending, capture));
    }
    to.send(&shown(&pending, capture));
}

/// Takes out what may be shown: all of it, or all whole words.
fn settled(pending: &mut String, capture: Capture) -> String {
    let end = match capture {
        Capture::Full => pending.len(),
        // A block of a key has blanks in it.
        _ if pending.contains("-----") && pending.len() < limits::DELTA_BYTES_MAX => 0,
        _ if pending.len() >= limits::DELTA_BYTES_MAX => pending.len(),
        _ => pending.rfind(char::is_whitespace).map_or(0, |at| at + 1),
    };
    // Blanks of more than one byte end behind their first: they wait.
    let end = if pending.is_char_boundary(end) { end } else { 0 };
    let rest = pending.split_off(end);
    shown(&std::mem::replace(pending, rest), capture)
}

fn shown(text: &str, capture: Capture) -> String {
    if capture == Capture::Full { text.to_owned() } else { credential::masked(text) }
}

impl To {
    fn send(&self, text: &str) {
        // Subscriptions wait in the same line.
        if !text.is_empty() && self.hub.stats().depth() < limits::HUB_QUEUE_MAX / 2 {
            let frame = Frame::delta(&self.node, self.turn, text);
            let _ = self.hub.send(ToHub::Delta { run_id: self.run_id, frame });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str], capture: Capture) -> Vec<String> {
        let mut pending = String::new();
        let mut told: Vec<String> = pieces
            .iter()
            .map(|piece| {
                pending.push_str(piece);
                settled(&mut pending, capture)
            })
            .collect();
        told.push(shown(&pending, capture));
        told
    }

    // F412
    #[test]
    fn whole_words_go_out_and_no_key_in_halves() {
        let pieces = ["The k", "ey is sk-proj-abcdefg", "hijklmnopqrstuvwx, ke", "ep it"];
        assert_eq!(heard(&pieces, Capture::Full).concat(), pieces.concat());
        let told = heard(&pieces, Capture::Redacted);
        assert_eq!(told, ["The ", "key is ", "[redacted], ", "keep ", "it"]);
        let block = ["-----BEGIN RSA PRIV", "ATE KEY----- MII", "E -----END RSA PRIVATE KEY-----"];
        assert_eq!(heard(&block, Capture::Redacted).concat(), "[redacted]");
    }
}
