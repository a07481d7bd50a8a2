//! Embeddings: texts in, a vector for each out (`with.embed` of an agent). Pure.
//!
//! A call for vectors is a call of a model as any: quoted, reserved, made through the same door, counted and settled. Only the
//! request and what is read from its answer differ.
//!
//! What must hold: there is one vector for each text, in the order of the texts; all have the same length, the one that was asked
//! for if one was; every number is finite. Numbers are kept as providers compute them, in 32 bits. Anything else is no answer.

use serde_json::json;

use super::openai::text;
use super::prompt::Json;
use super::reply::{Raw, invalid};
use super::settings::{Kind, Model};
use crate::limits;
use crate::model::agent::{Ask, Stop};
use crate::model::{Failure, Value};

/// Are vectors asked for?
pub(super) fn is_wanted(ask: &Ask) -> bool {
    ask.request.get("embed").is_some()
}

fn wrong(message: String) -> Failure {
    Failure::fatal("model_request_invalid", message)
}

/// The texts of a call; one text is a list of one.
pub(super) fn texts(ask: &Ask) -> Result<Vec<&str>, Failure> {
    let text = |value: &'_ Value| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(()),
        Value::String(_) => Err(wrong("embed has a text that is empty".into())),
        other => Err(wrong(format!("embed must be a text or a list of texts, not {}", other.type_name()))),
    };
    let items = match ask.request.get("embed") {
        Some(Value::List(items)) => &items[..],
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let most = limits::EMBED_TEXTS_MAX;
    if items.is_empty() || items.len() > most {
        return Err(wrong(format!(
            "embed has {} texts; from 1 to {most} are expected (limit embed_texts_max)",
            items.len()
        )));
    }
    items.iter().try_for_each(text)?;
    Ok(items.iter().filter_map(Value::as_str).collect())
}

/// The length of vectors that is asked for.
fn dimensions(ask: &Ask) -> Result<Option<usize>, Failure> {
    let most = limits::EMBED_DIMENSIONS_MAX;
    match ask.request.get("dimensions") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Int(number)) if (1..=most as i64).contains(number) => Ok(usize::try_from(*number).ok()),
        Some(other) => Err(wrong(format!("dimensions = {other}: a number from 1 to {most} is expected"))),
    }
}

fn too_many(numbers: usize) -> String {
    let most = limits::EMBED_NUMBERS_MAX;
    format!("the vectors have {numbers} numbers; one call may bring {most} (limit embed_numbers_max)")
}

/// The body of a request.
///
/// # Errors
/// `model_request_invalid`: what is asked for is none, or the provider's interface has no embeddings.
pub(super) fn request(ask: &Ask, model: &Model) -> Result<Json, Failure> {
    if model.provider.kind != Kind::OpenAi {
        let message = format!(
            "{} of {} gives no vectors: its interface has no embeddings (kind = \"openai\" has)",
            model.name, model.provider.name
        );
        return Err(wrong(message));
    }
    let (texts, dimensions) = (texts(ask)?, dimensions(ask)?);
    let mut body = json!({"model": model.id, "input": texts});
    if let (Some(dimensions), Json::Object(members)) = (dimensions, &mut body) {
        let numbers = dimensions.saturating_mul(texts.len());
        if numbers > limits::EMBED_NUMBERS_MAX {
            return Err(wrong(too_many(numbers)));
        }
        members.insert("dimensions".into(), dimensions.into());
    }
    Ok(body)
}

/// Reads an answer: its text is the list of vectors as JSON.
///
/// # Errors
/// `model_answer_invalid`, `answer_too_large`.
pub(super) fn read(ask: &Ask, body: &Json) -> Result<Raw, Failure> {
    let count = texts(ask)?.len();
    let data = body.get("data").and_then(Json::as_array).ok_or_else(|| invalid("it has no data"))?;
    if data.len() != count {
        return Err(invalid(&format!("it has {} vectors for {count} texts", data.len())));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    let (mut length, mut numbers) = (dimensions(ask)?, 0_usize);
    for (position, item) in data.iter().enumerate() {
        let vector = vector(item)?;
        let wanted = *length.get_or_insert(vector.len());
        if vector.len() != wanted {
            return Err(invalid(&format!("a vector has {} numbers, and {wanted} are wanted", vector.len())));
        }
        numbers += vector.len();
        if numbers > limits::EMBED_NUMBERS_MAX {
            return Err(Failure::fatal("answer_too_large", too_many(wanted.saturating_mul(count))));
        }
        // Some servers do not number what they send in order.
        let index = item.get("index").and_then(Json::as_u64).map_or(Some(position), |at| at.try_into().ok());
        match index.and_then(|at| vectors.get_mut(at)) {
            Some(place @ None) => *place = Some(vector),
            _ => return Err(invalid("two of its vectors are of one text, or one of none")),
        }
    }
    let vectors: Vec<Vec<f32>> = vectors.into_iter().flatten().collect();
    let text = serde_json::to_string(&vectors).map_err(|error| invalid(&error.to_string()))?;
    Ok(Raw {
        id: self::text(body, "/id").to_owned(),
        model: self::text(body, "/model").to_owned(),
        bytes: text.len(),
        text,
        stop: Some(Stop::End),
        usage: usage(body),
        over: true,
        is_vectors: true,
        ..Raw::default()
    })
}

fn vector(item: &Json) -> Result<Vec<f32>, Failure> {
    let numbers = item.get("embedding").and_then(Json::as_array);
    let numbers = numbers.filter(|numbers| !numbers.is_empty());
    let numbers = numbers.ok_or_else(|| invalid("one of its vectors is no list of numbers"))?;
    let number = |number: &Json| {
        #[expect(clippy::cast_possible_truncation, reason = "vectors are computed in 32 bits or fewer")]
        let number = number.as_f64().map(|number| number as f32);
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| invalid("one of its vectors has something in it that is no number"))
    };
    numbers.iter().map(number).collect()
}

/// What it took, as chat completions say it: nothing is written.
fn usage(body: &Json) -> Json {
    let of = |pointer| body.pointer(pointer).and_then(Json::as_u64);
    match of("/usage/prompt_tokens").or_else(|| of("/usage/total_tokens")) {
        Some(read) => json!({"prompt_tokens": read, "completion_tokens": 0}),
        None => Json::Null,
    }
}

#[cfg(test)]
#[path = "tests/embeddings.rs"]
mod tests;
