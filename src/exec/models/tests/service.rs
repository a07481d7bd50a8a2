//! A provider that says what it is told to say, on as many connections as come, and keeps what it was asked.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a service has threads of its own")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

/// What it does with a request.
pub(super) enum Act {
    /// Says this.
    Say(Vec<u8>),
    /// Says this, over and over, until nobody listens.
    Repeat(Vec<u8>),
    /// Says nothing more until the caller goes.
    Wait,
    /// Closes the connection.
    Close,
}

pub(super) struct Service {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    /// `true` when a request has come, `false` when a caller has gone that was kept waiting.
    pub(super) news: mpsc::UnboundedReceiver<bool>,
}

type Script = Arc<Mutex<VecDeque<Vec<Act>>>>;

/// Answers each request with the next of `script`; when there is none, it closes the connection.
pub(super) fn service(script: Vec<Vec<Act>>) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, news) = mpsc::unbounded_channel();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, script): (_, Script) = (asked.clone(), Arc::new(Mutex::new(script.into())));
    let connections = Arc::<AtomicUsize>::default();
    let count = connections.clone();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::Relaxed);
            let (kept, script, tell) = (kept.clone(), script.clone(), tell.clone());
            std::thread::spawn(move || serve(stream, &kept, &script, &tell));
        }
    });
    Service { address, asked, connections, news }
}

fn serve(
    mut stream: TcpStream,
    kept: &Mutex<Vec<String>>,
    script: &Mutex<VecDeque<Vec<Act>>>,
    tell: &mpsc::UnboundedSender<bool>,
) -> Option<()> {
    loop {
        let request = read_request(&mut stream)?;
        kept.lock().unwrap().push(request);
        let acts = script.lock().unwrap().pop_front()?;
        let _ = tell.send(true);
        for act in acts {
            match act {
                Act::Say(bytes) => stream.write_all(&bytes).ok()?,
                Act::Repeat(bytes) => while stream.write_all(&bytes).is_ok() {},
                Act::Wait => {
                    let gone = stream.read(&mut [0]).map_or(true, |read| read == 0);
                    let _ = tell.send(!gone);
                }
                Act::Close => return Some(()),
            }
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

impl Service {
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

pub(super) fn status(status: u16, headers: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
    vec![Act::Say(text.into_bytes())]
}

pub(super) fn ok(body: &str) -> Vec<Act> {
    status(200, "content-type: application/json\r\n", body)
}

pub(super) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/// The beginning of a streamed answer: each event in its own chunk, cut in two.
pub(super) fn events(data: &[&str]) -> Vec<Act> {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    for data in data {
        let event = format!("event: x\ndata: {data}\n\n");
        for part in event.as_bytes().chunks(event.len().div_ceil(2)) {
            bytes.extend(format!("{:x}\r\n", part.len()).bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
    }
    vec![Act::Say(bytes)]
}

/// A whole streamed answer.
pub(super) fn stream(data: &[&str]) -> Vec<Act> {
    let mut acts = events(data);
    acts.push(Act::Say(b"0\r\n\r\n".to_vec()));
    acts
}
