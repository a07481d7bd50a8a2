//! Every workflow under `examples/`, compiled and run in virtual time, against its golden timeline.
//!
//! `timelines/NAME.json` holds the rows as clients see them, one a line. What comes from outside stands in
//! `timelines/NAME.script.json`; all of it may be left out:
//!
//! ```json
//! {"inputs": {}, "answers": {"fetch": [{"error": {"code": "connection_reset"}}, {"output": 1}]},
//!  "signals": [{"name": "decision", "payload": {}}], "cancel": "no longer wanted"}
//! ```
//!
//! Without `inputs` there, they are those of `NAME.inputs.json` beside the example. The attempts of a node are answered in
//! turn, the node named by its path or its id; `null` leaves an attempt to run out of time, and one that nothing is
//! said about is answered with what it asked for. A signal comes when somebody waits for it. What nobody answers fires
//! when it is due. `cancel` comes when nothing else is left to happen.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aob::compile::{Format, Options, compile};
use aob::engine::command::Start;
use aob::engine::{Dispatch, Input, Outcome, Run, Timer, Work, advance};
use aob::ir::{Backoff, Executor, Ir, Kind, Node, OnError, Policy, Retry, Scope, Template};
use aob::model::{Event, Failure, Mode, Partition, Place, Priority, RunId, Value};
use aob::time::Timestamp;
use serde_json::Value as Json;

use crate::{folder, read, row};

/// When all runs start.
const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// How long an answer takes.
const ANSWER: Duration = Duration::from_millis(10);
/// Events of one run; more than any example has.
const EVENTS_MAX: usize = 20_000;

/// All workflows under `examples/`, with their names.
fn examples() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && (file == "work" || file == "agents") {
                // These call services or models, and are run against some (tests/node/examples.rs).
            } else if path.is_dir() {
                folders.push(path);
            } else if file.ends_with(".yaml") || (file.ends_with(".json") && !file.ends_with(".inputs.json"))
            {
                let name = path.strip_prefix(&root).unwrap().with_extension("");
                found.push((name.to_string_lossy().replace('/', "-"), path));
            }
        }
    }
    found.sort();
    found
}

fn value(json: &Json) -> Value {
    Value::from_json(json.to_string().as_bytes()).unwrap()
}

/// The script of an example, empty when it has none.
fn script(name: &str) -> Json {
    let path = folder().join("timelines").join(format!("{name}.script.json"));
    if path.exists() { serde_json::from_str(&read(&path)).unwrap() } else { Json::Null }
}

/// What a run is given when a script says nothing.
fn inputs(script: &Json, path: &Path) -> Value {
    let beside = path.with_extension("inputs.json");
    match script.get("inputs") {
        Some(inputs) => value(inputs),
        None if beside.exists() => Value::from_json(read(&beside).as_bytes()).unwrap(),
        None => Value::map::<&str>([]),
    }
}

struct Play {
    run: Run,
    now: Timestamp,
    history: Vec<Event>,
    dispatched: VecDeque<Dispatch>,
    answers: BTreeMap<String, VecDeque<Json>>,
    signals: VecDeque<Json>,
}

impl Play {
    fn give(&mut self, input: Input<'_>) {
        let mut input = Some(input);
        while input.is_some() || self.run.is_ready() {
            let mut out = Outcome::default();
            advance(&mut self.run, input.take().unwrap_or(Input::Continue), self.now, 512, &mut out).unwrap();
            self.dispatched.extend(out.effects.dispatches.drain(..));
            for body in out.events {
                let seq = self.history.len() as u64 + 1;
                self.history.push(Event { seq, at: self.now, body });
            }
        }
    }

    /// One thing that happens next; none when nothing is left to.
    fn happen(&mut self) -> bool {
        let due = self.run.timers().min();
        if let Some((dispatch, result)) = self.answer() {
            let after = self.now.saturating_add(ANSWER);
            // What is due before the answer comes first.
            if let Some((due, timer)) = due.filter(|(due, _)| *due < after) {
                self.dispatched.push_front(dispatch);
                return self.fire(due, &timer);
            }
            self.now = after;
            let (place, seq) = (&dispatch.place, dispatch.seq);
            self.give(Input::Settle { place, seq, result: &result });
            self.used(place);
            return true;
        }
        let waits = |signal: &Json| {
            let what = format!("signal {}", signal["name"].as_str().unwrap());
            let nodes = self.run.graph().nodes;
            let wanted = |waits: String| waits == what || waits.starts_with(&format!("{what} "));
            nodes.into_iter().any(|node| node.waiting_for.is_some_and(wanted))
        };
        if self.signals.front().is_some_and(waits) {
            let signal = self.signals.pop_front().unwrap();
            self.now = self.now.saturating_add(ANSWER);
            let payload = value(&signal["payload"]);
            self.give(Input::Signal { name: signal["name"].as_str().unwrap(), payload: &payload, key: None });
            return true;
        }
        due.is_some_and(|(due, timer)| self.fire(due, &timer))
    }

    fn fire(&mut self, due: Timestamp, timer: &Timer) -> bool {
        self.now = self.now.max(due);
        self.give(Input::Timer(timer));
        true
    }

    /// The next attempt that has an answer.
    fn answer(&mut self) -> Option<(Dispatch, Result<Value, Failure>)> {
        while let Some(dispatch) = self.dispatched.pop_front() {
            let path = self.run.ir().path(&dispatch.place);
            let id = path.rsplit('.').next().unwrap_or_default().to_owned();
            let known = if self.answers.contains_key(&path) { path } else { id };
            let answer = self.answers.get(&known).and_then(|answers| answers.front());
            match answer {
                Some(Json::Null) => {
                    self.answers.get_mut(&known).unwrap().pop_front();
                }
                Some(answer) => {
                    let result = match answer.get("error") {
                        Some(error) => Err(failure(error)),
                        None => Ok(value(&answer["output"])),
                    };
                    return Some((dispatch, result));
                }
                None => {
                    let asked = match &dispatch.work {
                        Work::Call { request, .. } => request.clone(),
                        Work::Child { inputs, .. } => inputs.clone(),
                        Work::Agent(ask) => ask.request.clone(),
                    };
                    return Some((dispatch, Ok(asked)));
                }
            }
        }
        None
    }

    /// The answer that was given is used up.
    fn used(&mut self, place: &Place) {
        let path = self.run.ir().path(place);
        let id = path.rsplit('.').next().unwrap_or_default().to_owned();
        let known = if self.answers.contains_key(&path) { path } else { id };
        if let Some(answers) = self.answers.get_mut(&known) {
            answers.pop_front();
        }
    }
}

fn failure(error: &Json) -> Failure {
    let text = |name: &str| error[name].as_str().unwrap_or("it failed");
    let details = error.get("details").map_or(Value::Null, value);
    Failure { details, ..Failure::classed(text("code"), text("message")) }
}

/// Runs an example to its end, or until nothing can happen any more.
fn play(name: &str, path: &Path) -> (Run, Vec<Event>) {
    let text = read(path);
    let options = Options { file: Some(name.into()), name: Some(name.into()), ..Options::default() };
    let format = Format::detect(text.as_bytes());
    let named = compile(text.as_bytes(), format, &options);
    let compiled = named.or_else(|_| compile(text.as_bytes(), format, &Options { name: None, ..options }));
    let compiled = compiled.unwrap_or_else(|found| panic!("{name}: {found:?}"));
    assert!(compiled.unavailable.is_empty(), "{name}: {:?}", compiled.unavailable);
    let script = script(name);
    let inputs = inputs(&script, path);
    compiled.inputs.check(&inputs).unwrap_or_else(|found| panic!("{name}: its inputs: {found:?}"));
    run(name, compiled.ir, inputs, &script)
}

/// Runs a compiled document, as its script says.
fn run(name: &str, ir: Arc<Ir>, inputs: Value, script: &Json) -> (Run, Vec<Event>) {
    let run_id = RunId::new(START, Partition::new(7), [7; 10]);
    let start = Start {
        run_id,
        ir,
        inputs,
        seed: 42,
        idempotency: None,
        deadline: None,
        parent: None,
        run_key: None,
        mode: None,
        layered: None,
    };
    let event = Event { seq: 1, at: START, body: Run::begin(&start, START, 1) };
    let run = Run::from_started(run_id, start.ir, &event).unwrap();
    let answers = script["answers"].as_object().into_iter().flatten();
    let answers = answers.map(|(path, answers)| (path.clone(), list(answers)));
    let mut play = Play {
        run,
        now: START,
        history: vec![event],
        dispatched: VecDeque::new(),
        answers: answers.collect(),
        signals: list(&script["signals"]),
    };
    play.give(Input::Continue);
    while !play.run.status().is_terminal() && play.history.len() < EVENTS_MAX && play.happen() {}
    if let (Some(reason), false) = (script["cancel"].as_str(), play.run.status().is_terminal()) {
        play.give(Input::Cancel { reason });
    }
    assert!(play.answers.values().all(VecDeque::is_empty), "{name}: never asked for: {:?}", play.answers);
    assert!(play.signals.is_empty(), "{name}: nobody waited for {:?}", play.signals);
    (play.run, play.history)
}

fn list(json: &Json) -> VecDeque<Json> {
    json.as_array().into_iter().flatten().cloned().collect()
}

#[test]
fn every_example_has_its_golden_timeline() {
    // F288
    let bless = std::env::var_os("AOB_GOLDEN_BLESS").is_some();
    let timelines = folder().join("timelines");
    let mut names = Vec::new();
    let mut stale = Vec::new();
    for (name, path) in examples() {
        let (run, history) = play(&name, &path);
        let status = run.status();
        assert!(status.is_terminal(), "{name} is stuck: {:?}", run.graph().nodes);
        let rows: Vec<String> = history.iter().map(|event| row(&run, event)).collect();
        let text = format!("[\n{}\n]\n", rows.join(",\n"));
        let golden = timelines.join(format!("{name}.json"));
        if bless {
            std::fs::write(&golden, &text).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            stale.push(format!("{name} ({}, {} events)", status.as_str(), rows.len()));
        }
        names.push(name);
    }
    assert!(
        stale.is_empty(),
        "not as their golden timelines say: {stale:?}; AOB_GOLDEN_BLESS=1 rewrites them"
    );
    for entry in std::fs::read_dir(timelines).unwrap() {
        let file = entry.unwrap().file_name().to_string_lossy().into_owned();
        let of = file.trim_end_matches(".json").trim_end_matches(".script");
        assert!(names.iter().any(|name| name == of), "{file} is of no example");
    }
}

/// One task that is called up to three times, two seconds apart.
fn one_task() -> Arc<Ir> {
    let request = Template::Value(Value::string("work"));
    let seconds = Duration::from_secs;
    let retry = Retry {
        max_attempts: 3,
        backoff: Backoff::Fixed,
        initial: seconds(2),
        max: seconds(2),
        multiplier: 2.0,
        jitter: false,
    };
    let node = Node {
        id: "fetch".into(),
        kind: Kind::Call { executor: Executor::Task, request },
        input: None,
        policy: Policy::All,
        on_error: OnError::Fail,
        retry: Some(retry),
        timeout: Some(seconds(5)),
        output_schema: None,
        fallback: None,
        at_most_once: false,
        priority: Priority::Medium,
        outputs: Vec::new(),
        incoming: Vec::new(),
        outgoing: Vec::new(),
    };
    Arc::new(Ir {
        name: "one-task".into(),
        version: "1".into(),
        document: [1; 32],
        scopes: vec![Scope { nodes: vec![node], ..Scope::default() }],
        mode: Mode::Full,
        retention: None,
        deadline: None,
        admission: None,
        budget: None,
        outputs: Vec::new(),
    })
}

#[test]
fn a_script_answers_attempts_in_turn() {
    let script = r#"{"answers": {"fetch": [{"error": {"code": "connection_reset"}}, null, {"output": 7}]}}"#;
    let script: Json = serde_json::from_str(script).unwrap();
    let (ended, history) = run("one-task", one_task(), Value::Null, &script);
    let told: Vec<&str> = history.iter().map(|event| event.body.type_name()).collect();
    let attempt = ["node.started", "node.waiting"];
    let mut wanted = vec!["run.started"];
    wanted.extend(attempt);
    wanted.extend(["node.retry_scheduled", "timer.fired"]);
    wanted.extend(attempt);
    wanted.extend(["timer.fired", "node.retry_scheduled", "timer.fired"]);
    wanted.extend(attempt);
    wanted.extend(["node.completed", "run.completed"]);
    assert_eq!(told, wanted);
    // An answer, a delay, a timeout, a delay, an answer.
    assert_eq!(
        START.until(history.last().unwrap().at),
        Duration::from_millis(10 + 2_000 + 5_000 + 2_000 + 10)
    );
    let (echoed, _) = run("one-task", one_task(), Value::Null, &Json::Null);
    assert_eq!(echoed.view().outputs, Value::from_json(br#"{"fetch": "work"}"#).ok());
    assert_eq!(ended.view().outputs, Value::from_json(br#"{"fetch": 7}"#).ok());
}
