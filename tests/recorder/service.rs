//! A service that nodes call, and its ledger: it keeps keys at some addresses and not at others, and it fails now and then.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aob_checker::record::{Call, Record};

use super::{Dice, World, locked};
use crate::harness::in_background;

/// Listens until the process ends.
pub fn serve(world: &Arc<World>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    *locked(&world.service) = listener.local_addr().ok();
    let world = world.clone();
    let kept: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    in_background(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { continue };
            let (world, kept) = (world.clone(), kept.clone());
            let dice = Dice::new(world.seed, 10_000 + number as u64);
            in_background(move || connection(&world, &kept, stream, dice));
        }
    });
}

/// One request after the other, until the connection ends.
fn connection(world: &World, kept: &Mutex<BTreeSet<String>>, stream: TcpStream, mut dice: Dice) {
    let mut reader = BufReader::new(stream);
    while let Some(head) = request(&mut reader) {
        let header = |name: &str| {
            let mut pairs = head.iter().filter_map(|line| line.split_once(": "));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let number = |name: &str| header(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let node = header("aob-node").unwrap_or_default();
        let key = header("idempotency-key");
        let honours = matches!(&*node, "a" | "b");
        let answer = world.token("answer");
        let record = |at_us: u64| {
            let fresh = key.as_ref().is_none_or(|key| locked(kept).insert(key.clone()));
            Record::Call(Call {
                at_us,
                wall_ms: World::wall_ms(),
                service: String::from("service"),
                key: key.clone(),
                run: header("aob-run-id").unwrap_or_default(),
                node: node.clone(),
                attempt: number("aob-attempt"),
                epoch: number("aob-epoch"),
                honours,
                effect: fresh || !honours,
                answer: Some(answer.clone()),
                workspace: None,
            })
        };
        world.record(record);
        world.progress();
        world.hold();
        // Some are slow, so that a node that dies leaves calls open.
        if dice.one_in(6) {
            world.wait_for_progress(40, std::time::Duration::from_millis(60));
        }
        // What is done at most once is answered, so that only a dead node leaves it open.
        let luck = if node == "once" { 9 } else { dice.below(40) };
        let (status, body) = match luck {
            0 => return,
            1 => ("503 Service Unavailable", String::from("{}")),
            _ => ("200 OK", format!("{{\"answer\":\"{answer}\"}}")),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The head of the next request; its body is read and forgotten.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}
