//! One node: started in order, observed, ended in order.

mod backing;
mod control;
mod hubs;
mod side;
mod spent;
mod stores;
mod view;
mod wiring;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::cluster::{Member, Standing};
use super::logs::Logs;
use super::reload::{Fresh, Reread, reload};
use super::shutdown::{Life, Phase};
use super::startup::{self, Allowed};
use super::systemd::Supervisor;
use super::thread::Threads;
use super::topology::Topology;
use super::watchdog::Watched;
use super::{Config, Error, StoreChoice, plan};
use crate::api::Catalog;
use crate::auth::Door;
use crate::exec::Ledger;
use crate::failpoint;
use crate::io::net::Hangups;
use crate::io::net::Terminations;
use crate::io::ring::RingThread;
use crate::io::{passed, socket};
use crate::queue::Sender;
use crate::runtime::index::IndexJob;
use crate::store::layout::DataDir;
use crate::telemetry::log::{self, Target};

/// How long a plane gets to end once it has nothing more to wait for.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How many times that is waited for: each `join_stage` of an end.
const END_STAGES: u32 = 6;

/// A running node.
pub struct Node {
    config: Config,
    address: SocketAddr,
    quic_address: Option<SocketAddr>,
    life: Life,
    threads: Threads,
    rings: Vec<RingThread>,
    stops: Stops,
    door: Arc<Door>,
    catalog: Arc<Catalog>,
    ledger: Arc<Ledger>,
    reread: Reread,
    /// Among others on the same store.
    member: Option<Member>,
    supervisor: Supervisor,
    /// Locked until the process ends.
    _data_dir: DataDir,
}

/// What tells the planes to end.
struct Stops {
    /// Connections.
    control: watch::Sender<bool>,
    /// Streams.
    fanout: watch::Sender<bool>,
    /// Shards and the watchdog.
    runner: Arc<AtomicBool>,
    /// Wakes the shards, so that they see it.
    shards: Vec<Arc<crate::queue::Stats>>,
    index: Sender<IndexJob>,
    materializer: super::materializer::Stop,
    /// What talks to a store elsewhere.
    store: Option<Box<dyn Fn() + Send>>,
    logs: Logs,
}

impl Node {
    /// Starts everything. When this returns the node serves.
    ///
    /// # Errors
    /// See [`Error`]: one line, one exit code, nothing left behind but the data directory.
    pub fn start(config: Config) -> Result<Self, Error> {
        let node = Self::start_or_stand_by(config, &mut |_| {})?;
        node.ok_or_else(|| Error::Ended(String::from("told to end while another node owned the store")))
    }

    /// The same. While another node owns the store this one passes requests on to it, from where `stands_by` hears; `None` when it is told
    /// to end before it comes to own it.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_or_stand_by(
        config: Config,
        stands_by: &mut dyn FnMut(SocketAddr),
    ) -> Result<Option<Self>, Error> {
        let life = Life::default();
        let supervisor = Supervisor::from_environment(&life);
        log::configure(config.log);
        expect_hangups()?;
        let door = Arc::new(Door::open(&config.auth)?);
        socket::allowed_cores();
        let (allowed, warning) = startup::check(config.driver)?;
        if let Some(warning) = warning {
            log::warn(Target::Node, format_args!("{warning}"));
        }
        let topology = Topology::read(std::path::Path::new("/sys/devices/system"), socket::allowed_cores());
        let plan = plan::plan(&topology, &config.cores)?;
        let born_with = u16::try_from(plan.runner.len()).unwrap_or(u16::MAX);
        let mut data_dir = DataDir::open(&config.data_dir)?;
        let listeners = passed::or_own(config.listen, plan.control.len())?;
        let address = listeners.first().and_then(|one| one.local_addr().ok()).unwrap_or(config.listen);
        let quic = hubs::Quic::listen(config.quic, plan.fanout.len(), &door)?;
        let quic_address = quic.as_ref().map(hubs::Quic::address);
        let mut threads = supervisor.attend(Threads::default())?;
        let at = (&data_dir, &listeners[..], address, &door);
        let told = (&supervisor, stands_by);
        let Some(member) = membership(&config, at, (&life, &mut threads), told)? else {
            supervisor.stops(END_WITHIN);
            return Ok(None);
        };
        life.enter(Phase::Recovering);
        let opened = backing::open(&config, allowed, (&mut data_dir, born_with), &mut threads);
        let wired = opened.and_then(|backing| {
            let lease_key = member.as_ref().map_or_else(|| data_dir.lease_key(), |member| Ok(member.key))?;
            let standing = member.as_ref().map(|member| member.standing.clone());
            let (plan, data_dir, door, supervisor) = (&plan, &data_dir, &door, &supervisor);
            let machine = Machine { allowed, plan, data_dir, door, lease_key, standing, supervisor };
            wiring::wire(&config, &machine, (listeners, quic), (backing, threads), &life)
        });
        let wired = match wired {
            Ok(wired) => wired,
            Err(error) => {
                // Others need not wait for it to run out.
                member.into_iter().for_each(Member::give_up);
                return Err(error);
            }
        };
        life.enter(Phase::Serving);
        member.iter().for_each(|member| member.serves(address));
        if door.tokens.is_none() {
            log::info(Target::Node, format_args!("{}", open_to_all(address)));
        }
        let wiring::Wired { threads, rings, stops, catalog, ledger } = wired;
        let same = config.clone();
        let reread: Reread = Box::new(move || Ok(Fresh { config: same.clone(), stale: Vec::new() }));
        Ok(Some(Self {
            config,
            address,
            quic_address,
            life,
            threads,
            rings,
            stops,
            door,
            catalog,
            ledger,
            reread,
            member,
            supervisor,
            _data_dir: data_dir,
        }))
    }

    /// Where the HTTP API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line that says so.
    pub fn ready_line(&self) -> String {
        let data = self.config.data_dir.display();
        let quic = self.quic_address.map_or_else(|| String::from("-"), |address| address.to_string());
        format!("ready http={} quic={quic} data={data} pid={}", self.address, std::process::id())
    }

    /// What SIGHUP reads the configuration with; without, only the files that it names are read again.
    #[must_use]
    pub fn rereading(mut self, reread: Reread) -> Self {
        self.reread = reread;
        self
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.config.data_dir
    }

    /// The certificate that the listener shows; `None` where it speaks plain HTTP.
    pub fn certificate(&self) -> Option<&std::path::Path> {
        self.config.auth.tls.as_ref().map(|files| files.certificate.as_path())
    }

    /// Are requests asked for a token?
    pub fn needs_token(&self) -> bool {
        self.door.tokens.is_some()
    }

    /// A token for what runs beside the node in this process; `None` where none is needed.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn own_token(&self, name: &str) -> Result<Option<String>, Error> {
        let issued = self.door.tokens.as_ref().map(|tokens| tokens.issue(name)).transpose();
        issued.map_err(|error| Error::Ended(format!("no token can be made: {error}")))
    }

    /// Asks for an orderly end.
    pub fn drain(&self) {
        self.life.ask_to_end();
    }

    /// Waits for SIGTERM, SIGINT or [`drain`](Self::drain), then ends everything in order. A second signal ends the
    /// process at once. `listening` is called once signals are heard: whoever is told that the node is ready may end it.
    ///
    /// # Errors
    /// A thread ended badly, or did not end in time.
    pub fn join(mut self, listening: impl FnOnce()) -> Result<End, Error> {
        let mut result = Ok(End::AsAsked);
        let ended = crate::io::net::block_on(async {
            result = self.run_to_end(listening).await;
        });
        ended.map_err(|error| Error::Ended(error.to_string()))?;
        result
    }

    async fn run_to_end(&mut self, listening: impl FnOnce()) -> Result<End, Error> {
        let mut orders = Terminations::new().map_err(|error| Error::Ended(error.to_string()))?;
        self.member.iter_mut().for_each(Member::listens);
        listening();
        self.supervisor.serves(self.address);
        let mut end = End::AsAsked;
        let governed = (&*self.door, &*self.catalog, &*self.ledger);
        let told = (&self.supervisor, self.address);
        tokio::select! {
            signal = orders.next() => {
                log::info(Target::Node, format_args!("{signal}, draining"));
                // From now on a second one ends the process: kill -9 is safe at any moment, so is this.
                crate::io::spawn_local(async move {
                    let signal = orders.next().await;
                    anstream::eprintln!("aobd: {signal} again, ending at once");
                    std::process::exit(130);
                });
            }
            () = self.life.asked_to_end() => {}
            // Nothing that it has under way can be appended any more, so there is nothing to end in order.
            () = lost(self.member.as_ref()) => {
                self.supervisor.begins_again();
                return Ok(End::SteppedDown);
            }
            () = told_to_hand_over(self.member.as_ref()) => end = End::HandedOver,
            problem = reload_on_hangup(&self.reread, governed, told) => return Err(problem),
            ended = self.threads.next_end() => {
                return Err(Error::Ended(ended.problem()));
            }
        }
        match end {
            End::AsAsked => self.supervisor.stops(self.config.drain + END_WITHIN * END_STAGES),
            End::HandedOver | End::SteppedDown => self.supervisor.begins_again(),
        }
        self.life.enter(Phase::Draining);
        failpoint::pass("drain::begin");
        let _ = self.stops.control.send(true);
        self.join_stage("aob-control", self.config.drain + END_WITHIN).await?;
        failpoint::pass("drain::control_ended");
        let _ = self.stops.fanout.send(true);
        self.join_stage("aob-fanout", END_WITHIN).await?;
        self.stops.runner.store(true, Ordering::Release);
        for shard in &self.stops.shards {
            shard.wake();
        }
        self.join_stage("aob-runner", END_WITHIN).await?;
        failpoint::pass("drain::shards_ended");
        let _ = self.stops.index.send(IndexJob::Stop);
        self.join_stage("aob-index", END_WITHIN).await?;
        failpoint::pass("drain::index_ended");
        self.stops.materializer.stop();
        self.join_stage("aob-artifacts", END_WITHIN).await?;
        self.member.iter_mut().for_each(Member::leave);
        if let Some(end) = &self.stops.store {
            end();
        }
        self.stops.logs.stop();
        self.supervisor.leave();
        self.join_stage("aob-", END_WITHIN).await?;
        for ring in self.rings.drain(..) {
            ring.join().map_err(Error::Ended)?;
        }
        self.life.enter(Phase::Stopped);
        Ok(end)
    }

    async fn join_stage(&mut self, prefix: &str, limit: Duration) -> Result<(), Error> {
        self.threads.join(prefix, limit).await.map_err(Error::Ended)
    }
}

/// How a node ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Told to.
    AsAsked,
    /// Told to leave the store to another node: start again, to stand by.
    HandedOver,
    /// Another node owns the store: start again, to stand by. Threads go on until the process does.
    SteppedDown,
}

/// Ends when another node owns the store.
async fn lost(member: Option<&Member>) {
    match member {
        Some(member) => member.lost().await,
        None => std::future::pending().await,
    }
}

/// Ends when another node is to own it.
async fn told_to_hand_over(member: Option<&Member>) {
    match member {
        Some(member) => member.told_to_hand_over().await,
        None => std::future::pending().await,
    }
}

/// Waits for its turn where nodes share a store; `None` when it is told to end before.
#[cfg_attr(
    not(feature = "redis"),
    expect(unused_variables, reason = "only in a store elsewhere are there others")
)]
fn membership(
    config: &Config,
    (data_dir, listeners, address, door): (&DataDir, &[TcpListener], SocketAddr, &Arc<Door>),
    (life, threads): (&Life, &mut Threads),
    (supervisor, stands_by): (&Supervisor, &mut dyn FnMut(SocketAddr)),
) -> Result<Option<Option<Member>>, Error> {
    match &config.store {
        StoreChoice::Embedded(_) => Ok(Some(None)),
        #[cfg(feature = "redis")]
        StoreChoice::Redis(store, membership) => {
            let place = super::cluster::Place { config, data_dir, listeners, address, door };
            life.enter(Phase::StandingBy);
            let mut told = |address| {
                supervisor.stands_by(address);
                stands_by(address);
            };
            let entered = super::cluster::enter((store, membership), &place, (life, threads), &mut told)?;
            Ok(entered.map(Some))
        }
    }
}

/// What is said of a node without tokens.
fn open_to_all(address: SocketAddr) -> String {
    let whom =
        if address.ip().is_loopback() { "everybody on this machine" } else { "everybody who reaches it" };
    format!("no tokens (auth.tokens_file): {whom} may do everything at {address}")
}

/// A SIGHUP that comes while the node starts must not end it.
fn expect_hangups() -> Result<(), Error> {
    let mut installed = Ok(());
    let ran = crate::io::net::block_on(async { installed = Hangups::new().map(drop) });
    ran.and(installed).map_err(|error| Error::Ended(error.to_string()))
}

/// Reloads for each SIGHUP; ends only when there can be none.
async fn reload_on_hangup(
    reread: &Reread,
    governed: (&Door, &Catalog, &Ledger),
    (supervisor, address): (&Supervisor, SocketAddr),
) -> Error {
    let mut hangups = match Hangups::new() {
        Ok(hangups) => hangups,
        Err(error) => return Error::Ended(error.to_string()),
    };
    loop {
        hangups.next().await;
        supervisor.reloads();
        let lines = reload(reread, governed);
        for line in &lines {
            log::warn(Target::Node, format_args!("{line}"));
        }
        log::info(Target::Node, format_args!("SIGHUP, reloaded"));
        supervisor.reloaded(address, &lines);
    }
}

/// What the checks, the plan and the files made of the machine.
struct Machine<'a> {
    allowed: Allowed,
    plan: &'a plan::Plan,
    data_dir: &'a DataDir,
    door: &'a Arc<Door>,
    /// What leases of workers are sealed with.
    lease_key: [u8; 32],
    standing: Option<Arc<Standing>>,
    supervisor: &'a Supervisor,
}
