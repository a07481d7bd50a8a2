//! From an HTTP tool and a model's arguments to the settings of an `http`: pure, and before anything is looked up.
//!
//! What must hold: arguments change neither the host, nor the port, nor how many segments the path has; a text of theirs that
//! looks like the name of a secret is a text. The call itself goes through the one door (`exec::Http`), with all its checks.

use url::Url;

use crate::limits;
use crate::model::tools::{HttpTool, Piece, path_at, pieces, takes_query};
use crate::model::{Failure, Map, Value};

fn invalid(message: impl Into<std::sync::Arc<str>>) -> Failure {
    Failure::fatal("tool_arguments_invalid", message)
}

/// The settings of the call.
///
/// # Errors
/// `tool_arguments_invalid`: an argument does not go where it should; `tools_invalid`: the tool itself does not.
pub(super) fn request(tool: &HttpTool, arguments: &Map, key: Option<&str>) -> Result<Value, Failure> {
    let mut used = Vec::new();
    let url = fill(&tool.url, arguments, &mut used)?;
    let rest = || arguments.iter().filter(|(name, _)| !used.contains(&&***name));
    let mut secrets = Vec::new();
    let mut headers = match &tool.headers {
        Value::Map(map) => (**map).clone(),
        _ => Map::default(),
    };
    named("/headers", &tool.headers, &mut secrets);
    if let Some(key) = key
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"))
    {
        headers.insert("idempotency-key".into(), Value::string(key));
    }
    let mut settings = vec![
        ("method", Value::String(tool.method.clone())),
        ("url", Value::string(url)),
        ("headers", Value::Map(headers.into())),
    ];
    if takes_query(&tool.method) {
        let query = rest().map(|(name, value)| Ok((name.clone(), listed(name, value)?)));
        settings.push(("query", Value::map(query.collect::<Result<Vec<_>, Failure>>()?)));
    } else {
        named("/body", &tool.body, &mut secrets);
        let mut body = match &tool.body {
            Value::Map(map) => (**map).clone(),
            _ => Map::default(),
        };
        for (name, value) in rest() {
            if body.get(name).is_some() {
                return Err(invalid(format!("the argument {name} is set by the tool itself")));
            }
            body.insert(name.clone(), value.clone());
        }
        settings.push(("body", Value::Map(body.into())));
    }
    settings.push(("secrets", Value::list(secrets)));
    Ok(Value::map(settings))
}

/// A value that the query can say: texts, numbers, truth values, and lists of them.
fn listed(name: &str, value: &Value) -> Result<Value, Failure> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::List(items) => {
            items.iter().try_for_each(|item| scalar(name, item).map(drop)).map(|()| value.clone())
        }
        one => scalar(name, one).map(|_| one.clone()),
    }
}

fn scalar(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.to_string()),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => Ok(value.to_json()),
        other => Err(invalid(format!(
            "the argument {name} must be text, a number or a truth value, not {}",
            other.type_name()
        ))),
    }
}

/// The URL with arguments in it, each percent-encoded whole.
fn fill<'t>(template: &'t str, arguments: &Map, used: &mut Vec<&'t str>) -> Result<String, Failure> {
    let broken = |why: String| Failure::fatal("tools_invalid", format!("the tool's url: {why}"));
    let at = path_at(template).ok_or_else(|| broken("it names no host".into()))?;
    let (origin, rest) = template.split_at(at);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let mut url = origin.to_owned();
    for (nth, segment) in path.split('/').enumerate() {
        if nth > 0 {
            url.push('/');
        }
        let parts = pieces(segment).map_err(broken)?;
        let filled = filled(&parts, arguments, used)?;
        let names = parts.iter().any(|piece| matches!(piece, Piece::Name(_)));
        if names && matches!(&*filled, "" | "." | "..") {
            return Err(invalid(format!("{filled:?} cannot stand in the path of the tool's url")));
        }
        url.push_str(&filled);
    }
    if let Some(query) = query {
        url.push('?');
        url.push_str(&filled(&pieces(query).map_err(broken)?, arguments, used)?);
    }
    if url.len() > limits::HTTP_URL_BYTES_MAX {
        return Err(invalid(format!("the url would have {} bytes (limit http_url_bytes_max)", url.len())));
    }
    same_place(origin, path, &url).then_some(url).ok_or_else(|| invalid("the arguments would lead elsewhere"))
}

fn filled<'t>(parts: &[Piece<'t>], arguments: &Map, used: &mut Vec<&'t str>) -> Result<String, Failure> {
    let mut text = String::new();
    for part in parts {
        match part {
            Piece::Fixed(fixed) => text.push_str(fixed),
            Piece::Name(name) => {
                let value =
                    arguments.get(name).ok_or_else(|| invalid(format!("the argument {name} is missing")))?;
                for byte in scalar(name, value)?.bytes() {
                    match byte {
                        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                            text.push(char::from(byte));
                        }
                        byte => text.push_str(&format!("%{byte:02X}")),
                    }
                }
                used.push(name);
            }
        }
    }
    Ok(text)
}

/// Whatever a parser makes of it: the same origin, and as many segments.
fn same_place(origin: &str, path: &str, url: &str) -> bool {
    let (Ok(origin), Ok(url)) = (Url::parse(origin), Url::parse(url)) else { return false };
    let segments = url.path_segments().map_or(0, Iterator::count);
    origin.origin() == url.origin() && segments == path.split('/').skip(1).count().max(1)
}

/// The secrets that a setting names, as `exec::request` wants to be told of them.
fn named(at: &str, value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::String(text) => {
            for rest in text.split("${secret:").skip(1) {
                if let Some((name, _)) = rest.split_once('}') {
                    found.push(Value::map([("at", Value::string(at)), ("name", Value::string(name))]));
                }
            }
        }
        Value::List(items) => {
            for (nth, item) in items.iter().enumerate() {
                named(&format!("{at}/{nth}"), item, found);
            }
        }
        Value::Map(map) => {
            for (key, item) in map.iter() {
                named(&format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), item, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tools::{Entry, read};

    fn tool(http: &str) -> HttpTool {
        let list = format!(
            r#"[{{"name": "n", "description": "d", "http": {http}, "parameters": {{"type": "object",
                "properties": {{"a": {{}}, "b": {{}}, "c": {{}}}}}}}}]"#
        );
        match read(&Value::from_json(list.as_bytes()).unwrap()).unwrap().remove(0) {
            Entry::Http(tool) => (*tool).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn map(json: Value) -> Map {
        match json {
            Value::Map(map) => (*map).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn one(name: &str, value: &str) -> Map {
        map(Value::map([(name, Value::string(value))]))
    }

    #[test]
    fn arguments_go_into_path_query_and_body() {
        let get =
            tool(r#"{"url": "https://h.example/v1/{a}?unit={b}", "headers": {"k": "Bearer ${secret:K}"}}"#);
        let arguments =
            map(Value::from_json(r#"{"a": "Bad Ems/x", "b": 7, "c": ["x", true]}"#.as_bytes()).unwrap());
        let made = request(&get, &arguments, Some("key")).unwrap();
        assert_eq!(
            made.to_json(),
            r#"{"headers":{"idempotency-key":"key","k":"Bearer ${secret:K}"},"method":"GET","query":{"c":["x",true]},"secrets":[{"at":"/headers/k","name":"K"}],"url":"https://h.example/v1/Bad%20Ems%2Fx?unit=7"}"#
        );
        let post = tool(
            r#"{"method": "post", "url": "https://h.example/{a}", "body": {"key": "${secret:K}", "n": [{"x/y": "${secret:L}"}]}}"#,
        );
        let made = request(&post, &arguments, None).unwrap();
        assert_eq!(
            made.to_json(),
            r#"{"body":{"b":7,"c":["x",true],"key":"${secret:K}","n":[{"x/y":"${secret:L}"}]},"headers":{},"method":"POST","secrets":[{"at":"/body/key","name":"K"},{"at":"/body/n/0/x~1y","name":"L"}],"url":"https://h.example/Bad%20Ems%2Fx"}"#
        );
    }

    // F108
    #[test]
    fn no_argument_leads_elsewhere() {
        let get = tool(r#"{"url": "https://h.example:8443/v1/{a}/end?q={b}"}"#);
        let with = |value: &str| {
            let mut arguments = one("a", value);
            arguments.insert("b".into(), Value::string(value));
            request(&get, &arguments, None)
        };
        for hostile in ["..", ".", ""] {
            assert_eq!(&*with(hostile).unwrap_err().code, "tool_arguments_invalid", "{hostile:?}");
        }
        for hostile in [
            "../../admin",
            "//evil.example",
            "..%2f..%2fadmin",
            "%2e%2e",
            "a\r\nHost: evil.example",
            "x?y=1",
            "x#y",
            "\\\\evil",
            "@evil.example",
            "\u{2025}",
            "\u{ff0e}\u{ff0e}",
            "a\0b",
            ";x",
            "\u{202e}",
            "x&admin=1",
            ".%2e",
            "\t..",
        ] {
            let made = with(hostile).unwrap();
            let url = Url::parse(made.get("url").and_then(Value::as_str).unwrap()).unwrap();
            assert_eq!((url.host_str(), url.port()), (Some("h.example"), Some(8443)), "{hostile:?}");
            let path: Vec<&str> = url.path_segments().unwrap().collect();
            assert_eq!((path.len(), path[0], path[2]), (3, "v1", "end"), "{hostile:?}: {url}");
            let pairs: Vec<_> = url.query_pairs().collect();
            assert_eq!(pairs, [("q".into(), hostile.into())], "{hostile:?}: {url}");
            assert!(!made.to_json().contains("\\r"), "{made}");
        }
        assert!(with(&"x".repeat(limits::HTTP_URL_BYTES_MAX)).is_err());
        assert!(request(&get, &one("a", "x"), None).unwrap_err().message.contains("argument b is missing"));
    }

    // F411
    #[test]
    fn an_argument_names_no_secret_and_replaces_nothing_of_the_tool() {
        let post = tool(r#"{"method": "POST", "url": "https://h.example/", "body": {"key": "${secret:K}"}}"#);
        let made = request(&post, &one("a", "${secret:K}"), None).unwrap();
        assert_eq!(made.get("secrets").unwrap().to_json(), r#"[{"at":"/body/key","name":"K"}]"#);
        assert!(request(&post, &one("key", "x"), None).unwrap_err().message.contains("set by the tool"));
        let get = tool(r#"{"url": "https://h.example/{a}"}"#);
        let mut arguments = one("a", "${secret:K}");
        arguments.insert("b".into(), Value::string("${secret:K}"));
        let made = request(&get, &arguments, None).unwrap();
        assert_eq!(made.get("secrets"), Some(&Value::list(Vec::new())));
        assert!(made.to_json().contains("%24%7Bsecret%3AK%7D"), "{made}");
    }
}
