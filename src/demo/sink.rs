//! Where the demo's report goes: a small service beside the node, which the node calls over HTTP like any other.
//!
//! It honours keys: a body is kept once for each `Idempotency-Key`, in a file of that name that is on disk before the answer
//! leaves; every call is noted. What it kept and its port outlive it, so a demo that was killed and is started again calls
//! the same place. One request at a time, each on a connection of its own; too large a one, or one that is none, is refused.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// Bytes of a request's body: many reports.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// How long a request may take to come in.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// What the sink has kept, as its directory tells it.
#[derive(Debug)]
pub(super) struct Received {
    /// Where it listens.
    pub(super) address: String,
    /// Bodies that are kept, by key.
    pub(super) kept: Vec<(String, u64)>,
    /// Calls, repeated ones included.
    pub(super) calls: usize,
}

/// The sink's directory in the node's.
fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("demo-sink")
}

/// Starts the sink; it serves until the process ends.
///
/// # Errors
/// The directory cannot be made, or its port is taken.
pub(super) fn start(data_dir: &Path) -> io::Result<SocketAddr> {
    let directory = directory(data_dir);
    fs::create_dir_all(&directory)?;
    let path = directory.join("address");
    let before = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    let listener = TcpListener::bind(before.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let address = listener.local_addr()?;
    replace(&path, address.to_string().as_bytes())?;
    std::thread::Builder::new().name(String::from("demo-sink")).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever called sees a broken connection, and calls again.
            let _ = serve(&directory, stream);
        }
    })?;
    Ok(address)
}

/// What was received up to now.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn received(data_dir: &Path) -> io::Result<Received> {
    let directory = directory(data_dir);
    let address = fs::read_to_string(directory.join("address"))?;
    let calls = fs::read_to_string(directory.join("calls")).unwrap_or_default().lines().count();
    let mut kept = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let key = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            kept.push((key, fs::metadata(&path)?.len()));
        }
    }
    Ok(Received { address, kept, calls })
}

/// A file as a whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn serve(directory: &Path, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_WITHIN))?;
    stream.set_write_timeout(Some(REQUEST_WITHIN))?;
    let mut reader = BufReader::new(stream);
    let (status, body) = match request(&mut reader)? {
        Ok((key, body)) => keep(directory, &key, &body)?,
        Err(status) => (status, String::from("{}")),
    };
    let length = body.len();
    let head = "content-type: application/json\r\nconnection: close";
    write!(reader.get_mut(), "HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Key and body of a request, or the status that it is refused with.
fn request(reader: &mut BufReader<TcpStream>) -> io::Result<Result<(String, Vec<u8>), &'static str>> {
    let (mut length, mut key, mut line) = (0, String::new(), String::new());
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(Err("431 Request Header Fields Too Large"));
        }
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(u64::MAX),
            Some(("idempotency-key", value)) => value.clone_into(&mut key),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(Err("400 Bad Request"));
    }
    if length > BODY_BYTES_MAX {
        return Ok(Err("413 Content Too Large"));
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length { Ok(Ok((key, body))) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Keeps a body, unless one is kept for this key.
fn keep(directory: &Path, key: &str, body: &[u8]) -> io::Result<(&'static str, String)> {
    let mut calls = File::options().create(true).append(true).open(directory.join("calls"))?;
    calls.write_all(format!("{key}\n").as_bytes())?;
    let path = directory.join(format!("{key}.json"));
    if path.exists() {
        return Ok(("200 OK", format!("{{\"kept\":\"before\",\"key\":\"{key}\"}}")));
    }
    replace(&path, body)?;
    Ok(("201 Created", format!("{{\"kept\":\"now\",\"key\":\"{key}\"}}")))
}
