//! Summaries of events by a model (F340): asked for by whoever reads, made one at a time and later, kept for the next reader.
//!
//! Nothing here is on a run's path: a reader puts an event into a queue ([`limits::SUMMARIES_QUEUE_MAX`]; full: it stays out, and the
//! rule's summary is served) and goes on. Calls leave by the gateway as any call to a model, and have an allowance of their own, by
//! hour: the most a call may take is set aside before it is made, and one that does not fit is not made. What a model is given is
//! the event as the timeline shows it, what looks like a key taken out *before* it is cut to
//! [`limits::SUMMARY_DATA_LETTERS_MAX`]; what it says is data, and its first words count. At most [`limits::SUMMARIES_MAX`] are kept, the
//! oldest go first. All of it is of the process; events never change, so a summary is never out of date.

#![expect(
    clippy::disallowed_types,
    reason = "short, between readers and one maker, and only where it is switched on"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::{CallName, Models};
use crate::limits;
use crate::model::agent::{Ask, Quote, Wanted};
use crate::model::money::Usd;
use crate::model::{Place, RunId, Seq, Value, credential};
use crate::time::{Clock as _, SystemClock};

const HOUR_US: u64 = 3_600_000_000;
const SYSTEM: &str = "You summarise one event of a workflow run for its operator. Answer with one plain sentence of at most 15 words and \
                      nothing else.";

/// Which model makes summaries, and what it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration.
    pub model: Arc<str>,
    /// Tokens in an hour.
    pub tokens_per_hour: u64,
    /// Dollars in an hour; `None`: tokens alone bound it. A model without a price is not asked under such a bound.
    pub usd_per_hour: Option<Usd>,
}

/// An event that wants a summary.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of which run.
    pub run_id: RunId,
    /// Its number.
    pub seq: Seq,
    /// A name of the run's workspace, for credentials.
    pub workflow: Arc<str>,
    /// As the timeline shows it.
    pub data: String,
}

type Name = (RunId, Seq);

#[derive(Debug, Default)]
struct Shelf {
    /// `None`: it is being made.
    made: BTreeMap<Name, Option<Arc<str>>>,
    /// Oldest first.
    order: VecDeque<Name>,
}

/// What was taken in the hour under way.
#[derive(Debug, Default)]
struct Hour {
    began_us: u64,
    tokens: u64,
    nanos: u64,
}

impl Hour {
    /// Sets aside what a call may take; `false`: there is not so much left.
    fn take(&mut self, settings: &Settings, quote: &Quote, now_us: u64) -> bool {
        if now_us.saturating_sub(self.began_us) >= HOUR_US {
            *self = Self { began_us: now_us, ..Self::default() };
        }
        let fits = match (settings.usd_per_hour, quote.cost) {
            (None, _) => true,
            (Some(most), Some(cost)) => self.nanos.saturating_add(cost.as_nanos()) <= most.as_nanos(),
            (Some(_), None) => false,
        };
        if !fits || self.tokens.saturating_add(quote.tokens) > settings.tokens_per_hour {
            return false;
        }
        self.tokens += quote.tokens;
        self.nanos += quote.cost.map_or(0, Usd::as_nanos);
        true
    }

    /// What a call took in the place of what was set aside.
    fn settle(&mut self, quote: &Quote, tokens: u64, cost: Option<Usd>) {
        self.tokens = self.tokens.saturating_sub(quote.tokens).saturating_add(tokens);
        let quoted = quote.cost.map_or(0, Usd::as_nanos);
        self.nanos = self.nanos.saturating_sub(quoted).saturating_add(cost.map_or(0, Usd::as_nanos));
    }
}

/// Where readers find summaries, and ask for those that are missing.
#[derive(Debug)]
pub struct Summaries {
    settings: Settings,
    shelf: Mutex<Shelf>,
    queue: mpsc::Sender<Event>,
    /// Gone with the last reader.
    _open: watch::Sender<()>,
}

/// What [`Maker::make`] works from.
#[derive(Debug)]
pub struct Maker {
    asked: mpsc::Receiver<Event>,
    open: watch::Receiver<()>,
    hour: Hour,
}

impl Summaries {
    /// A shelf, and who fills it.
    pub fn new(settings: Settings) -> (Self, Maker) {
        let (queue, asked) = mpsc::channel(limits::SUMMARIES_QUEUE_MAX);
        let (open, opened) = watch::channel(());
        let maker = Maker { asked, open: opened, hour: Hour::default() };
        (Self { settings, shelf: Mutex::default(), queue, _open: open }, maker)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The summary of an event, as the model said it, cut to size; `None`: there is none yet.
    pub fn find(&self, run_id: RunId, seq: Seq) -> Option<Arc<str>> {
        self.lock().made.get(&(run_id, seq)).cloned().flatten()
    }

    /// Wants a summary of an event that has none; once, however often it is said. Waits for nothing.
    pub fn want(&self, run_id: RunId, seq: Seq, event: impl FnOnce() -> Event) {
        let name = (run_id, seq);
        let mut shelf = self.lock();
        if shelf.made.contains_key(&name) {
            return;
        }
        let Ok(room) = self.queue.try_reserve() else { return };
        shelf.made.insert(name, None);
        shelf.order.push_back(name);
        while shelf.order.len() > limits::SUMMARIES_MAX {
            let Shelf { made, order } = &mut *shelf;
            order.pop_front().and_then(|oldest| made.remove(&oldest));
        }
        drop(shelf);
        room.send(event());
    }

    fn put(&self, name: Name, said: Option<String>) {
        let mut shelf = self.lock();
        match said {
            Some(said) => {
                // It may have had to go meanwhile.
                if let Some(made) = shelf.made.get_mut(&name) {
                    *made = Some(said.into());
                }
            }
            // Whoever reads it next may ask again.
            None => {
                shelf.made.remove(&name);
                shelf.order.retain(|other| *other != name);
            }
        }
    }
}

/// What a model is given of an event.
fn data(event: &str) -> String {
    credential::masked(event).chars().take(limits::SUMMARY_DATA_LETTERS_MAX).collect()
}

/// The first words of what it said; `None`: nothing.
fn words(said: &str) -> Option<String> {
    let words: Vec<&str> = said.split_whitespace().take(limits::SUMMARY_WORDS_MAX).collect();
    let told: String = words.join(" ").chars().take(limits::SUMMARY_LETTERS_MAX).collect();
    (!told.is_empty()).then_some(told)
}

fn ask(settings: &Settings, event: &Event) -> Ask {
    let request = Value::map([
        ("role", "summaries".into()),
        ("system", SYSTEM.into()),
        ("task", "Summarise the event that is given as input.".into()),
        ("input", Value::string(data(&event.data))),
        ("max_output_tokens", Value::Int(limits::SUMMARY_TOKENS_MAX)),
    ]);
    let wanted = Wanted::Model { model: Some(settings.model.clone()), turn: 0 };
    Ask { request, said: Arc::default(), wanted, own: None }
}

fn name(event: &Event) -> CallName {
    // Of no node: so no call of the run has the key that this one carries.
    let mut place = Place::root(Place::PASS);
    place.scopes.push((Place::PASS, u32::try_from(event.seq).unwrap_or(u32::MAX)));
    CallName {
        run_id: event.run_id,
        path: "summary".into(),
        place,
        seq: event.seq,
        attempt: 1,
        epoch: 0,
        turn: 0,
        workflow: event.workflow.clone(),
        lost: false,
    }
}

impl Maker {
    /// Makes summaries until nobody reads any more. `shelf` answers `None` then: whoever makes does not keep it.
    pub async fn make(mut self, models: Models, shelf: std::sync::Weak<Summaries>) {
        while let Some(event) = self.asked.recv().await {
            let Some(settings) = shelf.upgrade().map(|shelf| shelf.settings.clone()) else { return };
            let mut open = self.open.clone();
            let said = tokio::select! {
                biased;
                _ = open.changed() => return,
                said = self.one(&models, &settings, &event) => said,
            };
            if let Some(shelf) = shelf.upgrade() {
                shelf.put((event.run_id, event.seq), said);
            }
        }
    }

    async fn one(&mut self, models: &Models, settings: &Settings, event: &Event) -> Option<String> {
        let ask = ask(settings, event);
        let quote = models.quote(&ask, &[]).ok()?;
        let _place = models.place(&ask).await.ok()?;
        if !self.hour.take(settings, &quote, SystemClock.monotonic_us()) {
            return None;
        }
        match models.call(&name(event), Arc::new(ask), Arc::from([]), &quote, None).await {
            Ok(answer) => {
                self.hour.settle(&quote, answer.tokens.total(), answer.cost);
                words(&answer.content)
            }
            Err(failure) => {
                if !crate::model::agent::is_billed(&failure.code) {
                    self.hour.settle(&quote, 0, None);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    fn settings() -> Settings {
        Settings { model: "small".into(), tokens_per_hour: 100, usd_per_hour: Some(Usd::from_nanos(50)) }
    }

    fn event(seq: Seq) -> Event {
        let run_id = RunId::new(Timestamp::from_micros(0), Partition::new(1), [7; 10]);
        Event { run_id, seq, workflow: "acme/summaries".into(), data: "{}".into() }
    }

    // F340
    #[test]
    fn a_full_queue_and_a_full_shelf_leave_events_without_and_nobody_waits() {
        let (summaries, mut maker) = Summaries::new(settings());
        let want = |seq| summaries.want(event(seq).run_id, seq, || event(seq));
        let run_id = event(0).run_id;
        let queue = limits::SUMMARIES_QUEUE_MAX as u64;
        (0..queue + 5).for_each(want);
        (0..queue).for_each(want);
        let mut asked = Vec::new();
        while let Ok(event) = maker.asked.try_recv() {
            asked.push(event.seq);
        }
        assert_eq!(asked, (0..queue).collect::<Vec<_>>(), "each once, and those that found room");
        summaries.put((run_id, 0), Some("done".into()));
        assert_eq!(summaries.find(run_id, 0).as_deref(), Some("done"));
        summaries.put((run_id, 1), None);
        want(1);
        assert_eq!(maker.asked.try_recv().unwrap().seq, 1, "what came to nothing may be asked for again");
        for seq in queue..queue + limits::SUMMARIES_MAX as u64 {
            want(seq);
            let _ = maker.asked.try_recv();
        }
        assert_eq!(summaries.find(run_id, 0), None, "the oldest goes");
        assert_eq!(summaries.lock().made.len(), limits::SUMMARIES_MAX);
        assert_eq!(summaries.lock().order.len(), limits::SUMMARIES_MAX);
    }

    // F340
    #[test]
    fn keys_go_before_the_event_is_cut_and_no_more_than_fifteen_words_are_taken() {
        let key = "sk-proj-abcdefghijklmnopqrstuvwx";
        let cut = limits::SUMMARY_DATA_LETTERS_MAX - 10;
        let given = data(&format!("{} {key} {}", "x".repeat(cut - 1), "y".repeat(600)));
        assert_eq!(given.chars().count(), limits::SUMMARY_DATA_LETTERS_MAX);
        assert!(given.ends_with("[redacted]"), "half a key is a key: {given}");
        assert_eq!(words(&"w ".repeat(40)).unwrap().split_whitespace().count(), 15);
        assert_eq!(words(" \n "), None);
        assert!(words(&"w".repeat(9_000)).unwrap().len() <= limits::SUMMARY_LETTERS_MAX);
    }

    // F340
    #[test]
    fn what_a_call_may_take_is_set_aside_and_an_hour_has_so_much() {
        let quote = |tokens, nanos: Option<u64>| Quote {
            model: "small".into(),
            cost: nanos.map(Usd::from_nanos),
            tokens,
        };
        let mut hour = Hour::default();
        assert!(hour.take(&settings(), &quote(60, Some(20)), 0));
        assert!(!hour.take(&settings(), &quote(41, Some(1)), 0), "tokens");
        assert!(!hour.take(&settings(), &quote(1, Some(31)), 0), "dollars");
        assert!(!hour.take(&settings(), &quote(1, None), 0), "nobody knows what it costs");
        hour.settle(&quote(60, Some(20)), 5, Some(Usd::from_nanos(2)));
        assert_eq!((hour.tokens, hour.nanos), (5, 2));
        assert!(hour.take(&settings(), &quote(95, Some(48)), HOUR_US - 1));
        assert!(!hour.take(&settings(), &quote(1, Some(0)), HOUR_US - 1));
        assert!(hour.take(&settings(), &quote(1, Some(0)), HOUR_US), "the next hour");
        let by_tokens = Settings { usd_per_hour: None, ..settings() };
        assert!(hour.take(&by_tokens, &quote(1, None), HOUR_US));
    }
}
