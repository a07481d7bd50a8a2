//! Budgets as the configuration has them: a list of tables.

use std::sync::Arc;

use super::{Limit, Per, Scope};
use crate::limits;
use crate::model::Value;
use crate::model::budget::OnBreach;

const KEYS: [&str; 6] = ["scope", "per", "usd", "tokens", "on_breach", "allow_unpriced"];

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
    items.iter().zip(1..).map(one).collect()
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
    Ok(Limit { scope: read_scope(&scope)?, per, usd, tokens, on_breach, allow_unpriced })
}

fn read_scope(text: &str) -> Result<Scope, String> {
    let name = |name: &str| Some(Arc::<str>::from(name)).filter(|name| !name.is_empty());
    let scope = match text.split_once(':') {
        None if text == "node" => Some(Scope::Node),
        Some(("workspace", workspace)) => name(workspace).map(Scope::Workspace),
        Some(("workflow", workflow)) => name(workflow).map(Scope::Workflow),
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
                {"scope": "agent:writer", "usd": "1", "allow_unpriced": true, "on_breach": "degrade"}]"#,
        );
        let read = read.unwrap();
        let told: Vec<String> =
            read.iter().map(|limit| format!("{} {}", limit.scope, limit.per.as_str())).collect();
        assert_eq!(
            told,
            ["node hour", "workspace:acme day", "workflow:acme/report total", "agent:writer day"]
        );
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
