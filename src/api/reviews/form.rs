//! Forms of pages: fields from a review's JSON Schema, and back from what a browser sent to a value.
//!
//! Only the outermost properties become fields; what is no text, number, truth or choice is JSON in a text area. Whether the
//! value fits its schema is judged with the decision, not here.

use std::borrow::Cow;

use crate::api::request::percent_decoded;
use crate::limits;
use crate::model::Value;
use crate::wire::problem::{Problem, Wrong};

/// What fields of a review's own form are called, before their name.
const PREFIX: &str = "field.";
/// The field of a form that has no properties.
const WHOLE: &str = "form";

/// How a field is filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind<'a> {
    Text,
    Whole,
    Number,
    Truth,
    Choice(&'a [Value]),
    Json,
}

/// A field of a page.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    /// What the browser sends it as.
    pub(super) name: String,
    /// What it is called; empty for all of a form.
    pub(super) label: &'a str,
    /// What it is for, in the schema's words.
    pub(super) help: Option<&'a str>,
    pub(super) kind: Kind<'a>,
    pub(super) required: bool,
    pub(super) default: Option<&'a Value>,
}

/// The fields of a schema, in the order of their names.
pub(super) fn fields(schema: &Value) -> Vec<Field<'_>> {
    let required = |name: &str| match schema.get("required") {
        Some(Value::List(names)) => names.iter().any(|required| required.as_str() == Some(name)),
        _ => false,
    };
    let properties = match schema.get("properties") {
        Some(Value::Map(map)) if map.iter().count() <= limits::REVIEW_PAGE_FIELDS_MAX => Some(map),
        _ => None,
    };
    let Some(properties) = properties else {
        let whole = Field {
            name: WHOLE.into(),
            label: "",
            help: schema.get("description").and_then(Value::as_str),
            kind: Kind::Json,
            required: false,
            default: schema.get("default"),
        };
        return vec![whole];
    };
    properties
        .iter()
        .map(|(name, schema)| Field {
            name: format!("{PREFIX}{name}"),
            label: name,
            help: schema.get("description").or_else(|| schema.get("title")).and_then(Value::as_str),
            kind: kind(schema),
            required: required(name),
            default: schema.get("default"),
        })
        .collect()
}

fn kind(schema: &Value) -> Kind<'_> {
    let plain = |value: &Value| !matches!(value, Value::List(_) | Value::Map(_));
    if let Some(Value::List(choices)) = schema.get("enum")
        && !choices.is_empty()
        && choices.len() <= limits::REVIEW_PAGE_FIELDS_MAX
        && choices.iter().all(plain)
    {
        return Kind::Choice(choices);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Kind::Text,
        Some("integer") => Kind::Whole,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Truth,
        _ => Kind::Json,
    }
}

/// Names and values that a browser sent.
pub(super) struct Sent<'b>(Vec<(Cow<'b, str>, Cow<'b, str>)>);

impl<'b> Sent<'b> {
    /// Reads `application/x-www-form-urlencoded`.
    pub(super) fn read(body: &'b [u8]) -> Result<Self, Box<Problem>> {
        let broken = || Problem::new(400, "invalid_body", "the form is no percent-encoded UTF-8");
        let text = std::str::from_utf8(body).map_err(|_| broken())?;
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((
                percent_decoded(name, true).ok_or_else(broken)?,
                percent_decoded(value, true).ok_or_else(broken)?,
            ));
            if pairs.len() > 2 * limits::REVIEW_PAGE_FIELDS_MAX {
                let detail = format!("a form of more than {} fields", 2 * limits::REVIEW_PAGE_FIELDS_MAX);
                return Err(Problem::new(422, "limit_exceeded", detail).limit("review_page_fields_max"));
            }
        }
        Ok(Self(pairs))
    }

    /// The first value under a name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// What was filled in; `None` when nothing was and nothing needs to be.
pub(super) fn filled(schema: &Value, sent: &Sent<'_>, approved: bool) -> Result<Option<Value>, Box<Problem>> {
    let fields = fields(schema);
    if let [whole] = &fields[..]
        && whole.name == WHOLE
    {
        let text = sent.text(WHOLE).filter(|text| !text.trim().is_empty());
        return text.map(|text| json(text, "")).transpose();
    }
    let mut members = Vec::new();
    for field in &fields {
        let Some(text) = sent.text(&field.name).filter(|text| !text.is_empty()) else { continue };
        members.push((field.label, value(field, text)?));
    }
    // Who rejects need not fill in anything.
    Ok((approved || !members.is_empty()).then(|| Value::map(members)))
}

fn value(field: &Field<'_>, text: &str) -> Result<Value, Box<Problem>> {
    Ok(match field.kind {
        Kind::Text => Value::string(text.replace("\r\n", "\n")),
        Kind::Truth => Value::Bool(text == "true"),
        Kind::Choice(choices) => {
            let chosen = text.parse().ok().and_then(|number: usize| choices.get(number));
            chosen.cloned().ok_or_else(|| unfit(field.label, "none of its choices"))?
        }
        // What is no number is judged, and named, with the schema.
        Kind::Whole | Kind::Number => {
            Value::from_json(text.trim().as_bytes()).unwrap_or_else(|_| Value::string(text))
        }
        Kind::Json => json(text, field.label)?,
    })
}

fn json(text: &str, label: &str) -> Result<Value, Box<Problem>> {
    Value::from_json(text.as_bytes()).map_err(|error| unfit(label, &format!("no JSON: {error}")))
}

fn unfit(label: &str, why: &str) -> Box<Problem> {
    let pointer = if label.is_empty() { "/form".into() } else { format!("/form/{label}") };
    let wrong = Wrong { pointer: Some(pointer), detail: why.to_owned(), ..Wrong::default() };
    Problem::new(422, "invalid_form", "what was filled in cannot be read").at(&wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let text = br#"{"type":"object","required":["n"],"properties":{
            "t":{"type":"string"},"n":{"type":"integer"},"b":{"type":"boolean"},
            "c":{"enum":["a",2,null]},"o":{"type":"object"}}}"#;
        Value::from_json(text).unwrap()
    }

    // F320
    #[test]
    fn what_a_browser_sends_becomes_what_the_schema_asks_for() {
        let body =
            b"field.t=a+%26%0D%0Ab&field.n=7&field.b=false&field.c=1&field.o=%7B%22x%22%3A1%7D&reason=x";
        let sent = Sent::read(body).unwrap();
        let value = filled(&schema(), &sent, true).unwrap().unwrap();
        let wanted = br#"{"t":"a &\nb","n":7,"b":false,"c":2,"o":{"x":1}}"#;
        assert_eq!(value, Value::from_json(wanted).unwrap());
        let nothing = Sent::read(b"field.t=&field.n=").unwrap();
        assert_eq!(filled(&schema(), &nothing, false).unwrap(), None);
        assert_eq!(filled(&schema(), &nothing, true).unwrap(), Some(Value::from_json(b"{}").unwrap()));
        for (body, at) in [(&b"field.c=9"[..], "/form/c"), (b"field.o=%7B", "/form/o")] {
            let refused = filled(&schema(), &Sent::read(body).unwrap(), true).unwrap_err();
            assert_eq!((refused.status, refused.errors[0]["pointer"].as_str()), (422, Some(at)));
        }
        let whole = Value::from_json(br#"{"type":"array"}"#).unwrap();
        let sent = Sent::read(b"form=%5B1%5D").unwrap();
        assert_eq!(filled(&whole, &sent, true).unwrap(), Some(Value::from_json(b"[1]").unwrap()));
        assert_eq!(Sent::read(b"a=%ff").err().unwrap().status, 400);
    }
}
