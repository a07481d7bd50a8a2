//! The most that a call may take, before it is made (FEATURES D16). Pure.
//!
//! What must hold: with one byte a token the estimate of what is read is never too low, since no token is less than a byte and
//! what a provider adds by itself is allowed for. An operator may say that the texts of a model have more bytes a token.

use super::prompt::Prompt;
use super::settings::{Kind, Model};
use super::{anthropic, embeddings, openai};
use crate::limits;
use crate::model::Failure;
use crate::model::agent::{Ask, Quote, ToolSpec};
use crate::model::money::{Price, Tokens};

/// The most tokens of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Read, as it is reserved.
    pub(super) input: u64,
    /// Written.
    pub(super) output: u64,
    /// Read, however few bytes a token has: what is more is no truth.
    pub(super) input_possible: u64,
}

/// A request as it goes out, and what it takes at most.
pub(super) struct Written {
    pub(super) body: Vec<u8>,
    pub(super) bound: Bound,
}

/// Writes a request.
///
/// # Errors
/// `model_request_invalid`; `context_overflow`: over [`limits::MODEL_REQUEST_BYTES_MAX`].
pub(super) fn write(model: &Model, ask: &Ask, tools: &[ToolSpec]) -> Result<Written, Failure> {
    // Of vectors nothing is written, and each text is read by itself.
    let (body, output, reads) = if embeddings::is_wanted(ask) {
        (embeddings::request(ask, model)?, 0, embeddings::texts(ask)?.len() as u64)
    } else {
        let prompt = Prompt::of(ask, tools, model)?;
        let body = match model.provider.kind {
            Kind::OpenAi => openai::request(&prompt, model),
            Kind::Anthropic => anthropic::request(&prompt, model),
        };
        (body, prompt.max_output_tokens, 1)
    };
    let body = body.to_string().into_bytes();
    let most = limits::MODEL_REQUEST_BYTES_MAX;
    if body.len() > most {
        let message = format!(
            "the request to {} has {} bytes; {most} may be sent (limit model_request_bytes_max)",
            model.name,
            body.len()
        );
        return Err(Failure::fatal("context_overflow", message));
    }
    let bytes = body.len() as u64;
    let tokens = |bytes_per_token: u64| {
        let tokens = bytes.div_ceil(bytes_per_token.max(1)).saturating_add(limits::MODEL_OVERHEAD_TOKENS);
        tokens.min(model.context_tokens.saturating_mul(reads))
    };
    let bound = Bound { input: tokens(model.bytes_per_token), output, input_possible: tokens(1) };
    Ok(Written { body, bound })
}

/// What is reserved for a call.
pub(super) fn quote(model: &Model, bound: Bound) -> Quote {
    let dearest = |price: Price| {
        let input = [price.cache_read, price.cache_write].into_iter().flatten().fold(price.input, Ord::max);
        Price { input, ..price }
    };
    let tokens = Tokens { input: bound.input, output: bound.output, ..Tokens::default() };
    let cost = model.price.map(|price| dearest(price).of(&tokens));
    Quote { model: model.name.clone(), cost, tokens: tokens.total() }
}

#[cfg(test)]
mod tests {
    use super::super::prompt::tests::{ask, conversation, tool};
    use super::super::settings::tests::model;
    use super::*;
    use crate::model::money::{PerToken, Usd};

    // D16, F406
    #[test]
    fn a_quote_is_the_most_a_call_can_cost() {
        let per = |dollars| PerToken::per_million(dollars).unwrap();
        for kind in [Kind::OpenAi, Kind::Anthropic] {
            let mut model = model(kind, "http://127.0.0.1:1");
            let asked = ask(r#"{"task": "Say it.", "max_output_tokens": 100}"#, vec![]);
            let written = write(&model, &asked, &[]).unwrap();
            let input = written.body.len() as u64 + 1_024;
            assert_eq!(written.bound, Bound { input, output: 100, input_possible: input });
            // Three dollars a million in, fifteen out.
            let quote_of = |model: &Model| quote(model, write(model, &asked, &[]).unwrap().bound);
            let cost = Usd::from_nanos(input * 3_000 + 100 * 15_000);
            assert_eq!(quote_of(&model), Quote { model: "m".into(), cost: Some(cost), tokens: input + 100 });
            // What is put into the cache is dearer than what is read.
            model.price = Some(Price {
                cache_write: Some(per("3.75")),
                cache_read: Some(per("0.3")),
                ..model.price.unwrap()
            });
            assert_eq!(quote_of(&model).cost, Some(Usd::from_nanos(input * 3_750 + 100 * 15_000)));
            model.bytes_per_token = 4;
            let fewer = (input - 1_024).div_ceil(4) + 1_024;
            assert_eq!(quote_of(&model).tokens, fewer + 100);
            // A model reads no more than it can.
            model.context_tokens = 50;
            assert_eq!(quote_of(&model).tokens, 150);
            model.price = None;
            assert_eq!(quote_of(&model).cost, None, "unpriced is not free");
        }
    }

    #[test]
    fn tools_and_turns_count() {
        for kind in [Kind::OpenAi, Kind::Anthropic] {
            let model = model(kind, "http://127.0.0.1:1");
            let tokens = |said, tools: &[ToolSpec]| {
                write(&model, &ask(r#"{"task": "x"}"#, said), tools).unwrap().bound.input
            };
            let (plain, tools, more) = (
                tokens(vec![], &[]),
                tokens(vec![], &[tool("find")]),
                tokens(conversation(), &[tool("find")]),
            );
            assert!(plain < tools && tools < more, "{plain} {tools} {more}");
        }
    }

    #[test]
    fn what_is_too_long_to_send_is_refused_with_its_limit() {
        let model = model(Kind::OpenAi, "http://127.0.0.1:1");
        let task =
            crate::model::Value::map([("task", "x".repeat(limits::MODEL_REQUEST_BYTES_MAX).as_str().into())]);
        let asked = Ask { request: task, ..ask("{}", vec![]) };
        let failure = write(&model, &asked, &[]).err().unwrap();
        assert_eq!((&*failure.code, failure.retryable()), ("context_overflow", false));
        assert!(failure.message.contains("model_request_bytes_max"), "{failure}");
    }
}
