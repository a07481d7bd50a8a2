//! Named places at which tests make the process die, fail or wait (RELIABILITY A2), and bugs that tests plant on purpose.
//!
//! Without the feature `failpoints`, which no release has, every function here is empty and every place is compiled out.
//! With it, `AOB_FAILPOINTS="journal::before_sync=kill@3"` (several with commas between) arms places: `kill` is SIGKILL
//! to the process itself (`kill(MILLISECONDS)` after the thread has stood still for so long), `panic` and `sleep(MILLISECONDS)` are what they say, `error` makes the place fail where it can.
//! `@N` is the pass at which it happens, the first one unless given; `%N` after `error` is a chance in percent of every
//! pass. `AOB_MUTANT=NAME` plants one of [`MUTANTS`]. What is misspelt ends the process: a test that tests nothing is worse
//! than none.

/// Every place, and what happens there. `tests/tidy` holds the code and `docs/testing.md` to it.
pub const FAILPOINTS: &[(&str, &str)] = &[
    ("admission::admitted", "a run that waited for a slot is about to be admitted"),
    ("admission::asked", "a run asks for a slot"),
    ("admission::given_up", "a run gives its slot up"),
    ("agent::answered", "a model has answered or failed, and its run has not heard"),
    ("agent::patched", "an agent's patch is made, and the agent has not heard"),
    ("agent::reserve", "what a call of a model may cost is about to be reserved"),
    ("agent::reserved", "that is reserved, and the model is about to be called"),
    ("agent::tool", "a tool is about to be called"),
    ("agent::tool_returned", "a tool has returned, and its run has not heard"),
    ("child::ended_told", "a parent is about to be told of the end of its child"),
    ("child::start", "a child run is about to be started"),
    ("child::started", "a child run was started"),
    ("drain::begin", "an orderly end begins"),
    ("drain::control_ended", "no connection is open any more"),
    ("drain::index_ended", "the index is written"),
    ("drain::shards_ended", "the journals are synced and closed"),
    ("errand::call", "an HTTP call is about to be made"),
    ("errand::call_answered", "an HTTP call was answered, and its run has not heard"),
    ("errand::job", "a job is about to be put into its queue"),
    ("fanout::deliver", "a fanout core has events of a watched run"),
    ("fanout::push", "events of a watched run are about to go to their streams"),
    ("history::after_expire", "a history file's runs are forgotten, the file is there"),
    ("history::after_files", "a segment's history files are there, and the index does not know them"),
    ("history::before_expire", "a history file's runs are about to be forgotten"),
    ("history::before_files", "a segment's history files are about to get their names"),
    ("history::moved", "a segment is in history, and its shard has not heard"),
    ("index::after_images", "images are in the index, and their shard has not heard"),
    ("index::after_put", "finished runs are in the index, and their shard has not heard"),
    ("index::before_images", "images of unfinished runs are about to go into the index"),
    ("index::before_put", "finished runs are about to go into the index"),
    ("journal::after_claim", "the journal has its new owner"),
    ("journal::after_publish", "a batch was acknowledged to its shard"),
    ("journal::after_roll", "the next segment takes frames"),
    ("journal::after_retire", "a segment's file has lost its name"),
    ("journal::after_sync", "a batch is synced, and nobody knows"),
    ("journal::after_write", "a batch is written and not synced"),
    ("journal::before_claim", "the journal is about to be claimed"),
    ("journal::before_publish", "a batch is durable, and its shard has not heard"),
    ("journal::before_retire", "a segment's file is about to lose its name"),
    ("journal::before_roll", "a segment is full"),
    ("journal::before_sync", "a batch is about to be synced"),
    ("journal::before_write", "a batch is about to be written"),
    ("journal::prepare", "a segment's file is about to be made"),
    ("journal::prepared", "a segment's file was made"),
    ("journal::roll_early", "a segment is taken to be full (with `error`)"),
    ("recovery::begin", "a shard is about to be read"),
    ("recovery::burst", "events are about to be folded"),
    ("recovery::folded", "a shard is folded"),
    ("recovery::rows", "runs that had ended are about to go into the index again"),
    ("recovery::serving", "a shard is about to serve"),
    ("registry::after_put", "a workflow is registered, and its client has not heard"),
    ("registry::before_put", "a workflow is about to be registered"),
    (
        "store::read",
        "a run that is over, a document or a content is about to be read for a client (with `error`)",
    ),
    ("shard::cancel", "a run is about to be steered: cancel, pause, resume, terminate"),
    ("shard::committed", "what a batch held back is about to be let go"),
    ("shard::decide", "a human's decision is about to be made"),
    ("shard::decided", "a human's decision is made and waits for the log"),
    ("shard::ended", "a run has ended, not yet durably"),
    ("shard::lease", "a worker is about to be given a job"),
    ("shard::lease_written", "the lease is in the open batch"),
    ("shard::lost", "a run is about to be told that its call was lost"),
    ("shard::outcome", "an outcome is about to be recorded"),
    ("shard::outcome_written", "the outcome is in the open batch"),
    ("shard::seal", "a batch is about to be closed"),
    ("shard::patch", "a change of a graph is about to be made"),
    ("shard::patched", "a change of a graph is made and waits for the log"),
    ("shard::signal", "a signal is about to be taken"),
    ("shard::start", "a run is about to be started"),
    ("shard::start_keyed", "a run with an idempotency key is about to be started"),
    ("shard::started", "a run was started, not yet durably"),
    ("shard::timer", "a timer is about to fire"),
    ("shard::turn", "a shard's loop goes round"),
    ("runner::errand", "an errand is about to leave its shard"),
    ("runner::errand_left", "an errand has left its shard"),
    ("runner::reply", "replies are about to leave their shard"),
    ("runner::reply_left", "replies have left their shard"),
    ("runner::rows", "finished runs are about to leave their shard for the index"),
    ("worker::job_handed_out", "a job is about to be sent to the worker that leased it"),
];

/// Bugs that can be planted, to see that the tests find them.
pub const MUTANTS: &[(&str, &str)] = &[
    ("call_before_reserved", "a model is called though nothing is reserved for the call yet"),
    ("acknowledge_before_sync", "the journal says that what is written is synced, before it is"),
    ("acknowledge_before_durable", "replies to requests that change something do not wait for their batch"),
    ("effect_before_durable", "calls, jobs and child runs do not wait for the events they follow from"),
    ("key_not_kept", "idempotency keys are forgotten at once"),
    ("never_sync", "the journal is never synced"),
    ("read_before_durable", "reads do not wait for the batch of what they show"),
    ("sync_again_after_failure", "the journal is synced again after a sync that failed, and believes it"),
    (
        "take_answer_of_old_attempt",
        "an answer is taken for the attempt under way, whichever attempt it is of",
    ),
];

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or none: for the simulator, whose nodes live in one thread each.
#[cfg(test)]
pub(crate) fn plant(mutant: Option<&'static str>) {
    assert!(mutant.is_none_or(|name| MUTANTS.iter().any(|(known, _)| *known == name)), "{mutant:?}");
    PLANTED.set(mutant);
}

/// Arms what the environment asks for; ends the process when it asks for something that is not there.
pub fn arm() {
    #[cfg(feature = "failpoints")]
    armed::arm();
}

/// Passes a place.
#[inline]
pub fn pass(name: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name);
    let _ = name;
}

/// Passes a place that can fail. Returns whether it does.
#[inline]
pub fn fails(name: &'static str) -> bool {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}

/// As [`fails`], for input and output.
///
/// # Errors
/// When the place is to fail.
#[inline]
pub fn io(name: &'static str) -> std::io::Result<()> {
    if fails(name) { Err(std::io::Error::other(format!("failpoint {name}"))) } else { Ok(()) }
}

/// Is this bug planted?
#[inline]
pub fn mutant(name: &'static str) -> bool {
    #[cfg(test)]
    if PLANTED.get() == Some(name) {
        return true;
    }
    #[cfg(feature = "failpoints")]
    return armed::mutant().is_some_and(|planted| planted == name);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        false
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    //! What stands behind the places when they are compiled in.

    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{FAILPOINTS, MUTANTS};

    static MUTANT: OnceLock<Option<String>> = OnceLock::new();

    pub(super) fn mutant() -> Option<&'static str> {
        MUTANT.get().and_then(|mutant| mutant.as_deref())
    }

    pub(super) fn arm() {
        let wanted = std::env::var("AOB_FAILPOINTS").unwrap_or_default();
        for one in wanted.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            if let Err(why) = place(one) {
                misspelt(&format!("AOB_FAILPOINTS: {one}: {why}"));
            }
        }
        let mutant = std::env::var("AOB_MUTANT").ok().filter(|name| !name.is_empty());
        if let Some(name) = &mutant
            && !MUTANTS.iter().any(|(known, _)| known == name)
        {
            misspelt(&format!("AOB_MUTANT: there is no {name}"));
        }
        let _ = MUTANT.set(mutant);
    }

    fn misspelt(what: &str) {
        anstream::eprintln!("aobd: {what}");
        std::process::exit(2);
    }

    fn place(one: &str) -> Result<(), String> {
        let (name, action) = one.split_once('=').ok_or("NAME=ACTION is expected")?;
        if !FAILPOINTS.iter().any(|(known, _)| *known == name) {
            return Err(String::from("there is no such place"));
        }
        let (action, pass) = match action.split_once('@') {
            Some((action, pass)) => (action, pass.parse().map_err(|_| "@N is a number")?),
            None => (action, 1_u64),
        };
        if let Some(after) = action.strip_prefix("kill") {
            let millis = after.trim_matches(['(', ')']);
            let millis = if millis.is_empty() { Ok(0) } else { millis.parse() };
            return kill_at(name.to_owned(), pass, millis.map_err(|_| "kill(MILLISECONDS) is expected")?);
        }
        let action = match action.strip_prefix("error") {
            Some(chance) if chance.starts_with('%') => return chanced(name, chance),
            Some(_) => "return",
            None => action,
        };
        let skipped = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
        fail::cfg(name, &format!("{skipped}1*{action}->off"))
    }

    fn chanced(name: &str, chance: &str) -> Result<(), String> {
        fail::cfg(name, &format!("{}%return", chance.trim_start_matches('%')))
    }

    #[expect(clippy::disallowed_methods, reason = "the thread is to stand still")]
    fn kill_at(name: String, pass: u64, millis: u64) -> Result<(), String> {
        let passes = AtomicU64::new(0);
        fail::cfg_callback(name.clone(), move || {
            if passes.fetch_add(1, Ordering::Relaxed) + 1 == pass {
                std::thread::sleep(std::time::Duration::from_millis(millis));
                anstream::eprintln!("failpoint {name}: kill");
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_and_named_once() {
        for table in [FAILPOINTS, MUTANTS] {
            let names: std::collections::BTreeSet<_> = table.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), table.len());
        }
        assert!(FAILPOINTS.len() >= 40);
    }

    #[test]
    #[cfg(not(feature = "failpoints"))]
    fn without_the_feature_nothing_ever_fails() {
        assert!(FAILPOINTS.iter().all(|(name, _)| !fails(name) && io(name).is_ok()));
        assert!(MUTANTS.iter().all(|(name, _)| !mutant(name)));
    }
}
