//! Threads of no plane: the index, and the calls that leave the node.

use std::sync::Arc;

use super::Machine;
use crate::exec::models::summaries::Summaries;
use crate::exec::tools::Outside;
use crate::exec::{self, Executors, Http, Leases, Ledger, Models, Pool, Reach, Tools};
use crate::queue::{Receiver, Sender};
use crate::runtime::history::Keeper;
use crate::runtime::index::{self, IndexJob};
use crate::runtime::materializer::Worker;
use crate::runtime::plane::runner::Indexed;
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error};
use crate::telemetry::log::{self, Target};

/// Starts the threads that make calls; what control cores need to have work done. Those to models have a thread of their own:
/// writing and reading long conversations takes milliseconds, which an `http` call would wait for.
pub(super) fn executors(
    threads: &mut Threads,
    config: &Config,
    machine: &Machine<'_>,
) -> Result<Executors, Error> {
    let (http, calls) = Http::new();
    let leases = Leases::new(machine.lease_key);
    let (settings, secrets) = (config.http.clone(), config.secrets.clone());
    let main = move || async move {
        if let Err(problem) = exec::serve(settings, secrets, calls).await {
            log::warn(Target::Node, format_args!("{problem}"));
        }
    };
    threads.spawn(Plane::Side, "aob-http", None, main)?;
    let (models, asks) = Models::new(&config.models);
    let (summaries, maker) = config.models.summaries.clone().map(Summaries::new).unzip();
    let summaries = summaries.map(Arc::new);
    let making = maker.zip(summaries.as_ref().map(Arc::downgrade)).zip(Some(models.clone()));
    let (settings, secrets) = (config.http.clone(), config.secrets.clone());
    let main = move || async move {
        if let Some(((maker, shelf), models)) = making {
            crate::io::spawn_local(maker.make(models, shelf));
        }
        if let Err(problem) = exec::models::serve(settings, secrets, asks).await {
            log::warn(Target::Node, format_args!("{problem}"));
        }
    };
    threads.spawn(Plane::Side, "aob-models", None, main)?;
    let tools = start_tools(threads, config, http.clone())?;
    let ledger = Arc::new(Ledger::new(config.budgets.clone()));
    let (pool, reach) = (Arc::new(Pool::new(config.workers.clone())), Arc::new(Reach::new(&config.http)));
    Ok(Executors {
        http,
        models,
        pool,
        slots: Arc::default(),
        ledger,
        leases,
        reach,
        tools,
        cached: Arc::default(),
        summaries,
    })
}

/// Starts the thread that makes calls of agents' tools, and has their servers.
fn start_tools(threads: &mut Threads, config: &Config, http: Http) -> Result<Tools, Error> {
    let (tools, jobs) = Tools::new();
    let outside = Outside { reach: config.http.clone(), secrets: config.secrets.clone(), http };
    let settings = config.tools.clone();
    let main = move || async move {
        if let Err(problem) = exec::tools::serve(settings, outside, jobs).await {
            log::warn(Target::Node, format_args!("{problem}"));
        }
    };
    threads.spawn(Plane::Side, "aob-tools", None, main)?;
    Ok(tools)
}

/// Starts the thread that writes the index, and those that store the products of patches.
pub(super) fn start_index(
    threads: &mut Threads,
    (jobs, shards): (Receiver<IndexJob>, Vec<Sender<Indexed>>),
    keeper: Keeper,
    materializer: Vec<Worker>,
) -> Result<(), Error> {
    let (archive, report) = (keeper.archive.clone(), keeper.report);
    let main = move || index::run(jobs, shards, archive, keeper, report);
    threads.spawn(Plane::Side, "aob-index", None, main)?;
    for (at, worker) in materializer.into_iter().enumerate() {
        threads.spawn(Plane::Side, &format!("aob-artifacts-{at}"), None, move || worker.run())?;
    }
    Ok(())
}
