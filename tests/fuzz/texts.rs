//! Small languages: expressions, templates, names, streams.

use std::str::FromStr;
use std::sync::Arc;

use crate::compile::parse_duration;
use crate::exec::Leases;
use crate::expr::template::{self, Piece};
use crate::expr::{Budget, Env, Program};
use crate::model::{RunId, RunKey, Value, Workspace};
use crate::wire::sse;

/// Steps of an evaluation: enough to get everywhere, few enough to go on quickly.
const STEPS: u64 = 20_000;

/// Gives a different value for each name.
struct Assorted(Vec<Value>);

impl Env for Assorted {
    fn value(&self, index: usize) -> Value {
        self.0[index % self.0.len()].clone()
    }
}

fn assorted() -> Assorted {
    let list = Value::List(Arc::from([Value::Int(3), Value::Int(-1), Value::Null]));
    let map = Value::map([("a", list.clone()), ("output", Value::Int(7)), ("b", Value::from("text"))]);
    Assorted(vec![map, list, Value::Int(i64::MAX), Value::from("2026-11-21T08:00:00Z"), Value::Bool(true)])
}

/// One expression over assorted values: the same answer twice, within its budget.
pub(super) fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(program) = Program::compile(text) else { return };
    assert_eq!(program.source(), text);
    let env = assorted();
    let evaluate = || {
        let mut budget = Budget { steps: STEPS };
        let result = program.evaluate(&env, &mut budget).map_err(|error| error.to_string());
        assert!(budget.steps <= STEPS);
        (result.map(|value| value.to_json()), budget.steps)
    };
    assert_eq!(evaluate(), evaluate());
}

/// A text with holes: its pieces are pieces of it, in order.
pub(super) fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(pieces) = template::split(text) else { return };
    let mut last = 0;
    for piece in pieces {
        let (Piece::Text(part) | Piece::Secret(part) | Piece::Expression { source: part, .. }) = piece;
        let at = part.as_ptr().addr().checked_sub(text.as_ptr().addr()).unwrap();
        assert!(at >= last && at + part.len() <= text.len(), "{piece:?} in {text:?}");
        if let Piece::Expression { source, offset } = piece {
            assert_eq!(text.get(offset..offset + source.len()), Some(source));
            let _ = Program::compile(source);
        }
        last = at + part.len();
    }
}

/// Ids, cursors, keys, durations, leases: what is read is what is shown.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(run_id) = RunId::from_str(text) {
        assert!(run_id.to_string().eq_ignore_ascii_case(text), "{text:?} became {run_id}");
        assert_eq!(RunId::from_str(&run_id.to_string()), Ok(run_id));
        let _ = (run_id.partition(), run_id.created_millis());
    }
    if let Some((run_id, seq)) = sse::parse_event_id(text) {
        assert_eq!(sse::parse_event_id(&format!("{run_id}:{seq}")), Some((run_id, seq)));
    }
    let _ = parse_duration(text);
    if let Ok(key) = RunKey::new(&Arc::from(text)) {
        assert_eq!(&**key.as_str(), text);
    }
    if let Ok(workspace) = text.parse::<Workspace>() {
        let _ = workspace.qualified(text);
    }
    if let Some(ticket) = Leases::new([7; 32]).open(text) {
        panic!("a lease that nobody gave out was opened: {ticket:?}");
    }
    if let Ok(url) = url::Url::parse(text) {
        let _ = url.host();
    }
}

/// A stream of events, cut anywhere: the same events come of it.
pub(super) fn stream(bytes: &[u8]) {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut events) = (sse::Decoder::default(), Vec::new());
        let ended = pieces.iter().try_for_each(|piece| decoder.feed(piece, &mut events));
        (events, ended, decoder.retry_ms(), decoder.last_id().to_owned())
    };
    let (first, second) = rest.split_at(usize::from(cut).min(rest.len()));
    let whole = read(&[rest]);
    assert_eq!(whole, read(&[first, second]));
    for event in &whole.0 {
        let _ = sse::parse_event_id(&event.id);
    }
}
