//! Has a node hand its store over to another one (`aobd drain`): the node of this data directory is told by a signal, and the lease is
//! looked at until it is another's.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::limits;
use crate::runtime::{Config, Error, StoreChoice};
use crate::store::Error as StoreError;
use crate::store::layout;
use crate::store::redis::lease::{Leases, NodeId, Row, Seen};
use crate::store::redis::{Config as Store, Tag};

/// Between two looks.
const LOOKS: Duration = Duration::from_millis(100);

/// Hands over; where the owner is then. A node that owns nothing has nothing to hand over.
///
/// # Errors
/// No node runs there, or there is no other one; nobody took it in time; the store's.
pub fn drain(config: &Config) -> Result<String, Error> {
    let StoreChoice::Redis(store, membership) = &config.store else {
        let why = "state is in the data directory (store.url), which no other node can take over";
        return Err(Error::Config(why.to_owned()));
    };
    let root = config.data_dir.display();
    let held = layout::held_by(&config.data_dir)?;
    let (pid, id) = held.ok_or_else(|| Error::Ended(format!("no node runs in {root}")))?;
    let own = NodeId(id);
    // The node has its drain, another its recovery.
    let patience = config.drain + membership.lease * 2 + Duration::from_secs(limits::DRAIN_PATIENCE_SECONDS);
    let mut result = Err(Error::Ended(format!("nobody took the store over within {patience:?}")));
    let ran = crate::io::net::block_on(async {
        let store = Store { tag: Tag::Index, ..store.clone() };
        let ended =
            crate::io::net::within(patience, handed_over((store, membership.lease), (own, pid))).await;
        if let Some(ended) = ended {
            result = ended;
        }
    });
    ran.map_err(|error| StoreError::io("wait for the store", error))?;
    result
}

async fn handed_over((store, lease): (Store, Duration), (own, pid): (NodeId, i32)) -> Result<String, Error> {
    // Who looks only says nothing of where the node is.
    let mut leases = Leases::new(&store, (own, "-"), [0; 32], lease * 3);
    let seen = leases.look().await?;
    let owner = match owner_of(&seen) {
        Some(row) if row.node == own => row,
        Some(row) => return Ok(row.address.clone()),
        None => return Err(Error::Ended(String::from("no node owns the store at this moment"))),
    };
    if seen.nodes.iter().all(|(node, _)| *node == own) {
        let why = format!("{} is the only node on its store; start another one first", owner.address);
        return Err(Error::Ended(why));
    }
    let process = Pid::from_raw(pid).ok_or_else(|| Error::Ended(format!("{pid} is no process")))?;
    kill_process(process, Signal::USR1)
        .map_err(|error| Error::Ended(format!("process {pid} cannot be told: {error}")))?;
    loop {
        let seen = leases.look().await?;
        if let Some(row) = owner_of(&seen).filter(|row| row.node != own) {
            return Ok(row.address.clone());
        }
        crate::io::sleep(LOOKS).await;
    }
}

fn owner_of(seen: &Seen) -> Option<&Row> {
    seen.row.as_ref().filter(|row| row.is_held)
}
