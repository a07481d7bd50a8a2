//! Threads of no plane: the index, and the calls that leave the node.

use std::sync::Arc;

use super::Machine;
use crate::exec::{self, Executors, Http, Leases, Pool};
use crate::queue::{Receiver, Sender};
use crate::runtime::history::Keeper;
use crate::runtime::index::{self, IndexJob};
use crate::runtime::plane::runner::Indexed;
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error};
use crate::telemetry::log::{self, Target};

/// Starts the thread that makes HTTP calls; what control cores need to have work done.
pub(super) fn executors(
    threads: &mut Threads,
    config: &Config,
    machine: &Machine<'_>,
) -> Result<Executors, Error> {
    let (http, calls) = Http::new();
    let leases = Leases::new(machine.data_dir.lease_key()?);
    let (settings, secrets) = (config.http.clone(), config.secrets.clone());
    let main = move || async move {
        if let Err(problem) = exec::serve(settings, secrets, calls).await {
            log::warn(Target::Node, format_args!("{problem}"));
        }
    };
    threads.spawn(Plane::Side, "aob-http", None, main)?;
    Ok(Executors { http, pool: Arc::new(Pool::new(config.workers.clone())), slots: Arc::default(), leases })
}

/// Starts the thread that writes the index.
pub(super) fn start_index(
    threads: &mut Threads,
    (jobs, shards): (Receiver<IndexJob>, Vec<Sender<Indexed>>),
    keeper: Keeper,
) -> Result<(), Error> {
    let (archive, report) = (keeper.archive.clone(), keeper.report);
    let main = move || index::run(jobs, shards, archive, keeper, report);
    Ok(threads.spawn(Plane::Side, "aob-index", None, main)?)
}
