//! Budgets as the configuration has them: a list of tables.

use std::sync::Arc;

use super::{Limit, Per, Scope};
use crate::limits;
use crate::model::budget::OnBreach;
use crate::model::{Value, Workspace};

const KEYS: [&str; 7] = ["scope", "per", "usd", "tokens", "warn_at", "on_breach", "allow_unpriced"];
const WARN_AT_PERMILLE: u32 = 800;

/// Reads the list.
///
/// # Errors
/// In one line: which budget, and what is wrong with it.
pub fn read(value: &Value) -> Result<Vec<Limit>, String> {
    let Value::List(items) = value else { return Err("a list of budgets is expected".into()) };
    let most = limits::BUDGETS_MAX;
    if items.len() > most {
        return Err(format!("{} budgets; at most {most} are allowed (limit budgets_max)", items.len()));
    }
    let one = |(item, number): (&Value, usize)| {
        limit(item).map_err(|problem| format!("budget {number}: {problem}"))
    };
    let limits: Vec<Limit> = items.iter().zip(1..).map(one).collect::<Result<_, _>>()?;
    for (at, limit) in limits.iter().enumerate() {
        let same = |other: &Limit| other.scope == limit.scope && other.per == limit.per;
        if let Some(first) = limits.iter().take(at).position(same) {
            let (scope, per) = (&limit.scope, limit.per.as_str());
            return Err(format!(
                "budget {}: {scope} per {per} is limited by budget {} already",
                at + 1,
                first + 1
            ));
        }
    }
    Ok(limits)
}

fn limit(value: &Value) -> Result<Limit, String> {
    let Value::Map(map) = value else { return Err("a table is expected".into()) };
    if let Some((key, _)) = map.iter().find(|(key, _)| !KEYS.contains(&&***key)) {
        return Err(format!("unknown key `{key}`; known: {}", KEYS.join(", ")));
    }
    let text = |key: &str| match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{key}` must be a text, not {}", other.type_name())),
    };
    let usd = match map.get("usd") {
        None => None,
        Some(Value::String(text)) => Some(text.to_string()),
        Some(number @ (Value::Int(_) | Value::Float(_))) => Some(number.to_json()),
        Some(other) => {
            return Err(format!("`usd` must be an amount such as \"5.00\", not {}", other.type_name()));
        }
    };
    let usd = usd.map(|usd| usd.parse().map_err(|error| format!("usd: {error}"))).transpose()?;
    let tokens = match map.get("tokens") {
        None => None,
        Some(Value::Int(tokens)) if *tokens >= 0 => u64::try_from(*tokens).ok(),
        Some(_) => return Err("`tokens` must be a whole number".into()),
    };
    if usd.is_none() && tokens.is_none() {
        return Err("it limits nothing: `usd` or `tokens` is missing".into());
    }
    let scope =
        text("scope")?.ok_or("`scope` is missing: node, workspace:NAME, workflow:NAME or agent:ROLE")?;
    let per = match text("per")?.as_deref() {
        None | Some("day") => Per::Day,
        Some("hour") => Per::Hour,
        Some("total") => Per::Total,
        Some(other) => return Err(format!("per = {other:?}: hour, day or total is expected")),
    };
    let on_breach = match text("on_breach")?.as_deref() {
        None | Some("stop") => OnBreach::Stop,
        Some("pause") => OnBreach::Pause,
        Some("degrade") => OnBreach::Degrade,
        Some(other) => return Err(format!("on_breach = {other:?}: stop, pause or degrade is expected")),
    };
    let allow_unpriced = match map.get("allow_unpriced") {
        None => false,
        Some(Value::Bool(allowed)) => *allowed,
        Some(_) => return Err("`allow_unpriced` must be true or false".into()),
    };
    let warn_at_permille = warn_at(map.get("warn_at"))?;
    Ok(Limit { scope: read_scope(&scope)?, per, usd, tokens, warn_at_permille, on_breach, allow_unpriced })
}

/// A part of one, in thousandths.
fn warn_at(value: Option<&Value>) -> Result<u32, String> {
    let part = match value {
        None => return Ok(WARN_AT_PERMILLE),
        Some(Value::Float(part)) => *part,
        Some(Value::Int(0)) => 0.0,
        Some(Value::Int(1)) => 1.0,
        Some(_) => f64::NAN,
    };
    if !(0.0..=1.0).contains(&part) {
        return Err("`warn_at` must be a number from 0 to 1, as in 0.8".into());
    }
    Ok((part * 1_000.0).round() as u32)
}

fn read_scope(text: &str) -> Result<Scope, String> {
    let name = |name: &str| Some(Arc::<str>::from(name)).filter(|name| !name.is_empty());
    let workspace = |text: &str| {
        let read = text.parse::<Workspace>();
        read.map_err(|error| format!("scope = \"workspace:{text}\": the workspace {error}"))
    };
    // Named as inside the node: those of `default` have no prefix.
    let workflow = |text: &str| match text.split_once('/') {
        None => Ok(name(text)),
        Some((_, name)) if name.is_empty() || name.contains('/') => Ok(None),
        Some((owner, name)) => workspace(owner).map(|owner| Some(owner.inside(&name.into()))),
    };
    let scope = match text.split_once(':') {
        None if text == "node" => Some(Scope::Node),
        Some(("workspace", text)) => Some(Scope::Workspace(workspace(text)?.name().into())),
        Some(("workflow", text)) => workflow(text)?.map(Scope::Workflow),
        Some(("agent", role)) => name(role).map(Scope::Agent),
        _ => None,
    };
    scope.ok_or_else(|| {
        format!(
            "scope = {text:?}: node, workspace:NAME, workflow:NAME (WORKSPACE/NAME) or agent:ROLE is expected"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(text: &str) -> Result<Vec<Limit>, String> {
        read(&Value::from_json(text.as_bytes()).unwrap())
    }

    // F404
    #[test]
    fn budgets_are_read_and_what_is_wrong_is_named() {
        let read = read_json(
            r#"[{"scope": "node", "per": "hour", "usd": "5.00"}, {"scope": "workspace:acme", "usd": 2.5, "tokens": 9},
                {"scope": "workflow:acme/report", "per": "total", "tokens": 1, "on_breach": "pause"},
                {"scope": "agent:writer", "usd": "1", "allow_unpriced": true, "on_breach": "degrade", "warn_at": 0.5},
                {"scope": "workflow:default/a", "usd": "1"}]"#,
        );
        let read = read.unwrap();
        let told: Vec<String> =
            read.iter().map(|limit| format!("{} {}", limit.scope, limit.per.as_str())).collect();
        assert_eq!(
            told,
            [
                "node hour",
                "workspace:acme day",
                "workflow:acme/report total",
                "agent:writer day",
                "workflow:a day"
            ]
        );
        let warns: Vec<u32> = read.iter().map(|limit| limit.warn_at_permille).collect();
        assert_eq!(warns, [800, 800, 800, 500, 800]);
        assert_eq!(read[1].usd.map(|usd| usd.to_string()), Some("2.50".into()));
        for (text, problem) in [
            (r#"[{"usd": "1"}]"#, "budget 1: `scope` is missing"),
            (
                r#"[{"scope": "node", "usd": "1"}, {"scope": "team:a", "usd": "1"}]"#,
                "budget 2: scope = \"team:a\"",
            ),
            (r#"[{"scope": "agent:", "usd": "1"}]"#, "scope = \"agent:\""),
            (r#"[{"scope": "node"}]"#, "limits nothing"),
            (r#"[{"scope": "node", "usd": "-1"}]"#, "usd: "),
            (r#"[{"scope": "node", "usd": "1", "per": "week"}]"#, "per = \"week\""),
            (r#"[{"scope": "node", "usd": "1", "dollars": 1}]"#, "unknown key `dollars`"),
            (r#"[{"scope": "node", "usd": "1", "warn_at": 80}]"#, "`warn_at` must be a number from 0 to 1"),
            (r#"[{"scope": "workspace:A b", "usd": "1"}]"#, "does not fit"),
            (r#"[{"scope": "workflow:a/b/c", "usd": "1"}]"#, "scope = \"workflow:a/b/c\""),
            (
                r#"[{"scope": "node", "usd": "1"}, {"scope": "node", "per": "day", "tokens": 1}]"#,
                "budget 2: node per day is limited by budget 1 already",
            ),
            (r#"{"scope": "node"}"#, "a list"),
        ] {
            let found = read_json(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
        let many =
            format!("[{}]", vec![r#"{"scope": "node", "usd": "1"}"#; limits::BUDGETS_MAX + 1].join(","));
        assert!(read_json(&many).unwrap_err().contains("budgets_max"));
    }
}
