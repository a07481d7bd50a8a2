//! A session with a client at the other end of a pipe, on a clock that jumps.

use tokio::io::DuplexStream;
use tokio::task::LocalSet;

use super::*;
use crate::queue::{FullPolicy, Receiver, bounded};
use crate::wire::frame::Frame;
use crate::wire::stream::{Sink, ToHub, subscription};

const WISH: &[u8] = b"{\"after\":7}";

/// Runs `test` beside a session whose first stream it feeds, and that is opened another one at the second wish.
fn with_session<F: Future<Output = ()>>(test: impl FnOnce(DuplexStream, Sink, Receiver<ToHub>) -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (hub, at_hub) = bounded("hub", 16, FullPolicy::RefuseCaller);
        let (sink, reader) = subscription(hub);
        let opener = Opener {
            uri: "/v1/runs/run_1/events".parse().unwrap(),
            headers: http::HeaderMap::new(),
            peer: IpAddr::from([127, 0, 0, 1]),
            rest: Bytes::new(),
        };
        let open = |head: Parts, _| async move {
            pass(1).await;
            Err(Problem::new(404, "run_not_found", head.uri.to_string()))
        };
        tokio::task::spawn_local(Session::new(Box::new(near), (opener, reader), open).run());
        test(far, sink, at_hub).await;
    });
}

/// Lets the clock jump.
async fn pass(seconds: u64) {
    let _ = tokio::time::timeout(Duration::from_secs(seconds), std::future::pending::<()>()).await;
}

async fn next(client: &mut DuplexStream) -> (u8, Vec<u8>) {
    let first = client.read_u8().await.unwrap();
    let length = match client.read_u8().await.unwrap() {
        126 => usize::from(client.read_u16().await.unwrap()),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    client.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

/// A frame as a client sends it, masked with nothing.
async fn say(client: &mut DuplexStream, first: u8, payload: &[u8]) {
    let header = [first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    client.write_all(&[&header, payload].concat()).await.unwrap();
}

#[test]
fn an_idle_client_is_pinged_and_one_that_does_not_answer_is_cut() {
    with_session(|mut client, sink, _hub| async move {
        let began = Instant::now();
        assert_eq!(next(&mut client).await, (0x89, Vec::new()));
        assert_eq!(began.elapsed().as_secs(), limits::WEBSOCKET_PING_SECONDS);
        say(&mut client, 0x8a, b"").await;
        // It is there: that was not the last ping.
        sink.push(&Frame::delta("n", 1, "x")).unwrap();
        assert_eq!(next(&mut client).await.0, 0x81);
        assert_eq!(next(&mut client).await.0, 0x89);
        let pinged = Instant::now();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(pinged.elapsed().as_secs(), limits::WEBSOCKET_PONG_SECONDS_MAX);
        assert!(sink.is_gone());
    });
}

#[test]
fn wishes_are_answered_in_their_order_while_pings_wait() {
    with_session(|mut client, sink, _hub| async move {
        for wish in [&b"{}"[..], WISH, b"{\"after\":8}"] {
            say(&mut client, 0x81, wish).await;
        }
        say(&mut client, 0x89, b"?").await;
        for part in ["invalid_body", "events?after=7", "events?after=8"] {
            let (first, payload) = next(&mut client).await;
            let text = String::from_utf8(payload).unwrap();
            assert!(
                first == 0x81 && text.starts_with("{\"event\":\"refused\"") && text.contains(part),
                "{text}"
            );
        }
        assert_eq!(next(&mut client).await, (0x8a, b"?".to_vec()));
        assert!(sink.is_gone(), "what was read is not read any more");
    });
}

#[test]
fn a_close_says_why_and_waits_for_its_answer_but_not_for_ever() {
    let run_id = "run_018bcfe568007fffbfffffffffffffff".parse().unwrap();
    for (reason, code, answers) in
        [(Some("slow_consumer"), 4001_u16, true), (Some("resync"), 4002, false), (None, 1001, true)]
    {
        with_session(|mut client, sink, _hub| async move {
            if let Some(reason) = reason {
                sink.say_last(Frame::closing(reason, run_id, 3));
            }
            drop(sink);
            if reason.is_some() {
                assert_eq!(next(&mut client).await.0, 0x81);
            }
            let (first, payload) = next(&mut client).await;
            assert_eq!((first, payload.get(..2)), (0x88, Some(&code.to_be_bytes()[..])));
            let closed = Instant::now();
            if answers {
                say(&mut client, 0x88, &code.to_be_bytes()).await;
            }
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            let most = if answers { 0 } else { limits::WEBSOCKET_CLOSE_SECONDS_MAX };
            assert_eq!(closed.elapsed().as_secs(), most);
        });
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    with_session(|client, sink, _hub| async move {
        while sink.push(&Frame::delta("n", 1, "some words that fill the pipe")).is_ok() {
            tokio::task::yield_now().await;
        }
        pass(limits::STREAM_LINGER_SECONDS_MAX - 1).await;
        assert!(!sink.is_gone());
        pass(2).await;
        assert!(sink.is_gone());
        drop(client);
    });
}
