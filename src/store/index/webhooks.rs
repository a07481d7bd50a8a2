//! Webhooks and deliveries in the index.
//!
//! Keyspace `webhooks` has, behind `w`, workspace, 0 and id the webhook, behind `d` the time and id of each delivery that is
//! due some day. `deliveries` has run, number of the event and webhook, so what is on its way about a run is one range. All
//! changes are made under the lock of forgetting: nothing comes back after its run was erased.
//!
//! `notices` is a queue, by number; `reviews` has the numbers of a run's notices. What is taken from the front of a queue
//! leaves traces that a range passes over one by one until they are compacted: [`Fronts`] says where to begin.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{Index, decode, encode, keys};
use crate::limits;
use crate::model::approval::Row;
use crate::model::webhook::{Delivery, DeliveryId, Webhook, WebhookId};
use crate::model::{RunId, Workspace};
use crate::store::Error;
use crate::store::approvals::{Approvals, Attempted, Due, Page, Query, Which};
use crate::store::keyspaces::{Batch, Gaps, Guard, Keyspace};
use crate::time::Timestamp;

const WEBHOOK: u8 = b'w';
const DUE: u8 = b'd';
/// In `reviews`, under a run's id.
const NOTICE: u8 = b'n';

/// Where the queues begin and end. Read and written under the lock of forgetting.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    /// No notice has a smaller number.
    first_notice: AtomicU64,
    /// No notice has this number, or a greater one.
    next_notice: AtomicU64,
    /// No delivery is due before it, in microseconds since 1970.
    first_due_us: AtomicU64,
}

impl Fronts {
    /// After the last notice that there is.
    pub(super) fn open(notices: &Keyspace) -> Result<Self, Error> {
        let last = notices.last_key_value().map(Guard::key).transpose()?;
        let next = last.as_deref().and_then(number).map_or(0, |last| last.saturating_add(1));
        Ok(Self { next_notice: next.into(), ..Self::default() })
    }
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

fn notice_of_run(run_id: RunId, number: u64) -> Vec<u8> {
    [&run_id.as_bytes()[..], &[NOTICE], &number.to_be_bytes()].concat()
}

fn hook_prefix(workspace: &str) -> Vec<u8> {
    [&[WEBHOOK], workspace.as_bytes(), &[0]].concat()
}

fn hook_key(workspace: &str, id: WebhookId) -> Vec<u8> {
    [&hook_prefix(workspace)[..], &id.0].concat()
}

fn delivery_key(id: DeliveryId) -> Vec<u8> {
    [&keys::event(id.run_id, id.seq)[..], &id.webhook.0].concat()
}

fn due_key(at: Timestamp, id: DeliveryId) -> Vec<u8> {
    [&[DUE][..], &at.as_micros().to_be_bytes(), &delivery_key(id)].concat()
}

impl Index {
    /// Takes what is on its way about a run away in `batch`.
    pub(super) fn drop_deliveries(
        &self,
        (batch, gaps): (&mut Batch, &mut Gaps),
        run_id: RunId,
    ) -> Result<(), Error> {
        for (key, _) in gaps.rows(&self.reviews, &[&run_id.as_bytes()[..], &[NOTICE]].concat())? {
            if let Some(number) = number(&key) {
                batch.remove(&self.notices, number.to_be_bytes());
            }
            batch.remove(&self.reviews, key);
        }
        for (_, delivery) in gaps.rows(&self.deliveries, run_id.as_bytes())? {
            self.drop_delivery(batch, &decode(&delivery)?);
        }
        Ok(())
    }

    /// Puts what is to be told of a review at the end of the queue.
    pub(super) fn put_notice(&self, batch: &mut Batch, row: &Row) -> Result<(), Error> {
        let number = self.fronts.next_notice.fetch_add(1, Relaxed);
        batch.insert(&self.notices, number.to_be_bytes(), encode(row)?);
        batch.insert(&self.reviews, notice_of_run(row.ticket.run_id, number), []);
        Ok(())
    }

    fn drop_delivery(&self, batch: &mut Batch, delivery: &Delivery) {
        if let Some(at) = delivery.next_at {
            batch.remove(&self.webhooks, due_key(at, delivery.id));
        }
        batch.remove(&self.deliveries, delivery_key(delivery.id));
    }

    /// Puts a delivery in place of what stands there.
    fn put_delivery(&self, batch: &mut Batch, delivery: &Delivery) -> Result<(), Error> {
        if let Some(before) = self.delivery(delivery.id)? {
            self.drop_delivery(batch, &before);
        }
        if let Some(at) = delivery.next_at {
            self.fronts.first_due_us.fetch_min(at.as_micros(), Relaxed);
            batch.insert(&self.webhooks, due_key(at, delivery.id), []);
        }
        batch.insert(&self.deliveries, delivery_key(delivery.id), encode(delivery)?);
        Ok(())
    }

    fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, Error> {
        self.row_of(&self.deliveries, &delivery_key(id))
    }

    fn hooks(&self, workspace: &str) -> Result<Vec<Webhook>, Error> {
        self.webhooks.prefix(hook_prefix(workspace)).map(|guard| decode(&guard.value()?)).collect()
    }

    /// Every delivery that there is: no more than [`limits::WEBHOOK_DELIVERIES_MAX`], and dead letters.
    fn each_delivery(&self, mut seen: impl FnMut(Delivery) -> bool) -> Result<(), Error> {
        for guard in self.deliveries.iter() {
            if !seen(decode(&guard.value()?)?) {
                break;
            }
        }
        Ok(())
    }

    /// Dead letters of a webhook, the oldest run's first.
    fn dead(&self, id: WebhookId) -> Result<Vec<Delivery>, Error> {
        let mut dead = Vec::new();
        self.each_delivery(|delivery| {
            if delivery.id.webhook == id && delivery.next_at.is_none() {
                dead.push(delivery);
            }
            true
        })?;
        Ok(dead)
    }

    /// Deliveries that wait for their time.
    fn waiting(&self) -> usize {
        self.each_due().take(limits::WEBHOOK_DELIVERIES_MAX).count()
    }

    /// Rows of deliveries that are due some day, the first one first.
    fn each_due(&self) -> impl Iterator<Item = Guard> + use<> {
        let first = self.fronts.first_due_us.load(Relaxed);
        self.webhooks.range([&[DUE][..], &first.to_be_bytes()].concat()..vec![DUE + 1])
    }
}

impl Approvals for Index {
    fn over(&self, query: &Query) -> Result<Page, Error> {
        self.over_page(query)
    }

    fn add(&self, webhook: &Webhook) -> Result<bool, Error> {
        let _one_at_a_time = self.forgetting();
        if self.hooks(&webhook.workspace)?.len() >= limits::WEBHOOKS_PER_WORKSPACE_MAX {
            return Ok(false);
        }
        let mut batch = Batch::durable();
        batch.insert(&self.webhooks, hook_key(&webhook.workspace, webhook.id), encode(webhook)?);
        self.commit(batch)?;
        Ok(true)
    }

    fn webhooks(&self, workspace: &Workspace) -> Result<Vec<Webhook>, Error> {
        self.hooks(workspace.name())
    }

    fn webhook(&self, workspace: &Workspace, id: WebhookId) -> Result<Option<Webhook>, Error> {
        self.row_of(&self.webhooks, &hook_key(workspace.name(), id))
    }

    fn remove(&self, workspace: &Workspace, id: WebhookId) -> Result<bool, Error> {
        let _one_at_a_time = self.forgetting();
        if self.webhook(workspace, id)?.is_none() {
            return Ok(false);
        }
        let mut batch = Batch::durable();
        batch.remove(&self.webhooks, hook_key(workspace.name(), id));
        self.each_delivery(|delivery| {
            if delivery.id.webhook == id {
                self.drop_delivery(&mut batch, &delivery);
            }
            true
        })?;
        self.commit(batch)?;
        Ok(true)
    }

    fn spread(&self, now: Timestamp, limit: usize) -> Result<Vec<Row>, Error> {
        let _one_at_a_time = self.forgetting();
        let mut room = limits::WEBHOOK_DELIVERIES_MAX.saturating_sub(self.waiting());
        // Without a sync: what a crash takes back is spread again, into deliveries of the same ids.
        let (mut batch, mut told) = (Batch::default(), Vec::new());
        let mut first = self.fronts.first_notice.load(Relaxed);
        for guard in self.notices.range(first.to_be_bytes()..).take(limit) {
            let (key, value) = guard.into_inner()?;
            let row: Row = decode(&value)?;
            let workspace = Workspace::of(&row.request.workflow);
            let mut hooks = self.hooks(workspace.name())?;
            hooks.retain(|hook| hook.wants(&row));
            if hooks.len() > room {
                break;
            }
            room -= hooks.len();
            for hook in hooks {
                let id = DeliveryId { run_id: row.ticket.run_id, seq: row.last.0, webhook: hook.id };
                let delivery =
                    Delivery { id, row: row.clone(), attempts: 0, next_at: Some(now), error: None };
                if self.delivery(id)?.is_none() {
                    self.put_delivery(&mut batch, &delivery)?;
                }
            }
            if let Some(number) = number(&key) {
                batch.remove(&self.reviews, notice_of_run(row.ticket.run_id, number));
                first = number.saturating_add(1);
            }
            batch.remove(&self.notices, key);
            told.push(row);
        }
        if !told.is_empty() {
            self.commit(batch)?;
            self.fronts.first_notice.store(first, Relaxed);
        }
        Ok(told)
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Due, Error> {
        let _one_at_a_time = self.forgetting();
        let mut found = Vec::new();
        for (looked_at, guard) in self.each_due().enumerate() {
            let key = guard.key()?;
            let at = key.get(1..).and_then(|rest| rest.first_chunk::<8>()).map(|at| u64::from_be_bytes(*at));
            let at = Timestamp::from_micros(at.unwrap_or_default());
            if looked_at == 0 {
                self.fronts.first_due_us.store(at.as_micros(), Relaxed);
            }
            if at > now || found.len() >= limit {
                return Ok((found, Some(at)));
            }
            let delivery: Option<Delivery> =
                self.row_of(&self.deliveries, key.get(9..).unwrap_or_default())?;
            let Some(delivery) = delivery else { continue };
            let workspace = Workspace::of(&delivery.row.request.workflow);
            if let Some(hook) = self.webhook(&workspace, delivery.id.webhook)? {
                found.push((delivery, hook));
            }
        }
        Ok((found, None))
    }

    fn attempted(&self, id: DeliveryId, how: &Attempted, now: Timestamp) -> Result<(), Error> {
        let _one_at_a_time = self.forgetting();
        // Its run was erased, or its webhook removed, while it was under way.
        let Some(delivery) = self.delivery(id)? else { return Ok(()) };
        let mut batch = Batch::durable();
        match how {
            Attempted::Arrived => {
                self.drop_delivery(&mut batch, &delivery);
                let workspace = Workspace::of(&delivery.row.request.workflow);
                if let Some(mut hook) = self.webhook(&workspace, id.webhook)? {
                    hook.delivered += 1;
                    hook.delivered_at = Some(now);
                    batch.insert(&self.webhooks, hook_key(&hook.workspace, hook.id), encode(&hook)?);
                }
            }
            Attempted::Failed(error, next_at) => {
                if next_at.is_none() {
                    let dead = self.dead(id.webhook)?;
                    let over = (dead.len() + 1).saturating_sub(limits::WEBHOOK_DEAD_LETTERS_MAX);
                    dead.iter().take(over).for_each(|oldest| self.drop_delivery(&mut batch, oldest));
                }
                let attempts = delivery.attempts + 1;
                let failed = Delivery { attempts, next_at: *next_at, error: Some(error.clone()), ..delivery };
                self.put_delivery(&mut batch, &failed)?;
            }
        }
        self.commit(batch)
    }

    fn deliveries(&self, which: Which, limit: usize) -> Result<Vec<Delivery>, Error> {
        let mut found = Vec::new();
        self.each_delivery(|delivery| {
            let fits = match which {
                Which::Of(id) => delivery.id.webhook == id,
                Which::Dead(id) => delivery.id.webhook == id && delivery.next_at.is_none(),
            };
            if fits {
                found.push(delivery);
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    fn redrive(&self, id: WebhookId, now: Timestamp) -> Result<usize, Error> {
        let _one_at_a_time = self.forgetting();
        let room = limits::WEBHOOK_DELIVERIES_MAX.saturating_sub(self.waiting());
        let mut batch = Batch::durable();
        let mut count = 0;
        for dead in self.dead(id)?.into_iter().take(room) {
            self.put_delivery(&mut batch, &Delivery { attempts: 0, next_at: Some(now), ..dead })?;
            count += 1;
        }
        self.commit(batch)?;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "webhooks_tests.rs"]
pub(super) mod tests;
