//! Sessions of those who change runs: somebody who patches a run step by step, somebody who decides a review.
//!
//! Sessions begin on a schedule of their own (open loop); within one the next request is sent when the last is answered,
//! as an agent or a human would, so a latency in it counts from its sending. How late sessions began, and how many did
//! not begin at all, stands beside it. Every session checks its run's result: a patch that was acknowledged and did not
//! run is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::arrival::Schedule;
use crate::http::{self, read_reply};
use crate::options::{Arrivals, Rate};
use crate::pacer::{Pacer, now_us};
use crate::record::Latencies;
use crate::worker::Window;

/// Until a reply counts as missing.
const REPLY_MAX: Duration = Duration::from_secs(15);
/// How long a run may take to end once nothing holds it, in the words of the header.
const ENDS: &str = "prefer: wait=10\r\n";
const PATCHED: &str = "loadgen_patched";
const APPROVED: &str = "loadgen_approved";
const REVIEWER: &str = "loadgen";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    /// Patches a second, so many to a run.
    pub(crate) patches: f64,
    pub(crate) patches_per_run: u32,
    /// Reviews asked for and decided a second.
    pub(crate) approvals: f64,
    /// Of each kind.
    pub(crate) connections: usize,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Sending of a patch to its acknowledgement.
    pub(crate) patch: Latencies,
    /// Sending of a decision to its acknowledgement.
    pub(crate) decision: Latencies,
    /// Sending of a decision to the end of its run, as read by a second request.
    pub(crate) resumed: Latencies,
    /// The moment of a session to its beginning.
    pub(crate) late: Latencies,
    /// Acknowledged in the measured window.
    pub(crate) patches: u64,
    /// Acknowledged in the measured window.
    pub(crate) decisions: u64,
    /// What went wrong, by kind, warm-up included.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// The documents that sessions need.
pub(crate) fn documents() -> [Value; 2] {
    let hold = json!({"type": "wait", "with": {"signal": "go"}});
    let review = json!({"type": "human_review", "with": {"reviewers": [REVIEWER], "data": "${ inputs.n }"}});
    let after = json!({"type": "function", "with": {"expr": "input"}});
    [
        json!({"aob": "1", "name": PATCHED, "version": "1", "nodes": {"p0": hold}}),
        json!({"aob": "1", "name": APPROVED, "version": "1", "nodes": {"review": review, "after": after},
            "edges": [{"from": "review", "to": "after", "on": "approved"}]}),
    ]
}

/// Holds sessions until the window is over and gives what was seen.
pub(crate) fn hold(plan: &Plan, window: Window) -> std::io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (pacer, ticking) = Pacer::start()?;
    let local = tokio::task::LocalSet::new();
    let sessions_per_s = plan.patches / f64::from(plan.patches_per_run.max(1));
    let desks: Vec<_> = [(Kind::Patches, sessions_per_s), (Kind::Approval, plan.approvals)]
        .into_iter()
        .filter(|(_, rate)| *rate > 0.0)
        .map(|(kind, rate)| {
            let schedule = Schedule::new(Rate::PerSecond(rate), Arrivals::Constant, 1, (0, 1));
            let (plan, pacer) = (plan.clone(), pacer.clone());
            Rc::new(Desk {
                kind,
                plan,
                window,
                pacer,
                schedule: RefCell::new(schedule),
                seen: RefCell::default(),
            })
        })
        .collect();
    for desk in &desks {
        for _ in 0..plan.connections {
            local.spawn_local(desk.clone().serve());
        }
    }
    runtime.block_on(async {
        tokio::select! {
            () = local => {}
            () = pacer.run() => {}
        }
    });
    drop(ticking);
    let mut seen = Seen::default();
    for desk in &desks {
        seen.merge(&desk.seen.borrow());
    }
    Ok(seen)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Patches,
    Approval,
}

/// Why a session broke off.
type Broken = String;

/// One kind of session, shared by its connections.
struct Desk {
    kind: Kind,
    plan: Plan,
    window: Window,
    pacer: Rc<Pacer>,
    schedule: RefCell<Schedule>,
    seen: RefCell<Seen>,
}

impl Desk {
    async fn serve(self: Rc<Self>) {
        let mut line = Line { plan: &self.plan, stream: None, buffer: Vec::new() };
        while let Some(at_us) = self.next() {
            self.pacer.until(at_us).await;
            if now_us() >= self.window.end_us {
                self.error("not_begun");
                continue;
            }
            if self.measured(at_us) {
                self.seen.borrow_mut().late.record(at_us, now_us());
            }
            let held = match self.kind {
                Kind::Patches => self.patches(&mut line).await,
                Kind::Approval => self.approval(&mut line).await,
            };
            if let Err(broken) = held {
                self.error(&broken);
            }
        }
    }

    /// The next moment of the schedule, unless the time is over.
    fn next(&self) -> Option<u64> {
        let at_us = self.window.start_us + self.schedule.borrow_mut().next_us()?;
        (at_us < self.window.end_us).then_some(at_us)
    }

    fn measured(&self, at_us: u64) -> bool {
        (self.window.measure_us..self.window.end_us).contains(&at_us)
    }

    fn error(&self, kind: &str) {
        *self.seen.borrow_mut().errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// A run grows by one node after the other behind the one that waits; then it is let go.
    async fn patches(&self, line: &mut Line<'_>) -> Result<(), Broken> {
        let run = line.start(PATCHED).await?;
        let patches = format!("/v1/runs/{run}/patches");
        for at in 1..=self.plan.patches_per_run {
            let last = format!("p{}", at - 1);
            let node = json!({"type": "function", "needs": [last], "with": {"expr": "input"}});
            let body = json!({"operations": [{"op": "add", "path": format!("/nodes/p{at}"), "value": node}]});
            let sent_us = now_us();
            line.ask("POST", &patches, "", &body).await?;
            let answered_us = now_us();
            if self.measured(answered_us) {
                let mut seen = self.seen.borrow_mut();
                seen.patches += 1;
                seen.patch.record(sent_us, answered_us);
            }
        }
        line.ask("POST", &format!("/v1/runs/{run}/signals/go"), "", &json!({"payload": 7})).await?;
        let ended = line.ask("GET", &format!("/v1/runs/{run}"), ENDS, &Value::Null).await?;
        let last = format!("/outputs/p{}", self.plan.patches_per_run);
        let right = ended.pointer(&last) == Some(&json!(7));
        right.then_some(()).ok_or_else(|| "patched_node_did_not_run".to_owned())
    }

    /// A run asks, its ticket is read, and decided as it was shown; the run goes on to its end.
    async fn approval(&self, line: &mut Line<'_>) -> Result<(), Broken> {
        let run = line.start(APPROVED).await?;
        let ticket = format!("/v1/approvals/review_{run}_review");
        let shown = line.ask("GET", &ticket, "", &Value::Null).await?;
        let digest = shown.get("digest").cloned().unwrap_or_default();
        let body = json!({"decision": "approve", "reviewer": REVIEWER, "digest": digest});
        let sent_us = now_us();
        line.ask("POST", &format!("{ticket}/decision"), "", &body).await?;
        let decided_us = now_us();
        let ended = line.ask("GET", &format!("/v1/runs/{run}"), ENDS, &Value::Null).await?;
        if self.measured(decided_us) {
            let mut seen = self.seen.borrow_mut();
            seen.decisions += 1;
            seen.decision.record(sent_us, decided_us);
            seen.resumed.record(sent_us, now_us());
        }
        let right = ended.pointer("/outputs/after/approved") == Some(&json!(true));
        right.then_some(()).ok_or_else(|| "approved_run_did_not_go_on".to_owned())
    }
}

impl Seen {
    /// Adds what another saw.
    fn merge(&mut self, other: &Self) {
        for (mine, other) in [
            (&mut self.patch, &other.patch),
            (&mut self.decision, &other.decision),
            (&mut self.resumed, &other.resumed),
            (&mut self.late, &other.late),
        ] {
            mine.merge(other);
        }
        self.patches += other.patches;
        self.decisions += other.decisions;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// A connection that is opened again when it broke.
struct Line<'a> {
    plan: &'a Plan,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line<'_> {
    /// Starts a run and gives its id.
    async fn start(&mut self, workflow: &str) -> Result<String, Broken> {
        let started =
            self.ask("POST", "/v1/runs", "", &json!({"workflow": workflow, "inputs": {"n": 1}})).await?;
        let id = started.get("run_id").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| "no_run_id".to_owned())
    }

    /// One request that must succeed; the reply's body.
    async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &Value) -> Result<Value, Broken> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http::request(method, path, &self.plan.host, headers, body.as_bytes());
        let exchange = async {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => {
                    let stream = TcpStream::connect(self.plan.address).await?;
                    stream.set_nodelay(true)?;
                    stream
                }
            };
            stream.write_all(&request).await?;
            let head = read_reply(&mut stream, &mut self.buffer).await?;
            if !head.close {
                self.stream = Some(stream);
            }
            Ok::<_, http::Error>(head)
        };
        let head = match tokio::time::timeout(REPLY_MAX, exchange).await {
            Err(_) => return Err("timeout".into()),
            Ok(Err(_)) => return Err("connection".into()),
            Ok(Ok(head)) => head,
        };
        let value: Value =
            serde_json::from_slice(self.buffer.get(head.len..).unwrap_or_default()).unwrap_or_default();
        if (200..300).contains(&head.status) {
            return Ok(value);
        }
        let code = value.get("code").and_then(Value::as_str).unwrap_or("");
        Err(format!("http_{}_{code}", head.status))
    }
}
