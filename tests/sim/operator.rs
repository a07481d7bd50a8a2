//! Whoever starts the node again: after it was killed, after the power failed, after a shard lost its journal.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::damage::{self, Damaged};
use super::world::World;
use super::{clock, node};
use crate::io::disk::simulated::Random;

/// How often the operator looks whether all shards have their journals.
const LOOK_MS: u64 = 250;
/// Starts that may fail one after the other; the disk may be full for a while.
const STARTS_MAX: u32 = 200;

enum Order {
    Calm(oneshot::Sender<()>),
    CutPower(oneshot::Sender<()>),
    End(oneshot::Sender<()>),
}

/// The way to tell the operator something.
pub(super) struct Operator(mpsc::UnboundedSender<Order>);

impl Operator {
    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        assert!(self.0.send(order(done)).is_ok(), "the operator has gone");
        wait.await.unwrap();
    }

    /// No more ends; the node serves when this returns.
    pub(super) async fn calm(&self) {
        self.order(Order::Calm).await;
    }

    /// One more power cut; the node serves again when this returns.
    pub(super) async fn cut_power(&self) {
        self.order(Order::CutPower).await;
    }

    pub(super) async fn end(&self) {
        self.order(Order::End).await;
    }
}

/// Starts the node and looks after it.
pub(super) fn start(world: &Rc<World>) -> Operator {
    let (orders, received) = mpsc::unbounded_channel();
    tokio::task::spawn_local(look_after(world.clone(), received));
    Operator(orders)
}

/// A life of the node: everything of it stands on a `LocalSet` of its own, which is dropped when it ends.
struct Life {
    task: JoinHandle<()>,
    serving: node::Serving,
    damaged: Damaged,
}

async fn begin(world: &Rc<World>, mut damaged: Damaged) -> Life {
    for attempt in 1..=STARTS_MAX {
        let local = tokio::task::LocalSet::new();
        let (started, start) = oneshot::channel();
        let owned = world.clone();
        local.spawn_local(async move { drop(started.send(node::start(&owned).await)) });
        let task = tokio::task::spawn_local(local);
        match start.await.unwrap() {
            Ok(serving) => {
                world.tell(format_args!("the node serves (start {attempt})"));
                return Life { task, serving, damaged };
            }
            Err(error) => {
                world.tell(format_args!("the node does not start: {error}"));
                let mended = damaged.refused(world, &error);
                assert!(mended || !matches!(error, crate::store::Error::Corrupt { .. }), "{error}");
                drop(task);
                clock::sleep_ms(100).await;
            }
        }
    }
    panic!("the node did not start {STARTS_MAX} times");
}

/// Ends a life at once.
async fn kill(world: &World, life: Life, power: bool) -> Damaged {
    life.task.abort();
    let _ = life.task.await;
    world.door.replace(None);
    world.catalog.forget_patched();
    let mut random = Random::new(world.draw(u64::MAX));
    let lost = world.archive.crash(&mut random);
    world.sometimes_so_often("index rows were lost", lost as u64);
    if !world.file_lost.get() && world.chance(world.options.image_damage) && world.archive.damage(&mut random)
    {
        world.tell(format_args!("an image is damaged"));
    }
    if power {
        world.sometimes("the power failed");
        world.disk.cut_power();
    } else {
        world.sometimes("the node was killed");
        world.disk.kill();
    }
    world.tell(format_args!("{}", if power { "the power fails" } else { "the node is killed" }));
    let mut damaged = life.damaged;
    if power {
        damaged.mend(world);
        damaged = damage::strike(world);
    }
    damaged
}

async fn restart(world: &Rc<World>, life: Life, power: bool) -> Life {
    let damaged = kill(world, life, power).await;
    let options = &world.options;
    clock::sleep_ms(1 + world.draw(options.down_ms)).await;
    if options.jump_ms > 0 {
        let by_us = world.draw(2 * options.jump_ms * 1_000) as i64 - (options.jump_ms * 1_000) as i64;
        world.tell(format_args!("the wall clock jumps by {by_us} us"));
        clock::jump(by_us);
    }
    begin(world, damaged).await
}

/// When this life ends, as the seed wants it.
fn next_end(world: &World) -> u64 {
    world.options.life_ms.map_or(u64::MAX, |mean| clock::passed_us() / 1_000 + world.draw(2 * mean) + 1)
}

async fn look_after(world: Rc<World>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let life = RefCell::new(Some(begin(&world, Damaged::default()).await));
    let mut end_ms = next_end(&world);
    loop {
        let now_ms = clock::passed_us() / 1_000;
        let nap = if world.calm.get() { LOOK_MS } else { LOOK_MS.min(end_ms.saturating_sub(now_ms)) };
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            () = clock::sleep_ms(nap) => None,
        };
        super::world::no_panics();
        let Some(current) = life.take() else { return };
        let fenced = current.serving.cells.iter().any(|cells| cells.fenced.value() > 0);
        if fenced {
            world.sometimes("a shard was fenced");
        }
        let ends = fenced || (!world.calm.get() && now_ms >= end_ms);
        let power = ends && world.chance(world.options.power_cut);
        let mut current = if ends { restart(&world, current, power).await } else { current };
        if ends {
            end_ms = next_end(&world);
        }
        match order {
            None => drop(life.replace(Some(current))),
            Some(Order::Calm(done)) => {
                current.damaged.mend(&world);
                life.replace(Some(current));
                let _ = done.send(());
            }
            Some(Order::CutPower(done)) => {
                let current = restart(&world, current, true).await;
                life.replace(Some(current));
                let _ = done.send(());
            }
            Some(Order::End(done)) => {
                kill(&world, current, false).await;
                let _ = done.send(());
                return;
            }
        }
    }
}
