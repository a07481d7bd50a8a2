//! Which model suits a task: a table of rules, the first that fits counts (F401). Pure.

use crate::model::money::Usd;

/// How hard a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complexity {
    /// Looking something up, sorting, rewording.
    Simple,
    /// Some steps of thought.
    Medium,
    /// Anything more, and whatever nobody has judged.
    Complex,
}

impl Complexity {
    /// As it is written; any other word is [`Complexity::Complex`].
    pub fn of(text: &str) -> Self {
        match text {
            "simple" => Self::Simple,
            "medium" => Self::Medium,
            _ => Self::Complex,
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of tasks so hard.
    pub complexity: Complexity,
    /// Only when there is a budget, and it is less than this.
    pub budget_below: Option<Usd>,
    /// The model.
    pub model: String,
}

/// Rules, the first that fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestions(pub Vec<Rule>);

/// | complexity | budget | model |
/// | --- | --- | --- |
/// | simple | any | `gemini-2.0-flash-exp` |
/// | medium | under $0.01 | `gpt-3.5-turbo` |
/// | medium | any other | `gemini-1.5-pro` |
/// | complex | under $0.05 | `claude-3-sonnet` |
/// | complex | any other | `gpt-4` |
impl Default for Suggestions {
    fn default() -> Self {
        const CENT: u64 = 10_000_000;
        let below = |cents: u64| Some(Usd::from_nanos(cents * CENT));
        let rules = [
            (Complexity::Simple, None, "gemini-2.0-flash-exp"),
            (Complexity::Medium, below(1), "gpt-3.5-turbo"),
            (Complexity::Medium, None, "gemini-1.5-pro"),
            (Complexity::Complex, below(5), "claude-3-sonnet"),
            (Complexity::Complex, None, "gpt-4"),
        ];
        let rule = |(complexity, budget_below, model): (_, _, &str)| Rule {
            complexity,
            budget_below,
            model: model.into(),
        };
        Self(rules.into_iter().map(rule).collect())
    }
}

/// The model that these rules suggest; `None` when none fits. A budget of nothing is one, and a small one.
pub fn suggest_model(rules: &Suggestions, complexity: Complexity, budget: Option<Usd>) -> Option<&str> {
    let fits = |rule: &&Rule| {
        let within = match (rule.budget_below, budget) {
            (None, _) => true,
            (Some(below), Some(budget)) => budget < below,
            (Some(_), None) => false,
        };
        rule.complexity == complexity && within
    };
    rules.0.iter().find(fits).map(|rule| rule.model.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    // F401
    #[test]
    fn the_default_rules_are_the_seeds() {
        for (complexity, budget, model) in [
            ("simple", None, "gemini-2.0-flash-exp"),
            ("simple", Some("0.001"), "gemini-2.0-flash-exp"),
            ("medium", Some("0.009999999"), "gpt-3.5-turbo"),
            ("medium", Some("0.01"), "gemini-1.5-pro"),
            ("medium", None, "gemini-1.5-pro"),
            ("complex", Some("0.0499"), "claude-3-sonnet"),
            ("complex", Some("0.05"), "gpt-4"),
            ("complex", None, "gpt-4"),
            ("whatever", None, "gpt-4"),
        ] {
            let budget = budget.map(|text| text.parse().unwrap());
            let rules = Suggestions::default();
            assert_eq!(
                suggest_model(&rules, Complexity::of(complexity), budget),
                Some(model),
                "{complexity} {budget:?}"
            );
        }
        let own = Suggestions(vec![Rule {
            complexity: Complexity::Simple,
            budget_below: Some("1".parse().unwrap()),
            model: "small".into(),
        }]);
        assert_eq!(suggest_model(&own, Complexity::Simple, Some(Usd::ZERO)), Some("small"));
        assert_eq!(suggest_model(&own, Complexity::Simple, None), None);
        assert_eq!(suggest_model(&own, Complexity::Medium, Some(Usd::ZERO)), None);
    }
}
