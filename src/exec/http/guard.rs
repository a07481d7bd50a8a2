//! Whether a call is made: services that fail are left alone (docs/resilience.md), and what a call says of its service.

use std::time::Duration;

use super::super::breakers::{Asked, Key, Refused};
use super::super::connect::Target;
use super::{Call, Executor, Room};
use crate::limits;
use crate::model::{Failure, Value, Workspace};
use crate::resilience::breaker::Ended;
use crate::time::{Clock as _, SystemClock};

impl Executor {
    /// Waits until one more call may go to this host, unless the host is left alone (docs/resilience.md).
    pub(super) async fn let_through(
        &self,
        call: &Call,
        (target, first): (&Target, bool),
    ) -> Result<(Option<Asked>, Room), Failure> {
        if call.unguarded {
            return Ok((None, self.room(call, target).await));
        }
        let workspace = Workspace::of(&call.workflow).name().into();
        let service: Key = (workspace, service(call, target, first).into());
        let patience = Duration::from_secs(limits::BREAKER_PROBE_WAIT_SECONDS);
        let wait_until_us =
            SystemClock.monotonic_us().saturating_add(limits::BREAKER_PROBE_WAIT_SECONDS * 1_000_000);
        loop {
            // Before it waits for a place: what is not made needs none.
            let asked = match self.breakers.look(&service) {
                Ok(()) => {
                    let room = self.room(call, target).await;
                    let asked = self.breakers.ask(&service, call.due);
                    asked.map(|asked| (Some(asked), room))
                }
                Err(refused) => Err(refused),
            };
            let (failure, tried) = match asked {
                Ok(through) => return Ok(through),
                Err(Refused::Open(failure)) => return Err(failure),
                Err(Refused::Tried(failure, tried)) => (failure, tried),
            };
            if SystemClock.monotonic_us() >= wait_until_us
                || tokio::time::timeout(patience, tried).await.is_err()
            {
                return Err(failure);
            }
        }
    }
}

/// What the service of a call is called: as its node says, else (and where a redirect leads) by host and port.
fn service(call: &Call, target: &Target, first: bool) -> String {
    let own = call.request.get("service").and_then(Value::as_str).filter(|name| first && !name.is_empty());
    let name = own.map_or_else(|| format!("{}:{}", target.host, target.port), str::to_owned);
    name.chars().take(limits::BREAKER_NAME_LETTERS_MAX).collect()
}

/// Notes what came of a call.
pub(super) fn tell(asked: &mut Option<Asked>, ended: Ended) {
    if let Some(asked) = asked {
        asked.ended(ended);
    }
}

/// What a call that failed before its answer was whole says of its service.
pub(super) fn weight(failure: &Failure) -> Ended {
    match &*failure.code {
        "connection_refused" | "connection_lost" | "name_not_found" | "tls_failed" => Ended::Failed,
        // Nothing was connected to.
        "address_refused" => Ended::Unknown,
        // It answers; not what this node can read.
        _ => Ended::Succeeded,
    }
}
