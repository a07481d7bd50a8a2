//! Which events of a stream a reader wants: about some nodes, of some kinds, from some level on.
//!
//! A filter looks at what a [`Frame`](super::frame::Frame) says of itself, never at its bytes. The last event of a run passes every
//! filter: whoever waits for the end hears of it.

/// How much an event matters to who only wants to hear of trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// How the node does its work: timers, leases, pieces of answers.
    #[default]
    Debug,
    /// What happened.
    Info,
    /// It goes on, but not as it was meant to.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// All of them, by name.
    pub const NAMES: [&str; 4] = ["debug", "info", "warn", "error"];

    /// Of events of this type.
    pub fn of(kind: &str) -> Self {
        let found = KINDS.binary_search_by(|(known, _)| (*known).cmp(kind));
        found.ok().and_then(|at| KINDS.get(at)).map_or(Self::Info, |(_, level)| *level)
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        [Self::Debug, Self::Info, Self::Warn, Self::Error].get(at).copied()
    }
}

/// All types of events that a stream may have, and how much each matters. In order.
pub const KINDS: [(&str, Level); 52] = [
    ("agent.corrected", Level::Warn),
    ("approval.decided", Level::Info),
    ("approval.escalated", Level::Warn),
    ("approval.expired", Level::Warn),
    ("budget.exceeded", Level::Error),
    ("budget.raised", Level::Info),
    ("budget.warned", Level::Warn),
    ("context.trimmed", Level::Debug),
    ("events.derived", Level::Debug),
    ("mode.changed", Level::Debug),
    ("model.answered", Level::Info),
    ("model.called", Level::Info),
    ("model.degraded", Level::Warn),
    ("model.recovered", Level::Info),
    ("node.completed", Level::Info),
    ("node.delta", Level::Debug),
    ("node.failed", Level::Error),
    ("node.fell_back", Level::Warn),
    ("node.leased", Level::Debug),
    ("node.lost", Level::Warn),
    ("node.progress", Level::Debug),
    ("node.redriven", Level::Info),
    ("node.retry_scheduled", Level::Warn),
    ("node.skipped", Level::Info),
    ("node.started", Level::Info),
    ("node.uncertain", Level::Warn),
    ("node.waiting", Level::Info),
    ("patch.applied", Level::Info),
    ("patch.created", Level::Info),
    ("patch.decided", Level::Info),
    ("patch.held", Level::Info),
    ("patch.rejected", Level::Warn),
    ("patch.revoked", Level::Warn),
    ("request.remembered", Level::Debug),
    ("run.admitted", Level::Info),
    ("run.cancel_requested", Level::Info),
    ("run.cancelled", Level::Warn),
    ("run.completed", Level::Info),
    ("run.failed", Level::Error),
    ("run.forked", Level::Info),
    ("run.keyed", Level::Debug),
    ("run.layered", Level::Debug),
    ("run.linked", Level::Debug),
    ("run.paused", Level::Info),
    ("run.resumed", Level::Info),
    ("run.started", Level::Info),
    ("run.waiting", Level::Info),
    ("signal.received", Level::Info),
    ("timer.fired", Level::Debug),
    ("timer.set", Level::Debug),
    ("tool.called", Level::Info),
    ("tool.returned", Level::Info),
];

/// See the module. The default one lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Paths; what is inside of such a node counts. None: all events, also those about no node.
    pub nodes: Vec<Box<str>>,
    /// Types, or their beginnings with a `*` at the end. None: all.
    pub kinds: Vec<Box<str>>,
    /// From this level on.
    pub level: Level,
}

impl Filter {
    /// Does an event of this type, about this node, pass?
    pub fn passes(&self, kind: &str, node: Option<&str>, ends_run: bool) -> bool {
        ends_run
            || ((self.level == Level::Debug || self.level <= Level::of(kind))
                && (self.kinds.is_empty() || self.kinds.iter().any(|wanted| is_kind(kind, wanted)))
                && (self.nodes.is_empty()
                    || node.is_some_and(|path| self.nodes.iter().any(|node| is_inside(path, node)))))
    }

    /// Is this a type of events, or the beginning of one with a `*`? What it is near to otherwise is for the caller to say.
    pub fn is_known_kind(kind: &str) -> bool {
        match kind.strip_suffix('*') {
            Some(beginning) => names().any(|name| name.starts_with(beginning)),
            None => names().any(|name| name == kind),
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(name, _)| name)
}

fn is_kind(kind: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => kind.starts_with(beginning),
        None => kind == wanted,
    }
}

/// Is the path this node's, or that of one inside it?
fn is_inside(path: &str, node: &str) -> bool {
    path.strip_prefix(node).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(nodes: &[&str], kinds: &[&str], level: &str) -> Filter {
        let boxed = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect();
        Filter { nodes: boxed(nodes), kinds: boxed(kinds), level: Level::named(level).unwrap() }
    }

    // F032
    #[test]
    fn what_is_inside_a_node_counts_and_the_end_always_passes() {
        let of_node = filter(&["each", "b.c"], &[], "debug");
        for (path, passes) in [
            (Some("each"), true),
            (Some("each[3].score"), true),
            (Some("each.x"), true),
            (Some("each_other"), false),
            (Some("b"), false),
            (Some("b.c[1]"), true),
            (None, false),
        ] {
            assert_eq!(of_node.passes("node.started", path, false), passes, "{path:?}");
        }
        assert!(of_node.passes("run.completed", None, true));
        assert!(Filter::default().passes("timer.set", None, false));
    }

    #[test]
    fn kinds_and_levels_are_both_asked_for() {
        let both = filter(&[], &["node.*", "run.paused"], "warn");
        for (kind, passes) in [
            ("node.failed", true),
            ("node.lost", true),
            ("node.started", false),
            ("budget.warned", false),
            ("run.paused", false),
        ] {
            assert_eq!(both.passes(kind, Some("n"), false), passes, "{kind}");
        }
        assert_eq!(Level::named("loud"), None);
        for (kind, known) in
            [("node.*", true), ("*", true), ("node.delta", true), ("node.faild", false), ("nodes.*", false)]
        {
            assert_eq!(Filter::is_known_kind(kind), known, "{kind}");
        }
    }

    #[test]
    fn every_type_of_event_is_in_the_table_in_order() {
        let source = include_str!("../model/event.rs");
        let named = source.lines().filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\","));
        let mut named: Vec<_> = named.chain(["node.delta"]).collect();
        named.sort_unstable();
        named.dedup();
        assert!(names().eq(named));
        assert!(KINDS.is_sorted());
    }
}
