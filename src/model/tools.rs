//! The tools that an agent may use, as its list names them: `mcp:server/*`, `mcp:server/tool`, `patch`, `workflow:name@version`,
//! or a map that describes an HTTP tool. Read here, so that a document is refused for what a call would be refused for.
//!
//! What must hold: what is not in the list is not the agent's (F414); every tool has one name that providers of models take, and
//! no two tools of a list have the same. Above [`limits::TOOLS_PER_AGENT_MAX`] entries a list is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::agent::ToolSpec;
use super::{Map, Value, parse_duration};
use crate::limits;

/// What a list says of one tool, or of all tools of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Of a tool server of the node; without a tool, all of them.
    Mcp {
        /// As the node's configuration calls it.
        server: Arc<str>,
        /// As the server calls it.
        tool: Option<Arc<str>>,
    },
    /// Proposing a patch of the agent's own run.
    Patch,
    /// Another workflow.
    Workflow {
        /// In the workspace of the agent's.
        name: Arc<str>,
        /// Or a tag; without one the newest.
        version: Option<Arc<str>>,
    },
    /// A call that the document describes.
    Http(Arc<HttpTool>),
}

/// A tool that is an HTTP call.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTool {
    /// As models are told of it.
    pub spec: ToolSpec,
    /// In capitals.
    pub method: Arc<str>,
    /// With `{name}` in its path and its query.
    pub url: Arc<str>,
    /// Secrets are names in it; `Null` without any.
    pub headers: Value,
    /// What arguments are added to; `Null` without one.
    pub body: Value,
    /// It may be called again when nobody knows whether it was.
    pub idempotent: bool,
    /// How long a call may take.
    pub timeout: Option<Duration>,
}

/// A tool that whoever runs the agent performs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// `propose_patch`
    Patch,
    /// A child run.
    Workflow {
        /// See [`Entry::Workflow`].
        name: Arc<str>,
        /// See [`Entry::Workflow`].
        version: Option<Arc<str>>,
    },
}

/// Why a list is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// JSON Pointer into the list.
    pub pointer: String,
    /// One sentence.
    pub message: String,
}

/// The name of the tool that proposes patches.
pub const PATCH: &str = "propose_patch";
/// What the names of workflows begin with; no server is called so.
const WORKFLOW: &str = "workflow";
/// Between the name of a server and that of its tool.
const BETWEEN: &str = "__";
/// Verbs of HTTP tools; the first three carry no body.
const METHODS: [&str; 6] = ["GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"];

/// Does this verb take arguments in its query?
pub fn takes_query(method: &str) -> bool {
    METHODS.iter().take(3).any(|verb| *verb == method)
}

fn wrong(pointer: impl Into<String>, message: impl Into<String>) -> Wrong {
    Wrong { pointer: pointer.into(), message: message.into() }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// May a tool server be called so?
pub fn is_server_name(name: &str) -> bool {
    (1..=limits::TOOL_SERVER_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && !name.contains(BETWEEN)
        && !name.starts_with('_')
        && !name.ends_with('_')
        && name != WORKFLOW
}

/// The name that models know a tool of a server by: `server__tool`. What providers do not take is replaced, and a few letters
/// that only this name has stand in for it.
pub fn shown_name(server: &str, tool: &str) -> Arc<str> {
    let whole = format!("{server}{BETWEEN}{tool}");
    if whole.len() <= limits::TOOL_NAME_BYTES_MAX && whole.bytes().all(plain) {
        return whole.into();
    }
    let kept: String = whole.bytes().map(|b| if plain(b) { char::from(b) } else { '_' }).collect();
    let mark = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let most = limits::TOOL_NAME_BYTES_MAX - 17;
    format!("{}-{mark:016x}", kept.get(..most.min(kept.len())).unwrap_or_default()).into()
}

/// Reads a list; `Null` is the empty one.
///
/// # Errors
/// The first entry that is none.
pub fn read(list: &Value) -> Result<Vec<Entry>, Wrong> {
    let items = match list {
        Value::Null => return Ok(Vec::new()),
        Value::List(items) => items,
        other => return Err(wrong("", format!("tools must be a list, not {}", other.type_name()))),
    };
    if items.len() > limits::TOOLS_PER_AGENT_MAX {
        let message = format!(
            "there are {} tools; an agent may have {} (limit tools_per_agent_max)",
            items.len(),
            limits::TOOLS_PER_AGENT_MAX
        );
        return Err(wrong("", message));
    }
    let mut entries = Vec::with_capacity(items.len());
    let mut names = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let pointer = format!("/{at}");
        let entry = match item {
            Value::String(text) => written(text).map_err(|message| wrong(&pointer, message))?,
            Value::Map(map) => Entry::Http(Arc::new(http(map, &pointer)?)),
            other => {
                let message = format!("a tool is a text or a map, not {}", other.type_name());
                return Err(wrong(pointer, message));
            }
        };
        if let Some(before) = names.insert(entry.name(), at) {
            return Err(wrong(pointer, format!("tool {before} of the list has the same name")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The tools of a list that whoever runs the agent performs, by the names models know them by.
pub fn others(entries: &[Entry]) -> BTreeMap<Arc<str>, Other> {
    let other = |entry: &Entry| match entry {
        Entry::Patch => Some((entry.name(), Other::Patch)),
        Entry::Workflow { name, version } => {
            Some((entry.name(), Other::Workflow { name: name.clone(), version: version.clone() }))
        }
        Entry::Mcp { .. } | Entry::Http(_) => None,
    };
    entries.iter().filter_map(other).collect()
}

impl Entry {
    /// The name that models know it by; of all tools of a server, one that no tool has.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Mcp { server, tool: Some(tool) } => shown_name(server, tool),
            Self::Mcp { server, tool: None } => format!("{server}{BETWEEN}*").into(),
            Self::Patch => PATCH.into(),
            Self::Workflow { name, version: None } => shown_name(WORKFLOW, name),
            Self::Workflow { name, version: Some(version) } => {
                shown_name(WORKFLOW, &format!("{name}@{version}"))
            }
            Self::Http(tool) => tool.spec.name.clone(),
        }
    }
}

fn written(text: &str) -> Result<Entry, String> {
    const KNOWN: &str = "mcp:SERVER/*, mcp:SERVER/TOOL, patch or workflow:NAME[@VERSION]";
    let part = |text: &str| !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control);
    if text == "patch" {
        return Ok(Entry::Patch);
    }
    if let Some(rest) = text.strip_prefix("mcp:") {
        let found = rest.split_once('/').filter(|(server, tool)| is_server_name(server) && part(tool));
        let (server, tool) = found.ok_or_else(|| format!("{text:.80?} is no tool: {KNOWN} is expected"))?;
        let tool = (tool != "*").then(|| tool.into());
        return Ok(Entry::Mcp { server: server.into(), tool });
    }
    if let Some(rest) = text.strip_prefix("workflow:") {
        let (name, version) = match rest.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (rest, None),
        };
        let fits =
            |text: &str| part(text) && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b':' | b'+'));
        if fits(name) && version.is_none_or(fits) {
            return Ok(Entry::Workflow { name: name.into(), version: version.map(Into::into) });
        }
    }
    Err(format!("{text:.80?} is no tool: {KNOWN} is expected"))
}

/// Is a tool server named in a list, so that somebody outside is asked what there is?
pub fn names_server(list: &Value) -> bool {
    let Value::List(items) = list else { return false };
    items.iter().any(|item| matches!(item, Value::String(text) if text.starts_with("mcp:")))
}

/// The keys of a map that are known, and which are missing.
fn keys(map: &Map, at: &str, known: &[&str], needed: &[&str]) -> Result<(), Wrong> {
    if let Some((key, _)) = map.iter().find(|(key, _)| !known.contains(&&***key)) {
        return Err(wrong(at, format!("unknown key {key:.80?}; known are {}", known.join(", "))));
    }
    match needed.iter().find(|key| map.get(key).is_none()) {
        Some(key) => Err(wrong(at, format!("{key} is missing"))),
        None => Ok(()),
    }
}

fn text<'m>(map: &'m Map, key: &str, at: &str) -> Result<&'m Arc<str>, Wrong> {
    match map.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(wrong(format!("{at}/{key}"), format!("{key} must be a text"))),
    }
}

fn http(map: &Map, at: &str) -> Result<HttpTool, Wrong> {
    const KNOWN: [&str; 6] = ["name", "description", "parameters", "http", "idempotent", "timeout"];
    keys(map, at, &KNOWN, &["name", "description", "http"])?;
    let spec = spec(map, at)?;
    let at_http = format!("{at}/http");
    let Some(Value::Map(http)) = map.get("http") else { return Err(wrong(at_http, "http must be a map")) };
    keys(http, &at_http, &["method", "url", "headers", "body"], &["url"])?;
    let method =
        http.get("method").map_or(Ok("GET"), |_| text(http, "method", &at_http).map(|text| &**text))?;
    let method = METHODS.into_iter().find(|verb| verb.eq_ignore_ascii_case(method)).ok_or_else(|| {
        wrong(format!("{at_http}/method"), format!("{method:.40?} is none of {}", METHODS.join(", ")))
    })?;
    let url = text(http, "url", &at_http)?;
    template(url, &spec.parameters).map_err(|message| wrong(format!("{at_http}/url"), message))?;
    let headers = http.get("headers").cloned().unwrap_or_default();
    if !matches!(headers, Value::Null | Value::Map(_)) {
        return Err(wrong(format!("{at_http}/headers"), "headers must be a map"));
    }
    let body = http.get("body").cloned().unwrap_or_default();
    if !matches!(body, Value::Null) && (takes_query(method) || !matches!(body, Value::Map(_))) {
        let message = "body must be a map, and only POST, PUT and PATCH have one";
        return Err(wrong(format!("{at_http}/body"), message));
    }
    let idempotent = match map.get("idempotent") {
        None => !matches!(method, "POST" | "PATCH"),
        Some(Value::Bool(said)) => *said,
        Some(_) => return Err(wrong(format!("{at}/idempotent"), "idempotent must be true or false")),
    };
    let timeout = map.get("timeout").map(|written| timeout(written, at)).transpose()?;
    Ok(HttpTool { spec, method: method.into(), url: url.clone(), headers, body, idempotent, timeout })
}

fn spec(map: &Map, at: &str) -> Result<ToolSpec, Wrong> {
    let name = text(map, "name", at)?;
    let fits = name.len() <= limits::TOOL_NAME_BYTES_MAX && name.bytes().all(plain);
    if !fits || &**name == PATCH || name.contains(BETWEEN) {
        let message =
            format!("{name:.80?} does not fit [A-Za-z0-9_-]{{1,64}}, without __, and is not {PATCH}");
        return Err(wrong(format!("{at}/name"), message));
    }
    let description = text(map, "description", at)?;
    if description.len() > limits::TOOL_DESCRIPTION_BYTES_MAX {
        let message = format!(
            "the description has {} bytes; at most {} are allowed (limit tool_description_bytes_max)",
            description.len(),
            limits::TOOL_DESCRIPTION_BYTES_MAX
        );
        return Err(wrong(format!("{at}/description"), message));
    }
    let parameters = map.get("parameters").cloned().unwrap_or_else(no_parameters);
    let object = parameters.get("type").and_then(Value::as_str) == Some("object");
    let bytes = parameters.to_json().len();
    if !object || bytes > limits::TOOL_SCHEMA_BYTES_MAX {
        let message = format!(
            "parameters must be a JSON Schema of type object of at most {} bytes (limit tool_schema_bytes_max); it has {bytes}",
            limits::TOOL_SCHEMA_BYTES_MAX
        );
        return Err(wrong(format!("{at}/parameters"), message));
    }
    Ok(ToolSpec { name: name.clone(), description: description.clone(), parameters })
}

/// The schema of a tool that takes no arguments.
pub fn no_parameters() -> Value {
    let none: [(&str, Value); 0] = [];
    Value::map([
        ("type", Value::string("object")),
        ("properties", Value::map(none)),
        ("additionalProperties", Value::Bool(false)),
    ])
}

fn timeout(written: &Value, at: &str) -> Result<Duration, Wrong> {
    let found = written.as_str().and_then(parse_duration);
    let most = Duration::from_secs(limits::TOOL_SECONDS_MAX);
    found.filter(|found| !found.is_zero() && *found <= most).ok_or_else(|| {
        wrong(
            format!("{at}/timeout"),
            "timeout must be a duration of at most 1h, as in 30s (limit tool_seconds_max)",
        )
    })
}

/// A piece of a URL with names in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// As it stands.
    Fixed(&'t str),
    /// `{name}`
    Name(&'t str),
}

/// Takes a text with `{name}` apart.
///
/// # Errors
/// A brace has no other.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a { has no }")?;
        let fits = !name.is_empty() && name.bytes().all(|byte| plain(byte) || byte == b'.');
        if before.contains('}') || !fits {
            return Err(format!("{{{name:.40}}} is no name of an argument"));
        }
        found.extend([Piece::Fixed(before), Piece::Name(name)]);
        rest = after;
    }
    if rest.contains('}') {
        return Err("a } has no {".into());
    }
    found.push(Piece::Fixed(rest));
    Ok(found)
}

/// Where the path of a written URL begins: names stand behind it, and nowhere else.
pub fn path_at(url: &str) -> Option<usize> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?;
    let rest = url.get(scheme.len()..)?;
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    (host > 0).then_some(scheme.len() + host)
}

fn template(url: &str, parameters: &Value) -> Result<(), String> {
    if url.len() > limits::HTTP_URL_BYTES_MAX {
        return Err(format!("the url has {} bytes (limit http_url_bytes_max)", url.len()));
    }
    if url.contains("${")
        || url.contains('#')
        || url.contains(|c: char| c.is_control() || c == '\\' || c == ' ')
    {
        return Err("the url must not hold ${, #, \\, spaces or control characters".into());
    }
    let at = path_at(url).ok_or("the url must begin with http:// or https:// and a host")?;
    let (origin, rest) = url.split_at(at);
    if origin.contains(['{', '}', '@']) {
        return Err("names of arguments stand in the path and the query only".into());
    }
    for piece in pieces(rest)? {
        if let Piece::Name(name) = piece
            && parameters.get("properties").and_then(|properties| properties.get(name)).is_none()
        {
            return Err(format!("{{{name}}} is no property of parameters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Result<Vec<Entry>, Wrong> {
        read(&Value::from_json(json.as_bytes()).unwrap())
    }

    // F414, F429
    #[test]
    fn a_list_names_tools_and_models_know_each_by_one_name() {
        let entries = list(
            r#"["mcp:search/*", "mcp:files/read file", "patch", "workflow:tidy-up@v1.2", "workflow:other",
                {"name": "weather", "description": "d", "http": {"url": "https://a.example/{city}?u={u}"},
                 "parameters": {"type": "object", "properties": {"city": {}, "u": {}}}, "timeout": "5s"}]"#,
        )
        .unwrap();
        let names: Vec<Arc<str>> = entries.iter().map(Entry::name).collect();
        assert_eq!(&*names[0], "search__*");
        assert!(names[1].starts_with("files__read_file-") && names[1].len() <= 64, "{}", names[1]);
        assert!(names[3].starts_with("workflow__tidy-up_v1_2-"), "{}", names[3]);
        assert_eq!((&*names[2], &*names[4], &*names[5]), (PATCH, "workflow__other", "weather"));
        let others = others(&entries);
        assert_eq!(others.len(), 3);
        assert_eq!(
            others.get("workflow__other"),
            Some(&Other::Workflow { name: "other".into(), version: None })
        );
        let Entry::Http(tool) = &entries[5] else { panic!("{entries:?}") };
        assert_eq!(
            (&*tool.method, tool.idempotent, tool.timeout),
            ("GET", true, Some(Duration::from_secs(5)))
        );
        assert_eq!(list("null"), Ok(Vec::new()));
    }

    #[test]
    fn no_two_names_of_tools_are_shown_alike() {
        let long = "x".repeat(90);
        let names = ["a.b", "a/b", "a b", "a_b", &long, &format!("{long}y"), "ä", "\u{202e}"];
        let shown: std::collections::BTreeSet<_> = names.iter().map(|name| shown_name("s", name)).collect();
        assert_eq!(shown.len(), names.len());
        let fits = |name: &Arc<str>| name.len() <= 64 && name.bytes().all(plain);
        assert!(shown.iter().all(fits), "{shown:?}");
    }

    #[test]
    fn what_is_no_tool_is_refused_where_it_stands() {
        let http = |http: &str| {
            format!(
                r#"[{{"name": "n", "description": "d", "http": {http}, "parameters":
                {{"type": "object", "properties": {{"a": {{}}}}}}}}]"#
            )
        };
        for (json, pointer, says) in [
            (r#"{"a": 1}"#.to_owned(), "", "list"),
            (r#"[1]"#.to_owned(), "/0", "text or a map"),
            (r#"["patch", "patch"]"#.to_owned(), "/1", "same name"),
            (r#"["mcp:search"]"#.to_owned(), "/0", "mcp:SERVER"),
            (r#"["mcp:a__b/c"]"#.to_owned(), "/0", "no tool"),
            (r#"["mcp:workflow/c"]"#.to_owned(), "/0", "no tool"),
            (r#"["mcp:a/b\n"]"#.to_owned(), "/0", "no tool"),
            (r#"["workflow:a/b"]"#.to_owned(), "/0", "no tool"),
            (r#"["shell"]"#.to_owned(), "/0", "no tool"),
            (
                r#"[{"name": "n", "description": "d", "http": {"url": "http://a/"}, "x": 1}]"#.to_owned(),
                "/0",
                "unknown key",
            ),
            (
                r#"[{"name": "a__b", "description": "d", "http": {"url": "http://a/"}}]"#.to_owned(),
                "/0/name",
                "without __",
            ),
            (r#"[{"name": "n", "http": {"url": "http://a/"}}]"#.to_owned(), "/0", "description is missing"),
            (http(r#"{"url": "ftp://a/"}"#), "/0/http/url", "http://"),
            (http(r#"{"url": "http://{a}/"}"#), "/0/http/url", "path and the query"),
            (http(r#"{"url": "http://x@{a}/"}"#), "/0/http/url", "path and the query"),
            (http(r#"{"url": "http:///{a}"}"#), "/0/http/url", "host"),
            (http(r#"{"url": "http://h/{b}"}"#), "/0/http/url", "no property"),
            (http(r#"{"url": "http://h/{a"}"#), "/0/http/url", "no }"),
            (http(r#"{"url": "http://h/${secret:A}"}"#), "/0/http/url", "must not hold"),
            (http(r#"{"url": "http://h/", "method": "TRACE"}"#), "/0/http/method", "none of"),
            (http(r#"{"url": "http://h/", "body": {}}"#), "/0/http/body", "POST"),
        ] {
            let refused = list(&json).unwrap_err();
            assert_eq!(refused.pointer, pointer, "{json}: {}", refused.message);
            assert!(refused.message.contains(says), "{json}: {}", refused.message);
        }
        let many = vec![Value::string("patch"); limits::TOOLS_PER_AGENT_MAX + 1];
        assert!(read(&Value::list(many)).unwrap_err().message.contains("tools_per_agent_max"));
    }
}
