//! What it means when a provider does not answer: from a status, its headers and its words to a failure with a class.
//!
//! Pure. A failure that says how long to wait says so in `details.retry_after_ms`. Which of these codes a provider surely did
//! not bill is `model::agent::is_billed`.

use http::{HeaderMap, StatusCode};

use super::openai::text;
use super::prompt::Json;
use crate::exec::answer::retry_after_ms;
use crate::exec::secret::Redactor;
use crate::limits;
use crate::model::{Class, Failure, Value};
use crate::time::Timestamp;

/// What a provider says of itself, in either form: `{"error": {"message", "type", "code"}}`.
struct Words<'j> {
    code: &'j str,
    kind: &'j str,
    message: &'j str,
}

impl<'j> Words<'j> {
    fn of(error: &'j Json) -> Self {
        // Some write `{"error": "words"}`.
        let message = error.as_str().unwrap_or_else(|| text(error, "/message"));
        Self { code: text(error, "/code"), kind: text(error, "/type"), message }
    }

    fn says(&self, names: &[&str]) -> bool {
        names.contains(&self.code) || names.contains(&self.kind)
    }

    /// The text for the model is longer than it reads: OpenAI has a code for it, others only words.
    fn overflow(&self) -> bool {
        const SAYINGS: [&str; 6] = [
            "maximum context length",
            "prompt is too long",
            "exceed context limit",
            "context window",
            "context length",
            "exceeds the available context",
        ];
        let message = self.message.to_ascii_lowercase();
        self.says(&["context_length_exceeded", "request_too_large", "exceed_context_size_error"])
            || SAYINGS.iter().any(|saying| message.contains(saying))
    }

    fn shown(&self) -> String {
        if self.message.is_empty() { String::new() } else { format!(": {}", self.message) }
    }

    fn name(&self) -> &'j str {
        if self.code.is_empty() { self.kind } else { self.code }
    }
}

const OVERLOADED: [&str; 3] = ["overloaded_error", "overloaded", "engine_overloaded"];
const LIMITED: [&str; 4] = ["rate_limit_error", "rate_limit_exceeded", "insufficient_quota", "rate_limited"];
const FILTERED: [&str; 3] = ["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"];

/// The failure that an answer with another status than 200 is.
pub(super) fn of(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Failure {
    let body: Json = serde_json::from_slice(body).unwrap_or_default();
    let words = Words::of(body.get("error").unwrap_or(&body));
    let number = status.as_u16();
    let after = retry_after_ms(headers, now);
    let overloaded = number == 529 || (number >= 500 && words.says(&OVERLOADED));
    let (failure, after) = match number {
        _ if overloaded => (overload(&words), after.or(Some(limits::MODEL_OVERLOADED_SECONDS * 1_000))),
        429 => (limited(&words), after),
        401..=403 => {
            let message = format!("the provider does not let us in (status {number}){}", words.shown());
            (Failure::fatal("model_unauthorized", message), None)
        }
        413 => (overflow(&words), None),
        400 | 404 | 405 | 406 | 409..=412 | 414..=424 | 426..=428 | 430..=499 => (ours(number, &words), None),
        300..=399 => {
            let message = format!(
                "the provider sends its callers elsewhere (status {number}); a base_url is where it is"
            );
            (Failure::fatal("redirect_refused", message), None)
        }
        // Asked too slowly, too early, or the provider's own trouble.
        _ => (broken(number, &words), after),
    };
    detailed(failure, Some(number), &words, after)
}

/// The failure that an error inside of an answer is. `begun`: something of the answer came before, so it may have been billed.
pub(super) fn told(error: &Json, begun: bool) -> Failure {
    let words = Words::of(error);
    let failure = match () {
        () if begun => broken(200, &words),
        () if words.says(&OVERLOADED) => overload(&words),
        () if words.says(&LIMITED) => limited(&words),
        () if words.overflow() => overflow(&words),
        () if words.says(&FILTERED) => filtered(&words),
        () => broken(200, &words),
    };
    let wait = &*failure.code == "overloaded";
    let after = wait.then_some(limits::MODEL_OVERLOADED_SECONDS * 1_000);
    detailed(failure, None, &words, after)
}

fn overload(words: &Words<'_>) -> Failure {
    let message = format!("the provider is overloaded{}", words.shown());
    Failure { class: Class::Recoverable, ..Failure::fatal("overloaded", message) }
}

fn limited(words: &Words<'_>) -> Failure {
    let message = format!("the provider takes no more calls for now{}", words.shown());
    Failure { class: Class::Recoverable, ..Failure::fatal("rate_limited", message) }
}

fn overflow(words: &Words<'_>) -> Failure {
    Failure::fatal("context_overflow", format!("the text is longer than the model reads{}", words.shown()))
}

fn filtered(words: &Words<'_>) -> Failure {
    Failure::fatal(
        "model_content_filtered",
        format!("the provider does not let this text through{}", words.shown()),
    )
}

/// What is wrong with our request.
fn ours(number: u16, words: &Words<'_>) -> Failure {
    let unknown = words.says(&["model_not_found", "not_found_error"]) || number == 404;
    match () {
        () if words.overflow() => overflow(words),
        () if words.says(&FILTERED) => filtered(words),
        () if unknown => {
            let message =
                format!("the provider has no such model, or is not at this base_url (status {number})");
            Failure::fatal("model_unknown", format!("{message}{}", words.shown()))
        }
        () => {
            let message =
                format!("the provider does not take this request (status {number}){}", words.shown());
            Failure::fatal("model_request_invalid", message)
        }
    }
}

fn broken(number: u16, words: &Words<'_>) -> Failure {
    let class = match number {
        408 | 425 | 502 | 504 => Class::Transient,
        _ => Class::Recoverable,
    };
    let message = format!("the provider failed (status {number}){}", words.shown());
    Failure { class, ..Failure::fatal("api_error", message) }
}

fn detailed(failure: Failure, status: Option<u16>, words: &Words<'_>, after: Option<u64>) -> Failure {
    let mut details = Vec::new();
    if let Some(status) = status {
        details.push(("status", Value::unsigned(status.into())));
    }
    if !words.name().is_empty() {
        details.push(("provider_code", Value::string(words.name())));
    }
    if let Some(after) = after {
        details.push(("retry_after_ms", Value::unsigned(after)));
    }
    Failure { details: Value::map(details), ..failure }
}

/// A failure as it may be told: without secrets, and short. Secrets go first, so that no cut leaves a part of one.
pub(super) fn fit(failure: Failure, redactor: &Redactor) -> Failure {
    let failure = redactor.failure(failure);
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    // Our own words stand before the provider's.
    let message = cut(&failure.message, OWN_WORDS_MAX + limits::MODEL_WORDS_MAX).into();
    let details = match failure.details {
        Value::Map(details) => Value::map(details.iter().map(|(name, value)| match value {
            Value::String(text) => (name.clone(), Value::string(cut(text, limits::MODEL_WORDS_MAX))),
            value => (name.clone(), value.clone()),
        })),
        other => other,
    };
    Failure { message, details, ..failure }
}

/// Letters of a failure's message beside the provider's.
const OWN_WORDS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        // Sun, 06 Nov 1994 08:49:37 GMT.
        let now = Timestamp::from_micros(784_111_777_000_000);
        of(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    fn after(failure: &Failure) -> Option<u64> {
        failure.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap())
    }

    // F352, F353, F373
    #[test]
    fn each_status_has_a_code_a_class_and_a_time_to_wait() {
        use Class::{Fatal, Recoverable, Transient};
        for (status, headers, code, class, wait) in [
            (429, &[("retry-after", "7")][..], "rate_limited", Recoverable, Some(7_000)),
            (429, &[("retry-after", "0.25")], "rate_limited", Recoverable, Some(250)),
            (
                429,
                &[("retry-after-ms", "1500"), ("retry-after", "9")],
                "rate_limited",
                Recoverable,
                Some(1_500),
            ),
            (
                429,
                &[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")],
                "rate_limited",
                Recoverable,
                Some(30_000),
            ),
            (429, &[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")], "rate_limited", Recoverable, Some(0)),
            (429, &[("retry-after", "99999999999999999999")], "rate_limited", Recoverable, Some(3_600_000)),
            (429, &[("retry-after", "-5")], "rate_limited", Recoverable, None),
            (429, &[("retry-after", "soon")], "rate_limited", Recoverable, None),
            (429, &[], "rate_limited", Recoverable, None),
            (529, &[], "overloaded", Recoverable, Some(60_000)),
            (529, &[("retry-after", "3")], "overloaded", Recoverable, Some(3_000)),
            (500, &[], "api_error", Recoverable, None),
            (503, &[("retry-after", "2")], "api_error", Recoverable, Some(2_000)),
            (502, &[], "api_error", Transient, None),
            (504, &[], "api_error", Transient, None),
            (408, &[], "api_error", Transient, None),
            (401, &[], "model_unauthorized", Fatal, None),
            (403, &[], "model_unauthorized", Fatal, None),
            (402, &[], "model_unauthorized", Fatal, None),
            (413, &[], "context_overflow", Fatal, None),
            (400, &[], "model_request_invalid", Fatal, None),
            (422, &[], "model_request_invalid", Fatal, None),
            (404, &[], "model_unknown", Fatal, None),
            (302, &[], "redirect_refused", Fatal, None),
        ] {
            let failure = answered(status, headers, "<html>no</html>");
            assert_eq!(
                (&*failure.code, failure.class, after(&failure)),
                (code, class, wait),
                "{status} {headers:?}"
            );
        }
    }

    #[test]
    fn what_a_provider_says_tells_more_than_its_status() {
        for (status, body, code) in [
            (
                400,
                r#"{"error": {"message": "x", "type": "invalid_request_error", "code": "context_length_exceeded"}}"#,
                "context_overflow",
            ),
            (
                400,
                r#"{"error": {"message": "This model's maximum context length is 8192 tokens."}}"#,
                "context_overflow",
            ),
            (
                400,
                r#"{"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                "context_overflow",
            ),
            (
                400,
                r#"{"type": "error", "error": {"type": "invalid_request_error", "message": "input length and `max_tokens` exceed context limit: 1 + 2 > 2"}}"#,
                "context_overflow",
            ),
            (400, r#"{"error": {"code": "content_filter", "message": "x"}}"#, "model_content_filtered"),
            (400, r#"{"error": {"code": "model_not_found", "message": "x"}}"#, "model_unknown"),
            (
                404,
                r#"{"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}"#,
                "model_unknown",
            ),
            (429, r#"{"error": {"code": "insufficient_quota", "message": "x"}}"#, "rate_limited"),
            (
                529,
                r#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#,
                "overloaded",
            ),
            (
                503,
                r#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#,
                "overloaded",
            ),
            (400, r#"{"error": "just words"}"#, "model_request_invalid"),
            (400, "[1, 2]", "model_request_invalid"),
            (400, r#"{"error": {"message": {"deep": 1}, "type": 5}}"#, "model_request_invalid"),
        ] {
            let failure = answered(status, &[], body);
            assert_eq!(&*failure.code, code, "{body}");
        }
        let long = format!(r#"{{"error": {{"message": "{}", "code": "{0}"}}}}"#, "ä".repeat(9_000));
        let failure = fit(answered(400, &[], &long), &Redactor::default());
        assert!(failure.message.chars().count() < 1_000 && failure.details.to_json().len() < 1_000);
        assert_eq!(
            answered(400, &[], r#"{"error": {"code": "x"}}"#).details.get("provider_code"),
            Some(&"x".into())
        );
    }

    #[test]
    fn an_error_inside_of_an_answer_is_told_like_one_outside() {
        let error = |json: &str| serde_json::from_str::<Json>(json).unwrap();
        for (json, begun, code, wait) in [
            (r#"{"type": "overloaded_error", "message": "Overloaded"}"#, false, "overloaded", Some(60_000)),
            (r#"{"type": "overloaded_error", "message": "Overloaded"}"#, true, "api_error", None),
            (r#"{"code": "rate_limit_exceeded"}"#, false, "rate_limited", None),
            (r#"{"type": "api_error", "message": "Internal"}"#, false, "api_error", None),
            (r#"{"message": "prompt is too long"}"#, false, "context_overflow", None),
            ("null", false, "api_error", None),
        ] {
            let failure = told(&error(json), begun);
            assert_eq!((&*failure.code, after(&failure)), (code, wait), "{json}");
        }
    }
}
