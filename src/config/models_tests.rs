//! What a configuration says of models, and what is refused in it.

use super::super::{Sources, load};
use super::*;
use crate::exec::models::suggest_model;

const TEXT: &str = r#"
[models]
default = "sonnet"
ladder = "opus, sonnet"
suggest = [{complexity = "simple", model = "local"}]

[models.providers.anthropic]
kind = "anthropic"
base_url = "https://api.anthropic.com"
credential = "ANTHROPIC_KEY"
headers = {x-team = "a"}
timeout = "2m"
max_in_flight = 8

[models.providers.lm-studio]
kind = "openai"
base_url = "http://127.0.0.1:1234/v1"
stream = false

[models.names.opus]
provider = "anthropic"
model = "claude-3-opus"
context_tokens = 200000
max_output_tokens = 4096
price = "claude-3-opus"

[models.names.sonnet]
provider = "anthropic"
model = "claude-sonnet"
context_tokens = 200000
max_output_tokens = 8192
bytes_per_token = 2
price = {input_per_million = 3, output_per_million = "15", cache_read_per_million = "0.30", cache_write_per_million = "3.75"}

[models.names.local]
provider = "lm-studio"
model = "qwen"
context_tokens = 32768
max_output_tokens = 4096
"#;

fn sources(text: &str, set: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("aob.toml");
    std::fs::write(&file, text).unwrap();
    let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    (directory, Sources { file: Some(file), set, ..Sources::default() })
}

fn read(text: &str, set: &[(&str, &str)]) -> Result<(Settings, String), String> {
    let (_directory, sources) = sources(text, set);
    let (config, effective) = load(&sources).map_err(|error| error.to_string())?;
    Ok((config.models, effective.to_string()))
}

// F397, F430, F435
#[test]
fn providers_models_and_prices_are_read_from_their_tables() {
    let (settings, shown) = read(TEXT, &[]).unwrap();
    assert_eq!(settings.default.as_deref(), Some("sonnet"));
    assert_eq!(settings.ladder, ["opus", "sonnet"].map(Arc::<str>::from));
    let sonnet = &settings.models["sonnet"];
    assert_eq!(
        (sonnet.id.as_str(), sonnet.bytes_per_token, &*sonnet.provider.name),
        ("claude-sonnet", 2, "anthropic")
    );
    assert_eq!(sonnet.provider.timeout, Duration::from_secs(120));
    assert_eq!((sonnet.provider.max_in_flight, sonnet.provider.stream), (8, true));
    let per = |dollars| PerToken::per_million(dollars).unwrap();
    let own = Price {
        input: per("3"),
        output: per("15"),
        cache_read: Some(per("0.3")),
        cache_write: Some(per("3.75")),
    };
    assert_eq!(sonnet.price, Some(own));
    let row = Price { input: per("15"), output: per("75"), ..Price::default() };
    assert_eq!(settings.models["opus"].price, Some(row), "a row of the built-in table");
    let local = &settings.models["local"];
    assert_eq!(
        (local.price, local.provider.credential.as_deref(), local.provider.stream),
        (None, None, false)
    );
    assert_eq!(suggest_model(&settings.suggestions, Complexity::Simple, None), Some("local"));
    assert!(
        shown.contains("models.names = ") && shown.contains("claude-sonnet"),
        "check-config shows it: {shown}"
    );
    let (none, _) = read("", &[]).unwrap();
    let spike = Policy {
        window: Duration::from_secs(300),
        call_max: Some(Duration::from_secs(60)),
        ..Policy::default()
    };
    assert_eq!(none, Settings { spike, ..Settings::default() }, "no model unless one is configured");
}

// F389
#[test]
fn thresholds_of_spikes_are_read_and_what_is_none_is_refused() {
    let text = "[models.spike]\nlatency = \"\"\nlatency_per_token = \"100ms\"\ncost_usd = \"0.05\"\nerrors_percent = 20\n\
                window = \"1m\"\ncalls_min = 9\nrest = \"10s\"\nprobes = 3\n[agents]\nmax_concurrency = 4";
    let (settings, _) = read(text, &[]).unwrap();
    let spike = Policy {
        window: Duration::from_secs(60),
        calls_min: 9,
        call_max: None,
        token_max: Some(Duration::from_millis(100)),
        cost_max_nanos: Some(50_000_000),
        errors_max_permille: Some(200),
        rest: Duration::from_secs(10),
        probes: 3,
    };
    assert_eq!((settings.spike, settings.agents_max), (spike, Some(4)));
    for wrong in [
        "window = \"\"",
        "latency = \"soon\"",
        "latency = \"0s\"",
        "cost_usd = \"-1\"",
        "errors_percent = 101",
        "calls_min = 0",
        "probes = 0",
        "rest = \"\"",
    ] {
        let refused = read(&format!("[models.spike]\n{wrong}"), &[]);
        let key = format!("models.spike.{}", wrong.split(' ').next().unwrap());
        assert!(refused.unwrap_err().contains(&key), "{wrong}");
    }
}

#[test]
fn later_sources_change_parts_of_the_tables() {
    let set = [
        ("models.names.local.price", "{input_per_thousand = \"0.001\", output_per_thousand = \"0.002\"}"),
        ("models.providers.lm-studio.base_url", "http://127.0.0.1:9/v1"),
        (
            "models.names.small",
            "{provider = \"lm-studio\", model = \"s\", context_tokens = 10, max_output_tokens = 5}",
        ),
    ];
    let (settings, _) = read(TEXT, &set).unwrap();
    let per = |dollars| PerToken::per_million(dollars).unwrap();
    let local = &settings.models["local"];
    assert_eq!(local.price, Some(Price { input: per("1"), output: per("2"), ..Price::default() }));
    assert_eq!(local.provider.base_url.as_str(), "http://127.0.0.1:9/v1");
    assert_eq!((settings.models.len(), settings.models["small"].context_tokens), (4, 10));
    let environment = [("AOB_MODELS__NAMES__LOCAL__MODEL".to_owned(), "other".to_owned())].into();
    let (_directory, sources) = sources(TEXT, &[]);
    let (config, _) = load(&Sources { environment, ..sources }).unwrap();
    assert_eq!(config.models.models["local"].id, "other");
}

// D15
#[test]
fn what_does_not_do_is_refused_by_name() {
    for (key, value, expected) in [
        ("models.default", "gpt", "there is no model gpt"),
        ("models.ladder", "opus, gpt", "there is no model gpt"),
        ("models.ladder", "opus, opus", "twice"),
        ("models.names.opus.provider", "nobody", "there is no provider nobody"),
        ("models.names.opus.price", "gpt-99", "has claude-3-opus"),
        ("models.names.opus.price", "{input_per_million = 1}", "output_per_million"),
        (
            "models.names.opus.price",
            "{input_per_million = 1, output_per_thousand = 1}",
            "price.input_per_million",
        ),
        (
            "models.names.opus.price",
            "{input_per_million = 0.1, output_per_million = 1}",
            "so that it is exact",
        ),
        ("models.names.opus.price", "{input_per_million = -1, output_per_million = 1}", "is no amount"),
        ("models.names.opus.price", "{input_per_million = 1, output_per_million = 1, x = 1}", "price.x"),
        ("models.names.opus.context_tokens", "0", "context_tokens = 0"),
        ("models.names.opus.max_output_tokens", "300000", "1 to 200000"),
        ("models.names.opus.bytes_per_token", "0", "bytes_per_token"),
        ("models.names.opus.max_tokens_key", "tokens", "max_completion_tokens"),
        ("models.names.opus.colour", "red", "unknown field `colour`"),
        ("models.names.opus", "{}", "missing field"),
        ("models.names.a b", "{}", "a name has 1 to 64"),
        ("models.providers.anthropic.kind", "grpc", "openai"),
        ("models.providers.anthropic.base_url", "api.anthropic.com", "base_url"),
        ("models.providers.anthropic.timeout", "soon", "duration"),
        ("models.providers.anthropic.timeout", "0s", "duration"),
        ("models.providers.anthropic.max_in_flight", "0", "max_in_flight"),
        ("models.providers.anthropic.headers", "{host = \"x\"}", "host"),
        ("models.providers.anthropic.credential", "", "credential is empty"),
        ("models.suggest", "[{complexity = \"odd\", model = \"x\"}]", "simple, medium or complex"),
        (
            "models.suggest",
            "[{complexity = \"simple\", model = \"x\", budget_below = \"-1\"}]",
            "budget_below",
        ),
        ("models.name.opus", "{}", "unknown key"),
        ("models.names", "3", "a table of tables"),
    ] {
        let error = read(TEXT, &[(key, value)]).unwrap_err();
        assert!(error.contains(expected) && error.contains("models."), "{key}={value}: {error}");
    }
}

// F430
#[test]
fn a_model_that_gives_vectors_writes_nothing() {
    let (settings, _) = read(TEXT, &[("models.names.local.max_output_tokens", "0")]).unwrap();
    assert_eq!(settings.models["local"].max_output_tokens, 0);
}
