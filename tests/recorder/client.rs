//! A client that records what it asks and what it is told: starts with and without keys, signals, steering, reads, streams.

use std::sync::Arc;
use std::time::Duration;

use aob_checker::record::{Done, Invoke, Record, What};
use serde_json::{Value, json};

use super::load::{self, Workflow};
use super::{Dice, Guest, Known, World};
use crate::harness::http::{Client, Response};

/// How an operation ended, as its client knows.
pub enum Ended {
    /// Acknowledged: the answer.
    Ok(Box<Done>),
    /// Refused, with this code.
    Fail(String),
    /// Nobody knows.
    Unknown,
}

/// An operation about to be recorded: everything but its number and its time.
pub fn operation(process: &str, what: What) -> Invoke {
    let process = process.to_owned();
    Invoke {
        at_us: 0,
        op: 0,
        process,
        what,
        run: None,
        key: None,
        token: None,
        node: None,
        min_seq: None,
        workspace: None,
    }
}

impl World {
    /// Records the beginning and the end of what `ask` does.
    pub fn operate(&self, invoke: Invoke, ask: impl FnOnce() -> std::io::Result<Response>) -> Ended {
        let op = self.number();
        let changes = invoke.what.changes();
        self.record(|at_us| Record::Invoke(Invoke { at_us, op, ..invoke }));
        let ended = judge(ask(), changes);
        self.record(|at_us| match &ended {
            Ended::Ok(done) => Record::Ok(Done { at_us, op, ..(**done).clone() }),
            Ended::Fail(code) => Record::Fail { at_us, op, code: code.clone() },
            Ended::Unknown => Record::Unknown { at_us, op },
        });
        if !matches!(ended, Ended::Unknown) {
            self.progress();
        }
        ended
    }
}

/// What an answer means (docs/promises.md, "Words").
fn judge(answer: std::io::Result<Response>, changes: bool) -> Ended {
    let Ok(answer) = answer else { return Ended::Unknown };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
    match answer.status {
        200..=299 => Ended::Ok(Box::new(Done {
            run: text("run_id"),
            // A patch that is shown has the number of its own event, which is no state of its run.
            seq: body.get("seq").and_then(Value::as_u64).filter(|_| body.get("author").is_none()),
            status: text("status"),
            durability: text("durability"),
            epoch: body.get("epoch").and_then(Value::as_u64),
            replayed: answer.header("idempotent-replayed") == Some("true"),
            body: changes.then_some(body),
            ..Done::default()
        })),
        502 | 504 => Ended::Unknown,
        503 if body.get("outcome").and_then(Value::as_str) != Some("not_applied") => Ended::Unknown,
        500 => Ended::Unknown,
        status => Ended::Fail(text("code").unwrap_or_else(|| format!("status_{status}"))),
    }
}

/// A connection in this one's name.
pub fn client(address: &str, guest: &Option<Guest>) -> Client {
    Client::new(address).bearer(guest.as_ref().map(|guest| &*guest.token))
}

/// A start under a key that several clients send.
#[derive(Clone)]
struct Keyed {
    key: String,
    token: String,
    workflow: Workflow,
}

/// One client, until the world stops.
pub struct Operator {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) dice: Dice,
    /// In whose name it asks.
    pub(super) guest: Option<Guest>,
    pub(super) connection: Option<Client>,
    /// The node it talked to last.
    generation: u64,
    /// A start nobody knows the outcome of.
    unsure: Option<Keyed>,
    /// A signal nobody knows the outcome of, its key and its token.
    unsure_signal: Option<(Known, String, String)>,
}

impl Operator {
    /// Number `number`.
    pub fn new(world: &Arc<World>, number: u64) -> Self {
        Self::of(world, number, world.guest(number))
    }

    /// An author: every other one is an agent, where there are such.
    pub fn author(world: &Arc<World>, number: u64) -> Self {
        let mut guest = world.guest(number);
        if let Some(guest) = guest.as_mut().filter(|_| number % 2 == 1)
            && let Some(agent) = guest.agent.clone()
        {
            guest.token = agent;
        }
        Self::of(world, number, guest)
    }

    fn of(world: &Arc<World>, number: u64, guest: Option<Guest>) -> Self {
        Self {
            world: world.clone(),
            name: format!("client-{number}"),
            guest,
            dice: Dice::new(world.seed, number),
            connection: None,
            generation: 0,
            unsure: None,
            unsure_signal: None,
        }
    }

    /// Does one thing after the other.
    pub fn run(mut self) {
        while self.connected() {
            let unknown = match self.dice.below(23) {
                20 => self.patch(),
                21 => self.decide(),
                22 => self.revoke(),
                0..=8 => self.start(),
                9..=12 => self.signal(),
                13 => self.steer(What::Cancel, "cancel"),
                14 => self.steer(What::Pause, "pause"),
                15 => self.steer(What::Resume, "resume"),
                16 => self.steer(What::Terminate, "terminate"),
                _ => self.read(),
            };
            if unknown {
                self.connection = None;
            }
        }
    }

    /// Patches runs, and starts some to patch.
    pub fn patch_only(mut self) {
        while self.connected() {
            let unknown = match self.dice.below(12) {
                0 => self.start_one(Workflow { name: load::GROWN }),
                1 | 2 => self.revoke(),
                3..=5 if self.guest.as_ref().is_some_and(|guest| guest.agent.is_some()) => self.judge_patch(),
                _ => self.patch(),
            };
            if unknown {
                self.connection = None;
            }
        }
    }

    fn workspace(&self) -> &str {
        self.guest.as_ref().map_or("default", |guest| &*guest.workspace)
    }

    /// An operation of this client.
    pub(super) fn operation(&self, what: What) -> Invoke {
        let workspace = self.guest.as_ref().map(|guest| guest.workspace.clone());
        Invoke { workspace, ..operation(&self.name, what) }
    }

    /// Is there a node to talk to? Waits for one.
    fn connected(&mut self) -> bool {
        if self.world.is_quiet() {
            return false;
        }
        if self.connection.is_some() {
            return true;
        }
        match self.world.node(self.generation) {
            Some((address, generation)) => {
                (self.connection, self.generation) = (Some(client(&address, &self.guest)), generation);
                true
            }
            None => false,
        }
    }

    /// Sends; true when nobody knows what became of it.
    pub(super) fn send(&mut self, invoke: Invoke, (path, key, body): (&str, Option<&str>, &Value)) -> Ended {
        let Some(client) = self.connection.as_mut() else { return Ended::Unknown };
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let bytes = body.to_string().into_bytes();
        self.world.operate(invoke, || client.request("POST", path, &headers, &bytes))
    }

    /// Starts this, without a key.
    pub(super) fn start_one(&mut self, workflow: Workflow) -> bool {
        let token = self.world.token("start");
        let invoke = Invoke { token: Some(token.clone()), ..self.operation(What::Start) };
        let body = json!({"workflow": workflow.name, "inputs": workflow.inputs(&token)});
        let ended = self.send(invoke, ("/v1/runs", None, &body));
        if let Ended::Ok(done) = &ended
            && let Some(run) = done.run.clone()
        {
            self.world.knows(Known { run, guest: self.guest.clone(), workflow: workflow.name });
        }
        matches!(ended, Ended::Unknown)
    }

    pub(super) fn start(&mut self) -> bool {
        let again = self.unsure.take();
        let keyed = match again {
            Some(keyed) => Some(keyed),
            None if self.dice.one_in(2) => Some(self.shared_key()),
            None => None,
        };
        let (key, token, workflow) = match &keyed {
            Some(keyed) => (Some(&*keyed.key), keyed.token.clone(), keyed.workflow),
            None => (None, self.world.token("start"), load::some(&mut self.dice)),
        };
        let scoped = key.map(|key| format!("{} /v1/runs {key}", self.workspace()));
        let invoke = Invoke { key: scoped, token: Some(token.clone()), ..self.operation(What::Start) };
        let body = json!({"workflow": workflow.name, "inputs": workflow.inputs(&token)});
        match self.send(invoke, ("/v1/runs", key, &body)) {
            Ended::Ok(done) => {
                if let Some(run) = done.run {
                    self.world.knows(Known { run, guest: self.guest.clone(), workflow: workflow.name });
                }
                false
            }
            Ended::Fail(_) => false,
            Ended::Unknown => {
                self.unsure = keyed;
                true
            }
        }
    }

    /// Every few starts share a key; now and then one asks for something else under it.
    fn shared_key(&mut self) -> Keyed {
        let number = self.world.number() / 40;
        let key = format!("key-{}-{number}", self.world.seed);
        let mut dice = Dice::new(self.world.seed, 1_000 + number);
        let workflow = load::some(&mut dice);
        let token = match self.dice.one_in(8) {
            true => self.world.token("other"),
            // Another workspace may use the same key, for a run of its own.
            false => format!("t:{}:{key}", self.workspace()),
        };
        Keyed { key, token, workflow }
    }

    /// Every other one has a key; then it is sent until somebody knows what became of it, and now and then once more.
    fn signal(&mut self) -> bool {
        let (known, key, token) = match self.unsure_signal.take() {
            Some((known, key, token)) => (known, Some(key), token),
            None => {
                let fits = |known: &Known| load::waits(known.workflow);
                let Some(known) = self.world.some_run_for(&self.guest, &mut self.dice, fits) else {
                    return self.start();
                };
                let token = self.world.token("signal");
                (known, self.dice.one_in(2).then(|| format!("signal-{}", self.world.number())), token)
            }
        };
        let path = format!("/v1/runs/{}/signals/go", known.run);
        let invoke = Invoke {
            run: Some(known.run.clone()),
            key: key.as_ref().map(|key| format!("{} {path} {key}", self.workspace())),
            token: Some(token.clone()),
            ..self.operation(What::Signal)
        };
        let body = json!({"payload": {"token": token}});
        let ended = self.send(invoke, (&path, key.as_deref(), &body));
        let again = match &ended {
            Ended::Ok(done) => !done.replayed && self.dice.one_in(4),
            Ended::Fail(_) => false,
            Ended::Unknown => true,
        };
        self.unsure_signal = key.filter(|_| again).map(|key| (known, key, token));
        matches!(ended, Ended::Unknown)
    }

    fn steer(&mut self, what: What, verb: &str) -> bool {
        let Some(known) = self.world.some_run_for(&self.guest, &mut self.dice, |_| true) else {
            return self.start();
        };
        let token = self.world.token(verb);
        let path = format!("/v1/runs/{}/{verb}", known.run);
        // An end that nobody waits for says `terminated`, whatever reason was given.
        let body = match what {
            What::Resume => json!({}),
            _ => json!({"reason": token}),
        };
        let invoke = Invoke { run: Some(known.run), token: Some(token), ..self.operation(what) };
        matches!(self.send(invoke, (&path, None, &body)), Ended::Unknown)
    }

    fn read(&mut self) -> bool {
        let Some(known) = self.world.some_run_for(&self.guest, &mut self.dice, |_| true) else {
            return self.start();
        };
        if self.dice.one_in(4) {
            return self.list();
        }
        let path = format!("/v1/runs/{}", known.run);
        let invoke = Invoke { run: Some(known.run), ..self.operation(What::Read) };
        // Some wait for the end, and hear of it as soon as anybody does.
        let waits = self.dice.one_in(4) && !load::waits(known.workflow);
        let headers: &[(&str, &str)] = if waits { &[("prefer", "wait=1")] } else { &[] };
        let Some(client) = self.connection.as_mut() else { return true };
        matches!(self.world.operate(invoke, || client.request("GET", &path, headers, b"")), Ended::Unknown)
    }

    /// A listing is a read of each run that is in it.
    fn list(&mut self) -> bool {
        let mut wanted = Vec::new();
        for _ in 0..6 {
            let known = self.world.some_run_for(&self.guest, &mut self.dice, |_| true).map(|known| known.run);
            wanted.extend(known.filter(|run| !wanted.contains(run)).into_iter().collect::<Vec<_>>());
        }
        let ops: Vec<(u64, String)> = wanted.into_iter().map(|run| (self.world.number(), run)).collect();
        for (index, (op, run)) in ops.iter().enumerate() {
            let name = format!("{}/list-{index}", self.name);
            let invoke =
                Invoke { op: *op, run: Some(run.clone()), process: name, ..self.operation(What::Read) };
            self.world.record(|at_us| Record::Invoke(Invoke { at_us, ..invoke }));
        }
        let Some(client) = self.connection.as_mut() else { return true };
        let answer = client.request("GET", "/v1/runs?limit=200", &[], b"");
        let page = answer.as_ref().ok().filter(|answer| answer.status == 200).map(Response::json);
        for (op, run) in ops {
            let rows = page.as_ref().and_then(|page| page["runs"].as_array());
            let row = rows.and_then(|rows| rows.iter().find(|row| row["run_id"] == *run));
            self.world.record(|at_us| match row {
                Some(row) => Record::Ok(Done {
                    at_us,
                    op,
                    run: Some(run),
                    seq: row["seq"].as_u64(),
                    status: row["status"].as_str().map(str::to_owned),
                    ..Done::default()
                }),
                None if page.is_some() => Record::Fail { at_us, op, code: String::from("not_on_the_page") },
                None => Record::Unknown { at_us, op },
            });
        }
        page.is_none()
    }
}

/// Follows runs, one after the other, and comes back with `Last-Event-ID` when a stream breaks.
pub fn watch(world: &Arc<World>, number: u64) {
    let mut dice = Dice::new(world.seed, number);
    let (name, guest) = (format!("watcher-{number}"), world.guest(number));
    let mut last = 0;
    while let Some((address, generation)) = world.node(last).filter(|_| !world.is_quiet()) {
        let Some(known) = world.some_run_for(&guest, &mut dice, |_| true) else {
            world.wait_for_progress(1, Duration::from_millis(100));
            continue;
        };
        let (mut after, mut at) = (0, (address, generation));
        // A run that never ends is left after a while.
        for _ in 0..3 {
            let ended = follow(world, (&name, &guest, &known.run), &mut after, &at.0);
            if ended || world.is_quiet() {
                break;
            }
            last = at.1;
            match world.node(at.1) {
                Some(next) => at = next,
                None => return,
            }
        }
    }
}

/// One connection of a stream. True when there is no more to come.
fn follow(
    world: &World,
    (name, guest, run): (&str, &Option<Guest>, &str),
    after: &mut u64,
    address: &str,
) -> bool {
    let stream = world.number();
    // A run may never end; whoever follows it comes back now and then.
    let client = client(address, guest).patience(Duration::from_secs(1));
    let last = format!("{run}:{after}");
    let headers: Vec<(&str, &str)> = if *after > 0 { vec![("last-event-id", &last)] } else { Vec::new() };
    let (process, of, from) = (name.to_owned(), run.to_owned(), *after);
    let workspace = guest.as_ref().map(|guest| guest.workspace.clone());
    world.record(|at_us| Record::Open { at_us, stream, process, run: of, after: from, workspace });
    let mut ended = false;
    let followed = client.follow(&format!("/v1/runs/{run}/events"), &headers, |event| {
        if event.id.is_none() {
            world.record(|at_us| Record::Resync { at_us, stream });
            ended = event.event == "resync";
            return false;
        }
        let (seq, data) = (event.seq(), event.data.clone());
        world.record(|at_us| Record::Event { at_us, stream, seq, event: data });
        *after = seq;
        ended = matches!(&*event.event, "run.completed" | "run.failed" | "run.cancelled");
        !ended && !world.is_quiet()
    });
    world.record(|at_us| Record::Close { at_us, stream });
    ended || matches!(followed, Ok(status) if status != 200)
}
