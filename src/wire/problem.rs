//! Problem documents (RFC 9457): the body of every answer that is not a success.
//!
//! A problem names what is wrong, where, and which limit was hit, and says whether the same request may be sent
//! again. `outcome: not_applied` is a promise that nothing was and nothing will be done; `unknown` is its absence.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

type Text = Cow<'static, str>;

/// One problem document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// `/problems/` and the code with dashes.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: Text,
    /// The HTTP status.
    pub status: u16,
    /// Stable, snake_case.
    pub code: Text,
    /// One sentence that names the thing, the value and the limit.
    pub detail: String,
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// May the same request be sent again?
    pub retryable: bool,
    /// `not_applied`: nothing was done. `unknown`: it may have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Text>,
    /// When to try again, milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Name of the limit that was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Text>,
    /// Each place that is wrong: pointer, line, column, detail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<serde_json::Value>,
    /// What was found besides and does not matter for the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<serde_json::Value>,
    /// For `validate`: always false in a problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// The run that stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The request's id, as in the header `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Methods that the path knows; the header `Allow`.
    #[serde(skip)]
    pub allow: Option<&'static str>,
}

impl Problem {
    /// A problem with this status, code and sentence.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind: format!("/problems/{}", code.replace('_', "-")),
            title: Cow::Borrowed(title(status)),
            status,
            code: Cow::Borrowed(code),
            detail: detail.into(),
            instance: None,
            retryable: false,
            outcome: None,
            retry_after_ms: None,
            limit: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            valid: None,
            run_id: None,
            request_id: None,
            allow: None,
        })
    }

    /// A 503 that did nothing and may be sent again.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Box<Self> {
        let mut problem = Self::new(503, code, detail);
        problem.retryable = true;
        problem.outcome = Some(Cow::Borrowed("not_applied"));
        problem.retry_after_ms = Some(1_000);
        problem
    }

    /// Names the limit that was hit.
    #[must_use]
    pub fn limit(mut self: Box<Self>, limit: impl Into<Text>) -> Box<Self> {
        self.limit = Some(limit.into());
        self
    }

    /// Adds one place that is wrong.
    #[must_use]
    pub fn at(mut self: Box<Self>, error: &impl Serialize) -> Box<Self> {
        self.errors.extend(serde_json::to_value(error));
        self
    }
}

/// One place in a request that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wrong {
    /// JSON Pointer into the body; a header or parameter is named in `detail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// 1 for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// 1 for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong there.
    pub detail: String,
}

fn title(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_whether_to_try_again() {
        let problem = Problem::unavailable("shard_queue_full", "shard 3 has 16384 commands waiting")
            .limit("shard_queue_commands_max")
            .at(&Wrong { pointer: Some("/inputs".into()), detail: "x".into(), ..Wrong::default() });
        let json: serde_json::Value = serde_json::from_slice(&crate::wire::to_json(&problem)).unwrap();
        assert_eq!(json["type"], "/problems/shard-queue-full");
        assert_eq!(json["title"], "Service Unavailable");
        assert_eq!(
            (json["outcome"].as_str(), json["retryable"].as_bool()),
            (Some("not_applied"), Some(true))
        );
        assert_eq!(json["limit"], "shard_queue_commands_max");
        assert_eq!(json["errors"][0]["pointer"], "/inputs");
        assert!(json.get("instance").is_none());
        let back: Problem = serde_json::from_value(json).unwrap();
        assert_eq!(back, *problem);
    }
}
