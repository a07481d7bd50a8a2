//! Journals of the first format, folded and continued by the engine of today (`journal-v1/README.md`).

use std::path::PathBuf;
use std::sync::Arc;

use aob::compile::compile_canonical;
use aob::engine::{Input, Outcome, Run, Timer, advance, apply};
use aob::ir::Ir;
use aob::model::{Event, Place, RunId, Value};
use aob::store::record::{self, Bursts};
use aob::time::Timestamp;
use serde_json::Value as Json;

use crate::{folder, lines, read, row, shown};

/// One run as it was written down.
struct Golden {
    name: String,
    folder: PathBuf,
    ir: Arc<Ir>,
    run_id: RunId,
    history: Vec<Event>,
    steps: Vec<Step>,
}

/// What the run was given.
struct Step {
    at: Timestamp,
    give: Json,
    /// How many events came of it.
    events: usize,
    stale: bool,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn golden() -> Vec<Golden> {
    let mut folders: Vec<_> =
        std::fs::read_dir(folder().join("journal-v1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert_eq!(folders.len(), 18, "journals are never taken away");
    folders.into_iter().map(load).collect()
}

fn load(folder: PathBuf) -> Golden {
    let compiled = compile_canonical(read(&folder.join("document.json")).trim_end().as_bytes())
        .unwrap_or_else(|found| panic!("{}: {found:?}", folder.display()));
    assert!(compiled.unavailable.is_empty());
    let payload: Vec<u8> = read(&folder.join("bursts.hex")).lines().flat_map(bytes).collect();
    let mut history = Vec::new();
    let mut run_id = None;
    let mut again = Vec::new();
    for burst in Bursts::new(&payload).unwrap() {
        let burst = burst.unwrap();
        run_id = Some(burst.head.run_id);
        let events: Vec<Event> = burst.events().map(Result::unwrap).collect();
        record::append(&mut again, burst.head, events.iter().map(|event| &event.body)).unwrap();
        history.extend(events);
    }
    assert!(again == payload, "{}: written again, the bytes are others", folder.display());
    let steps = lines(&folder.join("steps.ndjson")).into_iter().map(|step| Step {
        at: Timestamp::from_micros(step["at"].as_u64().unwrap()),
        give: step["give"].clone(),
        events: usize::try_from(step["events"].as_u64().unwrap()).unwrap(),
        stale: step["stale"] == true,
    });
    Golden {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        ir: compiled.ir,
        run_id: run_id.unwrap(),
        history,
        steps: steps.collect(),
        folder,
    }
}

impl Golden {
    /// The fold of the first `cut` events.
    fn folded(&self, cut: usize) -> Run {
        let mut run = Run::from_started(self.run_id, self.ir.clone(), &self.history[0]).unwrap();
        for event in &self.history[1..cut] {
            apply(&mut run, &event.body, event.at)
                .unwrap_or_else(|error| panic!("{} event {}: {error}", self.name, event.seq));
        }
        run
    }

    /// Goes on after the first `cut` events with what the run was given then; gives its history too.
    ///
    /// The engine of today may do what is ready in another order than the one of then, and cut its slices elsewhere.
    fn continued(&self, cut: usize) -> (Run, Vec<Event>) {
        let mut run = self.folded(cut);
        let mut history = self.history[..cut].to_vec();
        let mut end = 0;
        for step in &self.steps {
            let begin = end;
            end += step.events;
            if end <= cut && (step.events > 0 || begin < cut) {
                continue;
            }
            let (mut place, mut payload) = (None, Value::Null);
            let give = if begin < cut { &Json::from("continue") } else { &step.give };
            let mut input = Some(given(give, &mut place, &mut payload));
            while input.is_some() || run.is_ready() {
                let mut out = Outcome::default();
                let first = input.is_some();
                advance(&mut run, input.take().unwrap_or(Input::Continue), step.at, 512, &mut out).unwrap();
                assert_eq!(out.stale, first && step.stale && begin >= cut, "{} cut at {cut}", self.name);
                for body in out.events {
                    history.push(Event { seq: history.len() as u64 + 1, at: step.at, body });
                }
            }
        }
        (run, history)
    }
}

/// What happened, whenever and in whatever order.
fn happened(run: &Run, history: &[Event]) -> Vec<String> {
    let rows =
        history.iter().map(|event| row(run, &Event { seq: 0, at: Timestamp::default(), ..event.clone() }));
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}

fn given<'a>(step: &'a Json, timer: &'a mut Option<Timer>, payload: &'a mut Value) -> Input<'a> {
    if let Some(place) = step.get("timer") {
        let place: Place = serde_json::from_value(place.clone()).unwrap();
        return Input::Timer(timer.insert(Timer::Node(place)));
    }
    if let Some(name) = step.get("signal") {
        *payload = Value::from_json(step["payload"].to_string().as_bytes()).unwrap();
        return Input::Signal { name: name.as_str().unwrap(), payload, key: None };
    }
    if let Some(reason) = step.get("cancel") {
        return Input::Cancel { reason: reason.as_str().unwrap() };
    }
    match step.as_str().unwrap() {
        "deadline" => Input::Timer(timer.insert(Timer::Deadline)),
        "start" | "continue" => Input::Continue,
        other => panic!("{other}"),
    }
}

/// All cuts of a short history; of a long one some sixty, its last among them.
fn cuts(events: usize) -> impl Iterator<Item = usize> {
    (1..events).step_by(events.div_ceil(60)).chain([events])
}

#[test]
fn old_journals_fold_to_the_same_timeline_and_the_same_end() {
    // I-17
    for golden in golden() {
        let run = golden.folded(golden.history.len());
        let rows: Vec<String> = golden.history.iter().map(|event| row(&run, event)).collect();
        let timeline = read(&golden.folder.join("timeline.ndjson"));
        for (ours, theirs) in rows.iter().zip(timeline.lines()) {
            assert_eq!(ours, theirs, "{}", golden.name);
        }
        assert_eq!(rows.len(), timeline.lines().count(), "{}", golden.name);
        let mut end: Json = serde_json::from_str(&read(&golden.folder.join("end.json"))).unwrap();
        // What the engine keeps hot is its own affair.
        end.as_object_mut().unwrap().remove("value_bytes");
        assert_eq!(shown(&run), end, "{}", golden.name);
    }
}

#[test]
fn an_old_journal_goes_on_from_any_cut_to_the_same_end() {
    // I-17
    for golden in golden() {
        let whole = golden.folded(golden.history.len());
        let (end, all) = (shown(&whole), happened(&whole, &golden.history));
        for cut in cuts(golden.history.len()) {
            let (run, history) = golden.continued(cut);
            assert_eq!(happened(&run, &history), all, "{} cut at {cut}", golden.name);
            let mut shown = shown(&run);
            // Slices that are cut elsewhere end some microseconds earlier or later.
            shown["run"]["ended_at"] = end["run"]["ended_at"].clone();
            assert_eq!(shown, end, "{} cut at {cut}", golden.name);
        }
    }
}
