//! A connection of `aob/1`: each stream that the client opens is one subscription.

use std::rc::Rc;

use quinn::VarInt;

use super::line::Line;
use super::subscription;
use crate::wire::quic::Code;

/// Serves it until it is closed, by whomever.
pub(super) async fn serve(line: &Rc<Line>) {
    tokio::select! {
        code = line.tend() => line.close(code),
        () = accept(line) => {}
    }
}

/// Ends with the connection.
async fn accept(line: &Rc<Line>) {
    loop {
        tokio::select! {
            opened = line.connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let busy = line.begin();
                    tokio::task::spawn_local(subscription::answer(busy, send, receive, Vec::new()));
                }
                Err(_) => return,
            },
            opened = line.connection.accept_uni() => match opened {
                // There is no use for it.
                Ok(mut receive) => {
                    let _ = receive.stop(VarInt::from_u32(Code::Malformed as u32));
                    line.waste();
                }
                Err(_) => return,
            },
        }
    }
}
