//! One sending thread: a runtime of its own, several connections, one schedule.
//!
//! Each connection takes the next moment of the schedule, waits for it, sends, reads the reply, and takes the next.
//! When all connections are busy a moment passes unserved; the first free one takes it late, and the latency counts
//! from the moment. Moments that nobody served when the time is over count as `not_sent`, with the time they waited so
//! far as latency: overload cannot look fast. A request without reply is given up after [`REPLY_MAX`].

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::arrival::Schedule;
use crate::http::{Template, read_reply};
use crate::options::{Arrivals, Options, Rate};
use crate::pacer::{Pacer, now_us};
use crate::record::Record;

/// Until a reply counts as missing.
const REPLY_MAX: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RECONNECT_US: u64 = 50_000;
/// Of so many starts one waits for the run's end, on connections of its own.
const SAMPLE_EVERY: f64 = 1_000.0;
/// Of runs that wait for a model: their times are what is measured, and waiting costs little beside the model.
const SAMPLE_EVERY_WITH_MODEL: f64 = 20.0;
const SAMPLE_CONNECTIONS: usize = 4;
/// Seconds that a sampled run may take.
const SAMPLE_WAIT: &str = "wait=8";
/// Samples a second: in a closed loop, and at most and at least in an open one.
const SAMPLES_PER_SECOND: (f64, f64, f64) = (20.0, 1.0, 100.0);

/// When the load begins and ends, in microseconds of the common clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) start_us: u64,
    /// Measuring begins.
    pub(crate) measure_us: u64,
    pub(crate) end_us: u64,
}

/// Sends this thread's share of the load and gives what it saw.
pub(crate) fn work(options: &Options, window: Window, part: usize) -> std::io::Result<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (pacer, ticking) = Pacer::start()?;
    let mut loads = vec![Rc::new(Load::starts(options, window, part, pacer.clone()))];
    if part == 0 {
        loads.push(Rc::new(Load::samples(options, window, pacer.clone())));
    }
    let mine = (part..options.connections).step_by(options.threads).count();
    let local = tokio::task::LocalSet::new();
    for (load, connections) in loads.iter().zip([mine, SAMPLE_CONNECTIONS]) {
        for _ in 0..connections {
            local.spawn_local(load.clone().connection());
        }
    }
    runtime.block_on(async {
        tokio::select! {
            () = local => {}
            () = pacer.run() => {}
        }
    });
    drop(ticking);
    let mut record = Record::default();
    for load in &loads {
        record.merge(&load.record.borrow());
    }
    Ok(record)
}

/// How long a connection served.
#[derive(PartialEq)]
enum Served {
    /// No moment is left.
    UntilTheEnd,
    /// It broke, or the node closed it.
    UntilClosed,
}

/// One kind of request on one schedule, shared by its connections.
struct Load {
    address: SocketAddr,
    window: Window,
    pacer: Rc<Pacer>,
    schedule: RefCell<Schedule>,
    template: Template,
    index: std::cell::Cell<u64>,
    record: RefCell<Record>,
    /// Replies come when the run has ended, and latencies are those of runs.
    sampling: bool,
}

impl Load {
    fn starts(options: &Options, window: Window, part: usize, pacer: Rc<Pacer>) -> Self {
        let rate = options.rate;
        let schedule = Schedule::new(rate, options.arrivals, options.seed, (part, options.threads));
        // Workers and models are slower than starts: a closed loop is one of runs then, or work would pile up for ever.
        let slower = options.shape.has_tasks() || options.shape.has_agent();
        let prefer = (slower && rate == Rate::Max).then_some(SAMPLE_WAIT);
        Self { sampling: false, ..Self::new(options, window, pacer, (schedule, prefer)) }
    }

    fn samples(options: &Options, window: Window, pacer: Rc<Pacer>) -> Self {
        let (closed, least, most) = SAMPLES_PER_SECOND;
        let every = if options.shape.has_agent() { SAMPLE_EVERY_WITH_MODEL } else { SAMPLE_EVERY };
        let rate = match options.rate {
            Rate::Max => closed,
            Rate::PerSecond(rate) => (rate / every).clamp(least, most),
        };
        let schedule = Schedule::new(Rate::PerSecond(rate), Arrivals::Constant, options.seed, (0, 1));
        Self::new(options, window, pacer, (schedule, Some(SAMPLE_WAIT)))
    }

    fn new(
        options: &Options,
        window: Window,
        pacer: Rc<Pacer>,
        (schedule, prefer): (Schedule, Option<&str>),
    ) -> Self {
        Self {
            address: options.address,
            window,
            pacer,
            schedule: RefCell::new(schedule),
            template: Template::start(&options.host, (options.shape.workflow(), options.mode), prefer),
            index: std::cell::Cell::new(0),
            record: RefCell::default(),
            sampling: prefer.is_some(),
        }
    }

    /// Connections one after the other, each until it breaks, until the time is over.
    async fn connection(self: Rc<Self>) {
        let mut template = self.template.clone();
        let mut buffer = Vec::with_capacity(4 << 10);
        while now_us() < self.window.end_us {
            let connected = tokio::time::timeout(REPLY_MAX, TcpStream::connect(self.address)).await;
            let stream =
                connected.ok().and_then(Result::ok).filter(|stream| stream.set_nodelay(true).is_ok());
            let Some(mut stream) = stream else {
                self.record.borrow_mut().error("connect");
                self.pacer.until(now_us() + RECONNECT_US).await;
                continue;
            };
            if self.serve(&mut stream, &mut template, &mut buffer).await == Served::UntilTheEnd {
                break;
            }
        }
        self.give_up_the_rest();
    }

    /// Serves moments over one connection.
    async fn serve(&self, stream: &mut TcpStream, template: &mut Template, buffer: &mut Vec<u8>) -> Served {
        while let Some(scheduled_us) = self.next().await {
            self.index.set(self.index.get() + 1);
            self.sending(scheduled_us);
            let request = template.with(self.index.get());
            let exchange = async {
                stream.write_all(request).await?;
                read_reply(stream, buffer).await
            };
            match tokio::time::timeout(REPLY_MAX, exchange).await {
                Ok(Ok(head)) => {
                    self.replied(scheduled_us, head.status, buffer.get(head.len..).unwrap_or_default());
                    if head.close {
                        return Served::UntilClosed;
                    }
                }
                failed => {
                    let kind = if failed.is_err() { "timeout" } else { "connection" };
                    self.lost(scheduled_us, kind);
                    return Served::UntilClosed;
                }
            }
        }
        Served::UntilTheEnd
    }

    fn sending(&self, scheduled_us: u64) {
        let mut record = self.record.borrow_mut();
        record.sent += 1;
        if self.measured(scheduled_us) && !self.sampling {
            record.lag.record(scheduled_us, now_us());
        }
    }

    /// Waits for the next moment; `None` when the time is over.
    async fn next(&self) -> Option<u64> {
        let now = now_us();
        if now >= self.window.end_us {
            return None;
        }
        let Some(at_us) = self.schedule.borrow_mut().next_us() else {
            // A closed loop begins with the load, too.
            self.pacer.until(self.window.start_us).await;
            return Some(now_us());
        };
        let at_us = self.window.start_us + at_us;
        if at_us >= self.window.end_us {
            return None;
        }
        if at_us > now {
            self.pacer.until(at_us).await;
        }
        Some(at_us)
    }

    fn replied(&self, scheduled_us: u64, status: u16, body: &[u8]) {
        if !(200..300).contains(&status) {
            // Not a start, and often quicker than one: it counts as an error and not as a latency.
            self.record.borrow_mut().error(format!("http_{status}"));
            return;
        }
        let mut record = self.record.borrow_mut();
        record.acknowledged += 1;
        record.acknowledged_in_window += u64::from(self.measured(scheduled_us));
        drop(record);
        if self.sampling && !completed(body) {
            self.lost(scheduled_us, "run_not_completed");
        } else {
            self.latency(scheduled_us);
        }
    }

    /// No answer, or not in time: an error that counts with the time until it was known.
    fn lost(&self, scheduled_us: u64, kind: &str) {
        self.record.borrow_mut().error(kind);
        self.latency(scheduled_us);
    }

    fn measured(&self, scheduled_us: u64) -> bool {
        (self.window.measure_us..self.window.end_us).contains(&scheduled_us)
    }

    fn latency(&self, scheduled_us: u64) {
        if !self.sampling {
            let (at_us, latency_us) =
                (scheduled_us.saturating_sub(self.window.start_us), now_us().saturating_sub(scheduled_us));
            self.record.borrow_mut().seconds.record(at_us, latency_us);
        }
        if self.measured(scheduled_us) {
            let mut record = self.record.borrow_mut();
            let latencies = if self.sampling { &mut record.run } else { &mut record.start };
            latencies.record(scheduled_us, now_us());
        }
    }

    /// Moments that passed and were not served.
    fn give_up_the_rest(&self) {
        loop {
            let Some(at_us) = self.schedule.borrow_mut().next_us() else { break };
            let at_us = self.window.start_us + at_us;
            if at_us >= self.window.end_us {
                break;
            }
            self.lost(at_us, "not_sent");
        }
    }
}

fn completed(body: &[u8]) -> bool {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("status").and_then(|status| status.as_str()) == Some("completed")
}
