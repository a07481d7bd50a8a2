//! Leases over a store and clocks that are not what one would wish: however nodes stand still, die, lose answers and run fast or slow, no
//! two of them count on the lease at the same time.

use std::time::Duration;

use super::term::{Contender, Holder};
use crate::store::redis::lease::{NodeId, Row};

const LASTS: Duration = Duration::from_millis(1_000);
const STEP_US: u64 = 5_000;
const LOOKS_US: u64 = 100_000;

/// splitmix64
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % count
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A row on its way to the store, and the answer on its way back.
struct Asked {
    expected: Option<Row>,
    wanted: Row,
    /// By the node's clock, when it was surely not there.
    before_us: u64,
    arrives_us: u64,
    /// When the answer comes; never, when it is lost.
    answered_us: Option<u64>,
    found: Option<Option<Row>>,
}

struct Node {
    id: u8,
    /// Thousandths of its clock's pace.
    pace: u64,
    contender: Contender,
    holder: Option<Holder>,
    asked: Option<Asked>,
    /// When it looked, by its clock, and what it saw.
    looked: Option<(u64, Option<Row>)>,
    next_us: u64,
    still_until_us: u64,
}

impl Node {
    fn new(id: u8, pace: u64) -> Self {
        let (contender, holder, asked) = (contender(id), None, None);
        Self { id, pace, contender, holder, asked, looked: None, next_us: 0, still_until_us: 0 }
    }

    fn clock(&self, now_us: u64) -> u64 {
        now_us * self.pace / 1_000
    }

    /// Would it answer a read, if it was asked now and not standing still?
    fn is_live(&self, now_us: u64) -> bool {
        self.holder.as_ref().is_some_and(|holder| self.clock(now_us) < holder.until_us)
    }

    fn ask(
        &mut self,
        (expected, wanted): (Option<Row>, Row),
        (before_us, now_us): (u64, u64),
        dice: &mut Dice,
    ) {
        let arrives_us = now_us + dice.below(300_000);
        let answered_us = (!dice.one_in(6)).then(|| arrives_us + dice.below(300_000));
        self.asked = Some(Asked { expected, wanted, before_us, arrives_us, answered_us, found: None });
    }

    /// What the store does is not kept up by a node that stands still.
    fn arrive(&mut self, store: &mut Option<Row>, now_us: u64) {
        if let Some(asked) =
            self.asked.as_mut().filter(|asked| asked.found.is_none() && asked.arrives_us <= now_us)
        {
            if *store == asked.expected {
                *store = Some(asked.wanted.clone());
            }
            asked.found = Some(store.clone());
        }
    }

    fn turn(&mut self, store: &Option<Row>, now_us: u64, dice: &mut Dice) {
        if self.asked.as_ref().is_some_and(|asked| asked.answered_us.is_some_and(|at| at <= now_us)) {
            self.answered();
        } else if self
            .asked
            .as_ref()
            .is_some_and(|asked| asked.answered_us.is_none() && asked.arrives_us + 300_000 <= now_us)
        {
            // No answer: it asks again, later.
            self.asked = None;
        }
        if self.asked.is_some() || now_us < self.next_us {
            return;
        }
        match &mut self.holder {
            None => {
                // What it saw then, it hears now.
                let looked = self.looked.replace((self.clock(now_us), store.clone()));
                self.next_us = now_us + LOOKS_US + dice.below(200_000);
                let Some((before_us, row)) = looked else { return };
                let clock = now_us * self.pace / 1_000;
                if let Some(wanted) = self.contender.saw(row.as_ref(), clock) {
                    self.ask((row, wanted), (before_us, now_us), dice);
                    self.looked = None;
                }
            }
            Some(holder) => {
                self.next_us = now_us + 250_000;
                let is_held = !dice.one_in(40);
                if !is_held {
                    holder.until_us = 0;
                }
                let change = (Some(holder.row().clone()), holder.next(is_held));
                let before_us = now_us * self.pace / 1_000;
                self.ask(change, (before_us, now_us), dice);
            }
        }
    }

    fn answered(&mut self) {
        let Some(Asked { wanted, before_us, found, .. }) = self.asked.take() else { return };
        let found = found.flatten();
        if found.as_ref() == Some(&wanted) {
            self.holder = wanted.is_held.then(|| Holder::new(wanted, before_us));
            return;
        }
        let own = found.filter(|row| row.node == wanted.node && row.turn <= wanted.turn && row.is_held);
        match (&mut self.holder, own) {
            (Some(holder), Some(row)) => holder.found(&row),
            (holder, _) => *holder = None,
        }
    }
}

fn contender(id: u8) -> Contender {
    Contender::new((NodeId([id; 16]), format!("http://{id}")), LASTS)
}

// F083
#[test]
fn no_two_nodes_count_on_it_at_the_same_time() {
    let (mut owners, mut changes) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let mut nodes: Vec<Node> = (1..=3).map(|id| Node::new(id, 960 + dice.below(81))).collect();
        let (mut store, mut before) = (None, None);
        for step in 0..12_000 {
            let now_us = step * STEP_US;
            for node in &mut nodes {
                node.arrive(&mut store, now_us);
                if dice.one_in(2_000) {
                    // It dies, and is there again at once with its directory. What it asked for may arrive still.
                    let asked = node.asked.take().filter(|asked| asked.found.is_none());
                    *node = Node { asked, ..Node::new(node.id, node.pace) };
                    if let Some(asked) = &mut node.asked {
                        asked.answered_us = None;
                    }
                } else if dice.one_in(1_000) {
                    node.still_until_us = now_us + dice.below(4_000_000);
                }
                if node.still_until_us <= now_us {
                    node.turn(&store, now_us, &mut dice);
                }
            }
            // A server that fails over has forgotten the last turn, now and then.
            if dice.one_in(4_000)
                && let Some(row) = store.as_mut().filter(|row: &&mut Row| row.is_held && row.turn > 1)
                && nodes.iter().any(|node| node.holder.as_ref().is_some_and(|holder| *holder.row() == *row))
            {
                row.turn -= 1;
            }
            let live: Vec<u8> =
                nodes.iter().filter(|node| node.is_live(now_us)).map(|node| node.id).collect();
            assert!(live.len() <= 1, "seed {seed}, {} ms: {live:?}", now_us / 1_000);
            if let [owner] = live[..] {
                owners.insert((seed, owner));
                changes += usize::from(before.replace(owner) != Some(owner));
            }
        }
    }
    assert!(owners.len() > 500 && changes > 1_000, "hardly anything changed hands: {changes}");
}
