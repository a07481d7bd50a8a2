//! Keeps the lease: the one thread of a node that looks at it, takes it, renews it and gives it up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{oneshot, watch};

use super::term::{Contender, Holder};
use super::{Front, GIVEN_UP_WITHIN, LOOKS, RENEWED_IN_PARTS, Stage, Standing};
use crate::api::front::{self, Owner};
use crate::io;
use crate::runtime::shutdown::Life;
use crate::store::Error as StoreError;
use crate::store::redis::lease::{Leases, Row, Seen};
use crate::telemetry::log::{self as say, Target};
use crate::time::{Clock as _, SystemClock};

/// The thread.
pub(super) struct Keeper {
    pub(super) leases: Leases,
    pub(super) standing: Arc<Standing>,
    pub(super) owner: Arc<watch::Sender<Owner>>,
    pub(super) life: Life,
    pub(super) stage: watch::Sender<Stage>,
    /// It was said that the store does not answer.
    pub(super) complaint: bool,
}

impl Keeper {
    pub(super) async fn run(
        mut self,
        contender: Contender,
        front: Front,
        (left, others_listen): (oneshot::Receiver<()>, oneshot::Receiver<()>),
    ) {
        io::spawn_local(end_when_told(self.life.clone(), others_listen));
        let (done, served) = oneshot::channel::<()>();
        let (listeners, parts) = front();
        io::spawn_local(async move {
            if let Err(error) = front::serve(listeners, parts).await {
                say::warn(Target::Node, format_args!("requests are not passed on: {error}"));
            }
            drop(done);
        });
        match self.contend(contender).await {
            Some(holder) => self.hold(holder, left).await,
            None => drop(self.leases.leave().await),
        }
        if *self.stage.borrow() == Stage::Lost {
            // The process begins again; a thread that ends would end it.
            std::future::pending::<()>().await;
        }
        self.stage.send_replace(Stage::Left);
        // Connections that it passed on until now.
        io::net::within(GIVEN_UP_WITHIN, served).await;
    }

    /// Waits for the lease and takes it; `None` when the node is asked to end before.
    async fn contend(&mut self, mut contender: Contender) -> Option<Holder> {
        loop {
            let looked_us = SystemClock.monotonic_us();
            match self.leases.look().await {
                Err(error) => self.complain(&error),
                Ok(seen) => {
                    let row = seen.row.clone();
                    self.saw(seen);
                    let wanted = contender.saw(row.as_ref(), SystemClock.monotonic_us());
                    if let Some(wanted) = wanted
                        && let Some(holder) = self.put(row.as_ref(), wanted, looked_us).await
                    {
                        say::info(Target::Node, format_args!("the lease of the store is taken"));
                        self.owner.send_replace(Owner::Starting);
                        self.stage.send_replace(Stage::Taken);
                        return Some(holder);
                    }
                }
            }
            if io::net::within(LOOKS, self.life.asked_to_end()).await.is_some() {
                return None;
            }
        }
    }

    /// Puts a row there; when it is there, it is held. At `before_us` it surely was not.
    async fn put(&mut self, expected: Option<&Row>, wanted: Row, before_us: u64) -> Option<Holder> {
        match self.leases.put(expected, &wanted).await {
            Ok(seen) if seen.row.as_ref() == Some(&wanted) => {
                self.complaint = false;
                let holder = Holder::new(wanted, before_us);
                self.standing.live_until_us.store(holder.until_us, Ordering::Release);
                self.standing.saw(seen);
                Some(holder)
            }
            Ok(seen) => {
                self.saw(seen);
                None
            }
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    /// Renews it, until it is to be given up or is another's.
    async fn hold(&mut self, mut holder: Holder, mut left: oneshot::Receiver<()>) {
        loop {
            let rest = holder.row().lasts / RENEWED_IN_PARTS;
            if io::net::within(rest, &mut left).await.is_some() {
                break;
            }
            // What cannot append is of no use as an owner; once the store takes this, somebody begins anew, perhaps this node.
            let is_held = !self.standing.is_broken();
            let wanted = holder.next(is_held);
            match self.put(Some(holder.row()), wanted.clone(), SystemClock.monotonic_us()).await {
                Some(renewed) if is_held => holder = renewed,
                None if self.found(&mut holder, &wanted) => {}
                freed => {
                    let why = if freed.is_some() {
                        "given up, for its journal has ended"
                    } else {
                        "another node's"
                    };
                    say::warn(Target::Node, format_args!("the lease of the store is {why}"));
                    self.standing.live_until_us.store(0, Ordering::Release);
                    self.stage.send_replace(Stage::Lost);
                    return;
                }
            }
        }
        self.standing.live_until_us.store(0, Ordering::Release);
        let free = holder.next(false);
        if let Err(error) = self.leases.put(Some(holder.row()), &free).await {
            self.complain(&error);
        }
    }

    /// Is what was seen last ours still? A server that failed over may have forgotten a turn; then that is where we stand.
    fn found(&self, holder: &mut Holder, wanted: &Row) -> bool {
        let seen = self.standing.seen.load();
        let own =
            seen.row.as_ref().filter(|row| row.node == wanted.node && row.turn <= wanted.turn && row.is_held);
        own.is_some_and(|row| {
            holder.found(row);
            true
        })
    }

    fn saw(&mut self, seen: Seen) {
        self.complaint = false;
        let held = seen.row.as_ref().filter(|row| row.is_held && row.node != self.standing.node);
        // A node with a certificate of its own takes none of this; health checks hear that there is nobody to pass requests on to.
        let held = held.filter(|row| row.address.starts_with("http://"));
        let owner =
            held.map_or(Owner::Unknown, |row| Owner::Other(row.address.trim_start_matches("http://").into()));
        self.owner.send_if_modified(|known| {
            let is_news = *known != owner && matches!(known, Owner::Unknown | Owner::Other(_));
            if is_news {
                *known = owner;
            }
            is_news
        });
        self.standing.saw(seen);
    }

    /// Once for each time that it goes away.
    fn complain(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.complaint, true) {
            say::warn(Target::Store, format_args!("the lease of the store is not looked at: {error}"));
        }
    }
}

/// A node that stands by, or recovers, ends when it is told to; until somebody else listens.
async fn end_when_told(life: Life, others_listen: oneshot::Receiver<()>) {
    let Ok(mut orders) = io::net::Terminations::new() else { return };
    // A node that does not serve yet hands nothing over; the signal must not end it.
    let _handovers = io::net::Handovers::new();
    tokio::select! {
        _ = orders.next() => life.ask_to_end(),
        _ = others_listen => {}
    }
}
