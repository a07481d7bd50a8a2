//! Why a fold refuses an event: the history is damaged, of another document, or of another engine.

/// The event does not fit the run's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is not `run.started` with number 1.
    #[error("a history begins with run.started, number 1")]
    NotStarted,
    /// Written by an engine with another meaning.
    #[error("written under semantics {found}; this node knows {known}", known = crate::ir::SEMANTICS_VERSION)]
    Semantics {
        /// The event's.
        found: u32,
    },
    /// The IR is that of another document.
    #[error("the run executes another document")]
    Document,
    /// An event after the run's last.
    #[error("{event} after the run has ended")]
    Ended {
        /// Its type.
        event: &'static str,
    },
    /// The run is not where this event could have found it.
    #[error("{event}: {problem}")]
    Unfit {
        /// Its type.
        event: &'static str,
        /// What stands against it.
        problem: &'static str,
    },
    /// No node stands there, or it is not where this event could have found it.
    #[error("{event} at {place}: {problem}")]
    Misplaced {
        /// Its type.
        event: &'static str,
        /// Where.
        place: String,
        /// What stands against it.
        problem: &'static str,
    },
}

impl FoldError {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotStarted => "history_not_started",
            Self::Semantics { .. } => "history_semantics",
            Self::Document => "history_document",
            Self::Ended { .. } => "history_after_end",
            Self::Unfit { .. } | Self::Misplaced { .. } => "history_misfit",
        }
    }
}
