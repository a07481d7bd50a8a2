//! What the stub answers on one core: small answers over connections that stay open. It fails below 5,000 answers for each second of
//! the stub's processor time, so a busy machine does not matter.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const CONNECTIONS: usize = 8;
const ANSWERS_EACH: usize = 5_000;
const LEAST_PER_SECOND: u64 = 5_000;
/// Processor time in `/proc` is told in these.
const TICKS_PER_SECOND: u64 = 100;

fn main() -> std::io::Result<()> {
    let program = env!("CARGO_BIN_EXE_aob-stub-model");
    let mut child = Command::new(program).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = line.split(' ').find_map(|word| word.strip_prefix("http=")).unwrap_or_default().to_owned();
    let before = ticks(child.id());
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..CONNECTIONS)
            .map(|asker| {
                scope.spawn({
                    let address = &address;
                    move || ask(address, asker)
                })
            })
            .collect();
        askers.into_iter().try_for_each(|asker| {
            asker.join().unwrap_or_else(|_| Err(std::io::Error::other("an asker panicked")))
        })
    })?;
    let took = (ticks(child.id()) - before).max(1);
    child.kill()?;
    child.wait()?;
    let answers = (CONNECTIONS * ANSWERS_EACH) as u64;
    let per_second = answers * TICKS_PER_SECOND / took;
    println!("{answers} answers, {per_second} for each second of processor time");
    assert!(per_second >= LEAST_PER_SECOND, "at least {LEAST_PER_SECOND} were promised");
    Ok(())
}

/// User and system time of a process.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum()
}

fn ask(address: &str, asker: usize) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let (mut line, mut answer) = (String::new(), Vec::new());
    for n in 0..ANSWERS_EACH {
        let body = format!(
            r#"{{"model":"stub","messages":[{{"role":"system","content":"You are brief."}},{{"role":"user","content":"question {asker} {n}"}}]}}"#
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: stub\r\ncontent-type: application/json\r\nidempotency-key: {asker}-{n}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.trim().parse().map_err(std::io::Error::other)?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        answer.resize(length, 0);
        stream.read_exact(&mut answer)?;
    }
    Ok(())
}
