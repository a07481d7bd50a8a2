//! SIGHUP: the sources are read again, and what changed is told apart from what cannot change while the node runs.

use super::{Effective, Error, Sources, load};
use crate::runtime;

/// Keys that take effect without a restart. A path may change, but not appear or go: what is decided by its being there
/// (does the listener speak TLS, do requests need a token) is decided once.
pub const RELOADABLE: [&str; 6] =
    ["auth.tokens_file", "budgets", "log.level", "policy.gates", "tls.certificate", "tls.key"];

/// What reads the sources again.
#[derive(Debug)]
pub struct Reload {
    sources: Sources,
    /// As of the start.
    effective: Effective,
}

impl Reload {
    /// For a node that was started with these.
    pub fn new(sources: Sources, effective: Effective) -> Self {
        Self { sources, effective }
    }

    /// Reads everything again: the configuration as it is now, and the keys that a restart would change.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn read(&self) -> Result<runtime::Fresh, Error> {
        let (config, effective) = load(&self.sources)?;
        Ok(runtime::Fresh { config, stale: self.effective.stale(&effective) })
    }
}

impl Effective {
    /// Keys that differ and need a restart.
    fn stale(&self, now: &Self) -> Vec<String> {
        let empty = |value: &toml::Value| value.as_str() == Some("");
        let differs = |(key, (before, _)): (&String, &(toml::Value, String))| {
            let after = now.value(key)?;
            let fixed = !RELOADABLE.contains(&key.as_str()) || empty(before) != empty(after);
            (before != after && fixed).then(|| key.clone())
        };
        self.values.iter().filter_map(differs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F324, F432
    #[test]
    fn rules_are_read_again_from_every_source() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aob.toml");
        std::fs::write(&file, "").unwrap();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let (config, effective) = load(&sources).unwrap();
        assert!(config.policy.is_empty());
        let reload = Reload::new(sources.clone(), effective);
        let rules = "[[policy.gates]]\ntag = \"money\"\nreviewers = [\"cfo\"]\n\n[[policy.gates]]\n\
                     confidence_below = 0.7\nreviewers = [\"expert\"]\ntimeout = \"1h\"\nworkflows = [\"pay*\"]\n";
        std::fs::write(&file, rules).unwrap();
        let fresh = reload.read().unwrap();
        assert!(fresh.stale.is_empty() && !fresh.config.policy.of("pay").is_empty());
        assert_ne!(fresh.config.policy.of("pay"), fresh.config.policy.of("other"));
        let text = "[{tag = \"money\", reviewers = [\"cfo\"]}]";
        let set = vec![("policy.gates".to_owned(), text.to_owned())];
        let (config, _) = load(&Sources { set, ..sources }).unwrap();
        assert_eq!(config.policy.of("other"), fresh.config.policy.of("other"));
        std::fs::write(&file, "[[policy.gates]]\ntag = \"money\"\nreviewer = [\"cfo\"]\n").unwrap();
        let problem = reload.read().unwrap_err().to_string();
        assert!(problem.contains("policy.gates") && problem.contains("did you mean"), "{problem}");
    }

    // F384, F404
    #[test]
    fn budgets_are_read_from_every_source_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aob.toml");
        std::fs::write(&file, "[[budgets]]\nscope = \"workspace:acme\"\nper = \"hour\"\nusd = \"5.00\"\n")
            .unwrap();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let (config, effective) = load(&sources).unwrap();
        assert_eq!(
            (config.budgets.len(), config.budgets[0].scope.to_string().as_str()),
            (1, "workspace:acme")
        );
        let reload = Reload::new(sources.clone(), effective);
        std::fs::write(&file, "budgets = [{scope = \"node\", usd = 2.5, warn_at = 0.5}]\n").unwrap();
        let fresh = reload.read().unwrap();
        assert!(fresh.stale.is_empty() && fresh.config.budgets[0].warn_at_permille == 500);
        let set =
            vec![("budgets".to_owned(), "[{scope = \"node\", usd = \"2.5\", warn_at = 0.5}]".to_owned())];
        assert_eq!(load(&Sources { set, ..Sources::default() }).unwrap().0.budgets, fresh.config.budgets);
        for (text, said) in [
            ("[{scope = \"team:a\", usd = \"1\"}]", "budget 1: scope = \"team:a\""),
            ("[{scope = \"node\"}]", "budget 1: it limits nothing"),
            ("some", "a list is expected, as in [{scope"),
        ] {
            let set = vec![("budgets".to_owned(), text.to_owned())];
            let problem = load(&Sources { set, ..Sources::default() }).unwrap_err().to_string();
            assert!(problem.starts_with("budgets = ") && problem.contains(said), "{problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    // F432
    #[test]
    fn what_needs_a_restart_is_named_and_what_does_not_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aob.toml");
        std::fs::write(&file, "[auth]\ntokens_file = \"a\"\n").unwrap();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let (_, effective) = load(&sources).unwrap();
        let reload = Reload::new(sources, effective);
        assert!(reload.read().unwrap().stale.is_empty());
        let now =
            "retention = \"1h\"\n[auth]\ntokens_file = \"b\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        std::fs::write(&file, now).unwrap();
        assert_eq!(reload.read().unwrap().stale, ["retention", "tls.certificate", "tls.key"]);
        std::fs::write(&file, "[auth").unwrap();
        assert!(reload.read().is_err());
    }
}
