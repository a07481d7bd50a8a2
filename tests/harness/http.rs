//! A small blocking HTTP/1.1 client over a plain socket, with server-sent events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::Value;

/// One connection, kept alive.
pub struct Client {
    address: String,
    connection: Option<BufReader<TcpStream>>,
    patience: std::time::Duration,
    bearer: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// 200, 404, ...
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As sent.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Panics unless the status is this one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl Client {
    /// Connects when first used.
    pub fn new(address: &str) -> Self {
        let patience = std::time::Duration::from_secs(120);
        Self { address: address.to_owned(), connection: None, patience, bearer: None }
    }

    /// In whose name it asks.
    pub fn bearer(self, token: Option<&str>) -> Self {
        Self { bearer: token.map(str::to_owned), ..self }
    }

    /// Waits no longer than this for anything to arrive.
    pub fn patience(self, patience: std::time::Duration) -> Self {
        Self { patience, ..self }
    }

    /// GET.
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"").expect("a reply")
    }

    /// The ids of all runs that are listed, over as many pages as there are.
    pub fn run_ids(&mut self) -> Vec<String> {
        let mut run_ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/runs?limit=1000{cursor}")).expect(200).json();
            let rows = page["runs"].as_array().expect("runs");
            run_ids.extend(rows.iter().map(|row| row["run_id"].as_str().expect("an id").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return run_ids,
            }
        }
    }

    /// POST of JSON.
    pub fn post(&mut self, path: &str, body: &Value) -> Response {
        self.post_with(path, &[], body).expect("a reply")
    }

    /// POST of JSON with headers; an error is a broken connection (outcome unknown).
    pub fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> std::io::Result<Response> {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.request("POST", path, &all, body.to_string().as_bytes())
    }

    /// Any request.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.name(&mut head);
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes)
    }

    /// Sends bytes as they are and reads one response.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Response> {
        let connection = self.connect()?;
        // A server may answer and close before it has read everything: what it said is still wanted.
        let sent = connection.get_mut().write_all(bytes);
        let response = read_response(connection);
        if response.is_err() || sent.is_err() {
            self.connection = None;
        }
        let response = response?;
        if response.header("connection") == Some("close") {
            self.connection = None;
        }
        Ok(response)
    }

    fn name(&self, head: &mut String) {
        if let Some(token) = &self.bearer {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
    }

    fn connect(&mut self) -> std::io::Result<&mut BufReader<TcpStream>> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.patience))?;
            self.connection = Some(BufReader::new(stream));
        }
        Ok(self.connection.as_mut().expect("just made"))
    }

    /// Follows a stream of server-sent events: each event goes to `seen` until that says stop or the stream ends.
    pub fn events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        mut seen: impl FnMut(&Sse) -> bool,
    ) -> Vec<Sse> {
        let mut events = Vec::new();
        let followed = self.follow(path, headers, |event| {
            let go_on = seen(event);
            events.push(event.clone());
            go_on
        });
        assert_eq!(followed.expect("the node listens"), 200);
        events
    }

    /// As [`events`](Self::events), for a node that may go away: the status, once `seen` said stop or the stream ended or
    /// broke. An error when there was no answer.
    pub fn follow(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        mut seen: impl FnMut(&Sse) -> bool,
    ) -> std::io::Result<u16> {
        let mut connection = BufReader::new(TcpStream::connect(&self.address)?);
        connection.get_ref().set_read_timeout(Some(self.patience))?;
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.name(&mut head);
        head.push_str("\r\n");
        connection.get_mut().write_all(head.as_bytes())?;
        let (status, _) = read_head(&mut connection)?;
        let mut text = String::new();
        while status == 200
            && let Ok(Some(chunk)) = read_chunk(&mut connection)
        {
            text.push_str(&String::from_utf8(chunk).expect("utf-8"));
            while let Some(end) = text.find("\n\n") {
                let block: String = text.drain(..end + 2).collect();
                if let Some(event) = Sse::parse(&block)
                    && !seen(&event)
                {
                    return Ok(status);
                }
            }
        }
        Ok(status)
    }
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Sse {
    /// `run_id:seq`
    pub id: Option<String>,
    /// Its type.
    pub event: String,
    /// Its data.
    pub data: Value,
}

impl Sse {
    fn parse(block: &str) -> Option<Self> {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
        let data = field("data:")?;
        Some(Self {
            id: field("id:"),
            event: field("event:").unwrap_or_default(),
            data: serde_json::from_str(&data).unwrap_or(Value::Null),
        })
    }

    /// The number in its id.
    pub fn seq(&self) -> u64 {
        self.id.as_ref().and_then(|id| id.rsplit(':').next()).and_then(|seq| seq.parse().ok()).expect("an id")
    }
}

fn invalid(text: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, text.to_owned())
}

fn read_head(connection: &mut impl BufRead) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| invalid(&line))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => return Ok((status, headers)),
        }
    }
}

fn read_chunk(connection: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid(&line))?;
    let mut chunk = vec![0; size + 2];
    connection.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

fn read_response(connection: &mut impl BufRead) -> std::io::Result<Response> {
    let (status, headers) = read_head(connection)?;
    let mut response = Response { status, headers, body: Vec::new() };
    if response.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(connection)? {
            response.body.extend(chunk);
        }
    } else if let Some(length) = response.header("content-length").and_then(|text| text.parse().ok()) {
        response.body = vec![0; length];
        connection.read_exact(&mut response.body)?;
    }
    Ok(response)
}
