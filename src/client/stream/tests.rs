//! The same course of a stream over each transport, served by the byte: cut, closed, repeated, torn, refused.

#![expect(clippy::disallowed_types, reason = "turns are shared with the tasks of a test")]

mod servers;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use servers::{RUN, Turn, serve};

const ALL: [Transport; 4] = [Transport::Sse, Transport::WebSocket, Transport::Quic, Transport::WebTransport];

/// What came of a stream whose connections went like this.
async fn course(
    transport: Transport,
    after: u64,
    turns: &[Turn],
) -> (Vec<String>, Events, Result<(), Error>) {
    let turns = Arc::new(Mutex::new(VecDeque::from(turns.to_vec())));
    let address = serve(turns.clone()).await;
    let client = Client::new(&format!("http://{address}")).unwrap();
    let client = client.with_token("s3cr3t").unwrap().with_workspace("here").unwrap();
    let mut events = client.events_over(transport, RUN, after).with_asides();
    let mut seen = Vec::new();
    loop {
        events.retry_ms = 1;
        let next = Box::pin(events.next()).await;
        seen.push(match next {
            Ok(None) => return (seen, events, Ok(())),
            Err(error) => return (seen, events, Err(error)),
            Ok(Some(Streamed::Event(event))) => {
                assert_eq!(event.data, servers::row(events.cursor()), "{transport:?}");
                events.cursor().to_string()
            }
            Ok(Some(Streamed::Aside(event))) => format!("{} {}", event.event, event.data),
            Ok(Some(Streamed::Reconnecting { why })) => match why.split_once(':') {
                Some((word @ ("slow_consumer" | "resync"), _)) => word.to_owned(),
                _ => String::from("again"),
            },
        });
    }
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(work));
}

// F184, I-13, I-14
#[test]
fn a_stream_comes_back_from_where_it_was_over_every_transport() {
    run(async {
        for transport in ALL {
            let turns = [
                Turn::events(0, 1..=3),
                Turn::events(3, 4..=6).then("node.delta", r#"{"text":"a"}"#).then("slow_consumer", "{}"),
                // Nothing at all, and again what was there.
                Turn::silent(6),
                Turn::events(6, 5..=8),
                // One is left out.
                Turn::events(8, 10..=11),
                Turn::events(8, 9..=12),
            ];
            let (seen, events, end) = course(transport, 0, &turns).await;
            end.unwrap();
            let wanted = "1 2 3 again 4 5 6 node.delta {\"text\":\"a\"} slow_consumer again 7 8 again again 9 10 11 12";
            assert_eq!(seen.join(" "), wanted, "{transport:?}");
            assert_eq!((events.repeated(), events.missed()), (2, 1), "{transport:?}");
        }
    });
}

// F035
#[test]
fn a_cursor_that_the_log_does_not_know_is_set_where_it_stands() {
    run(async {
        for transport in ALL {
            let ahead = [Turn::silent(20).then("resync", r#"{"seq":10}"#), Turn::events(10, 11..=12)];
            let (seen, ..) = course(transport, 20, &ahead).await;
            assert_eq!(seen.join(" "), "resync 11 12", "{transport:?}");
            let behind = [Turn::silent(2).then("resync", r#"{"seq":10}"#), Turn::events(9, 10..=12)];
            let (seen, ..) = course(transport, 2, &behind).await;
            assert_eq!(seen.join(" "), "resync 10 11 12", "{transport:?}");
        }
    });
}

#[test]
fn a_refusal_ends_it_and_one_for_now_does_not() {
    run(async {
        for transport in ALL {
            let (seen, _, end) = course(transport, 0, &[Turn::refused(404)]).await;
            let error = end.unwrap_err();
            assert!(
                matches!(&error, Error::Refused(problem) if problem.status == 404),
                "{transport:?} {error}"
            );
            assert_eq!(seen.len(), 0);
            let turns = [Turn::refused(503), Turn::events(0, 1..=12)];
            let (seen, _, end) = course(transport, 0, &turns).await;
            assert!(end.is_ok() && seen.len() == 13 && seen[0] == "again", "{transport:?} {seen:?} {end:?}");
        }
    });
}

#[test]
fn another_run_comes_over_the_same_connection_or_from_the_same_port() {
    run(async {
        for transport in ALL {
            let turns = [Turn::events(0, 1..=12), Turn::events(3, 4..=12)];
            let address = serve(Arc::new(Mutex::new(VecDeque::from(turns)))).await;
            let client = Client::new(&format!("http://{address}")).unwrap().with_token("s3cr3t").unwrap();
            let mut events = client.with_workspace("here").unwrap().events_over(transport, RUN, 0);
            while Box::pin(events.next()).await.unwrap().is_some() {}
            let before = events.line.as_ref().map(quic::Line::local_addr);
            events.turn_to(RUN, 3);
            let mut seen = 0;
            while Box::pin(events.next()).await.unwrap().is_some() {
                seen += 1;
            }
            assert_eq!((seen, events.cursor(), events.repeated()), (9, 12, 0), "{transport:?}");
            assert_eq!(before, events.line.as_ref().map(quic::Line::local_addr));
        }
    });
}

#[test]
fn who_moves_to_another_port_goes_on_where_a_connection_can() {
    run(async {
        for (transport, moves) in [(Transport::Quic, true), (Transport::Sse, false)] {
            let turns = Arc::new(Mutex::new(VecDeque::from([Turn::events(0, 1..=12)])));
            let address = serve(turns).await;
            let client = Client::new(&format!("http://{address}")).unwrap().with_token("s3cr3t").unwrap();
            let mut events = client.with_workspace("here").unwrap().events_over(transport, RUN, 0);
            while let Some(streamed) = Box::pin(events.next()).await.unwrap() {
                assert!(matches!(streamed, Streamed::Event(_)), "{streamed:?}");
                assert_eq!(events.rebind().unwrap(), moves);
            }
            assert_eq!(events.cursor(), 12);
        }
    });
}

#[test]
fn a_certificate_that_the_node_did_not_name_is_refused() {
    run(async {
        let turns = Arc::new(Mutex::new(VecDeque::new()));
        let address = servers::serve_with(turns, Some("ab".repeat(32))).await;
        let client = Client::new(&format!("http://{address}")).unwrap();
        let mut events = client.events_over(Transport::Quic, RUN, 0);
        events.failures = RETRIES_MAX;
        events.retry_ms = 1;
        let error = Box::pin(events.next()).await.unwrap_err();
        assert_eq!(error.code(), "tls_failed", "{error}");
    });
}
