//! What a run may spend, and what it is told of budgets that it shares with others.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Failure;
use super::agent::Quote;
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

impl OnBreach {
    /// Its name in documents and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Degrade => "degrade",
        }
    }
}

/// A budget wider than a run, as it stood when a run was told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wider {
    /// For what, as in the configuration: `node`, `workspace:acme`, ...
    pub scope: Arc<str>,
    /// Over which time: `hour`, `day`, `total`.
    pub per: Arc<str>,
    /// Dollars that were left, of how many.
    pub usd: Option<(Usd, Usd)>,
    /// Tokens that were left, of how many.
    pub tokens: Option<(u64, u64)>,
    /// What it wants of an agent whose next call could cost more than is left.
    pub on_breach: OnBreach,
}

/// A wider budget refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// The most that the call may take.
    pub quote: Quote,
    /// Which budget.
    pub by: Wider,
}

impl Over {
    /// As the agent is told.
    pub fn failure(&self) -> Failure {
        let Self { quote: Quote { model, cost, tokens }, by: Wider { scope, per, .. } } = self;
        let key = |key: &str| format!("{key} in [[budgets]] with scope = \"{scope}\", per = \"{per}\"");
        match (self.by.usd, cost, self.by.tokens) {
            (Some((left, of)), Some(cost), _) if *cost > left => {
                let message = format!(
                    "the next call of {model} may cost ${cost}, and ${left} of ${of} are left to {scope} ({})",
                    key("usd")
                );
                Failure::fatal("budget_exceeded", message)
            }
            (_, _, Some((left, of))) if *tokens > left => {
                let message = format!(
                    "the next call of {model} may take {tokens} tokens, and {left} of {of} are left to {scope} ({})",
                    key("tokens")
                );
                Failure::fatal("budget_exceeded", message)
            }
            _ => {
                let message = format!(
                    "the model {model} has no price, and the budget of {scope} limits dollars; give it one \
                     (models.names.{model}.price), or set {}",
                    key("allow_unpriced")
                );
                Failure::fatal("unpriced_model", message)
            }
        }
    }
}
