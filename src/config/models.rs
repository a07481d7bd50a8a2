//! `[models]`: providers, models and their prices, from tables as typed to checked settings.
//!
//! What must hold: a model's provider is there; a price is exact, so it is written as text or as a whole number; a model
//! without one is unpriced and stays so (FEATURES D15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Effective, Error};
use crate::exec::models::{
    self, Complexity, Dollars, Kind, Model, PriceTable, Provider, Rule, Settings, Suggestions,
};
use crate::limits;
use crate::model::money::{PerToken, Price, Usd};
use crate::resilience::spike::Policy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderTable {
    kind: String,
    base_url: String,
    credential: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    timeout: Option<String>,
    idle_timeout: Option<String>,
    max_in_flight: Option<u64>,
    stream: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    provider: String,
    model: String,
    context_tokens: u64,
    max_output_tokens: u64,
    bytes_per_token: Option<u64>,
    max_tokens_key: Option<String>,
    price: Option<PriceEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PriceEntry {
    Row(String),
    Own(BTreeMap<String, toml::Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuggestTable {
    complexity: String,
    budget_below: Option<String>,
    model: String,
}

/// Reads the part of the configuration that is about models.
pub(super) fn resolve(effective: &Effective) -> Result<Settings, Error> {
    let all = Tables { effective };
    let mut providers = BTreeMap::new();
    for (name, table) in all.tables::<ProviderTable>("models.providers", limits::MODEL_PROVIDERS_MAX)? {
        let key = format!("models.providers.{name}");
        let provider = provider(&name, table).map_err(|problem| bad(&key, problem))?;
        providers.insert(name, Arc::new(provider));
    }
    let table = PriceTable::built_in().map_err(|problem| bad("models.names", problem))?;
    let mut models = BTreeMap::new();
    for (name, written) in all.tables::<ModelTable>("models.names", limits::MODELS_MAX)? {
        let key = format!("models.names.{name}");
        let model = model(&name, written, &providers, &table).map_err(|problem| bad(&key, problem))?;
        models.insert(name, model);
    }
    let known = |key: &str, name: &str| match models.contains_key(name) {
        true => Ok(Arc::<str>::from(name)),
        false => Err(bad(key, format!("there is no model {name} in models.names"))),
    };
    let default = all.text("models.default")?;
    let default = Some(default.trim()).filter(|name| !name.is_empty());
    let default = default.map(|name| known("models.default", name)).transpose()?;
    let ladder = all.text("models.ladder")?;
    let ladder = ladder.split(',').map(str::trim).filter(|name| !name.is_empty());
    let ladder = ladder.map(|name| known("models.ladder", name)).collect::<Result<Vec<_>, _>>()?;
    let twice =
        ladder.iter().enumerate().find(|(at, name)| ladder.iter().take(*at).any(|other| other == *name));
    if let Some((_, name)) = twice {
        return Err(bad("models.ladder", format!("{name} stands in it twice")));
    }
    let agents_max = all.number("agents.max_concurrency", 0..=1_000_000)? as usize;
    let agents_max = Some(agents_max).filter(|max| *max > 0);
    let summaries = summaries(&all, &models)?;
    let (spike, suggestions) = (all.spike()?, all.suggestions()?);
    Ok(Settings { default, models, ladder, agents_max, spike, suggestions, summaries })
}

/// Which model makes summaries of events.
fn summaries(
    all: &Tables<'_>,
    models: &BTreeMap<Arc<str>, Model>,
) -> Result<Option<models::summaries::Settings>, Error> {
    let tokens_per_hour = all.number("models.summaries_tokens_per_hour", 1..=1_000_000_000)?.into();
    let usd = all.text("models.summaries_usd_per_hour")?.trim();
    let usd = Some(usd).filter(|text| !text.is_empty()).map(str::parse::<Usd>).transpose();
    let usd_per_hour = usd.map_err(|error| bad("models.summaries_usd_per_hour", error.to_string()))?;
    let name = all.text("models.summaries")?.trim();
    if name.is_empty() {
        return Ok(None);
    }
    let Some(model) = models.get(name) else {
        return Err(bad("models.summaries", format!("there is no model {name} in models.names")));
    };
    if model.max_output_tokens == 0 {
        return Err(bad("models.summaries", format!("{name} gives vectors and no words")));
    }
    if usd_per_hour.is_some() && model.price.is_none() {
        let problem = format!("{name} has no price, so nobody knows what its summaries cost");
        return Err(bad("models.summaries_usd_per_hour", problem));
    }
    Ok(Some(models::summaries::Settings { model: name.into(), tokens_per_hour, usd_per_hour }))
}

fn bad(key: &str, problem: impl Into<String>) -> Error {
    Error::Value { key: key.to_owned(), value: String::from("{...}"), problem: problem.into() }
}

struct Tables<'a> {
    effective: &'a Effective,
}

impl Tables<'_> {
    fn text(&self, key: &str) -> Result<&str, Error> {
        let text = self.effective.value(key).and_then(toml::Value::as_str);
        text.ok_or_else(|| bad(key, "text is expected"))
    }

    fn number(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<u32, Error> {
        let number = self.effective.value(key).and_then(toml::Value::as_integer);
        let number =
            number.filter(|number| range.contains(number)).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| {
            bad(key, format!("a number from {} to {} is expected", range.start(), range.end()))
        })
    }

    fn spike(&self) -> Result<Policy, Error> {
        let duration = |key: &str| -> Result<Option<Duration>, Error> {
            let text = self.text(key)?.trim();
            if text.is_empty() {
                return Ok(None);
            }
            let read = crate::compile::parse_duration(text).filter(|duration| !duration.is_zero());
            read.map(Some).ok_or_else(|| bad(key, "a duration is expected, as in 500ms or 60s"))
        };
        let needed = |key: &str| duration(key)?.ok_or_else(|| bad(key, "a duration is expected, as in 60s"));
        let cost = self.text("models.spike.cost_usd")?.trim();
        let cost = Some(cost).filter(|text| !text.is_empty()).map(str::parse::<Usd>).transpose();
        let cost = cost.map_err(|error| bad("models.spike.cost_usd", error.to_string()))?;
        let errors = self.number("models.spike.errors_percent", 0..=100)?;
        Ok(Policy {
            window: needed("models.spike.window")?,
            calls_min: self.number("models.spike.calls_min", 1..=1_000_000)?,
            call_max: duration("models.spike.latency")?,
            token_max: duration("models.spike.latency_per_token")?,
            cost_max_nanos: cost.map(Usd::as_nanos),
            errors_max_permille: Some(errors * 10).filter(|permille| *permille > 0),
            rest: needed("models.spike.rest")?,
            probes: self.number("models.spike.probes", 1..=1_000)?,
        })
    }

    /// The tables of a table of names.
    fn tables<T: DeserializeOwned>(&self, key: &str, most: usize) -> Result<Vec<(Arc<str>, T)>, Error> {
        let table = self.effective.value(key).and_then(toml::Value::as_table);
        let table = table.ok_or_else(|| bad(key, "a table of tables is expected"))?;
        if table.len() > most {
            return Err(bad(key, format!("it has {} entries; {most} may be (src/limits.rs)", table.len())));
        }
        let one = |(name, value): (&String, &toml::Value)| {
            let key = format!("{key}.{name}");
            if !models::is_name(name) {
                let most = limits::MODEL_NAME_BYTES_MAX;
                return Err(bad(&key, format!("a name has 1 to {most} letters, digits, dots, - and _")));
            }
            let read =
                value.clone().try_into().map_err(|error: toml::de::Error| bad(&key, error.message()))?;
            Ok((Arc::from(name.as_str()), read))
        };
        table.iter().map(one).collect()
    }

    fn suggestions(&self) -> Result<Suggestions, Error> {
        let key = "models.suggest";
        let mut written = self.effective.value(key).cloned().unwrap_or(toml::Value::Array(Vec::new()));
        if let toml::Value::String(text) = &written {
            let table: Result<toml::Table, _> = format!("value = {text}").parse();
            let found = table.ok().and_then(|mut table| table.remove("value"));
            written = found.ok_or_else(|| bad(key, "a list of tables is expected"))?;
        }
        let rules: Vec<SuggestTable> =
            written.try_into().map_err(|error: toml::de::Error| bad(key, error.message()))?;
        if rules.is_empty() {
            return Ok(Suggestions::default());
        }
        if rules.len() > limits::MODELS_MAX {
            return Err(bad(key, format!("{} rules; {} may be", rules.len(), limits::MODELS_MAX)));
        }
        let rule = |rule: SuggestTable| {
            let complexity = match rule.complexity.as_str() {
                known @ ("simple" | "medium" | "complex") => Complexity::of(known),
                other => {
                    return Err(bad(
                        key,
                        format!("complexity = {other:?}: choose simple, medium or complex"),
                    ));
                }
            };
            let budget = rule.budget_below.as_deref().map(str::parse::<Usd>).transpose();
            let budget_below = budget.map_err(|error| bad(key, format!("budget_below: {error}")))?;
            Ok(Rule { complexity, budget_below, model: rule.model })
        };
        rules.into_iter().map(rule).collect::<Result<_, _>>().map(Suggestions)
    }
}

fn provider(name: &Arc<str>, table: ProviderTable) -> Result<Provider, String> {
    let kind = match table.kind.as_str() {
        "openai" => Kind::OpenAi,
        "anthropic" => Kind::Anthropic,
        other => return Err(format!("kind = {other:?}: choose \"openai\" or \"anthropic\"")),
    };
    let base_url = models::base_url(&table.base_url).map_err(|problem| format!("base_url: {problem}"))?;
    for (header, value) in &table.headers {
        models::check_header(header, value).map_err(|problem| format!("headers: {problem}"))?;
    }
    let duration = |key: &str, text: &Option<String>, default: u64| match text {
        None => Ok(Duration::from_secs(default)),
        Some(text) => crate::compile::parse_duration(text)
            .filter(|duration| !duration.is_zero())
            .ok_or_else(|| format!("{key} = {text:?}: a duration is expected, as in 90s or 5m")),
    };
    let max_in_flight = table.max_in_flight.unwrap_or(limits::MODEL_CALLS_DEFAULT);
    if !(1..=100_000).contains(&max_in_flight) {
        return Err(format!("max_in_flight = {max_in_flight}: 1 to 100000 calls"));
    }
    if table.credential.as_deref() == Some("") {
        return Err("credential is empty; leave it out for a provider that takes no key".into());
    }
    Ok(Provider {
        name: name.clone(),
        kind,
        base_url,
        credential: table.credential,
        headers: table.headers,
        timeout: duration("timeout", &table.timeout, limits::MODEL_SECONDS_DEFAULT)?,
        idle_timeout: duration("idle_timeout", &table.idle_timeout, limits::MODEL_IDLE_SECONDS_DEFAULT)?,
        max_in_flight: usize::try_from(max_in_flight).unwrap_or(usize::MAX),
        stream: table.stream.unwrap_or(true),
    })
}

fn model(
    name: &Arc<str>,
    table: ModelTable,
    providers: &BTreeMap<Arc<str>, Arc<Provider>>,
    prices: &PriceTable,
) -> Result<Model, String> {
    let provider = providers
        .get(table.provider.as_str())
        .ok_or_else(|| format!("there is no provider {} in models.providers", table.provider))?;
    let tokens = |key: &str, number: u64, most: u64| match number {
        number if (1..=most).contains(&number) => Ok(number),
        number => Err(format!("{key} = {number}: 1 to {most} are expected")),
    };
    const CONTEXT_MAX: u64 = 100_000_000;
    const KEYS: [&str; 2] = ["max_tokens", "max_completion_tokens"];
    let max_tokens_key = table.max_tokens_key.unwrap_or_else(|| KEYS[0].into());
    if !KEYS.contains(&max_tokens_key.as_str()) {
        return Err(format!("max_tokens_key = {max_tokens_key:?}: choose {}", KEYS.join(" or ")));
    }
    if table.model.is_empty() || table.model.len() > 256 {
        return Err("model: what the provider calls it is expected, of 256 bytes at most".into());
    }
    let context_tokens = tokens("context_tokens", table.context_tokens, CONTEXT_MAX)?;
    Ok(Model {
        name: name.clone(),
        provider: provider.clone(),
        id: table.model,
        context_tokens,
        max_output_tokens: match table.max_output_tokens {
            // It gives vectors.
            0 => 0,
            number => tokens("max_output_tokens", number, context_tokens)?,
        },
        max_tokens_key,
        bytes_per_token: tokens("bytes_per_token", table.bytes_per_token.unwrap_or(1), 8)?,
        price: table.price.map(|entry| price(entry, prices)).transpose()?,
    })
}

fn price(entry: PriceEntry, prices: &PriceTable) -> Result<Price, String> {
    let own = match entry {
        PriceEntry::Row(row) => {
            let rows: Vec<&str> = prices.rows.keys().map(String::as_str).collect();
            return prices.rows.get(&row).copied().ok_or_else(|| {
                format!("price = {row:?}: the table of {} has {}", prices.dated, rows.join(", "))
            });
        }
        PriceEntry::Own(own) => own,
    };
    let thousand = own.keys().any(|key| key.ends_with("_per_thousand"));
    let (end, per): (_, fn(&str) -> _) = match thousand {
        true => ("_per_thousand", PerToken::per_thousand),
        false => ("_per_million", PerToken::per_million),
    };
    let mut dollars = Dollars::default();
    let (mut input, mut output) = (None, None);
    for (key, value) in own {
        let amount = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(whole) => whole.to_string(),
            other => {
                return Err(format!(
                    "price.{key} = {other}: text is expected, as in \"0.25\", so that it is exact"
                ));
            }
        };
        match key.strip_suffix(end) {
            Some("input") => input = Some(amount),
            Some("output") => output = Some(amount),
            Some("cache_read") => dollars.cache_read = Some(amount),
            Some("cache_write") => dollars.cache_write = Some(amount),
            _ => {
                return Err(format!(
                    "price.{key}: input, output, cache_read, cache_write with {end} are expected"
                ));
            }
        }
    }
    let (Some(input), Some(output)) = (input, output) else {
        return Err(format!("price: input{end} and output{end} are expected"));
    };
    Dollars { input, output, ..dollars }.price(per).map_err(|error| format!("price: {error}"))
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
