//! A node in miniature for tests: answers the calls that the generator makes, counts, and misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;

use crate::http::{read_reply, request};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// Each n-th start is acknowledged and not counted.
    pub(crate) forgets_every: Option<u64>,
    /// Each n-th start is answered 503.
    pub(crate) refuses_every: Option<u64>,
    /// At the n-th start everything stands still for 200 ms.
    pub(crate) stalls_at: Option<u64>,
    /// While runs of `loadgen_hung` are not ended, every other start takes 20 ms.
    pub(crate) minds_hung: bool,
    /// Runs have an agent: each asks the model there before it is counted.
    pub(crate) asks: Option<SocketAddr>,
    /// Each n-th run is counted and asks nobody.
    pub(crate) asks_not_every: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    starts: AtomicU64,
    runs: AtomicU64,
    /// Answers of the model.
    answers: AtomicU64,
    hung: AtomicU64,
    stop: AtomicBool,
    gate: RwLock<()>,
}

/// A listening fake; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        // The accept loop looks at `stop` after every connection.
        drop(std::net::TcpStream::connect(self.address));
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Fake {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { behaviour, ..State::default() });
        let served = state.clone();
        let thread = std::thread::Builder::new().name("fake".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while !served.stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, served.clone()));
                    }
                }
            });
        });
        Self { address, state, thread: Some(thread.unwrap()) }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let (status, body) = answer(&request, &state).await;
        let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(buffer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
    }
}

async fn answer(request: &str, state: &State) -> (u16, String) {
    drop(state.gate.read().await);
    let runs = state.runs.load(Ordering::Relaxed);
    match request.split(' ').take(2).collect::<Vec<_>>().join(" ").as_str() {
        "POST /v1/workflows" => (201, "{}".into()),
        "GET /metrics" => {
            let shape = if state.behaviour.asks.is_some() { "agent" } else { "chain5" };
            let finished =
                format!("aob_runs_finished_total{{workflow=\"loadgen_{shape}\",status=\"completed\"}}");
            let nodes = 5 * runs;
            let answers = state.answers.load(Ordering::Relaxed);
            let calls = "aob_llm_calls_total{provider=\"loadgen\",model=\"loadgen\",outcome=\"succeeded\"}";
            let text = format!(
                "aob_runs_started_total {runs}\n{finished} {runs}\naob_runs_active 0\naob_nodes_completed_total {nodes}\n\
                 {calls} {answers}\n"
            );
            (200, text)
        }
        "GET /v1/node" => {
            let cpu = runs * 15;
            (200, format!(r#"{{"process":{{"cpu_us":{cpu}}},"hop":{{"pure":{{"p50_us":2,"p99_us":9}}}}}}"#))
        }
        "POST /v1/workers/poll" => (200, r#"{"jobs":[]}"#.into()),
        "POST /v1/runs/hung/terminate" => {
            state.hung.fetch_sub(1, Ordering::Relaxed);
            (200, "{}".into())
        }
        "POST /v1/runs" if request.contains("loadgen_hung") => {
            state.hung.fetch_add(1, Ordering::Relaxed);
            (202, r#"{"run_id":"hung"}"#.into())
        }
        "POST /v1/runs" => start(request, state).await,
        other => (404, other.to_owned()),
    }
}

async fn start(request: &str, state: &State) -> (u16, String) {
    let number = state.starts.fetch_add(1, Ordering::Relaxed) + 1;
    let every = |n: Option<u64>| n.is_some_and(|n| number.is_multiple_of(n));
    if state.behaviour.stalls_at == Some(number) {
        let _everyone_waits = state.gate.write().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if state.behaviour.minds_hung && state.hung.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if every(state.behaviour.refuses_every) {
        return (503, "{}".into());
    }
    if let Some(model) = state.behaviour.asks.filter(|_| !every(state.behaviour.asks_not_every)) {
        ask(model).await;
        state.answers.fetch_add(1, Ordering::Relaxed);
    }
    if !every(state.behaviour.forgets_every) {
        state.runs.fetch_add(1, Ordering::Relaxed);
    }
    let status = if request.contains("\r\nprefer: wait=") { "completed" } else { "running" };
    (202, format!(r#"{{"run_id":"x","status":"{status}","seq":1,"durability":"fsync","epoch":1}}"#))
}

/// One answer of a model.
async fn ask(model: SocketAddr) {
    let body = br#"{"model": "loadgen", "messages": [{"role": "user", "content": "[[say: accept]]"}]}"#;
    let request = request("POST", "/v1/chat/completions", "model", "", body);
    let mut stream = TcpStream::connect(model).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let head = read_reply(&mut stream, &mut Vec::new()).await.unwrap();
    assert_eq!(head.status, 200);
}
