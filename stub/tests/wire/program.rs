//! The program: its options, its one line, and what it holds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_aob-stub-model");

/// Killed when it is dropped.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "ready", "{line}");
        assert_eq!(words[2], format!("pid={}", child.id()));
        let address = words[1].strip_prefix("http=").unwrap().parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer on a connection that stays open.
fn exchange(stream: &mut BufReader<TcpStream>, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: stub\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
    let (mut length, mut status) = (0, 0);
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the connection stays open");
        if let Some(text) = line.strip_prefix("HTTP/1.1 ") {
            status = text[..3].parse().unwrap();
        }
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).unwrap();
    (status, serde_json::from_slice(&answer).unwrap())
}

fn connect(program: &Program) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(program.address).unwrap())
}

#[test]
fn it_serves_as_its_options_say() {
    let file = std::env::temp_dir().join(format!("aob-stub-model-{}.json", std::process::id()));
    std::fs::write(&file, json!({"rules": [{"when": {"nth": 2}, "do": {"status": 429}}]}).to_string())
        .unwrap();
    let script = format!("--script={}", file.display());
    let program =
        Program::start(&["--listen", "127.0.0.1:0", &script, "--openai-key", "k", "--latency-ms", "1"]);
    std::fs::remove_file(&file).unwrap();
    let mut stream = connect(&program);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let mut status = |headers: &str| exchange(&mut stream, "/v1/chat/completions", headers, &body).0;
    let key = "authorization: Bearer k\r\n";
    assert_eq!(
        [status(""), status(key), status(key), status(key)],
        [401, 200, 429, 200],
        "calls without a key are not counted"
    );
}

#[test]
fn what_it_cannot_do_it_says() {
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, code, part) in [
        (&["--listn"][..], 2, "no option --listn"),
        (&["--listen"][..], 2, "needs a value"),
        (&["--listen", "here"][..], 2, "here is no ADDR:PORT"),
        (&["--latency-ms=600001"][..], 2, "600001"),
        (&["--script", "/nowhere"][..], 2, "/nowhere"),
    ] {
        let (found, words) = run(arguments);
        assert!(found == Some(code) && words.contains(part), "{arguments:?}: {words}");
    }
    let program = Program::start(&[]);
    let (code, words) = run(&["--listen", &program.address.to_string()]);
    assert!(code == Some(1) && words.contains("in use"), "{words}");
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let program = Program::start(&[]);
    let mut stream = connect(&program);
    let head = "POST /v1/messages HTTP/1.1\r\nhost: stub\r\ncontent-length: 16777217\r\n\r\n";
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 413"), "{line}");
}

#[test]
fn large_bodies_take_turns() {
    let program = Program::start(&[]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(300 << 10)}]});
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut stream = connect(&program);
                let (status, answer) = exchange(&mut stream, "/v1/chat/completions", "", &body);
                assert_eq!((status, &answer["usage"]["prompt_tokens"]), (200, &json!(75 << 10)));
            });
        }
    });
}

#[test]
fn a_connection_is_used_again_and_again() {
    let program = Program::start(&[]);
    let mut stream = connect(&program);
    for n in 0..500 {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": format!("question {n}")}]});
        let (status, answer) = exchange(&mut stream, "/v1/chat/completions", "", &body);
        assert!(status == 200 && answer["object"] == "chat.completion", "{answer}");
    }
}
