//! From values as typed to a checked [`runtime::Config`]. Parse, don't validate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Effective, Error};
use crate::auth;
use crate::compile::policy::Rules;
use crate::exec;
use crate::fanout::quic;
use crate::limits;
use crate::runtime::{self, Config, DriverChoice};
use crate::telemetry::log;

/// Checks every value.
pub(super) fn resolve(effective: &Effective) -> Result<Config, Error> {
    let values = Values { effective };
    values.one_of("mode", &[("full", ())])?;
    let auth = values.auth()?;
    let listen = values.address("listen")?;
    values.exposure("listen", listen, &auth)?;
    let audit = crate::audit::Settings {
        bytes_max: values.number("audit.bytes_max", 2 * limits::AUDIT_FILE_BYTES, 1 << 40)?,
        starts: values.boolean("audit.starts")?,
    };
    Ok(Config {
        quic: values.quic(listen, &auth)?,
        policy: Arc::new(values.policy()?),
        budgets: values.budgets()?,
        auth,
        audit,
        log: values.log()?,
        data_dir: PathBuf::from(values.text("data_dir")?),
        listen,
        store: super::store::resolve(&values)?,
        retention: values.duration("retention")?,
        cores: runtime::plan::Cores {
            control: values.cores("cores.control")?,
            runner: values.cores("cores.runner")?,
            fanout: values.cores("cores.fanout")?,
        },
        driver: values.one_of(
            "runner.driver",
            &[("auto", DriverChoice::Auto), ("ring", DriverChoice::Ring), ("tokio", DriverChoice::Tokio)],
        )?,
        preempt: Duration::from_micros(values.number("runner.preempt_us", 50, 100_000)?),
        spin: Duration::from_micros(values.number("runner.spin_us", 0, 10_000)?),
        segment_bytes: values.number("journal.segment_bytes", limits::JOURNAL_SEGMENT_BYTES_MIN, 1 << 31)?,
        room: values.room()?,
        contents: runtime::contents::Settings {
            inline_max: usize_of(values.number(
                "limits.inline_value_bytes_max",
                256,
                limits::VALUE_BYTES_MAX as u64,
            )?),
            grace: values.duration("cas.grace")?,
        },
        materializer: values.materializer()?,
        drain: Duration::from_secs(values.number("shutdown.drain_seconds", 0, 3_600)?),
        runs_live_per_shard_max: usize_of(values.number("limits.runs_live_per_shard_max", 1, 100_000_000)?),
        connections_per_core_max: usize_of(values.number("limits.connections_per_core_max", 1, 1_000_000)?),
        http: values.http()?,
        models: super::models::resolve(effective)?,
        reviews_url: values.optional("reviews.url")?.map(str::to_owned),
        webhook_attempts: (
            u32::try_from(values.number("reviews.webhook_attempts_max", 1, 1_000)?).unwrap_or(u32::MAX),
            Duration::from_millis(values.number(
                "reviews.webhook_pause_ms",
                1,
                limits::WEBHOOK_PAUSE_MILLIS_MAX,
            )?),
        ),
        secrets: exec::Secrets {
            directory: values.optional("secrets.directory")?.map(PathBuf::from),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        },
        workers: exec::pool::Workers {
            lease_seconds: values.number("workers.lease_seconds", 1, 86_400)?,
            queue_limits: values.limits("workers.queue_limits", "QUEUE", usize::MAX)?,
            weights: values.weights("workers.weights")?,
        },
        tools: values.tools()?,
    })
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) struct Values<'a> {
    effective: &'a Effective,
}

impl Values<'_> {
    fn raw(&self, key: &str) -> Result<&toml::Value, Error> {
        self.effective.value(key).ok_or_else(|| Error::UnknownKey {
            origin: String::from("default.toml"),
            key: key.to_owned(),
            hint: String::new(),
        })
    }

    pub(super) fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        let value = self.effective.value(key).map_or_else(String::new, ToString::to_string);
        Error::Value { key: key.to_owned(), value, problem: problem.into() }
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, Error> {
        let text = self.raw(key)?.as_str().ok_or_else(|| self.bad(key, "text is expected"))?;
        if text.is_empty() { Err(self.bad(key, "must not be empty")) } else { Ok(text) }
    }

    /// Text that may be empty: then there is none.
    pub(super) fn optional(&self, key: &str) -> Result<Option<&str>, Error> {
        let text = self.raw(key)?.as_str().ok_or_else(|| self.bad(key, "text is expected"))?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()))
    }

    /// The entries of a text with commas.
    pub(super) fn entries(&self, key: &str) -> Result<impl Iterator<Item = &str>, Error> {
        let text = self.optional(key)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()))
    }

    fn rules(&self, key: &str) -> Result<Vec<exec::Rule>, Error> {
        self.entries(key)?.map(|entry| exec::Rule::parse(entry).map_err(|why| self.bad(key, why))).collect()
    }

    fn weights(&self, key: &str) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let weights = self.limits(key, "WORKSPACE", usize_of(limits::WORKSPACE_WEIGHT_MAX))?;
        for workspace in weights.keys() {
            let parsed = workspace.parse::<crate::model::Workspace>();
            parsed.map_err(|error| self.bad(key, format!("the workspace {error}")))?;
        }
        Ok(weights.into_iter().map(|(workspace, weight)| (workspace, weight as u64)).collect())
    }

    /// `NAME = NUMBER`, with commas between.
    fn limits(&self, key: &str, what: &str, most: usize) -> Result<BTreeMap<Arc<str>, usize>, Error> {
        let bound = if most == usize::MAX { String::new() } else { format!(" (1 to {most})") };
        let wrong = || {
            let problem =
                format!("{what} = NUMBER{bound} is expected, with commas between, as in \"mail = 10\"");
            self.bad(key, problem)
        };
        self.entries(key)?
            .map(|entry| {
                let (queue, number) = entry.split_once('=').ok_or_else(wrong)?;
                let number = number
                    .trim()
                    .parse()
                    .ok()
                    .filter(|number| (1..=most).contains(number))
                    .ok_or_else(wrong)?;
                Ok((queue.trim().into(), number))
            })
            .collect()
    }

    pub(super) fn number(&self, key: &str, least: u64, most: u64) -> Result<u64, Error> {
        let number = self.raw(key)?.as_integer().and_then(|number| u64::try_from(number).ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.bad(key, format!("a whole number from {least} to {most} is expected")))
    }

    /// From 1 to a thousand.
    fn count(&self, key: &str) -> Result<u32, Error> {
        Ok(u32::try_from(self.number(key, 1, 1_000)?).unwrap_or(u32::MAX))
    }

    fn boolean(&self, key: &str) -> Result<bool, Error> {
        self.raw(key)?.as_bool().ok_or_else(|| self.bad(key, "true or false is expected"))
    }

    fn policy(&self) -> Result<Rules, Error> {
        self.list("policy.gates", "[{tag = \"money\", reviewers = [\"cfo\"]}]", Rules::read)
    }

    fn budgets(&self) -> Result<Vec<exec::ledger::Limit>, Error> {
        let example = "[{scope = \"node\", per = \"hour\", usd = \"5.00\"}]";
        self.list("budgets", example, exec::ledger::read)
    }

    /// A list of tables; as text (`--set`, the environment) one in TOML's own spelling.
    fn list<T>(
        &self,
        key: &str,
        example: &str,
        read: impl FnOnce(&crate::model::Value) -> Result<T, String>,
    ) -> Result<T, Error> {
        let parsed: toml::Value;
        let list = match self.raw(key)? {
            toml::Value::String(text) => {
                let table: Result<toml::Table, _> = format!("list = {text}").parse();
                let found = table.ok().and_then(|mut table| table.remove("list"));
                parsed =
                    found.ok_or_else(|| self.bad(key, format!("a list is expected, as in {example}")))?;
                &parsed
            }
            value => value,
        };
        let json = serde_json::to_string(list).unwrap_or_default();
        let value = crate::model::Value::from_json(json.as_bytes()).unwrap_or_default();
        read(&value).map_err(|problem| Error::Value {
            key: key.to_owned(),
            value: if json.len() > 200 { String::from("[...]") } else { json },
            problem,
        })
    }

    fn room(&self) -> Result<runtime::room::Settings, Error> {
        use runtime::room::{Settings, WhenFull};
        let when_full = [("refuse", WhenFull::Refuse), ("drop_oldest", WhenFull::DropOldest)];
        Ok(Settings {
            free_bytes_min: self.number("storage.free_bytes_min", 0, 1 << 50)?,
            history_bytes_max: self.number("history.bytes_max", 0, 1 << 60)?,
            when_full: self.one_of("history.when_full", &when_full)?,
            unmoved_bytes_max: self.number("journal.unmoved_bytes_max", 0, 1 << 60)?,
        })
    }

    fn log(&self) -> Result<log::Settings, Error> {
        use log::{Format, Level};
        let formats = [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)];
        let levels =
            [Level::Error, Level::Warn, Level::Info, Level::Debug].map(|level| (level.as_str(), level));
        Ok(log::Settings {
            format: self.one_of("log.format", &formats)?,
            level: self.one_of("log.level", &levels)?,
        })
    }

    /// `None` for the empty text, which is the default.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        let text = self.raw(key)?.as_str().ok_or_else(|| self.bad(key, "text is expected"))?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn auth(&self) -> Result<auth::Settings, Error> {
        let tls = match (self.path("tls.certificate")?, self.path("tls.key")?) {
            (Some(certificate), Some(key)) => Some(auth::tls::Files { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(self.bad("tls.certificate", "tls.key is missing beside it")),
            (None, Some(_)) => return Err(self.bad("tls.key", "tls.certificate is missing beside it")),
        };
        let tokens_file = self.path("auth.tokens_file")?;
        let holding = self.holding()?;
        if holding.whose != auth::holding::Whose::Nobody && tokens_file.is_none() {
            let problem =
                "who made a patch and who approves it are told by their tokens: auth.tokens_file is missing";
            return Err(self.bad("policy.patches.hold", problem));
        }
        let origins = auth::Origins::parse(self.entries("http.origins")?);
        let origins = origins.map_err(|problem| self.bad("http.origins", problem))?;
        let (rate, tiers) = (self.rate()?, self.tiers()?);
        let streams = usize_of(self.number("limits.streams_per_token", 0, 1_000_000)?);
        let streams = (streams > 0).then_some(streams);
        Ok(auth::Settings { tls, tokens_file, rate, tiers, holding, origins, streams })
    }

    fn http(&self) -> Result<exec::Settings, Error> {
        Ok(exec::Settings {
            allow: self.rules("http.allow")?,
            only: self.rules("http.only")?,
            ca_file: self.optional("http.ca_file")?.map(PathBuf::from),
            calls_max: usize_of(self.number("http.calls_max", 1, 1_000_000)?),
            calls_per_host_max: usize_of(self.number("http.calls_per_host_max", 1, 1_000_000)?),
            breaker: exec::breakers::Policy {
                enabled: self.boolean("http.breaker.enabled")?,
                config: crate::resilience::Config {
                    failure_threshold: self.count("http.breaker.failures")?,
                    timeout: self.duration("http.breaker.open_for")?,
                    success_threshold: self.count("http.breaker.successes")?,
                },
            },
        })
    }

    fn tools(&self) -> Result<exec::tools::Settings, Error> {
        let key = "tools.http_calls_per_minute";
        Ok(exec::tools::Settings {
            servers: super::servers::read(self.effective)?,
            http_calls_per_minute: self.number(key, 0, limits::TOOL_CALLS_PER_MINUTE_MAX)?,
            launcher: None,
        })
    }

    fn materializer(&self) -> Result<runtime::materializer::Settings, Error> {
        Ok(runtime::materializer::Settings {
            threads: usize_of(self.number("materializer.threads", 1, 64)?),
            batch_patches: usize_of(self.number("materializer.batch_patches", 1, 10_000)?),
            window: Duration::from_millis(self.number("materializer.window_ms", 0, 3_600_000)?),
            at_once: self.one_of("materializer.mode", &[("batch", false), ("sync", true)])?,
        })
    }

    fn holding(&self) -> Result<auth::Holding, Error> {
        use auth::holding::Whose;
        let whose = [("none", Whose::Nobody), ("agents", Whose::Agents), ("all", Whose::Everybody)];
        let roles = [("write", auth::Role::Write), ("admin", auth::Role::Admin)];
        Ok(auth::Holding {
            whose: self.one_of("policy.patches.hold", &whose)?,
            agents: self.entries("policy.patches.agents")?.map(Arc::from).collect(),
            safe_kinds: self.entries("policy.patches.safe_kinds")?.map(Arc::from).collect(),
            decider: self.one_of("policy.patches.decider", &roles)?,
        })
    }

    /// `None` for 0 a second, which is the default.
    fn rate(&self) -> Result<Option<auth::rate::Policy>, Error> {
        let per_second = self.number("limits.requests_per_second", limits::REQUESTS_PER_SECOND, 1_000_000)?;
        let burst = self.number("limits.requests_burst", 0, 1_000_000)?;
        let burst = if burst == 0 { per_second } else { burst };
        Ok((per_second > 0).then_some(auth::rate::Policy { per_second, burst }))
    }

    /// `None` when there are no tiers.
    fn tiers(&self) -> Result<Option<auth::tiers::Plan>, Error> {
        const MOST: u64 = 1_000_000;
        let wrong = || self.bad("rate.tiers", "NAME = STARTS/BURST is expected, as in \"free = 5/10\"");
        let mut plan = auth::tiers::Plan { documents: self.boolean("rate.documents")?, ..Default::default() };
        for entry in self.entries("rate.tiers")? {
            let (name, numbers) = entry.split_once('=').ok_or_else(wrong)?;
            let (per_second, burst) = numbers.split_once('/').unwrap_or((numbers, numbers));
            let number =
                |text: &str| text.trim().parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(wrong);
            let policy = auth::rate::Policy { per_second: number(per_second)?, burst: number(burst)? };
            plan.tiers.insert(name.trim().into(), policy);
        }
        let key = "rate.workflows";
        for entry in self.entries(key)? {
            let (of, tier) = entry.split_once('=').ok_or_else(|| {
                self.bad(key, "WORKSPACE/WORKFLOW = TIER is expected, as in \"acme/* = free\"")
            })?;
            let (of, tier) = (of.trim(), tier.trim());
            if of != "*" && !of.contains('/') {
                return Err(self.bad(key, format!("{of:?} is no WORKSPACE/WORKFLOW, WORKSPACE/* or *")));
            }
            if !plan.tiers.contains_key(tier) {
                return Err(self.bad(key, format!("there is no tier {tier:?} in rate.tiers")));
            }
            plan.assigned.insert(of.into(), tier.into());
        }
        Ok((!plan.tiers.is_empty()).then_some(plan))
    }

    /// Whoever may be reached from other machines asks for tokens, and not in plain text.
    fn exposure(&self, key: &str, listen: SocketAddr, auth: &auth::Settings) -> Result<(), Error> {
        let insecure = self.boolean("auth.insecure")?;
        if listen.ip().is_loopback() || insecure || (auth.tls.is_some() && auth.tokens_file.is_some()) {
            return Ok(());
        }
        let problem = "other machines can reach this address, which takes auth.tokens_file and \
                       tls.certificate (with tls.key); auth.insecure = true does without";
        Err(self.bad(key, problem))
    }

    /// `None` when it is off.
    fn quic(&self, http: SocketAddr, auth: &auth::Settings) -> Result<Option<quic::Settings>, Error> {
        let (enabled, key) = (self.boolean("quic.enabled")?, "quic.listen");
        let listen = if self.optional(key)?.is_some() { self.address(key)? } else { http };
        self.exposure(key, listen, auth)?;
        let connections_per_peer_max =
            usize_of(self.number("limits.quic_connections_per_peer_max", 1, 1_000_000)?);
        Ok(enabled.then_some(quic::Settings { address: listen, connections_per_peer_max }))
    }

    fn address(&self, key: &str) -> Result<SocketAddr, Error> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.bad(key, "an address with a port is expected, as in 127.0.0.1:7400"))
    }

    fn duration(&self, key: &str) -> Result<Duration, Error> {
        let text = self.text(key)?;
        crate::compile::parse_duration(text)
            .ok_or_else(|| self.bad(key, "a duration of at most 366 days is expected, as in 90s, 12h or 7d"))
    }

    fn cores(&self, key: &str) -> Result<runtime::plan::Spec, Error> {
        let text = match self.raw(key)? {
            toml::Value::Integer(count) => count.to_string(),
            _ => self.text(key)?.to_owned(),
        };
        text.parse().map_err(|error: runtime::plan::SpecError| self.bad(key, error.to_string()))
    }

    pub(super) fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T, Error> {
        let text = self.text(key)?;
        choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.bad(key, format!("not available here; choose {}", names.join(" or ")))
        })
    }
}
