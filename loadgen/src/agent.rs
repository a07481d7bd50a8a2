//! Shape `agent`: the model that answers, and whether its own account fits the node's.
//!
//! The model is a stub within the generator, on a thread of its own, unless `--model-url` names one that runs already. A decision is
//! a whole answer in the *stub's* account; the node's counter of calls and its finished runs are compared with that, and when one of
//! them differs by more than 1 % nothing is reported. The workflow names a model of its own, so that no other one is asked, or paid.

use std::fmt::Write as _;
use std::net::SocketAddr;

use aob_stub_model::Stub;
use serde::Serialize;
use serde_json::Value;

use crate::control::{self, Node, Sample};
use crate::reconcile;
use crate::record::Percentiles;

/// What the node has to call the provider and the model, and what the provider calls the model.
pub(crate) const MODEL: &str = "loadgen";
/// Longest `--latency-ms`: a run that waited for it is still within what a sample waits for.
pub(crate) const LATENCY_MS_MAX: u64 = 5_000;

/// Which model answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Where the generator's own stub listens.
    pub(crate) listen: SocketAddr,
    /// One that runs already, with the value of its `host` header.
    pub(crate) other: Option<(SocketAddr, String)>,
    /// How long an answer is held back.
    pub(crate) latency_ms: u64,
}

/// Why the model does not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the stub of a model does not serve at {0} (--stub-listen): {1}")]
    Start(SocketAddr, aob_stub_model::Error),
    #[error("no account of the model: {0}")]
    Account(control::Error),
    #[error("the trial run: {cause}\nThe node has to know the model {MODEL:?}; start it with\n{settings}")]
    Trial { cause: Box<control::Error>, settings: String },
    #[error("what the node calls the model {MODEL:?} is not at {0}: the trial run was answered elsewhere")]
    Elsewhere(String),
}

/// A model that answers.
pub(crate) struct Model {
    /// Ends with this.
    _stub: Option<Stub>,
    account: Node,
    latency_ms: u64,
    /// Answers before the load.
    before: u64,
}

/// Answers over the whole load, and what we know of the one who gave them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answers {
    /// In the model's own account.
    pub(crate) given: u64,
    /// Calls that the node counted as succeeded.
    pub(crate) counted: u64,
    /// Each was held back so long.
    pub(crate) latency_ms: u64,
    pub(crate) url: String,
}

impl Model {
    /// Starts the stub, or finds the one that was named.
    pub(crate) async fn start(asked: &Asked) -> Result<Self, Error> {
        let (stub, address, host) = match &asked.other {
            Some((address, host)) => (None, *address, host.clone()),
            None => {
                let listen = asked.listen;
                let options = aob_stub_model::Options {
                    listen,
                    latency_ms: asked.latency_ms,
                    ..aob_stub_model::Options::default()
                };
                let stub = Stub::start(options).await.map_err(|error| Error::Start(listen, error))?;
                let address = stub.address;
                (Some(stub), address, address.to_string())
            }
        };
        let account = Node { address, host };
        let mut model = Self { _stub: stub, account, latency_ms: asked.latency_ms, before: 0 };
        model.before = model.answers().await?;
        Ok(model)
    }

    /// What the trial run came to; it must have been answered here.
    pub(crate) async fn tried(&mut self, trial: Result<Value, control::Error>) -> Result<Value, Error> {
        let settings = || self.settings();
        let trial = trial.map_err(|cause| Error::Trial { cause: cause.into(), settings: settings() })?;
        let answers = self.answers().await?;
        if answers == self.before {
            return Err(Error::Elsewhere(self.url()));
        }
        self.before = answers;
        Ok(trial)
    }

    /// Compares the load's answers with what the node counted from `before` to `after`.
    pub(crate) async fn reconcile(
        &self,
        (before, after): (&Sample, &Sample),
    ) -> Result<Answers, crate::run::Error> {
        let given = self.answers().await?.saturating_sub(self.before);
        let counted = after.decisions.saturating_sub(before.decisions);
        reconcile::answers(given, counted, after.finished.saturating_sub(before.finished))?;
        Ok(Answers { given, counted, latency_ms: self.latency_ms, url: self.url() })
    }

    /// Whole answers since the stub began, in its account.
    async fn answers(&self) -> Result<u64, Error> {
        let body = self.account.ok("GET", "/stats?keys=1", "", b"").await.map_err(Error::Account)?;
        let stats: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(stats.pointer(&format!("/by_model/{MODEL}/paid")).and_then(Value::as_u64).unwrap_or(0))
    }

    fn url(&self) -> String {
        format!("http://{}", self.account.host)
    }

    /// What a node has to be started with.
    fn settings(&self) -> String {
        let mut text = String::new();
        for (key, value) in [
            ("http.allow", self.account.address.to_string()),
            (
                "models.providers.loadgen",
                format!(r#"{{kind = "openai", base_url = "{}", max_in_flight = 256}}"#, self.url()),
            ),
            (
                "models.names.loadgen",
                format!(
                    r#"{{provider = "loadgen", model = "{MODEL}", context_tokens = 100000, max_output_tokens = 1000}}"#
                ),
            ),
        ] {
            let _ = writeln!(text, "  --set '{key}={value}'");
        }
        text
    }
}

/// What is ours of these times: they hold one answer each, which the model held back.
pub(crate) fn overhead(runs: Option<Percentiles>, latency_ms: u64) -> Option<Percentiles> {
    let less = |us: u64| us.saturating_sub(latency_ms.saturating_mul(1_000));
    runs.map(|p| Percentiles {
        p50: less(p.p50),
        p90: less(p.p90),
        p99: less(p.p99),
        p999: less(p.p999),
        max: less(p.max),
        count: p.count,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fake::{Behaviour, Fake};
    use crate::options::{Options, Rate};
    use crate::run::{self, run};
    use crate::shape::Shape;

    /// A short load on a node that asks this model.
    fn load(stub: &Stub, asked: Asked, behaviour: Behaviour) -> Result<crate::report::Report, run::Error> {
        let fake = Fake::start(Behaviour { asks: Some(stub.address), ..behaviour });
        let base = run::tests::options(&fake, Rate::Max);
        let quiesce = Duration::from_secs(2);
        run(&Options { shape: Shape::Agent, agent: asked, quiesce, ..base })
    }

    fn stub(latency_ms: u64) -> Stub {
        Stub::start_blocking(aob_stub_model::Options { latency_ms, ..Default::default() }).unwrap()
    }

    fn at(stub: &Stub, latency_ms: u64) -> Asked {
        let other = Some((stub.address, stub.address.to_string()));
        Asked { listen: ([127, 0, 0, 1], 0).into(), other, latency_ms }
    }

    // F201
    #[test]
    fn decisions_are_counted_by_the_model_and_what_it_holds_back_is_not_ours() {
        let stub = stub(30);
        let report = load(&stub, at(&stub, 30), Behaviour::default()).unwrap();
        let model = report.model.as_ref().unwrap();
        assert_eq!(
            (model.given, model.counted),
            (report.reconciled.acknowledged, report.reconciled.finished)
        );
        assert_eq!(stub.stats()["calls"], model.given + 1, "the trial run is no part of the load");
        assert!(report.decisions_per_s.unwrap() > 50.0, "{}", report.to_json());
        let (run, overhead) = (report.run_us.unwrap(), report.overhead_us.unwrap());
        assert!(run.p50 >= 30_000 && overhead.p50 == run.p50 - 30_000, "{run:?} {overhead:?}");
        assert!(report.summary().contains("decisions") && report.to_json().contains("\"shape\": \"agent\""));
    }

    #[test]
    fn a_node_that_answers_without_the_model_gets_no_report() {
        let stub = stub(0);
        let behaviour = Behaviour { asks_not_every: Some(20), ..Behaviour::default() };
        let error = load(&stub, at(&stub, 0), behaviour).unwrap_err();
        assert!(matches!(error, run::Error::Reconcile(reconcile::Error::Answers { .. })), "{error}");
    }

    #[test]
    fn a_node_that_asks_another_model_is_not_put_under_load() {
        let (stub, other) = (stub(0), stub(0));
        let error = load(&stub, at(&other, 0), Behaviour::default()).unwrap_err();
        assert!(matches!(error, run::Error::Model(Error::Elsewhere(_))), "{error}");
    }

    #[test]
    fn a_node_that_knows_no_such_model_is_told_what_to_say() {
        let stub = stub(0);
        let behaviour = Behaviour { refuses_every: Some(1), ..Behaviour::default() };
        // Nobody runs one: the generator starts its own.
        let error = load(&stub, Asked { other: None, ..at(&stub, 0) }, behaviour).unwrap_err().to_string();
        assert!(error.contains("--set 'models.providers.loadgen={kind") && error.contains("503"), "{error}");
    }
}
