//! A budget and how it stands: for what, over which time, how much, and what is left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Refused, Whose};
use crate::model::Workspace;
use crate::model::agent::Quote;
use crate::model::budget::{OnBreach, Over, Wider};
use crate::model::money::Usd;

/// What a budget is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything here.
    Node,
    /// All runs of a workspace.
    Workspace(Arc<str>),
    /// All runs of a workflow, named as inside the node.
    Workflow(Arc<str>),
    /// All agents with a role.
    Agent(Arc<str>),
}

/// Over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Any sixty minutes.
    Hour,
    /// Any twenty-four hours.
    Day,
    /// As far as usage is kept.
    Total,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For what.
    pub scope: Scope,
    /// Over which time.
    pub per: Per,
    /// Dollars.
    pub usd: Option<Usd>,
    /// Tokens, both ways.
    pub tokens: Option<u64>,
    /// The part, in thousandths, at which it warns.
    pub warn_at_permille: u32,
    /// What becomes of an agent whose next call could cost more than is left.
    pub on_breach: OnBreach,
    /// Models without a price may be asked although dollars are limited; they count as nothing.
    pub allow_unpriced: bool,
}

impl Limit {
    pub(super) fn is(&self, wider: &Wider) -> bool {
        *wider.per == *self.per.as_str() && *wider.scope == *self.scope.to_string()
    }
}

/// How a budget stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The budget.
    pub limit: Limit,
    /// Dollars spent in its window.
    pub usd: Usd,
    /// Dollars reserved.
    pub reserved: Usd,
    /// Tokens taken in its window.
    pub tokens: u64,
    /// Tokens reserved.
    pub tokens_reserved: u64,
    /// It has warned in this window.
    pub warned: bool,
    /// How often it warned since the node started.
    pub warnings: u64,
    /// Calls that it refused since then.
    pub refusals: u64,
}

impl Standing {
    /// Dollars that are left.
    pub fn left(&self) -> Option<Usd> {
        Some(self.limit.usd?.less(self.usd.plus(self.reserved)))
    }

    /// Tokens that are left.
    pub fn tokens_left(&self) -> Option<u64> {
        Some(self.limit.tokens?.saturating_sub(self.tokens.saturating_add(self.tokens_reserved)))
    }

    /// As a run is told.
    pub(super) fn wider(&self) -> Wider {
        let Limit { scope, per, usd, tokens, on_breach, .. } = &self.limit;
        Wider {
            scope: scope.to_string().into(),
            per: per.as_str().into(),
            usd: self.left().zip(*usd),
            tokens: self.tokens_left().zip(*tokens),
            on_breach: *on_breach,
        }
    }

    pub(super) fn check(&self, quote: &Quote) -> Result<(), Refused> {
        let dollars = match (self.left(), quote.cost) {
            (Some(_), None) => !self.limit.allow_unpriced,
            (Some(left), Some(cost)) => cost > left,
            (None, _) => false,
        };
        if dollars || self.tokens_left().is_some_and(|left| quote.tokens > left) {
            return Err(Refused::Over(Box::new(Over { quote: quote.clone(), by: self.wider() })));
        }
        Ok(())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Workspace(name) => write!(f, "workspace:{name}"),
            Self::Workflow(name) => write!(f, "workflow:{name}"),
            Self::Agent(role) => write!(f, "agent:{role}"),
        }
    }
}

impl Scope {
    pub(super) fn holds(&self, whose: &Whose) -> bool {
        match self {
            Self::Node => true,
            Self::Workspace(name) => **name == *Workspace::of(&whose.workflow).name(),
            Self::Workflow(name) => *name == whose.workflow,
            Self::Agent(role) => whose.role.as_ref() == Some(role),
        }
    }

    /// Is it about nothing but this workspace?
    pub fn is_of(&self, workspace: &Workspace) -> bool {
        match self {
            Self::Workspace(name) => **name == *workspace.name(),
            Self::Workflow(name) => workspace.owns(name),
            Self::Node | Self::Agent(_) => false,
        }
    }
}

impl Per {
    /// Its name, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Total => "total",
        }
    }

    /// How long its window is; `None`: it has none.
    pub fn window(self) -> Option<Duration> {
        match self {
            Self::Hour => Some(Duration::from_secs(3_600)),
            Self::Day => Some(Duration::from_secs(86_400)),
            Self::Total => None,
        }
    }
}
