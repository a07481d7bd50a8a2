//! A server that keeps the heads of requests and answers each path as told: for answers no node of the tests gives.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Heads of the requests so far.
pub(super) type Heads = Rc<RefCell<Vec<String>>>;

/// Runs `test` against a server that answers what `answer` gives for a path.
pub(super) fn with_fake<F: Future<Output = ()>>(
    answer: fn(&str) -> (u16, &'static str),
    test: impl FnOnce(SocketAddr, Heads) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Heads::default();
        let kept = heads.clone();
        let server = tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let (status, body) = answer(head.split(' ').nth(1).unwrap());
                kept.borrow_mut().push(head);
                let length = body.len();
                let reply = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        test(address, heads).await;
        server.abort();
    });
}
