//! Workers of the generator: they take every job of the load's queue and complete it at once, so that what is measured is
//! the node. A hop is from the moment a completion is sent to the moment the run's next job is read: completion, decision,
//! log, pool, lease and both ways included.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http::{Error, read_reply, request};
use crate::options::Options;
use crate::pacer::now_us;
use crate::record::Latencies;
use crate::shape::QUEUE;

/// Jobs of one poll.
const JOBS: usize = 64;
/// Runs whose last completion is remembered; a run that ended without another job is forgotten with the rest.
const REMEMBERED_MAX: usize = 1 << 20;

/// What the workers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In the measured window.
    pub(crate) hops: Latencies,
    /// Jobs completed, warm-up included.
    pub(crate) jobs: u64,
    /// Completions that the node did not take.
    pub(crate) refused: u64,
}

/// When hops count, in microseconds of the common clock.
#[derive(Debug)]
struct Measured {
    from_us: AtomicU64,
    to_us: AtomicU64,
    stop: AtomicBool,
}

/// Workers on a thread of their own.
pub(crate) struct Workers {
    measured: Arc<Measured>,
    thread: std::thread::JoinHandle<std::io::Result<Seen>>,
}

#[derive(Deserialize)]
struct Polled<'a> {
    #[serde(borrow)]
    jobs: Vec<Job<'a>>,
}

#[derive(Deserialize)]
struct Job<'a> {
    lease: &'a str,
    run_id: &'a str,
}

impl Workers {
    /// Starts as many as asked for.
    pub(crate) fn start(options: &Options) -> std::io::Result<Self> {
        let measured = Arc::new(Measured {
            from_us: AtomicU64::new(u64::MAX),
            to_us: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        });
        let (shared, options) = (measured.clone(), options.clone());
        let builder = std::thread::Builder::new().name("load-workers".into());
        let thread = builder.spawn(move || work(&options, &shared))?;
        Ok(Self { measured, thread })
    }

    /// Hops count between these moments.
    pub(crate) fn measure(&self, from_us: u64, to_us: u64) {
        self.measured.to_us.store(to_us, Ordering::Relaxed);
        self.measured.from_us.store(from_us, Ordering::Relaxed);
    }

    /// Ends them, within one poll.
    pub(crate) fn stop(self) -> std::io::Result<Seen> {
        self.measured.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the workers panicked")))
    }
}

fn work(options: &Options, measured: &Arc<Measured>) -> std::io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = Rc::new(All {
        measured: measured.clone(),
        seen: RefCell::default(),
        completed_us: RefCell::default(),
        host: options.host.clone(),
    });
    let local = tokio::task::LocalSet::new();
    for _ in 0..options.workers {
        local.spawn_local(worker(all.clone(), options.address));
    }
    runtime.block_on(local);
    Ok(Rc::into_inner(all).map(|all| all.seen.into_inner()).unwrap_or_default())
}

/// What the workers of the thread share.
struct All {
    measured: Arc<Measured>,
    seen: RefCell<Seen>,
    /// Run -> when the completion of its last job was sent.
    completed_us: RefCell<BTreeMap<Box<str>, u64>>,
    host: String,
}

async fn worker(all: Rc<All>, address: SocketAddr) {
    while !all.measured.stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let _ = stream.set_nodelay(true);
            // A connection that breaks is replaced; its jobs come again when their leases have run out.
            let _ = all.serve(&mut stream).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl All {
    async fn serve(&self, stream: &mut TcpStream) -> Result<(), Error> {
        let poll = format!(r#"{{"queues":["{QUEUE}"],"max":{JOBS},"wait_ms":500,"worker":"loadgen"}}"#);
        let poll = request("POST", "/v1/workers/poll", &self.host, "", poll.as_bytes());
        let mut buffer = Vec::with_capacity(64 << 10);
        while !self.measured.stop.load(Ordering::Relaxed) {
            stream.write_all(&poll).await?;
            let head = read_reply(stream, &mut buffer).await?;
            let body = buffer.get(head.len..).unwrap_or_default();
            let polled: Polled<'_> =
                serde_json::from_slice(body).map_err(|_| Error::Malformed("what a poll is answered"))?;
            if polled.jobs.is_empty() {
                continue;
            }
            let complete = self.taken(&polled.jobs);
            let count = polled.jobs.len() as u64;
            stream.write_all(&complete).await?;
            let head = read_reply(stream, &mut buffer).await?;
            let body = buffer.get(head.len..).unwrap_or_default();
            let accepted = body.windows(ACCEPTED.len()).filter(|window| *window == ACCEPTED).count() as u64;
            let mut seen = self.seen.borrow_mut();
            seen.jobs += accepted;
            seen.refused += count.saturating_sub(accepted);
        }
        Ok(())
    }

    /// Notes the hops of these jobs, and gives the request that completes them.
    fn taken(&self, jobs: &[Job<'_>]) -> Vec<u8> {
        let now = now_us();
        let within =
            self.measured.from_us.load(Ordering::Relaxed)..self.measured.to_us.load(Ordering::Relaxed);
        let mut completed_us = self.completed_us.borrow_mut();
        if completed_us.len() > REMEMBERED_MAX {
            completed_us.clear();
        }
        let mut body = String::from(r#"{"results":["#);
        for (at, job) in jobs.iter().enumerate() {
            if let Some(before) = completed_us.insert(job.run_id.into(), now)
                && within.contains(&before)
            {
                self.seen.borrow_mut().hops.record(before, now);
            }
            body.push_str(if at == 0 { "" } else { "," });
            body.push_str(r#"{"lease":""#);
            body.push_str(job.lease);
            body.push_str(r#"","output":1}"#);
        }
        body.push_str("]}");
        request("POST", "/v1/workers/complete", &self.host, "", body.as_bytes())
    }
}

const ACCEPTED: &[u8] = br#""status":"accepted""#;
