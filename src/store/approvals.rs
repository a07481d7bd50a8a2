//! What the index owes about reviews ([`Approvals`]): those that are over, who is told of them, and what is on its way.
//!
//! Obligations:
//! 1. What [`Archive::put_reviews`](super::Archive::put_reviews) put is found by `over` until its run is forgotten, then never again.
//! 2. Each change of a review is put with a *notice*, in one batch. `spread` turns notices into deliveries, one for each webhook
//!    that wants it, durably, before it takes the notice away: so a crash repeats a delivery, under the same id, and loses
//!    none. What was told is told again only when what the index had not synced was lost.
//! 3. A webhook is durable when `add` returns, gone for good with its deliveries when `remove` does.
//! 4. Nothing grows without end: webhooks of a workspace, deliveries and dead letters of a webhook are bounded. Where there is
//!    no more room for deliveries, a notice waits; where there is none for dead letters, the oldest goes.
//!
//! Used by several threads at once; blocking.

use std::sync::Arc;

use super::Error;
use crate::model::approval::{Row, State};
use crate::model::webhook::{Delivery, DeliveryId, Webhook, WebhookId};
use crate::model::{Ticket, Workspace};
use crate::time::Timestamp;

/// Which reviews that are over.
#[derive(Clone, Debug)]
pub struct Query {
    /// In this workspace.
    pub workspace: Workspace,
    /// Ended so.
    pub state: State,
    /// Before this one: of a run with a smaller id, or asked earlier in the same.
    pub before: Option<Ticket>,
    /// Of this workflow, named as inside the node.
    pub workflow: Option<Arc<str>>,
    /// That this one might have decided.
    pub reviewer: Option<Arc<str>>,
    /// At most this many.
    pub limit: usize,
    /// At most this many are looked at.
    pub scan_limit: usize,
}

/// A page of reviews that are over, those of the newest runs first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Those that match.
    pub rows: Vec<Row>,
    /// Where to go on (`before`), when the page ended before the reviews did.
    pub next: Option<Ticket>,
}

/// How an attempt to deliver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// It arrived.
    Arrived,
    /// It did not: so, and is tried again then; never with `None`.
    Failed(Arc<str>, Option<Timestamp>),
}

/// Deliveries that are due, each with whom it goes to, and when the first of the others is.
pub type Due = (Vec<(Delivery, Webhook)>, Option<Timestamp>);

/// Which deliveries are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of this webhook, on their way or dead.
    Of(WebhookId),
    /// Of this webhook, dead.
    Dead(WebhookId),
}

/// Reviews, webhooks, deliveries. The module says what is owed.
pub trait Approvals: Send + Sync {
    /// A page of reviews that are over.
    ///
    /// # Errors
    /// The store cannot be read.
    fn over(&self, query: &Query) -> Result<Page, Error>;

    /// Puts a webhook; false when the workspace has as many as it may.
    ///
    /// # Errors
    /// It could not be written down.
    fn add(&self, webhook: &Webhook) -> Result<bool, Error>;

    /// The webhooks of a workspace.
    ///
    /// # Errors
    /// The store cannot be read.
    fn webhooks(&self, workspace: &Workspace) -> Result<Vec<Webhook>, Error>;

    /// One of them.
    ///
    /// # Errors
    /// The store cannot be read.
    fn webhook(&self, workspace: &Workspace, id: WebhookId) -> Result<Option<Webhook>, Error>;

    /// Takes a webhook away, with what is on its way to it; false when there is none.
    ///
    /// # Errors
    /// It could not be written down.
    fn remove(&self, workspace: &Workspace, id: WebhookId) -> Result<bool, Error>;

    /// Turns up to `limit` notices into deliveries that are due now; what was told of, in no order.
    ///
    /// # Errors
    /// It could not be written down.
    fn spread(&self, now: Timestamp, limit: usize) -> Result<Vec<Row>, Error>;

    /// Up to `limit` deliveries that are due, and when the first of the others is.
    ///
    /// # Errors
    /// The store cannot be read.
    fn due(&self, now: Timestamp, limit: usize) -> Result<Due, Error>;

    /// An attempt has ended.
    ///
    /// # Errors
    /// It could not be written down.
    fn attempted(&self, id: DeliveryId, how: &Attempted, now: Timestamp) -> Result<(), Error>;

    /// Up to `limit` deliveries.
    ///
    /// # Errors
    /// The store cannot be read.
    fn deliveries(&self, which: Which, limit: usize) -> Result<Vec<Delivery>, Error>;

    /// Dead letters of a webhook are due again, with as many attempts as new ones; how many.
    ///
    /// # Errors
    /// It could not be written down.
    fn redrive(&self, id: WebhookId, now: Timestamp) -> Result<usize, Error>;
}
