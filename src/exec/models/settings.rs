//! Which models there are, where, and what they cost: the part of the configuration that is about models, checked.
//!
//! Plain data. A name of a model is the node's own; what its provider calls it stands beside it, so documents need not
//! change when a model moves. A model without a price is unpriced, never free (FEATURES D15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::super::request;
use super::suggest::Suggestions;
use crate::limits;
use crate::model::money::Price;
use crate::resilience::spike::Policy;

/// The wire protocol that a provider speaks (F436).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Chat completions, as OpenAI and many others have them.
    OpenAi,
    /// Messages, as Anthropic has them.
    Anthropic,
}

/// Where models are.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What it speaks.
    pub kind: Kind,
    /// Where it is, or the gateway in front of it (F430): `https://api.example.com`, with or without the version.
    pub base_url: Url,
    /// The name of the secret that opens it; `None`: it takes no key (F435).
    pub credential: Option<String>,
    /// Further headers. `${secret:NAME}` stands for a secret.
    pub headers: BTreeMap<String, String>,
    /// What one call may take, from the request to the end of the answer.
    pub timeout: Duration,
    /// What may pass until a streamed answer goes on.
    pub idle_timeout: Duration,
    /// Calls of one of its models under way at once.
    pub max_in_flight: usize,
    /// Answers are asked for in pieces.
    pub stream: bool,
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it is.
    pub provider: Arc<Provider>,
    /// What it is called there.
    pub id: String,
    /// Tokens that it reads and writes in one call, together.
    pub context_tokens: u64,
    /// Tokens that it writes in one call at most; 0: it gives vectors and nothing else.
    pub max_output_tokens: u64,
    /// Under which key an OpenAI-compatible provider is told that: `max_tokens` or `max_completion_tokens`.
    pub max_tokens_key: String,
    /// Bytes of a text that make a token at least. 1 is never too low an estimate.
    pub bytes_per_token: u64,
    /// What it costs; `None`: nobody knows.
    pub price: Option<Price>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The model of whoever names none.
    pub default: Option<Arc<str>>,
    /// By name.
    pub models: BTreeMap<Arc<str>, Model>,
    /// Names, the dearest first: what takes the place of what (F389).
    pub ladder: Vec<Arc<str>>,
    /// Agents of one role that have a turn under way at once; `None`: as many as there are (F382).
    pub agents_max: Option<usize>,
    /// When a model is too slow, or too dear, to be asked first.
    pub spike: Policy,
    /// Which model suits what (F401).
    pub suggestions: Suggestions,
    /// Which model makes summaries of events; `None`: rules do.
    pub summaries: Option<super::summaries::Settings>,
}

/// Is this a name of a provider or a model?
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=limits::MODEL_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// Reads where a provider is.
///
/// # Errors
/// One sentence: why no call can go there.
pub fn base_url(text: &str) -> Result<Url, String> {
    let url = request::parse(text).map_err(|failure| failure.message.to_string())?;
    request::target(&url).map_err(|failure| failure.message.to_string())?;
    match url.query().or(url.fragment()) {
        Some(_) => Err("a base_url has no query and no fragment".into()),
        None => Ok(url),
    }
}

/// May this be sent with every call to a provider?
///
/// # Errors
/// One sentence: why not.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header"))?;
    if request::RESERVED.contains(&header) {
        return Err(format!("the header {header} is set by the connection"));
    }
    HeaderValue::from_str(value)
        .map(drop)
        .map_err(|_| format!("the value of {header} holds what no header can"))
}

impl Provider {
    /// Where its calls go, for vectors or for words. The version stands in the base, or is added (`/v1`).
    pub(super) fn endpoint(&self, embeds: bool) -> Url {
        let mut url = self.base_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let version = |part: &str| {
            part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        let versioned = base.split('/').any(version);
        let call = match self.kind {
            Kind::OpenAi if embeds => "embeddings",
            Kind::OpenAi => "chat/completions",
            Kind::Anthropic => "messages",
        };
        url.set_path(&if versioned { format!("{base}/{call}") } else { format!("{base}/v1/{call}") });
        url
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::money::PerToken;

    /// A model `m` of a provider `p`: three dollars a million in, fifteen out.
    pub(in crate::exec::models) fn model(kind: Kind, base: &str) -> Model {
        let per = |dollars| PerToken::per_million(dollars).unwrap();
        let provider = Provider {
            name: "p".into(),
            kind,
            base_url: base_url(base).unwrap(),
            credential: None,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
            max_in_flight: 4,
            stream: false,
        };
        Model {
            name: "m".into(),
            provider: Arc::new(provider),
            id: "their-m".into(),
            context_tokens: 100_000,
            max_output_tokens: 1_000,
            max_tokens_key: "max_tokens".into(),
            bytes_per_token: 1,
            price: Some(Price { input: per("3"), output: per("15"), ..Price::default() }),
        }
    }

    // F430
    #[test]
    fn the_version_of_an_interface_is_added_when_the_base_has_none() {
        for (kind, base, expected) in [
            (Kind::OpenAi, "https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
            (Kind::OpenAi, "http://127.0.0.1:1234/v1/", "http://127.0.0.1:1234/v1/chat/completions"),
            (
                Kind::OpenAi,
                "https://g.example/v1beta/openai",
                "https://g.example/v1beta/openai/chat/completions",
            ),
            (Kind::OpenAi, "https://gate.example/vendor", "https://gate.example/vendor/v1/chat/completions"),
            (Kind::Anthropic, "https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ] {
            assert_eq!(model(kind, base).provider.endpoint(false).as_str(), expected);
            let embeddings = expected.replace("chat/completions", "embeddings");
            assert_eq!(model(kind, base).provider.endpoint(true).as_str(), embeddings);
        }
    }

    #[test]
    fn what_cannot_be_called_is_no_base() {
        for wrong in [
            "",
            "api.openai.com",
            "ftp://x/",
            "https://u:p@x/",
            "https://x/?a=1",
            "https://x/#a",
            "http://x:0",
        ] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
        assert!(check_header("x-a", "b").is_ok());
        for (name, value) in [("host", "x"), ("a b", "x"), ("x", "a\r\nb: c")] {
            assert!(check_header(name, value).is_err(), "{name}");
        }
        assert!(is_name("gpt-4.1_mini") && !is_name("") && !is_name("a b") && !is_name(&"x".repeat(65)));
    }
}
