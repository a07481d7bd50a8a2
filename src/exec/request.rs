//! From the settings of an `http` to a request: checked before anything is looked up, secrets put in last.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::connect::Target;
use super::secret::{Redactor, Secrets};
use crate::limits;
use crate::model::{Failure, Map, Value};

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Headers that hold a secret: they do not follow a redirect to another place.
    pub(super) confidential: Vec<HeaderName>,
    /// The body holds a secret.
    pub(super) confidential_body: bool,
    /// A request that may have had its effect may be sent again: its verb says so, or it carries a key.
    pub(super) repeatable: bool,
}

/// What the connection decides, and what would smuggle a second request into the first.
pub(super) const RESERVED: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn wrong(message: impl Into<std::sync::Arc<str>>) -> Failure {
    Failure::fatal("http_request_invalid", message)
}

/// Puts secrets in where the document named them, and nowhere else.
pub(super) struct Puts<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) workspace: &'a str,
    /// (JSON Pointer into the settings, name) of every secret of the document's node.
    pub(super) named: Vec<(String, String)>,
    pub(super) redactor: Redactor,
}

impl<'a> Puts<'a> {
    /// Reads `secrets: [{at, name}]`, which the compiler added to the settings.
    pub(super) fn of(request: &Value, secrets: &'a Secrets, workspace: &'a str) -> Self {
        let list = match request.get("secrets") {
            Some(Value::List(list)) => list.to_vec(),
            _ => Vec::new(),
        };
        let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let named =
            list.iter().filter_map(|entry| Some((text(entry, "at")?, text(entry, "name")?))).collect();
        Self { secrets, workspace, named, redactor: Redactor::default() }
    }

    /// `text` with the secrets that the document names at `at`; whether there were any.
    fn put(&mut self, at: &str, text: &str) -> Result<(String, bool), Failure> {
        let mut filled = text.to_owned();
        let mut any = false;
        for (_, name) in self.named.iter().filter(|(place, _)| place == at) {
            let value = self.secrets.get(self.workspace, name)?;
            self.redactor.add(&value);
            filled = filled.replace(&format!("${{secret:{name}}}"), &value);
            any = true;
        }
        Ok((filled, any))
    }

    fn put_all(&mut self, at: &str, value: &Value) -> Result<(Value, bool), Failure> {
        if !self.named.iter().any(|(place, _)| place.starts_with(at)) {
            return Ok((value.clone(), false));
        }
        let mut any = false;
        let filled = match value {
            Value::String(text) => {
                let (text, found) = self.put(at, text)?;
                any |= found;
                Value::string(text)
            }
            Value::List(items) => {
                let mut filled = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let (item, found) = self.put_all(&format!("{at}/{index}"), item)?;
                    any |= found;
                    filled.push(item);
                }
                Value::list(filled)
            }
            Value::Map(map) => {
                let mut filled = Vec::with_capacity(map.len());
                for (key, item) in map.iter() {
                    let (item, found) = self.put_all(&format!("{at}/{}", escaped(key)), item)?;
                    any |= found;
                    filled.push((key.clone(), item));
                }
                Value::map(filled)
            }
            other => other.clone(),
        };
        Ok((filled, any))
    }
}

/// A key as a token of a JSON Pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Builds the request that the settings ask for. Nothing is sent, nothing looked up.
pub(super) fn prepare(request: &Value, puts: &mut Puts<'_>) -> Result<Prepared, Failure> {
    let method = request.get("method").and_then(Value::as_str).unwrap_or("GET");
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .ok()
        .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
        .ok_or_else(|| wrong(format!("the method {method:?} cannot be sent")))?;
    let text = request.get("url").and_then(Value::as_str).ok_or_else(|| wrong("there is no url"))?;
    let mut url = parse(text)?;
    if let Some(query) = request.get("query") {
        add_query(&mut url, query, puts)?;
    }
    let mut prepared = Prepared {
        repeatable: !matches!(method, Method::POST | Method::PATCH),
        method,
        url,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        confidential: Vec::new(),
        confidential_body: false,
    };
    match request.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Map(map)) => add_headers(&mut prepared, map, puts)?,
        Some(other) => return Err(wrong(format!("headers must be an object, not {}", other.type_name()))),
    }
    add_body(&mut prepared, request.get("body"), puts)?;
    if prepared.url.as_str().len() > limits::HTTP_URL_BYTES_MAX {
        let bytes = prepared.url.as_str().len();
        return Err(wrong(format!("the url has {bytes} bytes (limit http_url_bytes_max)")));
    }
    Ok(prepared)
}

/// A URL that may be called.
pub(super) fn parse(text: &str) -> Result<Url, Failure> {
    if text.len() > limits::HTTP_URL_BYTES_MAX {
        return Err(wrong(format!("the url has {} bytes (limit http_url_bytes_max)", text.len())));
    }
    let url = Url::parse(text).map_err(|error| wrong(format!("the url cannot be read: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(format!("the scheme {} is not http or https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a url must not hold a user or a password; send a header with a secret"));
    }
    Ok(url)
}

/// Where a URL leads.
pub(super) fn target(url: &Url) -> Result<Target, Failure> {
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
        Some(url::Host::Ipv4(four)) => four.to_string(),
        Some(url::Host::Ipv6(six)) => six.to_string(),
        None => return Err(wrong("the url names no host")),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or_else(|| wrong("the url has no port"))?;
    Ok(Target { tls: url.scheme() == "https", host, port })
}

fn add_query(url: &mut Url, query: &Value, puts: &mut Puts<'_>) -> Result<(), Failure> {
    let Value::Map(map) = query else {
        return match query {
            Value::Null => Ok(()),
            other => Err(wrong(format!("query must be an object, not {}", other.type_name()))),
        };
    };
    for (key, value) in map.iter() {
        let at = format!("/query/{}", escaped(key));
        let items: Vec<(String, &Value)> = match value {
            Value::Null => continue,
            Value::List(items) => {
                items.iter().enumerate().map(|(index, item)| (format!("{at}/{index}"), item)).collect()
            }
            one => vec![(at, one)],
        };
        for (at, item) in items {
            let (text, _) = puts.put(&at, &plain(item, "a parameter of the query")?)?;
            url.query_pairs_mut().append_pair(key, &text);
        }
    }
    Ok(())
}

/// A value that stands where only a text can.
fn plain(value: &Value, what: &str) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.to_string()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(value.to_json()),
        other => {
            Err(wrong(format!("{what} must be text, a number or a truth value, not {}", other.type_name())))
        }
    }
}

fn add_headers(prepared: &mut Prepared, map: &Map, puts: &mut Puts<'_>) -> Result<(), Failure> {
    for (key, value) in map.iter() {
        let name = HeaderName::from_bytes(key.as_bytes())
            .map_err(|_| wrong(format!("{key:?} is no name of a header")))?;
        if RESERVED.contains(&name) {
            return Err(wrong(format!("the header {name} is set by the connection")));
        }
        if matches!(value, Value::Null) {
            // A header that is sent by itself is left out like this.
            continue;
        }
        let at = format!("/headers/{}", escaped(key));
        let (text, found) = puts.put(&at, &plain(value, "a header")?)?;
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| wrong(format!("the value of the header {name} holds what no header can")))?;
        value.set_sensitive(found);
        if found {
            prepared.confidential.push(name.clone());
        }
        prepared.repeatable |= name == IDEMPOTENCY_KEY;
        prepared.headers.append(name, value);
    }
    Ok(())
}

fn add_body(prepared: &mut Prepared, body: Option<&Value>, puts: &mut Puts<'_>) -> Result<(), Failure> {
    let Some(body) = body.filter(|body| !matches!(body, Value::Null)) else { return Ok(()) };
    let (body, found) = puts.put_all("/body", body)?;
    prepared.confidential_body |= found;
    let (text, kind) = match &body {
        Value::String(text) => (text.to_string(), "text/plain; charset=utf-8"),
        other => (other.to_json(), "application/json"),
    };
    prepared.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    prepared.body = text.into();
    Ok(())
}

/// Does the document switch the key off (`Idempotency-Key: null`)?
pub fn is_unkeyed(request: &Value) -> bool {
    let Some(Value::Map(headers)) = request.get("headers") else { return false };
    headers.iter().any(|(key, value)| {
        key.eq_ignore_ascii_case(IDEMPOTENCY_KEY.as_str()) && matches!(value, Value::Null)
    })
}
