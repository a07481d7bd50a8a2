//! What a run may spend.

use serde::{Deserialize, Serialize};

use super::money::Usd;

/// `limits.budget` of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Dollars in all.
    pub usd: Option<Usd>,
    /// Tokens in all, both ways.
    pub tokens: Option<u64>,
    /// The part, in thousandths, at which the run says that it is nearly used up.
    pub warn_at_permille: u32,
    /// What happens to an agent whose next turn could cost more than is left.
    pub on_breach: OnBreach,
    /// Models without a price may be asked although dollars are limited; they count as nothing.
    pub allow_unpriced: bool,
}

/// `on_breach` of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBreach {
    /// The agent fails with `budget_exceeded`.
    Stop,
    /// The run is paused until somebody gives it more, or resumes it.
    Pause,
    /// The next model on the agent's ladder is asked; without one it is as `Stop`.
    Degrade,
}
