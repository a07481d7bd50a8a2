//! What a run of a document waits for before anything of it starts: its keys are not evaluated yet.

use std::time::Duration;

use super::Template;

/// `limits.concurrency` and `limits.rate`; one of them at least.
#[derive(Clone, Debug)]
pub struct Admission {
    /// So many runs of a key at once.
    pub concurrency: Option<Limited>,
    /// So many runs of a key in a time.
    pub rate: Option<(Limited, Duration)>,
}

/// A key, and how many.
#[derive(Clone, Debug)]
pub struct Limited {
    /// May name the run's inputs and the run itself.
    pub key: Template,
    /// At most.
    pub max: u32,
}
