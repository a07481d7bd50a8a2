//! Is there an order? Wing and Gong's search with memory, for one idempotency key.
//!
//! The object has two states: no request has been taken, or this one has. It never changes again, so only what is
//! concurrent with the first answer has to be searched; everything after it is judged by itself.

use std::collections::BTreeSet;

/// How a request under a key was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It started the run.
    Fresh,
    /// It had been started before.
    Replayed,
    /// The key stands for another request.
    Reused,
    /// Nobody knows.
    Unknown,
}

/// A request under a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Line of its beginning.
    pub(crate) begins: usize,
    /// Line of its end; none is known for one that was never answered.
    pub(crate) ends: usize,
    /// What was asked for: the same text, the same request.
    pub(crate) request: &'a str,
    /// The answer.
    pub(crate) answer: Answer,
}

/// Requests that are searched for an order at most; what is concurrent with the first answer beyond it is not searched.
const SEARCHED_MAX: usize = 24;
/// Places looked at in one search at most; beyond, an order is taken to exist.
const PLACES_MAX: usize = 20_000;

/// The request that was taken under the key, if one was.
type Taken<'a> = Option<&'a str>;

/// What the key stands for after the request, if it may be answered so.
fn takes<'a>(state: Taken<'a>, asked: &Asked<'a>) -> Option<Taken<'a>> {
    let fits = match (asked.answer, state) {
        (Answer::Fresh, None) | (Answer::Unknown, _) => true,
        (Answer::Fresh, Some(_)) | (Answer::Replayed | Answer::Reused, None) => false,
        (Answer::Replayed, Some(taken)) => taken == asked.request,
        (Answer::Reused, Some(taken)) => taken != asked.request,
    };
    fits.then(|| state.or(Some(asked.request)))
}

/// Looks for an order. `None`: there is one. `Some`: there is none; the lines that show it.
pub(crate) fn check(asked: &mut [Asked<'_>], step: &mut dyn FnMut()) -> Option<Vec<usize>> {
    asked.sort_by_key(|asked| asked.begins);
    let first_answer = asked.iter().map(|asked| asked.ends).min()?;
    let (early, late): (Vec<Asked<'_>>, Vec<Asked<'_>>) =
        asked.iter().partition(|asked| asked.begins < first_answer);
    if first_answer == usize::MAX {
        return None;
    }
    let early: Vec<Asked<'_>> = early.into_iter().take(SEARCHED_MAX).collect();
    let mut search = Search { asked: &early, seen: BTreeSet::new(), ends: BTreeSet::new(), step };
    search.from(0, None);
    if search.seen.len() >= PLACES_MAX {
        return None;
    }
    if search.ends.is_empty() {
        return Some(lines(&early));
    }
    let ends = search.ends;
    // What comes later finds the key taken, by a request that some order of the early ones allows.
    for asked in &late {
        step();
        if asked.answer != Answer::Unknown && !ends.iter().any(|state| takes(*state, asked).is_some()) {
            let answered =
                early.iter().filter(|early| early.ends != usize::MAX).min_by_key(|early| early.ends);
            return Some(lines(&answered.into_iter().chain([asked]).copied().collect::<Vec<_>>()));
        }
    }
    let agrees = |state: &Taken<'_>| {
        late.iter().all(|asked| asked.answer == Answer::Unknown || takes(*state, asked).is_some())
    };
    if ends.iter().any(agrees) {
        None
    } else {
        Some(lines(&early.iter().chain(&late).copied().collect::<Vec<_>>()))
    }
}

fn lines(asked: &[Asked<'_>]) -> Vec<usize> {
    let ends = asked.iter().filter(|asked| asked.ends != usize::MAX).map(|asked| asked.ends);
    asked.iter().map(|asked| asked.begins).chain(ends).collect()
}

struct Search<'a, 's> {
    asked: &'s [Asked<'a>],
    seen: BTreeSet<(u32, Taken<'a>)>,
    /// What the key may stand for once everything that was answered has its place.
    ends: BTreeSet<Taken<'a>>,
    step: &'s mut dyn FnMut(),
}

impl<'a> Search<'a, '_> {
    /// `placed`: a bit for each request that has its place already.
    fn from(&mut self, placed: u32, state: Taken<'a>) {
        if self.seen.len() >= PLACES_MAX || !self.seen.insert((placed, state)) {
            return;
        }
        (self.step)();
        let open = |index: &usize| placed & (1 << index) == 0;
        let all: Vec<usize> = (0..self.asked.len()).filter(open).collect();
        let answered = |index: &usize| self.asked.get(*index).is_some_and(|asked| asked.ends != usize::MAX);
        if !all.iter().any(answered) {
            self.ends.insert(state);
        }
        let until = all.iter().filter_map(|index| self.asked.get(*index)).map(|asked| asked.ends).min();
        for index in all {
            let Some(asked) = self.asked.get(index).copied() else { continue };
            // Only what began before the earliest open end may come first.
            if until.is_some_and(|until| asked.begins > until) {
                continue;
            }
            if let Some(next) = takes(state, &asked) {
                self.from(placed | (1 << index), next);
            }
        }
    }
}
