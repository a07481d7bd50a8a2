//! The patterns there are. Each is a template beside this file, and what may be set in it.

use super::parameter::{Kind, Parameter};
use crate::limits;

/// A pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) template: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// Ids of the nodes that it always has where its parameters name others.
    pub(super) taken: &'static [&'static str],
}

const fn parameter(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Parameter {
    Parameter { name, default, help, kind }
}

const fn task(default: &'static str) -> Parameter {
    parameter("task", Kind::Text, default, "what whoever does the work is told; may hold ${ }")
}

const FAIL_OR_CONTINUE: Kind = Kind::Word(&["fail", "continue"]);

/// All of them, the plain ones first.
pub(super) static PATTERNS: [Pattern; 8] = [
    Pattern {
        name: "sequential",
        summary: "steps in a row, each given what the one before it made",
        template: include_str!("sequential.yaml"),
        parameters: &[
            parameter(
                "steps",
                Kind::Nodes(2),
                "collect,process,store",
                "the steps in their order, and their queues",
            ),
            task("Do your step of this work"),
        ],
        taken: &[],
    },
    Pattern {
        name: "map-reduce",
        summary: "each item worked on by itself, then one step that sees all results",
        template: include_str!("map-reduce.yaml"),
        parameters: &[
            parameter("mapper", Kind::Id, "map", "queue of the work on an item"),
            parameter("reducer", Kind::Id, "reduce", "queue of the step that sees all results"),
            parameter("concurrency", Kind::Number(1, MAP_ITEMS), "8", "items worked on at once"),
            parameter("items", Kind::Number(1, MAP_ITEMS), "1000", "most items that a run takes"),
            parameter(
                "on_item_error",
                Kind::Word(&["fail", "collect", "skip"]),
                "fail",
                "an item that fails for good",
            ),
        ],
        taken: &[],
    },
    Pattern {
        name: "approval",
        summary: "work, a human's approval, then what follows from it",
        template: include_str!("approval.yaml"),
        parameters: &[
            parameter("work", Kind::Id, "draft", "queue of the work that is to be approved"),
            parameter("finalise", Kind::Id, "publish", "queue of what follows an approval"),
            task("Make a draft"),
            parameter("reviewers", Kind::Texts, "ops", "who is asked"),
            parameter("timeout", Kind::Duration, "24h", "how long they are waited for"),
            parameter(
                "on_timeout",
                Kind::Word(&["reject", "approve", "fail"]),
                "reject",
                "when nobody decided in time",
            ),
        ],
        taken: &[],
    },
    Pattern {
        name: "fallback",
        summary: "a first choice with retries, and a second one for when it fails for good",
        template: include_str!("fallback.yaml"),
        parameters: &[
            parameter("primary", Kind::Id, "primary", "queue of the first choice"),
            parameter("fallback", Kind::Id, "fallback", "queue of the second"),
            parameter(
                "retries",
                Kind::Number(0, limits::ATTEMPTS_MAX - 1),
                "2",
                "retries of the first choice",
            ),
            parameter("initial", Kind::Duration, "1s", "pause before the first retry; later ones double it"),
            task("Do this work"),
        ],
        taken: &[],
    },
    Pattern {
        name: "fan-out-in",
        summary: "several kinds of work side by side, then one step that sees all they made",
        template: include_str!("fan-out-in.yaml"),
        parameters: &[
            parameter("branches", Kind::Nodes(2), "news,prices,weather", "the branches, and their queues"),
            parameter("combine", Kind::Id, "combine", "queue of the last step"),
            parameter("on_error", FAIL_OR_CONTINUE, "fail", "a branch that fails for good"),
            task("Find out your part"),
        ],
        taken: &["gather", "combine"],
    },
    Pattern {
        name: "loop-until",
        summary: "work done again until whoever does it says that it is done",
        template: include_str!("loop-until.yaml"),
        parameters: &[
            parameter("work", Kind::Id, "improve", "queue of the work"),
            parameter("rounds", Kind::Number(1, limits::LOOP_ITERATIONS_MAX), "10", "most rounds"),
            parameter("on_exhausted", FAIL_OR_CONTINUE, "fail", "not done after the last of them"),
            task("Do a round, and say whether it is done"),
        ],
        taken: &[],
    },
    Pattern {
        name: "poll",
        summary: "a service asked again and again, with a pause between, until it says what is waited for",
        template: include_str!("poll.yaml"),
        parameters: &[
            parameter("field", Kind::Id, "status", "member of the answer that is looked at"),
            parameter("value", Kind::Text, "done", "what it is in the end"),
            parameter("interval", Kind::Duration, "30s", "pause between two questions"),
            parameter("rounds", Kind::Number(1, limits::LOOP_ITERATIONS_MAX), "120", "most questions"),
            parameter("timeout", Kind::Duration, "10s", "how long an answer is waited for"),
        ],
        taken: &[],
    },
    Pattern {
        name: "saga",
        summary: "steps that are undone, the last first, when a later one fails",
        template: include_str!("saga.yaml"),
        parameters: &[
            parameter(
                "steps",
                Kind::Nodes(2),
                "reserve,pay,ship",
                "the steps in their order, and their queues",
            ),
            parameter(
                "undo_retries",
                Kind::Number(0, limits::ATTEMPTS_MAX - 1),
                "9",
                "retries of an undoing",
            ),
            task("Do your step"),
        ],
        taken: &["committed"],
    },
];

const MAP_ITEMS: u32 = {
    assert!(limits::MAP_ITEMS_MAX <= 1 << 20, "it fits");
    limits::MAP_ITEMS_MAX as u32
};

/// The pattern of this name.
pub(super) fn find(name: &str) -> Option<&'static Pattern> {
    PATTERNS.iter().find(|pattern| pattern.name == name)
}
